"""What the numbers mean, in words that a manager understands.

Rule: plain words, whole sentences, no formula. Every number comes with its interval and the number of units behind it.
Where lower is better, the sentence says so, so that it cannot be read the wrong way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from gateway.amounts import FARTHEST_DAYS, MANY_TIMES, duration, rounded
from gateway.moments import to_the_second
from gateway.report import methods
from gateway.report.account import ANSWERING, Account
from gateway.report.comparison import FEWEST_UNITS, Comparison, alpha_of
from gateway.report.guardrails import Guarded
from gateway.report.verdict_status import STATUSES
from policies.statistics.preference import Preference
from policies.statistics.sample_ratio import SampleRatio
from policies.statistics.sequential import mean_interval
from router.settings.declared import in_milliseconds
from router.snapshot import Metric

#: Below this factor nothing is said of how much sooner pairs of answers decide than an A/B test.
LEAST_TIMES: Final = 1.5

SURE: Final = "95 % sure however often you look"

#: Nothing is said of how long a decision takes before a route was counted for so long: its traffic has a daily cycle.
LEAST_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000


def counted(account: Account) -> str:
    """Return what is counted on this route, in the plural: users, units of another kind, or requests.

    Where no request carries a unit, each request is a unit of its own: then it is requests, whatever the file says.
    """
    alone = account.seen_in_requests("no_unit")
    if not account.route.by_unit or (alone is not None and alone.n >= account.requests):
        return "requests"
    return "users" if "user" in (account.route.unit or "").lower() else "units"


def summary(
    account: Account,
    metric: Metric,
    found: Sequence[Comparison],
    failing: Mapping[str, str],
    others: Sequence[Comparison],
    bounds: Sequence[Guarded],
) -> str:
    """Say what the comparisons found: the most important one in full, the others in a clause each.

    ``failing`` has the variants whose answers are not judged, each with the reason; ``others`` are the comparisons of
    all other metrics, ``bounds`` the guardrails.
    """
    leading, *following = sorted(found, key=lambda one: _importance(one, metric))
    if leading.variant in failing:
        text = f"{failing[leading.variant]}. Whatever its answers are worth, it is no better than that."
    else:
        text = one_comparison(account, metric, leading)
        if leading.method is not None and leading.status != "collecting":
            text += f" Method: {methods.SHORT[leading.method]}."
        text += _planned(account, metric)
        text += _elsewhere(account, [one for one in others if one.variant == leading.variant])
        text += _bounded(account, [one for one in bounds if one.variant == leading.variant])
    if account.adaptive:
        text = f"{_traffic(account)} {text}"
    return " ".join([text, *(_clause(one, account.route.baseline) for one in following)])


def one_comparison(account: Account, metric: Metric, one: Comparison) -> str:
    """Say what one comparison found."""
    baseline = account.route.baseline
    if one.error is not None:
        return f"{metric.name} of {one.variant} and {baseline} {one.error}."
    if one.paired and one.found is None and one.reason is not None:
        return f"{one.variant} cannot be compared with {baseline}: {one.reason}."
    if one.withheld is not None:
        return _withheld(account, metric, one)
    if one.status == "collecting" or one.difference is None:
        return _collecting(account, metric, one)
    if one.votes is not None:
        return _preferred(account, metric, one, one.votes)
    if one.status == "no_difference_yet":
        return _undecided(account, metric, one)
    low, high = sorted(abs(bound) for bound in (one.low or 0.0, one.high or 0.0))
    size = _size(abs(one.difference), metric)
    between = f"between {_bare(low, metric)} and {_bare(high, metric)}, {_sure(account, one)}"
    if one.found is not None and one.found.described:
        between = f"as it looks now; that it is {_turn(one)} is {_sure(account, one)}"
    quantity = _quantity(metric)
    if quantity is None:
        word = "more" if one.difference > 0 else "less"
        claim = f"{one.variant} gets {size} {word} right than {baseline} ({between})"
    else:
        turn = "higher" if one.difference > 0 else "lower"
        claim = f"{one.variant}'s {quantity} is {size} {turn} than {baseline}'s ({between})"
    return f"{claim}, over {_units(account, one)}.{_judgement(one, metric)}{_spared(one)}"


def _turn(one: Comparison) -> str:
    return "more" if (one.difference or 0.0) > 0 else "less"


def _sure(account: Account, one: Comparison) -> str:
    """Return how sure a decision is, and when one may look."""
    when = "at its planned looks" if one.method == "group_sequential" else "however often you look"
    return f"{100 * (1 - alpha_of(account)):.3g} % sure {when}"


def alone(account: Account, metric: Metric) -> str:
    """Say how well the only variant of a route does."""
    name = account.route.baseline
    tally = account.own(name, metric, "mature")
    found = mean_interval(tally, bounds=metric.bounds) if tally.mean is not None else None
    if tally.mean is None or found is None:
        return f"{name} answers alone, and there is not enough feedback yet to say how well."
    mean, low, high = (_sized(metric, value) for value in (tally.mean, found.low, found.high))
    quantity = _quantity(metric)
    does = f"gets {mean} right" if quantity is None else f"has a {quantity} of {mean}"
    over = f"{tally.distinct:,} {counted(account)}"
    return f"{name} answers alone: it {does} (between {low} and {high}, {SURE}), over {over}."


def no_metric(route: str) -> str:
    return f"{route} lists no metric, so calls and failures are counted but nothing says which variant is better."


def untrusted(route: str, reason: str) -> str:
    return f"The comparison on {route} cannot be trusted: {reason}."


def set_aside(account: Account, ratio: SampleRatio) -> str:
    """Say what a verdict leaves out because the shares were not met then."""
    return (
        f"What came before {to_the_second(ratio.since)} UTC is set aside: {counted(account)} did not reach the "
        f"variants in the shares that were set then (p = {ratio.aside or 0.0:.2g})."
    )


def ratio_reason(account: Account, ratio: SampleRatio) -> str:
    """Say that the shares were not met, and where most of that is if it was found."""
    where, cause = "", ratio.cause
    if cause is not None:
        numbers = " to ".join(f"{cause.observed.get(name, 0):,}" for name in cause.expected)
        where = f", most of it where {cause.feature} = {cause.value}: {numbers} ({' to '.join(cause.expected)})"
    return (
        f"{counted(account)} did not reach the variants in the shares that were set (p = {ratio.p:.2g}), "
        f"so something in assignment or logging is broken{where}"
    )


def failing(account: Account, bounds: Sequence[Guarded]) -> Mapping[str, str]:
    """Return the variants that broke guardrails, each with what it broke."""
    found: dict[str, list[str]] = {}
    for one in bounds:
        if one.state == "broken":
            said = broken(account, one)
            if said not in found.setdefault(one.variant, []):
                found[one.variant].append(said)
    return {variant: "; ".join(said) for variant, said in found.items()}


def broken(account: Account, one: Guarded) -> str:
    """Say which guardrail a variant broke, with the numbers."""
    variant, baseline = one.variant, account.route.baseline
    value, theirs, name = one.reading.value or 0.0, one.reading.baseline, one.guardrail.metric
    if name in ("failures", "client_errors"):
        roles = account.roles(variant)
        ours, base = account.calls(variant, roles), account.calls(baseline, ANSWERING)
        does = "fails" if name == "failures" else "answers with a 4xx"
        beside = "" if theirs is None else f", {baseline} {theirs:.1%} of its {base.d:,.0f}"
        return f"{variant} {does} {value:.1%} of its {ours.d:,.0f} calls{beside}"
    if in_milliseconds(name):
        what, size = f"{name.rpartition('.p')[2]}th percentile of latency", "{:,.3g} ms".format
    else:
        metric = account.snapshot.metrics[name]
        what, size = _quantity(metric) or f"share of {name}", partial(_sized, metric)
    if one.guardrail.limit is not None:
        edge = "above" if one.higher_is_worse else "below"
        return f"{variant}'s {what} is {size(value)}, {edge} the limit of {size(one.guardrail.limit)}"
    beside = "" if theirs is None else f", {baseline}'s {size(theirs)}"
    return f"{variant}'s {what} is {size(value)}{beside}: worse by more than {size(one.guardrail.worse_by or 0.0)}"


def _sized(metric: Metric, value: float) -> str:
    return f"{value:.1%}" if metric.binary else f"{value:.3g}"


def coverage_reason(account: Account, metric: Metric, variant: str, ours: float, theirs: float) -> str:
    return (
        f"{metric.name} is known for {ours:.1%} of what {variant} answered but for {theirs:.1%} of what "
        f"{account.route.baseline} answered, and what is missing is seldom missing by chance"
    )


def _collecting(account: Account, metric: Metric, one: Comparison) -> str:
    what, (ours, theirs) = counted(account), one.units
    if one.votes is not None:
        have = f"{ours:,} of the {what} have a preference so far"
    elif one.paired:
        have = f"{ours:,} {what} have a result for both so far"
    else:
        have = f"{ours:,} and {theirs:,} {what} have a result so far"
    takes = f"it takes at least {FEWEST_UNITS}" if one.reason is None else one.reason
    return (
        f"Not enough feedback yet to compare {one.variant} with {account.route.baseline}: {have}, "
        f"and {takes}.{_waiting(account, metric, one)}"
    )


def _waiting(account: Account, metric: Metric, one: Comparison) -> str:
    """Say how many values are there and do not count yet, or feedback that came would seem to be lost."""
    names = (one.variant, account.route.baseline)
    early = sum(account.own(name, metric, "live").d - account.own(name, metric, "mature").d for name in names)
    if metric.mature == "arrival" or early < 1:
        return ""
    return f" {early:,.0f} more values count once their windows have closed."


def _undecided(account: Account, metric: Metric, one: Comparison) -> str:
    described = one.found is not None and one.found.described
    sure = "as it looks now, which decides nothing" if described else _sure(account, one)
    return (
        f"No difference yet between {one.variant} and {account.route.baseline}: {one.variant} is somewhere between "
        f"{_between(metric, one)} ({sure}), over {_units(account, one)}.{_spared(one)}{_more(account, metric, one)}"
    )


def _between(metric: Metric, one: Comparison) -> str:
    low, high = one.low or 0.0, one.high or 0.0
    worst, best = (low, high) if metric.better == "higher" else (-high, -low)
    first, last = "better" if worst > 0 else "worse", "worse" if best < 0 else "better"
    return f"{_size(abs(worst), metric)} {first} and {_size(abs(best), metric)} {last} on {_named(metric)}"


def _withheld(account: Account, metric: Metric, one: Comparison) -> str:
    """Say why no decision may be taken from the numbers there are, and what would allow one."""
    head = f"No verdict on {one.variant} and {account.route.baseline} by {_named(metric)}: {one.withheld}."
    return f"{head} So far it is over {_units(account, one)}.{_more(account, metric, one)}"


def _more(account: Account, metric: Metric, one: Comparison) -> str:
    """Say what would make it decidable: how many more units, and at today's traffic how long that takes."""
    if one.needs is None or (one.status == "collecting" and one.withheld is None):
        return ""
    what, test = counted(account), methods.declared_test(account, metric)
    effect = None if test is None else test.smallest_effect
    size = f"one of {_size(effect, metric)}" if effect else "one as large as it looks now"
    days, have = days_needed(account, one), sum(one.units)
    if days is not None and days > FARTHEST_DAYS:
        takes = f"about {rounded(one.needs):,} more {what}, which take years" if effect else "years"
        return f" To decide {size} is out of reach at today's traffic: it takes {takes}."
    if days is None and not effect and one.needs > MANY_TIMES * have:
        return f" {size.capitalize()} is out of reach so far: it takes more than {MANY_TIMES} times as many {what}."
    lasts = "" if days is None else f": {duration(days)} at the traffic so far"
    return f" To decide {size} it takes about {rounded(one.needs):,} more {what}{lasts}."


