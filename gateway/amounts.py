"""The numbers of a report as people read them, in the terminal and in the console alike.

Rule: pure functions over the JSON of a report. Every number has its unit: shares are in per cent, differences of shares
in points, latencies in ms; a difference has its sign, a value of its own none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from router.settings.declared import in_milliseconds

Report = Mapping[str, Any]
Show = Callable[[float | None], str]

NONE: Final = "–"

#: Longer than this, a decision is out of reach; and so it is where it takes more than so many times the units so far,
#: and how fast they come is not known.
FARTHEST_DAYS: Final = 1_000
MANY_TIMES: Final = 100

#: What decides where an interval only describes, by the method.
DECIDERS: Final = {
    "e_process": "bets on each request decide, not this band",
    "group_sequential": "the planned looks decide, not this band",
}
UNDECIDED: Final = "nothing is decided here, for the reason below"


def percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}%"


def probability(value: float | None) -> str:
    """Return a posterior probability, which is never 0 or 1.

    >>> probability(0.99999), probability(0.00001), probability(0.25)
    ('> 99.9%', '< 0.1%', '25.0%')
    """
    if value is None or 0.001 <= value <= 0.999:
        return percent(value)
    return "> 99.9%" if value > 0.5 else "< 0.1%"


def number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}"


def milliseconds(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g} ms" if abs(value) < 1000 else f"{value / 1000:.3g} s"


def named(report: Report, metric: str) -> str:
    """Return a metric's name, with its cap where values are cut off."""
    definition = report["definitions"].get(metric)
    cap = None if definition is None else definition.get("cap")
    return metric if cap is None else f"{metric} up to {cap:g}"


def value_of(report: Report, metric: str) -> Show:
    """Return how a value of a metric, or of what a guardrail bounds, is written."""
    if in_milliseconds(metric):
        return milliseconds
    definition = report["definitions"].get(metric)
    return percent if definition is None or definition["binary"] else number


def lower_is_better(report: Report, metric: str) -> bool:
    """Return whether a higher value is worse; so it is of everything that a guardrail bounds besides metrics."""
    definition = report["definitions"].get(metric)
    return definition is None or definition["better"] == "lower"


def difference(report: Report, one: Mapping[str, Any]) -> str:
    """Return how far a variant is from the baseline, in a comparison of the report."""
    if one["difference"] is None:
        return NONE
    return f"{_signed(one['difference'], _in_points(report, one))}{' points' if _in_points(report, one) else ''}"


def band(report: Report, one: Mapping[str, Any]) -> str:
    """Return the interval of a comparison."""
    return _differences((one["low"], one["high"]), "points" if _in_points(report, one) else "")


