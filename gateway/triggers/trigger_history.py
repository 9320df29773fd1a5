"""When a trigger would have fired, by what is kept of the past: calls and values by the hour, after a week by the day.

Rule: the same function decides as for the present, hour by hour, and sees what was known then: values once their
window had closed, of the version that served then. Conditions of which nothing is kept are named, and never met.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from gateway.report.account import ANSWERING, SHADOWING
from gateway.store import Store
from gateway.store.counts.hours import DAY_MS, HOUR_MS
from gateway.store.counts.ledger import CALLS
from gateway.triggers.trigger_reading import delay_of, hours_of, needs_of, values_of
from router.settings.trigger import Trigger
from router.snapshot import Metric, Snapshot
from router.triggers.advance import advance
from router.triggers.readings import TriggerReadings

#: The most moments that are looked at: of a longer past, fewer in an hour.
MOST_STEPS: Final = 1_000


async def history(store: Store, snapshot: Snapshot, trigger: Trigger, since_ms: int, now_ms: int) -> dict[str, Any]:
    """Return when a trigger would have fired in [since, now], as plain JSON values. Raises what the store raises.

    ``without_history`` are the kinds of its conditions of which nothing is kept.
    """
    without = sorted({one.kind for one in trigger.conditions if not one.has_history})
    kept = replace(trigger, any=tuple(one for one in trigger.any if one.has_history), min_coverage=0.0)
    fired: list[dict[str, Any]] = []
    if kept.any or (kept.all and not without):
        needs = needs_of(kept)
        names = sorted({need.metric for need in needs if need.metric} | {CALLS})
        longest = max((need.span_ms for need in needs), default=0)
        slowest = max((delay_of(snapshot.metrics[name]) for name in names if name != CALLS), default=0)
        begin = since_ms - longest - slowest - DAY_MS
        series = {name: await store.series(trigger.route, name, max(begin, 0), now_ms) for name in names}
        fired = await asyncio.to_thread(_fired, snapshot, kept, series, since_ms, now_ms)
    return {
        "trigger": trigger.name,
        "since_ms": since_ms,
        "until_ms": now_ms,
        "fired": fired,
        "without_history": without,
        "unknown": bool(trigger.all and without) or not (kept.any or kept.all),
    }


def _fired(
    snapshot: Snapshot,
    trigger: Trigger,
    series: Mapping[str, Sequence[Mapping[str, Any]]],
    since_ms: int,
    now_ms: int,
) -> list[dict[str, Any]]:
    past = _Past(snapshot, trigger, series)
    step = max(HOUR_MS, (now_ms - since_ms) // MOST_STEPS)
    standing, found = None, []
    for at_ms in range(since_ms, now_ms + 1, step):
        standing, _, event = advance(trigger, standing, past.readings(at_ms))
        if event is not None:
            found.append({"at_ms": at_ms, "why": event["why"], "version": event["version"]})
    return found


class _Past:
    """What could be read at a moment of the past."""

    def __init__(self, snapshot: Snapshot, trigger: Trigger, series: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self._snapshot = snapshot
        self._route = snapshot.routes[trigger.route]
        self._trigger = trigger
        self._needs = needs_of(trigger)
        self._series = series
        self._values: dict[tuple[str, str], Any] = {}
        self._began = dict[str, int]()
        for row in series[CALLS]:
            if row["variant"] == trigger.variant and row["epoch"] == self._route.epoch:
                self._began.setdefault(row["version"], row["at_ms"])

    def readings(self, at_ms: int) -> TriggerReadings:
        began = {version: begun for version, begun in self._began.items() if begun <= at_ms}
        version = max(began, key=lambda one: began[one], default="")
        metrics = {need.metric: self._snapshot.metrics[need.metric] for need in self._needs if need.metric}
        return TriggerReadings(
            at_ms=at_ms,
            route=self._route.name,
            epoch=self._route.epoch,
            variant=self._trigger.variant,
            baseline=self._route.baseline,
            version=version,
            began_ms=began.get(version),
            values={n.metric: self._of(metrics[n.metric], version) for n in self._needs if n.what == "hours"},
            labels={
                n.metric: _known(self._series[n.metric], metrics[n.metric], at_ms)
                for n in self._needs
                if n.what == "labels"
            },
        )

    def _of(self, metric: Metric, version: str) -> Any:
        key = metric.name, version
        if key not in self._values:
            place = {
                "variant": self._trigger.variant,
                "version": version,
                "epoch": self._route.epoch,
                "definition": metric.definition,
            }
            rows = self._series[metric.name]
            hours = hours_of(rows, place, ANSWERING) or hours_of(rows, place, SHADOWING)
            self._values[key] = values_of(metric, hours)
        return self._values[key]


def _known(rows: Iterable[Mapping[str, Any]], metric: Metric, at_ms: int) -> int:
    """Return how many values were known at a moment, of the rows that are kept."""
    delay = delay_of(metric)
    return sum(
        row["n"]
        for row in rows
        if row["role"] in ANSWERING
        and row["definition"] == metric.definition
        and row["at_ms"] + row["hours"] * HOUR_MS + delay <= at_ms
    )
