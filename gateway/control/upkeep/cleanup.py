"""Remove what is older than its retention, and fold what is old, at low priority.

Rule: after each chunk this pauses for nine times as long as the chunk took, and while much of the journal waits to be
recorded nothing is removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Final

from gateway.store import Store, reason
from gateway.store.counts import history, hours
from gateway.store.fleet.lease import LeaseLost
from gateway.store.retention import KINDS, Expired, Kind
from gateway.store.schema import partitions
from router.snapshot import Gateway

logger = logging.getLogger(__name__)

#: From the start to the first sweep, and from the end of one to the next.
FIRST_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 0.05

#: So much journal may wait to be recorded; with more, removing waits for the next sweep.
BEHIND_BYTES: Final = 2**22


Exclusively = Callable[[Callable[[], Awaitable[Expired]]], Awaitable[Expired]]


class Retention:
    """Sweeps one store. ``behind`` returns how many bytes of the journal wait.

    ``on_expired`` is called with a kind and how much of it was removed. ``exclusively`` runs a change while the
    recorder does not, and has it forget what it remembers of the store.
    """

    def __init__(
        self,
        store: Store,
        *,
        behind: Callable[[], int],
        on_expired: Callable[[str, int], None],
        exclusively: Exclusively,
    ) -> None:
        self._store = store
        self._behind = behind
        self._on_expired = on_expired
        self._exclusively = exclusively
        self._hours_from: int | None = None

    async def sweep(self, kept: Gateway, now_ms: int) -> None:
        """Remove everything that is older than ``kept`` says, fold what is old, and make room for the days to come."""
        await self._store.make_partitions(partitions.day_of(now_ms))
        for kind in KINDS:
            bound = getattr(kept, kind.setting)
            if bound is not None:
                await self._expire(kind, bound if kind.counted else now_ms - bound)

    async def fold(self) -> None:
        """Fold old plans, and the counts of what they assigned. A route that cannot be folded does not stop the others.

        Raises what the first failing route raised, once all were tried.
        """
        async with self._store.read() as connection:
            due = await history.due(connection)
        failure: Exception | None = None
        for route in due:
            try:
                await self._fold(route)
            except LeaseLost:
                raise
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def fold_hours(self, now_ms: int) -> None:
        """Fold hours that are old into days: at the start, and after each day."""
        while self._hours_from != hours.kept_from(now_ms) and self._behind() <= BEHIND_BYTES:
            began = monotonic()
            async with self._store.change() as connection:
                if not await hours.fold(connection, now_ms):
                    self._hours_from = hours.kept_from(now_ms)
            await asyncio.sleep(max(PAUSE_SECONDS, 9 * (monotonic() - began)))

    async def _fold(self, route: str) -> None:
        more = True
        while more and self._behind() <= BEHIND_BYTES:
            began = monotonic()
            async with self._store.change() as connection:
                more = await history.fold(connection, route)
            await asyncio.sleep(max(PAUSE_SECONDS, 9 * (monotonic() - began)))

    async def _expire(self, kind: Kind, before_ms: int) -> None:
        start: int | None = 0
        while start is not None and self._behind() <= BEHIND_BYTES:
            began = monotonic()
            removed, start = await self._next(kind, before_ms, start)
            for name, n in removed.items():
                if n:
                    self._on_expired(name, n)
            await asyncio.sleep(max(PAUSE_SECONDS, 9 * (monotonic() - began)))

    async def _next(self, kind: Kind, before_ms: int, start: int) -> Expired:
        chunk = partial(self._chunk, kind, before_ms, start)
        if kind.due is None:
            return await chunk()
        async with self._store.read() as connection:
            due = await kind.due(connection, before_ms)
        return await self._exclusively(chunk) if due else Expired({}, None)

    async def _chunk(self, kind: Kind, before_ms: int, start: int) -> Expired:
        async with self._store.change() as connection:
            return await kind.expire(connection, before_ms, start)


async def keep_sweeping(retention: Retention, kept: Callable[[], Gateway], now_ms: Callable[[], int]) -> None:
    """Sweep and fold about once a minute, for ever. One that fails is tried again, and does not stop the other."""
    chores: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
        ("what is old stays for now", lambda: retention.sweep(kept(), now_ms())),
        ("old plans are not folded for now", retention.fold),
        ("old hours are not folded for now", lambda: retention.fold_hours(now_ms())),
    )
    failing, pause = set[str](), FIRST_SECONDS
    while True:
        await asyncio.sleep(pause)
        pause = SWEEP_SECONDS
        for said, chore in chores:
            try:
                await chore()
            except LeaseLost:
                pass  # of several nodes, the holder of the lease does it
            except Exception as error:
                if said not in failing:
                    logger.warning("%s: %s", said, reason(error))
                    logger.debug(said, exc_info=error)
                failing.add(said)
                continue
            failing.discard(said)