def guardrail(report: Report, one: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``bound``, ``value``, ``baseline`` and ``band`` of a guardrail.

    Where the bound is on the difference from the baseline, the band is of that difference, and signed.
    """
    show = value_of(report, one["metric"])
    texts = {"value": show(one["value"]), "baseline": show(one["baseline"])}
    if one["limit"] is not None:
        least = not lower_is_better(report, one["metric"])
        ends = ["no bound" if end is None else show(end) for end in (one["low"], one["high"])]
        between = NONE if one["low"] is None and one["high"] is None else " to ".join(ends)
        return texts | {"bound": f"{'at least' if least else 'at most'} {show(one['limit'])}", "band": between}
    unit = "points" if show is percent else "ms" if show is milliseconds else ""
    worse = f"{100 * one['worse_by'] if show is percent else one['worse_by']:.3g}"
    bound = (
        f"at most {worse} {unit.removesuffix('s') if (worse, unit) == ('1', 'points') else unit}".rstrip() + " worse"
    )
    return texts | {"bound": bound, "band": _differences((one["low"], one["high"]), unit)}


def described(report: Report) -> str | None:
    """Return what decides where bands only describe; None where every band decides."""
    found = [one for one in report["comparisons"] if one["described"]]
    if not found:
        return None
    said = [
        UNDECIDED if one["withheld"] and one["method"] not in DECIDERS else DECIDERS.get(one["method"], UNDECIDED)
        for one in found
    ]
    return f"* a description of where it lies now: {'; '.join(dict.fromkeys(said))}"


def needs(report: Report, one: Mapping[str, Any]) -> str | None:
    """Return how much more a decision takes; None where that is not known, or it is decided."""
    if not one["needs"]:
        return None
    what, days, have = report["counted_in"], one["needs_days"], sum(one["units"].values())
    if days is not None and days > FARTHEST_DAYS:
        return "out of reach at today's traffic"
    if days is None and one["needs"] > MANY_TIMES * have:
        return f"out of reach so far: it takes more than {MANY_TIMES} times as many {what}"
    lasts = "" if days is None else f": {duration(days)} at today's traffic"
    return f"about {rounded(one['needs']):,} more {what}{lasts}"


def notes(report: Report) -> list[str]:
    """Return what stands beside the comparisons: why one decides nothing, and what would make it."""
    found = []
    for one in report["comparisons"]:
        said = [text for text in (one["reason"], needs(report, one)) if text]
        if said:
            found.append(f"{one['variant']}, {named(report, one['metric'])}: {'; '.join(said)}")
    return found


def declared(report: Report) -> str | None:
    """Return what was declared of the route's test, in a clause; None where nothing was."""
    test = report["test"]
    if test is None:
        return None
    said = []
    if test["smallest_effect"] is not None:
        points = report["definitions"][test["metric"]]["binary"]
        size = f"{100 * test['smallest_effect']:.1f} points" if points else f"{test['smallest_effect']:.3g}"
        said.append(f"smallest effect {size}")
    if test["units"] is not None:
        said.append(f"at most {test['units']:,} {report['counted_in']}")
    if test["until"] is not None:
        said.append(f"until {test['until'][:16]}Z")
    if test["expected_units"] is not None:
        said.append(f"about {test['expected_units']:,} {report['counted_in']} expected")
    said.append(f"alpha {test['alpha']:g}")
    return f"{', '.join(said)} on {test['metric']}"


def stands(report: Report) -> list[str]:
    """Return where a route stands that moves by itself or by hand: its state and step, and what it waits for."""
    said, held = report["rollout"], report.get("freeze")
    lines = []
    if held is not None:
        by, why = f" by {held['who']}" if held["who"] else "", f": {held['why']}" if held["why"] else ""
        lines.append(f"FROZEN to {held['to']} since {held['since'][:16]}Z{by}{why}")
    if said is None:
        return lines
    head = said["state"].replace("_", " ")
    if said["steps"]:
        step = said["steps"][said["step"]]
        gets = f"copies of {percent(step['shadow'])}" if step["share"] is None else percent(step["share"])
        head += f", step {said['step'] + 1} of {len(said['steps'])} ({gets})"
    if said["held"]:
        head += f"; held: {', '.join(f'{name} ({how})' for name, how in said['held'].items())}"
    if said["because"]:
        head += f": {said['because']}"
    lasts = "" if said["until"] is None else f"; all of it by about {said['until'][:16]}Z at today's traffic"
    waits = "; ".join(one["sentence"] for one in said["waits_for"])
    return [*lines, f"rollout: {head}", *([f"waits for: {waits}{lasts}"] if waits else [])]


def unfair(report: Report) -> Sequence[Mapping[str, Any]]:
    """Return the checks of merged lists that are not even."""
    return [one for one in report["checks"]["interleaving"]["tests"] if not one["ok"]]


def noise_floor(variant: Mapping[str, Any]) -> str | None:
    """Return how often a copy of the baseline itself agrees with it; None where no variant is one."""
    floor = variant["shadow"]["noise_floor"]
    if floor is None or floor["mean"] is None:
        return None
    between = "" if floor["low"] is None else f" ({percent(floor['low'])} to {percent(floor['high'])})"
    return f"{floor['variant']}, another copy of the baseline, agrees on {percent(floor['mean'])}{between}"


def measured(variant: Mapping[str, Any]) -> list[str]:
    """Return how the predictions of copies differ from the answers', by each measure."""
    return [
        f"{name.replace('_', ' ')} {one['mean']:.3g} ± {one['deviation']:.3g} (n = {one['n']:,})"
        for name, one in variant["shadow"]["predictions"].items()
    ]


def duration(days: float) -> str:
    """Return a number of days as people say it.

    >>> duration(0.01), duration(1.5), duration(12.3)
    ('1 hour', '36 hours', '12 days')
    """
    hours = round(max(24 * days, 1))
    return f"{days:,.0f} days" if days >= 2 else f"{hours} hour{'' if hours == 1 else 's'}"


def rounded(number: int) -> int:
    """Return a number to two digits, upwards: it is an estimate."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return int(-(-number // unit) * unit)


def _in_points(report: Report, one: Mapping[str, Any]) -> bool:
    """Whether a difference is one of shares; of a preference it is the share of votes less one half."""
    return "preference" in one or bool(report["definitions"][one["metric"]]["binary"])


def _differences(ends: Sequence[float | None], unit: str) -> str:
    low, high = ends
    if low is None and high is None:
        return NONE
    scale = unit == "points"
    first = "no bound" if low is None else _signed(low, scale)
    last = "no bound" if high is None else _signed(high, scale)
    return f"{first} to {last}{f' {unit}' if unit else ''}"


def _signed(value: float, points: bool) -> str:
    return f"{100 * value:+.1f}" if points else f"{value:+.3g}"