def days_needed(account: Account, one: Comparison) -> float | None:
    """Return how many days the units that are needed take to come; None where that is not known."""
    began, now = account.began_ms, account.ledger.watermark_ms
    if began is None or now is None or now - began < LEAST_MS or not sum(one.units) or one.needs is None:
        return None
    return one.needs * (now - began) / sum(one.units) / DAY_MS


def _planned(account: Account, metric: Metric) -> str:
    """Say what was declared of the test, and that its promise is void where it was declared after the fact."""
    test, changed = methods.declared_test(account, metric), account.ledger.test_changed_ms
    said = ""
    if test is not None and methods.method(account, metric) == "group_sequential":
        share = min(methods.fraction(account, metric) or 0.0, 1.0)
        until = f"{test.units:,} {counted(account)}" if test.units is not None else to_the_second(test.until or 0)
        said = f" Planned for {until}, of which {share:.0%} is there."
    if changed is not None:
        said += (
            f" The test was declared otherwise on {to_the_second(changed)}, when values were known: what was promised "
            "of it does not hold for those."
        )
    return said


def _elsewhere(account: Account, others: Sequence[Comparison]) -> str:
    """Say which of the other metrics differ."""
    found = [one for one in others if one.status in ("better", "worse") and one.difference is not None]
    if not found:
        return ""
    said = []
    for one in found:
        metric = account.snapshot.metrics[one.metric]
        turn = "higher" if (one.difference or 0.0) > 0 else "lower"
        said.append(f"{_named(metric)} is {_size(abs(one.difference or 0.0), metric)} {turn}, which is {one.status}")
    return f" Besides, {', and '.join(said)}."


