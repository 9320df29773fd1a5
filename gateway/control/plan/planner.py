"""Make plans of evidence.

Rule: a plan that cannot be made leaves the last good one in force, and its failure is returned. Planning may be slow
and may use numpy: it runs in a thread, and no request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from gateway.control.event_log import now_ms
from gateway.store import Store
from gateway.store.counts.ledger import Ledger
from policies.types import Evidence
from router.assignment import AssignmentKey
from router.compile import compile_snapshot, epochs_of, replan, versions_of, with_plans_of
from router.config.config import Config
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewPlans:
    """The snapshot with new plans, the very same one if none changed, and why others could not be made, by route."""

    snapshot: Snapshot
    failures: Mapping[str, str]


async def plan(
    snapshot: Snapshot,
    config: Config,
    routes: Collection[str],
    ledgers: Callable[[Collection[tuple[str, str]]], Awaitable[Mapping[tuple[str, str], Ledger]]],
    revision: int,
) -> NewPlans:
    """Plan these routes anew; ``ledgers`` is asked once, for what is counted of routes and epochs.

    Raises what ``ledgers`` raises; what a policy raises is among the failures.
    """
    names = sorted(set(routes) & snapshot.routes.keys() & config.routes.keys())
    places = {(name, snapshot.routes[name].epoch) for name in names}
    counted = await ledgers(places) if places else {}
    return await asyncio.to_thread(_plan, snapshot, config, counted, revision)


async def compiled(
    config: Config, key: AssignmentKey | None, previous: Snapshot, store: Store | None, revision: int
) -> Snapshot:
    """Return the snapshot of a config, by the evidence there is.

    Without a store, or with one that cannot be read, plans that need not change stay as in ``previous``.
    """
    evidence: dict[tuple[str, str], Evidence] = {}
    known = False
    if store is not None:
        with suppress(Exception):  # an edit is not refused because the store is in trouble
            places = {(name, epoch.name) for name, epoch in epochs_of(config, previous=previous, key=key).items()}
            for place, ledger in (await store.evidence(places)).items():
                evidence[place] = evidence_of(ledger, config)
            known = True
    fresh = await asyncio.to_thread(
        compile_snapshot,
        config,
        previous=previous,
        evidence=lambda route, epoch: evidence.get((route, epoch), Evidence()),
        now_ms=now_ms(),
        revision=revision,
        key=key,
    )
    return fresh if known else with_plans_of(previous, fresh)


def _plan(snapshot: Snapshot, config: Config, counted: Mapping[tuple[str, str], Ledger], revision: int) -> NewPlans:
    failures: dict[str, str] = {}
    for (name, _), ledger in sorted(counted.items()):
        try:
            snapshot = replan(snapshot, config, name, evidence_of(ledger, snapshot), revision)
        except Exception as error:
            logger.error("route %s cannot be planned, its last plan stays: %r", name, error)
            logger.debug("route %s cannot be planned", name, exc_info=error)
            failures[name] = f"{type(error).__name__}: {error}"
    return NewPlans(snapshot, failures)


def evidence_of(ledger: Ledger, of: Config | Snapshot) -> Evidence:
    """Return what plans may learn from: values of the present versions, counted under the present definitions."""
    current = ledger.of_versions(versions_of(of.backends, of.backends))
    return current.evidence({metric.name: metric.definition for metric in of.metrics.values()})
