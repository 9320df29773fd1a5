"""Reads what triggers look at, from the store and from what reports are made of.

Rule: only what a trigger's conditions need is read, and of a route once in a pass, however many triggers it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.report.account import ANSWERING, Account, account_of
from gateway.report.guardrails import guarded
from gateway.report.guardrails.judging import STATES, judged_alone
from gateway.report.verdict import coverage_tally
from gateway.store import Store
from gateway.store.counts.hours import DAY_MS
from gateway.store.counts.ledger import CALLS, Ledger
from gateway.store.counts.reported import read_reported
from policies.statistics.sequential import mean_interval
from router.config.config import Config
from router.records import Role
from router.settings.declared import Guardrail
from router.settings.trigger import Trigger
from router.snapshot import Metric, Snapshot
from router.triggers.readings import Hour, Need, TriggerReadings, ValueBand, Values

#: The chance that the intervals of coverage and of harm ever miss the truth.
ALPHA: Final = 0.05


class TriggerReader:
    """Reads for the triggers of one pass."""

    def __init__(self, store: Store, snapshot: Snapshot, config: Config) -> None:
        self._store = store
        self._snapshot = snapshot
        self._config = config
        self._accounts: dict[str, tuple[Ledger, Account]] = {}

    async def read(self, trigger: Trigger, at_ms: int) -> TriggerReadings:
        """Return what a trigger looks at. Raises KeyError without its route, and what the store raises."""
        route = self._snapshot.routes[trigger.route]
        needs = needs_of(trigger)
        found = TriggerReadings(
            at_ms=at_ms,
            route=route.name,
            epoch=route.epoch,
            variant=trigger.variant,
            baseline=route.baseline,
            version=self._snapshot.backends[trigger.variant].version,
        )
        more: dict[str, Any] = {}
        if any(need.what == "verdicts" for need in needs):
            async with self._store.read() as connection:
                reported = await read_reported(connection, [(route.name, route.epoch)])
            more["verdicts"] = {name: one.status for name, one in reported[route.name, route.epoch].items()}
        if any(need.what != "verdicts" for need in needs):
            ledger, account = await self._account(trigger.route)
            more |= await asyncio.to_thread(readings_of, ledger, account, trigger.variant, needs)
            more["values"] = {
                need.metric: await self._values(account, trigger.variant, need, at_ms)
                for need in needs
                if need.what == "hours"
            }
        return replace(found, **more)

    async def _account(self, name: str) -> tuple[Ledger, Account]:
        known = self._accounts.get(name)
        if known is None:
            ledger = await self._store.ledger(name, self._snapshot.routes[name].epoch)
            policy = self._config.routes[name].policy if self._config.hash == self._snapshot.config else None
            known = self._accounts[name] = ledger, account_of(self._snapshot, ledger, policy)
        return known

    async def _values(self, account: Account, variant: str, need: Need, at_ms: int) -> Values:
        metric = account.snapshot.metrics[need.metric]
        since = at_ms - need.span_ms - delay_of(metric) - DAY_MS
        rows = await self._store.series(account.route.name, metric.name, since, at_ms)
        version = account.snapshot.backends[variant].version
        place = {"variant": variant, "version": version, "epoch": account.route.epoch, "definition": metric.definition}
        return values_of(metric, hours_of(rows, place, account.roles(variant)), _spread(account, variant, metric))


def needs_of(trigger: Trigger) -> frozenset[Need]:
    """Return what a trigger's conditions need, each metric's hours as far back as any needs them."""
    needs = {need for one in trigger.conditions for need in one.needs}
    if trigger.min_coverage:
        needs |= {Need("coverage", metric) for one in trigger.conditions for metric in one.metrics}
    spans: dict[str, int] = {}
    for need in needs:
        if need.what == "hours":
            spans[need.metric] = max(spans.get(need.metric, 0), need.span_ms)
    others = {need for need in needs if need.what != "hours"}
    return frozenset({*others, *(Need("hours", metric, span) for metric, span in spans.items())})


def hours_of(rows: Iterable[Mapping[str, Any]], place: Mapping[str, str], roles: tuple[Role, ...]) -> tuple[Hour, ...]:
    """Return the hours of a series that are of this place (variant, version, epoch, definition) and these roles."""
    return tuple(
        Hour(row["at_ms"], row["hours"] * 3_600_000, row["n"], row["sum"])
        for row in rows
        if row["role"] in roles and all(row[name] == value for name, value in place.items())
    )


def values_of(metric: Metric, hours: tuple[Hour, ...], spread: float | None = None) -> Values:
    """Return the values of a metric."""
    return Values(hours, spread, metric.bounds, metric.better == "lower", delay_of(metric))


def delay_of(metric: Metric) -> int:
    """Return how long after its prediction a value is known at the latest."""
    return 0 if metric.mature == "arrival" else metric.window_ms


def labels_in(ledger: Ledger, metric: Metric) -> int:
    """Return how many predictions have a value of a metric, of all variants and versions."""
    return int(
        sum(
            tally.d
            for key, tally in ledger.tallies.items()
            if (key.metric, key.definition, key.phase, key.against) == (metric.name, metric.definition, "live", "")
            and key.role in ANSWERING
        )
    )


def readings_of(ledger: Ledger, account: Account, variant: str, needs: Iterable[Need]) -> dict[str, Any]:
    """Return what is read of a route's account, by the names of TriggerReadings."""
    metrics = account.snapshot.metrics
    periods = [key.period for key in account.ledger.tallies if key.variant == variant and key.metric == CALLS]
    found: dict[str, Any] = {
        "began_ms": min(periods, default=None),
        "labels": {},
        "coverage": {},
        "harm": {},
        "guardrails": {},
    }
    for need in needs:
        if need.what == "labels":
            found["labels"][need.metric] = labels_in(ledger, metrics[need.metric])
        elif need.what == "coverage" and need.metric in metrics:
            _put(found["coverage"], need.metric, _coverage(account, variant, metrics[need.metric]))
        elif need.what == "harm":
            _put(found["harm"], need.metric, _harm(account, variant, need.metric))
    if any(need.what == "guardrails" for need in needs):
        states = found["guardrails"]
        for one in guarded(account):
            of = one.variant, one.guardrail.metric
            states[of] = min(states.get(of, one.state), one.state, key=STATES.index)
    return found


def _coverage(account: Account, variant: str, metric: Metric) -> ValueBand | None:
    tally = coverage_tally(account, variant, metric)
    if tally.mean is None:
        return None
    found = mean_interval(tally, bounds=(0.0, 1.0), alpha=ALPHA)
    return None if found is None else ValueBand(tally.mean, found.low, found.high)


def _harm(account: Account, variant: str, metric: str) -> ValueBand | None:
    """Return how much worse a variant is than the baseline."""
    one = judged_alone(account, Guardrail(metric=metric, worse_by=0.0), variant, ALPHA)
    seen = one.reading
    if seen.value is None or seen.baseline is None:
        return None
    if one.higher_is_worse:
        return ValueBand(seen.value - seen.baseline, seen.low, seen.high)
    return ValueBand(seen.baseline - seen.value, -seen.high, -seen.low)


def _spread(account: Account, variant: str, metric: Metric) -> float | None:
    tally = account.own(variant, metric, "mature")
    mean = tally.mean
    if mean is None or tally.n < 2:
        return None
    return max(tally.squares(mean), 0.0) / tally.d * tally.n / (tally.n - 1)


def _put(found: dict[str, ValueBand], metric: str, band: ValueBand | None) -> None:
    if band is not None:
        found[metric] = band
