"""What a route's page shows of its report: charts, and the numbers beside them as text.

Rule: nothing is computed but places and words; every number is one of the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway import amounts
from gateway.admin.api.reports import Report
from gateway.admin.console.bands import Band, band
from gateway.admin.console.forest import ForestRow, forest


def charts(report: Report) -> list[dict[str, Any]]:
    """Return one chart per metric: each variant's mature mean with its interval, and the same as rows of text."""
    found = []
    for metric, definition in report["definitions"].items():
        rows, lines = [], []
        for shade, variant in enumerate(report["variants"]):
            values = variant["metrics"][metric]
            mature = values["mature"]
            if mature["mean"] is not None and mature["low"] is not None:
                rows.append(ForestRow(variant["name"], mature["low"], mature["mean"], mature["high"], shade))
            lines.append({"name": variant["name"], "shade": shade, "values": values})
        found.append(
            {
                "metric": metric,
                "definition": definition,
                "forest": forest(rows, percent=definition["binary"]),
                "lines": lines,
            }
        )
    return found


def differences(report: Report) -> dict[str, Any] | None:
    """Return the chart of the verdict: each variant minus the baseline; None where nothing is compared."""
    verdict = report["verdict"]
    if not verdict["comparisons"]:
        return None
    percent = report["definitions"][verdict["metric"]]["binary"]
    shades = {variant["name"]: index for index, variant in enumerate(report["variants"])}
    known = [one for one in verdict["comparisons"] if one["low"] is not None and one["high"] is not None]
    rows = [
        ForestRow(one["variant"], one["low"], one["difference"], one["high"], shades[one["variant"]]) for one in known
    ]
    lines = [one | {"text": difference_text(report, one)} for one in verdict["comparisons"]]
    return {"forest": forest(rows, percent=percent, zero=True), "lines": lines}


def compared(report: Report) -> list[dict[str, Any]]:
    """Return each variant on each metric, with its numbers as text."""
    found = []
    for one in report["comparisons"]:
        texts = {"text": difference_text(report, one), "named": amounts.named(report, one["metric"])}
        found.append(one | texts | {"needs_text": amounts.needs(report, one)})
    return found


#: How the state of a guardrail looks: as a status of that meaning.
GUARDRAIL_STYLES: Final = {"broken": "failing", "clean": "better", "undecided": "collecting"}


def bounded(report: Report) -> list[dict[str, Any]]:
    """Return each guardrail of each variant, with its numbers as text."""
    return [
        one
        | {
            "style": GUARDRAIL_STYLES[one["state"]],
            "text": amounts.guardrail(report, one),
            "picture": picture(report, one),
        }
        for one in report["guardrails"]
    ]


def picture(report: Report, one: Mapping[str, Any]) -> Band | None:
    """Return the band of a guardrail beside its bound: of the value with a limit, else of the difference."""
    higher_is_worse = amounts.lower_is_better(report, one["metric"])
    if one["limit"] is not None:
        return band(one["low"], one["value"], one["high"], one["limit"], higher_is_worse=higher_is_worse, zero=False)
    known = one["value"] is not None and one["baseline"] is not None
    apart = one["value"] - one["baseline"] if known else None
    bound = one["worse_by"] if higher_is_worse else -one["worse_by"]
    return band(one["low"], apart, one["high"], bound, higher_is_worse=higher_is_worse, zero=True)


def held(report: Report) -> list[dict[str, Any]]:
    """Return the holdout beside the treated units, by metric, as text; empty without a holdout."""
    found = []
    for metric, one in (report["holdout"] or {"metrics": {}})["metrics"].items():
        show = amounts.value_of(report, metric)
        sides = [{"units": one[side]["units"], "mean": show(one[side]["mean"])} for side in ("holdout", "treated")]
        text = difference_text(report, {"metric": metric, **one})
        found.append({"metric": amounts.named(report, metric), "sides": sides, "text": text, "why": one["withheld"]})
    return found


def difference_text(report: Report, one: Mapping[str, Any]) -> str:
    """Return a difference with its interval."""
    apart = amounts.difference(report, one)
    return apart if one["low"] is None or one["high"] is None else f"{apart} ({amounts.band(report, one)})"
