"""A route's report as tables for a terminal.

Rule: it only shows a report that it is given. Everything fits into 100 columns; if there is no terminal, the same rows
are printed without lines and colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway import amounts
from gateway.amounts import milliseconds, number, percent, probability
from gateway.moments import age, to_the_second

Report = Mapping[str, Any]

STYLES: Final = {
    "better": "green",
    "worse": "red",
    "failing": "red",
    "invalid": "yellow",
    "collecting": "dim",
    "no_difference_yet": "",
}


def of_route(report: Report, *, boxed: bool = True) -> RenderableType:
    """Return the whole report of one route, the verdict first."""
    parts: list[RenderableType] = [_title(report), Text(report["verdict"]["sentence"])]
    parts += [Text(line) for line in amounts.stands(report)]
    parts += [of_problem(one) for one in report["problems"]]
    if report["comparisons"]:
        parts.append(comparisons(report, boxed=boxed))
    if report["guardrails"]:
        parts.append(guardrails(report, boxed=boxed))
    parts.append(calls(report, boxed=boxed))
    parts += [quality(report, metric, boxed=boxed) for metric in report["definitions"]]
    if any("preference" in one for one in report["verdict"]["comparisons"]):
        parts.append(preferences(report, boxed=boxed))
    if any(variant["shadow"] for variant in report["variants"]):
        parts.append(copies(report, boxed=boxed))
    if report["holdout"] is not None:
        parts.append(held(report, boxed=boxed))
    parts.append(Text(_footer(report), style="dim"))
    return Group(*parts)


def of_epochs(epochs: Sequence[Mapping[str, Any]], *, boxed: bool = True) -> RenderableType:
    """Return the table of a route's epochs."""
    table = _table(("epoch", "began", "last call, to the hour", "policy", "variants", "unit"), text=6, boxed=boxed)
    for one in epochs:
        table.add_row(
            one["epoch"] + (" (present)" if one["present"] else ""),
            to_the_second(one["began_ms"]),
            "–" if one["last_ms"] is None else to_the_second(one["last_ms"]),
            one["policy"],
            ", ".join(one["variants"]),
            one["unit"] or "the request",
        )
    return table


def calls(report: Report, *, boxed: bool = True) -> RenderableType:
    """Return the table of each variant's calls and how fast it answered."""
    columns = ("variant", "version", "share", "calls", "failed", "4xx", "p50", "p95", "p99")
    table = _table(columns + (("P(best)",) if report["adaptive"] else ()), text=2, boxed=boxed)
    for variant in report["variants"]:
        latency = variant["latency_ms"]
        row = [
            variant["name"],
            variant["version"],
            "shadow" if variant["role"] == "shadow" else percent(variant["share"]),
            _count(variant["predictions"]),
            _count(variant["failures"]),
            _count(variant["client_errors"]),
            *(milliseconds(latency[name]) for name in ("p50", "p95", "p99")),
        ]
        table.add_row(*row, *([probability(variant["p_best"])] if report["adaptive"] else []))
    return _indented(table)


def quality(report: Report, metric: str, *, boxed: bool = True) -> RenderableType:
    """Return the table of one metric: the values of closed windows with their interval, and the live ones."""
    show = percent if report["definitions"][metric]["binary"] else number
    counts = report["counted_in"], "values"
    table = _table(
        (amounts.named(report, metric), "mean", "interval", *counts, "live", "pending", "oldest", "coverage"),
        text=1,
        boxed=boxed,
    )
    for variant in report["variants"]:
        values = variant["metrics"][metric]
        mature = values["mature"]
        about = " ~" if mature["method"] == "asymptotic" else ""
        between = "–" if mature["low"] is None else f"{show(mature['low'])} to {show(mature['high'])}{about}"
        table.add_row(
            variant["name"],
            show(mature["mean"]),
            between,
            _count(mature["units"]),
            _count(mature["n"]),
            show(values["live"]["mean"]),
            _count(values["pending"]),
            "–" if values["oldest_pending_seconds"] is None else age(values["oldest_pending_seconds"]),
            percent(values["coverage"]),
        )
    return _indented(table)


