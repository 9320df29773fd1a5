"""Make plans of evidence.

Rule: a plan that cannot be made leaves the last good one in force, and its failure is returned. Planning may be slow
and may use numpy: it runs in a thread, and no request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from gateway.control.event_log import now_ms
from gateway.store import Store
from gateway.store.counts.ledger import Ledger
from gateway.store.standings import read_standings
from policies.rollouts.standing import START, Standing, decode_standing
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
    standings: Mapping[str, Standing] | None = None,
) -> NewPlans:
    """Plan these routes anew, with their ``standings`` (None: as they are in the snapshot).

    ``ledgers`` is asked once, for what is counted of the routes that learn from it, and their epochs. Raises what it
    raises; what a policy raises is among the failures.
    """
    names = sorted(set(routes) & snapshot.routes.keys() & config.routes.keys())
    learning = {name for name in names if config.routes[name].policy.adaptive}
    places = {(name, snapshot.routes[name].epoch) for name in learning}
    counted = await ledgers(places) if places else {}
    known = {place[0]: ledger for place, ledger in counted.items()}
    if len(names) > 1 or learning:
        return await asyncio.to_thread(_plan, snapshot, config, names, known, revision, standings)
    return _plan(snapshot, config, names, known, revision, standings)


async def compiled(
    config: Config, key: AssignmentKey | None, previous: Snapshot, store: Store | None, revision: int
) -> Snapshot:
    """Return the snapshot of a config, by the evidence there is.

    Without a store, or with one that cannot be read, plans that need not change stay as in ``previous``.
    """
    evidence: dict[tuple[str, str], Evidence] = {}
    standings: Mapping[str, Standing] | None = None
    if store is not None:
        with suppress(Exception):  # an edit is not refused because the store is in trouble
            places = {(name, epoch.name) for name, epoch in epochs_of(config, previous=previous, key=key).items()}
            for place, ledger in (await store.evidence(places)).items():
                evidence[place] = evidence_of(ledger, config)
            standings = await standings_of(store)
    fresh = await asyncio.to_thread(
        compile_snapshot,
        config,
        previous=previous,
        evidence=lambda route, epoch: evidence.get((route, epoch), Evidence()),
        now_ms=now_ms(),
        revision=revision,
        key=key,
        standings=standings,
    )
    return fresh if standings is not None else with_plans_of(previous, fresh)


async def standings_of(store: Store) -> dict[str, Standing]:
    """Return where routes stand, as it is stored. One that cannot be read is as if nothing ever moved it: it is logged.

    Raises what the store raises.
    """
    async with store.read() as connection:
        stored = await read_standings(connection, "route")
    found = {}
    for name, one in stored.items():
        try:
            found[name] = decode_standing(one.body)
        except ValueError as error:
            logger.error("where route %s stands cannot be read, it begins anew: %s", name, error)
    return found


def _plan(
    snapshot: Snapshot,
    config: Config,
    names: Iterable[str],
    counted: Mapping[str, Ledger],
    revision: int,
    standings: Mapping[str, Standing] | None,
) -> NewPlans:
    failures: dict[str, str] = {}
    at_ms = now_ms()
    for name in names:
        try:
            evidence = evidence_of(counted[name], snapshot) if name in counted else Evidence()
            standing = None if standings is None else standings.get(name, START)
            snapshot = replan(snapshot, config, name, evidence, revision, standing, at_ms)
        except Exception as error:
            logger.error("route %s cannot be planned, its last plan stays: %r", name, error)
            logger.debug("route %s cannot be planned", name, exc_info=error)
            failures[name] = f"{type(error).__name__}: {error}"
    return NewPlans(snapshot, failures)


def evidence_of(ledger: Ledger, of: Config | Snapshot) -> Evidence:
    """Return what plans may learn from: values of the present versions, counted under the present definitions."""
    current = ledger.of_versions(versions_of(of.backends, of.backends))
    return current.evidence({metric.name: metric.definition for metric in of.metrics.values()})
