"""Variants that fail fast, seen on counts of calls alone, several times a second.

Rule: one statement for all routes that are watched. What is kept in memory may be lost: then it takes ten seconds more
until a variant that answered before is taken for broken, and none is taken for it sooner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gateway.control.steer.route_findings import after_name
from gateway.store import Store
from gateway.store.calls_since import CallsOf, calls_since
from gateway.store.counts.read_ledgers import LedgerVersions, versions
from policies.rollouts.standing import Standing
from policies.statistics.burn import Count, FailureWatch, burning, faltering, sentence, watched
from router.config.config import RouteConfig
from router.snapshot import Route, Snapshot


class Burning(NamedTuple):
    """What is watched of a route, and the variants that fail fast, each with words that follow its name.

    ``alone`` are those that fail while the baseline has no calls.
    """

    watch: FailureWatch
    said: Mapping[str, str]
    alone: Mapping[str, str]


class Burns:
    """FailureWatches the calls of routes in their present steps."""

    def __init__(self) -> None:
        self._of: dict[str, Burning] = {}
        self._looked: dict[str, tuple[int, int]] = {}

    def said(self, route: str) -> Mapping[str, str]:
        """Return the variants of a route that failed fast at the last look."""
        found = self._of.get(route)
        return {} if found is None else found.said

    def alone(self, route: str) -> Mapping[str, str]:
        """Return the variants of a route that failed fast at the last look, while the baseline had no calls."""
        found = self._of.get(route)
        return {} if found is None else found.alone

    def faltering(self, route: str) -> Mapping[str, str]:
        """Return the variants of a route that failed most of their calls at the last look."""
        found = self._of.get(route)
        return {} if found is None else faltering(found.watch)

    def watch(self, route: str) -> FailureWatch | None:
        """Return what was seen of the present step of a route."""
        found = self._of.get(route)
        return None if found is None else found.watch

    async def look(
        self, store: Store, snapshot: Snapshot, routes: Mapping[str, Standing]
    ) -> tuple[LedgerVersions, set[str]]:
        """Look at these routes, where they stand so; return what moved at all, and the routes in which variants burn.

        Raises what the store raises.
        """
        began = {name: _began(snapshot.routes[name], standing) for name, standing in routes.items()}
        async with store.read() as connection:
            now = await versions(connection)
            moved = [name for name in routes if self._looked.get(name) != (now.moved.get(name, 0), began[name])]
            places = [(name, snapshot.routes[name].epoch, began[name]) for name in moved]
            found = await calls_since(connection, places)
        self._of = {name: one for name, one in self._of.items() if name in routes}
        for name in routes:
            self._note(snapshot, name, found.get(name), began[name], now.watermark_ms or 0)
            self._looked[name] = now.moved.get(name, 0), began[name]
        return now, {name for name, one in self._of.items() if one.said or one.alone}

    def _note(self, snapshot: Snapshot, name: str, calls: Iterable[CallsOf] | None, began_ms: int, at_ms: int) -> None:
        route, before = snapshot.routes[name], self._of.get(name)
        if calls is not None:
            totals: Mapping[str, Count] = _totals(snapshot, route, calls)
        elif before is not None:
            totals = before.watch.totals
        else:
            return
        watch = watched(None if before is None else before.watch, began_ms, at_ms, totals, route.baseline)
        said, alone = dict[str, str](), dict[str, str]()
        for one in burning(watch):
            where = alone if one.reason == "alone" else said
            where[one.variant] = after_name(one.variant, sentence(one, route.baseline))
        self._of[name] = Burning(watch, said, alone)


def watches(route: RouteConfig) -> bool:
    """Return whether a variant of this route that fails fast is taken out: by a rollout, or by a guardrail's action."""
    return route.policy.stepped or any(one.action not in (None, "warn") for one in route.guardrails)


def _began(route: Route, standing: Standing) -> int:
    """Return since when calls are counted: since the step began, or the period where there are no steps."""
    return standing.since_ms or route.period


def _totals(snapshot: Snapshot, route: Route, calls: Iterable[CallsOf]) -> dict[str, Count]:
    """Return the counts of each variant in its present version: of its answers, or of its copies if it has no share."""
    shares, totals = route.plan.shares, dict[str, Count]()
    for one in calls:
        backend = snapshot.backends.get(one.variant)
        answers = shares.get(one.variant, 0.0) > 0 or one.variant == route.baseline
        if backend is None or backend.version != one.version or (one.role == "shadow") == answers:
            continue
        count = Count(one.n, one.positive, one.d, one.m)
        totals[one.variant] = totals[one.variant].and_also(count) if one.variant in totals else count
    return totals