def comparisons(report: Report, *, boxed: bool = True) -> RenderableType:
    """Return the table of all metrics and variants: differences from the baseline, and what decides them."""
    head = f"less {report['verdict']['baseline']}"
    table = _table((head, "metric", "status", "method", "difference", "band", "progress"), text=4, boxed=boxed)
    for one in report["comparisons"]:
        table.add_row(
            one["variant"],
            amounts.named(report, one["metric"]),
            Text(one["status"].replace("_", " "), style=STYLES.get(one["status"], "")),
            (one["method"] or "–").replace("_", " "),
            amounts.difference(report, one),
            f"{amounts.band(report, one)}{' *' if one['described'] else ''}",
            "–" if one["progress"] is None else f"{one['progress']:.0%}",
        )
    said, described = amounts.notes(report), amounts.described(report)
    if any("preference" in one for one in report["comparisons"]):
        said.insert(0, "differences of a preference are of its share of votes from one half")
    return _noted(table, [*([] if described is None else [described]), *said])


def guardrails(report: Report, *, boxed: bool = True) -> RenderableType:
    """Return the table of guardrails: their bounds, and the states they are in."""
    baseline = report["verdict"]["baseline"]
    table = _table(("guardrail of", "on", "state", "bound", "value", baseline, "band"), text=4, boxed=boxed)
    for one in report["guardrails"]:
        text = amounts.guardrail(report, one)
        table.add_row(
            one["variant"],
            one["metric"],
            Text(one["state"], style={"broken": "red", "clean": "green"}.get(one["state"], "")),
            *(text[name] for name in ("bound", "value", "baseline", "band")),
        )
    said = [f"{one['variant']}, {one['metric']}: {one['reason']}" for one in report["guardrails"] if one["reason"]]
    if any(one["limit"] is None for one in report["guardrails"]):
        said.insert(0, f"a band with signs is of the difference from {baseline}")
    return _noted(table, said)


def preferences(report: Report, *, boxed: bool = True) -> RenderableType:
    """Return the table of merged lists: the votes of units for each ranker against the baseline."""
    verdict = report["verdict"]
    head = f"prefer to {verdict['baseline']}"
    table = _table((head, "by", "won", "lost", "tied", "share", "interval", "p"), text=2, boxed=boxed)
    for one in verdict["comparisons"]:
        votes = one.get("preference")
        if votes is not None:
            table.add_row(
                one["variant"],
                verdict["metric"],
                *(_count(votes[name]) for name in ("wins", "losses", "ties")),
                percent(votes["share"]),
                f"{percent(votes['low'])} to {percent(votes['high'])}",
                f"{votes['p']:.2g}",
            )
    return _indented(table)


def copies(report: Report, *, boxed: bool = True) -> RenderableType:
    """Return the table of copies: how often they agree with the answer, and how their scores differ."""
    table = _table(
        ("copies of", "calls", "failed", "agreement", "interval", "difference", "pairs"), text=1, boxed=boxed
    )
    said: list[str] = []
    for variant in report["variants"]:
        shadow = variant["shadow"]
        if not shadow:
            continue
        agreement, paired = shadow["agreement"], next(iter(shadow["paired"].items()), None)
        difference, pairs = "–", "–"
        if paired is not None:
            difference = amounts.difference(report, {"metric": paired[0], **paired[1]})
            pairs = _count(paired[1]["n"])
        between = "–"
        if agreement["low"] is not None:
            between = f"{percent(agreement['low'])} to {percent(agreement['high'])}"
        table.add_row(
            variant["name"],
            _count(shadow["calls"]),
            _count(shadow["failures"]),
            percent(agreement["mean"]),
            between,
            difference,
            pairs,
        )
        said += [
            f"{variant['name']}: {one}" for one in (amounts.noise_floor(variant), *amounts.measured(variant)) if one
        ]
    return _noted(table, said)


def held(report: Report, *, boxed: bool = True) -> RenderableType:
    """Return the table of the holdout: the units that the route never treats beside all others, by metric."""
    one = report["holdout"]
    what = report["counted_in"]
    columns = ("metric", f"{what} held out", "mean", f"{what} treated", "mean", "treated less held out", "band")
    table = _table((f"holdout {one['name'] or ''}".strip(), *columns[1:]), text=1, boxed=boxed)
    said = []
    for metric, found in one["metrics"].items():
        show, of = amounts.value_of(report, metric), {"metric": metric, **found}
        sides = [
            cell for side in ("holdout", "treated") for cell in (_count(of[side]["units"]), show(of[side]["mean"]))
        ]
        table.add_row(amounts.named(report, metric), *sides, amounts.difference(report, of), amounts.band(report, of))
        said += [f"{metric}: {found['withheld']}"] if found["withheld"] else []
    return _noted(table, said)