def _bounded(account: Account, bounds: Sequence[Guarded]) -> str:
    """Say which of the declared guardrails a variant is known to hold, and of which that is not known."""
    named: dict[str, list[str]] = {"clean": [], "undecided": []}
    for one in bounds:
        if one.guardrail in account.route.guardrails and one.state != "broken":
            named[one.state].append(one.guardrail.metric)
    said = [
        f"{'within its bounds' if state == 'clean' else 'not yet known to be within its bounds'} on {', '.join(names)}"
        for state, names in named.items()
        if names
    ]
    return f" It is {', and '.join(said)}." if said else ""


def _named(metric: Metric) -> str:
    """Return a metric's name with its cap, where values are cut off."""
    return metric.name if metric.cap is None else f"{metric.name} up to {metric.cap:g}"


def _spared(one: Comparison) -> str:
    """Say how many more requests an A/B test would need, where answers are paired and that is a matter of factors."""
    if one.times is None or one.times < LEAST_TIMES:
        return ""
    return (
        f" As both answer the same requests, this takes 1/{one.times:.0f} of the requests that an A/B test would need."
    )


def _preferred(account: Account, metric: Metric, one: Comparison, votes: Preference) -> str:
    voters = f"of the {votes.wins + votes.losses:,} {counted(account)} with a preference by {metric.name}"
    share = f"{votes.share or 0.0:.0%} prefer {one.variant}"
    between = f"(between {votes.low:.0%} and {votes.high:.0%}, {_sure(account, one)})"
    baseline = account.route.baseline
    if one.status == "no_difference_yet":
        return f"No difference yet between {one.variant} and {baseline}: {voters}, {share} {between}."
    return f"O{voters[1:]}, {share} over {baseline} {between}.{_judgement(one, metric)}"


