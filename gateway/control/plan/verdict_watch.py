"""Say when a verdict changes: in the log, in the list of events, and to the sinks; and look at tests when they are due.

Rule: a decider that changes no plan. What was reported is stored in the transaction that queues the events, so that
nothing is reported twice, whoever holds the lease. What changes back and forth is reported at most every
``QUIET_MS``, except a status that asks for a hand; what changed meanwhile is reported then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from time import monotonic
from typing import Final

from gateway.control.event_log import EventLog, now_ms
from gateway.control.opened import Opened
from gateway.control.record.transaction import queue_events
from gateway.report import methods
from gateway.report.account import Account, account_of
from gateway.report.comparison import alpha_of
from gateway.report.verdict import Verdict, cause_of, in_force, sample_ratio_of, verdict
from gateway.store.counts.ledger import Look
from gateway.store.counts.reported import Reported, Tested, read_reported, write_looks, write_reported
from gateway.store.counts.tallies import note_moved
from gateway.store.rows.bounded_reads import newest_drawn
from gateway.store.rows.recorded import ChangedVerdict, Recorded
from router.config.config import Config
from router.snapshot import Route, Snapshot

logger = logging.getLogger(__name__)

#: A route is judged again at most so often, after so many times as long as it took, and all routes together take about
#: so much of each call: recording needs the processor more.
EVERY_SECONDS: Final = 5.0
REST: Final = 50
BUDGET_SECONDS: Final = 0.05

#: A variant's next change is reported no sooner than this after the last, unless its new status is urgent.
QUIET_MS: Final = 5 * 60_000
URGENT: Final = frozenset({"failing", "invalid"})

#: What a variant of which nothing was reported is taken to have been.
FIRST: Final = "collecting"


#: Called with what a verdict was made of, and the verdict.
Heard = Callable[[Account, Verdict], None]


class VerdictWatch:
    """Judges the routes whose counts moved, and reports what changed. ``clock`` is monotonic, in seconds.

    ``heard`` is called with each verdict, in a thread.
    """

    def __init__(
        self,
        event_log: EventLog,
        snapshot: Callable[[], Snapshot],
        heard: Heard = lambda *_: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._event_log = event_log
        self._heard = heard
        self._snapshot = snapshot
        self._clock = clock
        #: By route: when it may be judged again, and of what it was: while that is the same, so is its verdict.
        self._judged: dict[str, tuple[float, tuple[object, ...]]] = {}

    async def __call__(self, opened: Opened, config: Config, matured: Set[str]) -> None:
        """Judge the routes that wait for it, the one that waits longest first, until the time is used up."""
        snapshot, versions = self._snapshot(), await opened.store.ledger_versions()
        begun, waiting = self._clock(), list[tuple[float, str, tuple[object, ...]]]()
        self._judged = {name: one for name, one in self._judged.items() if name in snapshot.routes}
        for name, route in snapshot.routes.items():
            of: tuple[object, ...] = versions.moved.get(name, 0), snapshot.config, route.epoch, route.revision
            due, before = self._judged.get(name, (begun, ()))
            if of != before and begun >= due:
                waiting.append((due, name, of))
        for _, name, of in sorted(waiting):
            start = self._clock()
            self._judged[name] = start + EVERY_SECONDS, ()  # if it fails it is tried again, in its turn
            await self._judge(opened, config, snapshot, snapshot.routes[name])
            took = self._clock() - start
            self._judged[name] = start + max(EVERY_SECONDS, REST * took), of
            if self._clock() - begun > BUDGET_SECONDS:
                return

    async def _judge(self, opened: Opened, config: Config, snapshot: Snapshot, route: Route) -> None:
        ledger = await opened.store.ledger(route.name, route.epoch)
        known = config.routes.get(route.name) if config.hash == snapshot.config else None
        policy = None if known is None else known.policy
        at_ms, place = now_ms(), (route.name, route.epoch)
        account = await asyncio.to_thread(account_of, snapshot, ledger, policy)
        made = await asyncio.to_thread(due_looks, account, at_ms)
        if made:
            async with opened.store.change() as connection:
                await write_looks(connection, [(place, *one) for one in made])
                await note_moved(connection, [route.name])
            ledger = await opened.store.ledger(route.name, route.epoch)
            account = await asyncio.to_thread(account_of, snapshot, ledger, policy)
        judged = await asyncio.to_thread(_verdict, account)
        await asyncio.to_thread(self._tell, account, judged)
        async with opened.store.read() as connection:
            before = (await read_reported(connection, [place]))[place]
        changed = changes(route, judged, before, at_ms)
        if not changed:
            return
        if any(one.after == "invalid" for one in changed):
            judged = await _with_cause(opened, account, judged)
            changed = changes(route, judged, before, at_ms)
        async with opened.store.change() as connection:
            said = {(*place, one.variant): Reported(one.after, at_ms) for one in changed}
            await write_reported(connection, said)
            await queue_events(connection, Recorded(verdicts=changed), snapshot.sinks)
        for one in changed:
            detail = f"{one.variant}: {one.before} → {one.after}. {one.sentence}"
            more = {"variant": one.variant, "from": one.before, "to": one.after}
            self._event_log.note("verdict_changed", route.name, detail, **more)

    def _tell(self, account: Account, judged: Verdict) -> None:
        try:
            self._heard(account, judged)
        except Exception:
            logger.exception("what is known of route %s cannot be passed on", account.route.name)


def changes(route: Route, judged: Verdict, before: Mapping[str, Reported], at_ms: int) -> list[ChangedVerdict]:
    """Return what of a verdict is to be reported at ``at_ms``, when this was reported before."""
    found = []
    for one in judged.comparisons:
        last = before.get(one.variant, Reported(FIRST, at_ms - QUIET_MS))
        if one.status == last.status:
            continue
        if one.status in URGENT or not 0 <= at_ms - last.at_ms < QUIET_MS:
            found.append(
                ChangedVerdict(
                    at_ms, route.name, route.epoch, one.variant, one.metric, last.status, one.status, judged.sentence
                )
            )
    return found


def due_looks(account: Account, at_ms: int) -> list[tuple[Tested, int, Look]]:
    """Return the looks that are to be made now, each with what it is of and its number; none in an alarm."""
    metric, ratio, found = account.primary, sample_ratio_of(account), list[tuple[Tested, int, Look]]()
    if metric is None or methods.method(account, metric) != "group_sequential" or not (ratio is None or ratio.ok):
        return found
    valid = in_force(account, ratio)
    others = [name for name in account.route.variants if name != account.route.baseline]
    for variant in others:
        look = methods.due_look(valid, metric, variant, at_ms, alpha_of(account) / len(others))
        if look is not None:
            tested = metric.name, metric.definition, variant, account.snapshot.backends[variant].version
            found.append((tested, len(account.looks_stored(metric, variant)) + 1, look))
    return found


async def _with_cause(opened: Opened, account: Account, judged: Verdict) -> Verdict:
    """Return an invalid verdict with the cause in its sentence, where shares are not met and it can be found."""
    ratio = sample_ratio_of(account)
    if ratio is None or ratio.ok:
        return judged
    try:
        async with opened.store.read() as connection:
            drawn = await newest_drawn(connection, account.route.name, account.route.epoch, ratio.since)
        cause = await asyncio.to_thread(cause_of, account, drawn)
        return await asyncio.to_thread(verdict, account, replace(ratio, cause=cause))
    except Exception as error:  # the verdict is right without it
        logger.warning("why the shares of %s are off cannot be looked up: %s", account.route.name, error)
        return judged


def _verdict(account: Account) -> Verdict:
    return verdict(account, sample_ratio_of(account))