def _title(report: Report) -> Text:
    status = report["verdict"]["status"]
    title = Text(report["route"], style="bold")
    of = f", epoch {report['epoch']} (over)" if report["past"] else ""
    title.append(f"  {report['policy']}, plan of revision {report['revision']}{of}  ", style="not bold dim")
    return title.append(status.replace("_", " "), style=f"{STYLES.get(status, '')} bold".strip())


def of_problem(one: Mapping[str, Any]) -> RenderableType:
    """Return a problem: what is wrong, since when, and what would mend it."""
    said = Text("! ", style="yellow").append(one["sentence"], style="not yellow")
    when = "" if one["since"] is None else f"since {one['since'][:16]}Z"
    if when and not one["ongoing"]:
        when += f", last at {one['last'][:16]}Z"
    mend = Text(f"{when}{'; ' if when else ''}to mend it: {one['mend']}", style="dim")
    # Padded one by one: together, the shorter line would be filled with spaces.
    return Group(*(Padding(text, (0, 0, 0, left), expand=False) for text, left in ((said, 2), (mend, 4))))


def _footer(report: Report) -> str:
    parts = [f"{_count(n)} {status.replace('_', ' ')}" for status, n in report["feedback"].items() if n]
    lines = [f"feedback, all epochs: {' · '.join(parts) or 'none yet'}"]
    ratio = report["checks"]["sample_ratio"]
    if ratio["p"] is not None:
        lines.append(f"shares as set: {'yes' if ratio['ok'] else 'NO'} (p = {ratio['p']:.2g})")
    drafts = report["checks"]["interleaving"]
    if drafts["applies"]:
        lines.append(f"merged lists even: {'yes' if drafts['ok'] else 'NO'}{_uneven(report)}")
    if (declared := amounts.declared(report)) is not None:
        lines.insert(0, f"declared: {declared}")
    if report["earlier_versions"]:
        earlier = (
            f"{one['name']} {one['version']} ({_count(one['predictions'])} calls)" for one in report["earlier_versions"]
        )
        lines.append(f"earlier versions, in none of these numbers: {' · '.join(earlier)}")
    if report["forced"]:
        lines.append(f"forced requests, left out: {_count(report['forced'])}")
    if report["frozen"]:
        lines.append(f"requests while the route was frozen, left out: {_count(report['frozen'])}")
    if report["uncounted"]:
        lines.append(
            f"requests left out, of more new units than max_new_units_per_client: {_count(report['uncounted'])}"
        )
    return "\n".join(lines)


def _uneven(report: Report) -> str:
    """Return the checks of merged lists that found something, each in a clause."""
    said = [
        f"{one['measure']} of {one['variant']} against {one['against']} {one['mean']:+.3f} in {one['n']:,} lists "
        f"(p = {one['p']:.2g})"
        for one in amounts.unfair(report)
    ]
    return f": {'; '.join(said)}" if said else ""


def _table(columns: tuple[str, ...], *, text: int, boxed: bool) -> Table:
    """Return an empty table whose first ``text`` columns hold words and the others numbers."""
    table = Table(box=box.SIMPLE_HEAD if boxed else None, pad_edge=False, header_style="dim", show_edge=False)
    for index, name in enumerate(columns):
        # Names may be folded on a narrow terminal, but a number that is cut would read as another number.
        table.add_column(name, justify="left" if index < text else "right", no_wrap=index >= text, overflow="fold")
    return table


def _indented(table: Table) -> RenderableType:
    return Padding(table, (1, 0, 0, 2), expand=False)


def _noted(table: Table, notes: Sequence[str]) -> RenderableType:
    """Return a table with sentences below it."""
    below = (Padding(Text(one, style="dim"), (0, 0, 0, 2), expand=False) for one in notes)
    return Group(_indented(table), *below)


def _count(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