def _judgement(one: Comparison, metric: Metric) -> str:
    """Say whether the difference is good or bad, where lower is better."""
    if metric.better == "lower":
        return f" That is {one.status}: lower is better."
    return ""


def _traffic(account: Account) -> str:
    """Say where an adaptive policy sends its traffic, and how sure it is, which may be before the interval decides."""
    most = max(account.shares, key=lambda name: account.shares[name])
    sent = f"{most} now gets {account.shares[most]:.0%} of the requests"
    best = account.best.get(most)
    if best is None:
        return f"{sent}."
    # Never 100 %: a posterior probability is below 1.
    chance = "above 99.9%" if best > 0.999 else f"{best:.1%}"
    return f"{sent}: the bandit takes it for the best with probability {chance}, which is no verdict."


def _clause(one: Comparison, baseline: str) -> str:
    return STATUSES[one.status].clause.format(variant=one.variant, baseline=baseline)


def _importance(one: Comparison, metric: Metric) -> tuple[int, float]:
    """Sort failing variants first, then better, worse, undecided and collecting ones; the most promising of each lead.

    Of worse variants the worst leads: it is the one to take out.
    """
    gain = (one.difference or 0.0) * (1 if metric.better == "higher" else -1)
    rank = tuple(STATUSES).index(one.status)
    return rank, gain if one.status == "worse" else -gain


def _quantity(metric: Metric) -> str | None:
    """Return what is compared; None if it is the share that a variant gets right."""
    if metric.scorer is not None:
        return metric.scorer.noun
    return f"{metric.name} rate" if metric.kind == "event" else f"mean {_named(metric)}"


def _size(value: float, metric: Metric) -> str:
    return f"{_bare(value, metric)} points" if metric.binary else _bare(value, metric)


def _bare(value: float, metric: Metric) -> str:
    return f"{100 * value:.1f}" if metric.binary else f"{value:.3g}"


def _units(account: Account, one: Comparison) -> str:
    what, (ours, theirs) = counted(account), one.units
    return f"the same {ours:,} {what}" if one.paired else f"{ours:,} and {theirs:,} {what}"
