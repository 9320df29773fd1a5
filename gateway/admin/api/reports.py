"""Reports on demand: one is made again only when its route changed, which is looked up at most once a second.

Rule: a report equals the one that would be made now. It is made in a thread, because intervals take milliseconds of
arithmetic; awaited with a deadline, because a store can hang; and made once for all requests that come meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

from gateway.control.event_log import now_ms
from gateway.control.plan.in_force import InForce
from gateway.control.queries import Queries
from gateway.control.steer.route_findings import findings_of
from gateway.control.steer.standing_view import SERVED_MS, stands
from gateway.files.overrides import Override
from gateway.moments import rfc3339
from gateway.report import report, update_watermark
from gateway.report.account import Account, account_of
from gateway.report.past import as_it_was
from gateway.report.problems import of_no_route
from gateway.report.verdict import Verdict, cause_of, sample_ratio_of
from gateway.store.counts.ledger import Ledger
from gateway.store.counts.read_ledgers import LedgerVersions
from policies import Policy
from policies.rollouts.standing import Findings
from policies.statistics.sample_ratio import Cause
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)

FRESH_SECONDS: Final = 1.0

#: Where most of an uneven sample ratio is takes some tenths of a second to find, and seldom changes.
CAUSE_SECONDS: Final = 60.0
DEADLINE_SECONDS: Final = 10.0

#: How long a report waits for what was served in the last minutes: without it, it shows what the step served.
SERVED_SECONDS: Final = 1.0

#: Reports that are made together: of one transaction, and of one turn of a thread.
TOGETHER: Final = 50

Report = dict[str, Any]
T = TypeVar("T")


class StoreUnavailable(RuntimeError):
    """The store is not open, did not answer in time or failed: no numbers can be shown for now; traffic goes on."""


def unreadable(error: Exception) -> StoreUnavailable:
    """Log the error of a store, and return what a client is answered."""
    logger.error("the store could not be read: %s: %s", type(error).__name__, error)
    return StoreUnavailable(f"the store could not be read: {type(error).__name__}")


async def from_store(queries: Queries, question: Callable[[Queries], Awaitable[T]]) -> T:
    """Return the answer to a question. Raises StoreUnavailable, or TimeoutError after ``DEADLINE_SECONDS``."""
    if not queries.ready:
        raise StoreUnavailable("the store is not open yet")
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await question(queries)
    except TimeoutError:
        raise
    except Exception as error:  # whatever a database driver raises
        raise unreadable(error) from error


class _Made(NamedTuple):
    """A report, the key of what it was made of, and of its ledger what a later watermark needs."""

    of: tuple[Any, ...]
    ledger: Ledger
    report: Report
    findings: Findings = Findings()


def freeze(act: Override | None) -> dict[str, Any] | None:
    """Return by what a route is frozen, as plain JSON values; None where it is not."""
    if act is None or act.to is None:
        return None
    return {"to": act.to, "since": rfc3339(act.at_ms), "who": act.who, "why": act.why}


class Reports:
    """The newest report of each route. ``clock`` is monotonic, in seconds."""

    def __init__(
        self,
        in_force: InForce,
        queries: Queries,
        *,
        clock: Callable[[], float],
        events: Callable[[], Sequence[Mapping[str, Any]]] = lambda: (),
    ) -> None:
        self._events = events
        self._in_force = in_force
        self._queries = queries
        self._clock = clock
        self._made: dict[str, _Made] = {}
        #: Of routes whose shares are not met: the epoch, since when, when it was looked up, and what was found.
        self._causes: dict[str, tuple[str, int, float, Cause | None]] = {}
        self._making: dict[str | None, asyncio.Task[None]] = {}
        self._versions: LedgerVersions = LedgerVersions({}, None)
        self._looked = -FRESH_SECONDS
        self._turn = asyncio.Lock()

    async def all(self) -> list[Report]:
        """Return the report of every route, in the order of the file. Raises StoreUnavailable."""
        await self._fresh(None)
        routes, events = self._in_force.snapshot.routes, self._events()
        return [self._with_standing(name, {}, events) for name in routes if name in self._made]

    async def one(self, route: str) -> Report:
        """Return the report of one route. Raises KeyError if there is none, StoreUnavailable if it cannot be made."""
        if route not in self._in_force.snapshot.routes:
            raise KeyError(route)
        await self._fresh(route)
        return self._with_standing(route, await self._served(route), self._events())

    def unread(self, name: str) -> dict[str, Any] | None:
        """Return where a route stands by what is in force alone. Raises KeyError if there is no such route."""
        route = self._in_force.snapshot.routes[name]
        return stands(route, self._policy(name), Findings(), {}, self._events(), now_ms())

    async def _served(self, route: str) -> Mapping[str, int]:
        """Return the calls of the last minutes by variant; nothing where the route stands nowhere, or it takes long."""
        if self.unread(route) is None:
            return {}
        try:
            async with asyncio.timeout(SERVED_SECONDS):
                return await self._queries.served(route, now_ms() - SERVED_MS)
        except Exception as error:  # the report is right without it
            logger.warning("what %s served in the last minutes cannot be looked up: %s", route, error)
            return {}

    def _with_standing(self, name: str, served: Mapping[str, int], events: Iterable[Mapping[str, Any]]) -> Report:
        """Return a report with where its route stands at this moment."""
        made, route = self._made[name], self._in_force.snapshot.routes[name]
        served = served or {one: n for one, n in made.findings.calls.items() if route.plan.shares.get(one, 0.0) > 0}
        known = stands(route, self._policy(name), made.findings, served, events, now_ms())
        return {**made.report, "rollout": known, "freeze": freeze(self._in_force.freezes.acts.get(name))}

    async def _fresh(self, route: str | None) -> None:
        """Bring the report of a route, or of all, up to date. Raises StoreUnavailable.

        A report is made to its end though its callers stop waiting: so the next request finds it.
        """
        task = self._making.get(route)
        if task is None:
            task = self._making[route] = asyncio.create_task(self._make(route))
            task.add_done_callback(lambda ended: self._ended(route, ended))
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.shield(task)
        except TimeoutError as error:
            raise StoreUnavailable(f"the store did not answer within {DEADLINE_SECONDS:.0f} seconds") from error

    async def of_no_route(self) -> dict[str, Any] | None:
        """Return what is wrong with feedback that belongs to no route, None if nothing is. Raises StoreUnavailable."""
        try:
            return of_no_route(await from_store(self._queries, lambda ask: ask.store.feedback_total()))
        except TimeoutError as error:
            raise StoreUnavailable(f"the store did not answer within {DEADLINE_SECONDS:.0f} seconds") from error

    async def past(self, route: str, epoch: str) -> Report:
        """Return the report of one epoch of a route, made anew each time.

        Raises KeyError if there is no such route or epoch, StoreUnavailable if it cannot be made.
        """
        snapshot = self._in_force.snapshot
        if epoch == snapshot.routes[route].epoch:
            return await self.one(route)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), self._turn:
                found = await from_store(self._queries, lambda ask: ask.past(route, epoch))
                if found is None:
                    raise KeyError(epoch)
                then = as_it_was(snapshot, *found)
                return await asyncio.to_thread(report, then, found[1]) | {"past": True}
        except TimeoutError as error:
            raise StoreUnavailable(f"the store did not answer within {DEADLINE_SECONDS:.0f} seconds") from error

    async def power(self, route: str, effects: Sequence[float], days: Sequence[float]) -> dict[str, Any]:
        """Return what a route can decide, and when, made anew each time. Raises KeyError, StoreUnavailable."""
        from gateway.report.planning import planning  # loads scipy, and few ask

        snapshot = self._in_force.snapshot
        if route not in snapshot.routes:
            raise KeyError(route)
        ledgers = await from_store(self._queries, lambda ask: ask.ledgers([route]))
        policy = self._policy(route)
        async with self._turn:
            account = account_of(snapshot, ledgers[route], policy)
            return await asyncio.to_thread(planning, account, effects, days)

    async def epochs(self, route: str) -> list[dict[str, Any]]:
        """Return the epochs of a route, the one that began last first. Raises KeyError, StoreUnavailable."""
        present = self._in_force.snapshot.routes[route].epoch
        try:
            found = await from_store(self._queries, lambda ask: ask.store.epochs(route))
        except TimeoutError as error:
            raise StoreUnavailable(f"the store did not answer within {DEADLINE_SECONDS:.0f} seconds") from error
        return [{**one, "present": one["epoch"] == present} for one in found]

    def _ended(self, route: str | None, task: asyncio.Task[None]) -> None:
        del self._making[route]
        if not task.cancelled():
            task.exception()  # retrieved, though no caller may be left to await it

    async def _make(self, route: str | None) -> None:
        async with self._turn:
            if not self._queries.ready:
                raise StoreUnavailable("the store is not open yet")
            try:
                await self._look()
                routes = self._in_force.snapshot.routes
                wanted = [name for name in routes if route in (None, name)]
                stale = [name for name in wanted if self._made.get(name, _NONE).of != self._of(name)]
                for at in range(0, len(stale), TOGETHER):
                    await self._make_these(stale[at : at + TOGETHER])
            except Exception as error:  # whatever a database driver raises: the client can ask again
                raise unreadable(error) from error
            for name in wanted:
                self._update_watermark(name)

    async def _look(self) -> None:
        """Ask which routes' counts moved, at most every ``FRESH_SECONDS``."""
        if self._clock() - self._looked < FRESH_SECONDS:
            return
        self._versions = await self._queries.store.ledger_versions()
        self._looked = self._clock()
        for gone in self._made.keys() - self._in_force.snapshot.routes.keys():
            del self._made[gone]
            self._causes.pop(gone, None)

    async def _make_these(self, names: list[str]) -> None:
        """Make reports. Counts may move between ``_look`` and here: then the next look has them made again."""
        snapshot = self._in_force.snapshot
        names = [name for name in names if name in snapshot.routes]  # a reload may have removed one meanwhile
        of, policies = {name: self._of(name) for name in names}, {name: self._policy(name) for name in names}
        ledgers = await self._queries.ledgers(names)

        known = dict[str, Findings]()

        def heard(account: Account, judged: Verdict) -> None:
            route = account.route
            known[route.name] = findings_of(account, judged, route.standing)

        def made() -> dict[str, Report]:
            return {name: report(snapshot, ledgers[name], policies[name], heard=heard) for name in names}

        for name, one in (await asyncio.to_thread(made)).items():
            if not one["checks"]["sample_ratio"]["ok"]:
                try:
                    cause = await self._cause(snapshot, ledgers[name], policies[name])
                    one = await asyncio.to_thread(report, snapshot, ledgers[name], policies[name], cause)
                except Exception as error:  # the report is right without it
                    logger.warning("why the shares of %s are off cannot be looked up: %s", name, error)
            self._made[name] = _Made(of[name], _for_later(ledgers[name]), one, known[name])

    async def _cause(self, snapshot: Snapshot, ledger: Ledger, policy: Policy | None) -> Cause | None:
        """Return where most of it is that a route's shares are not met, looked up every ``CAUSE_SECONDS``."""
        account = account_of(snapshot, ledger, policy)
        since = 0 if (ratio := sample_ratio_of(account)) is None else ratio.since
        known = self._causes.get(ledger.route)
        if known is None or known[:2] != (ledger.epoch, since) or self._clock() - known[2] >= CAUSE_SECONDS:
            drawn = await self._queries.drawn(ledger.route, since)
            cause = await asyncio.to_thread(cause_of, account, drawn)
            known = self._causes[ledger.route] = ledger.epoch, since, self._clock(), cause
        return known[3]

    def _update_watermark(self, name: str) -> None:
        """The watermark moves all the time: what follows from it alone is updated without making the report anew."""
        made, watermark_ms = self._made.get(name), self._versions.watermark_ms
        if made is not None and watermark_ms is not None and watermark_ms > (made.ledger.watermark_ms or 0):
            later = replace(made.ledger, watermark_ms=watermark_ms)
            update_watermark(made.report, later)
            self._made[name] = made._replace(ledger=later)

    def _of(self, name: str) -> tuple[Any, ...]:
        """A key of what a report is made of: while the key is the same, so is the report."""
        snapshot, config = self._in_force.snapshot, self._in_force.config
        route = snapshot.routes[name]
        known = config is not None and config.hash == snapshot.config
        return self._versions.moved.get(name, 0), snapshot.config, known, route.epoch, route.revision

    def _policy(self, route: str) -> Policy | None:
        """The route's policy as the file sets it, if the snapshot in force is of that file."""
        config = self._in_force.config
        if config is None or config.hash != self._in_force.snapshot.config:
            return None
        return config.routes[route].policy


def _for_later(ledger: Ledger) -> Ledger:
    return Ledger(ledger.route, ledger.epoch, watermark_ms=ledger.watermark_ms, oldest_ms=ledger.oldest_ms)


_NONE: Final = _Made((), Ledger("", ""), {})
