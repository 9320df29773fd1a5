"""What is read for operators: ledgers, past epochs, sinks, exports.

Rule: reading only. What one statement of the store answers is asked of ``store`` itself; here is what also needs the
snapshot in force, or something else than the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from gateway.control.event_log import now_ms
from gateway.control.opened import Opened
from gateway.store import Store, StoreError, audit
from gateway.store.audit import Audited
from gateway.store.counts.ledger import Epoch, Ledger
from gateway.store.export_batches import ExportBatch, exported
from gateway.store.rows import calls
from gateway.store.rows.bounded_reads import Drawn, newest_drawn, newest_served
from router.snapshot import Snapshot

#: How far behind recording may be before an export pauses between batches, and for how long.
BEHIND_SECONDS: Final = 3.0
EXPORT_PAUSE_SECONDS: Final = 0.2


class Queries:
    """Answers over the store and the snapshot in force. Every one raises StoreError while the store is not open."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self.opened: Opened | None = None
        self._snapshot = snapshot

    @property
    def ready(self) -> bool:
        """Whether the store is open."""
        return self.opened is not None

    @property
    def store(self) -> Store:
        return self._needed().store

    def _needed(self) -> Opened:
        if self.opened is None:
            raise StoreError("the store is not open yet")
        return self.opened

    async def ledgers(self, routes: Collection[str]) -> Mapping[str, Ledger]:
        """Return what is counted of routes in their present epochs. Raises KeyError, or what the store raises."""
        places = {(route, self._snapshot().routes[route].epoch) for route in routes}
        return {place[0]: ledger for place, ledger in (await self.store.ledgers(places)).items()}

    async def past(self, route: str, epoch: str) -> tuple[Epoch, Ledger] | None:
        """Return what a route was in an epoch and what is counted of it; None if the route had no such epoch."""
        found = await self.store.epoch(route, epoch)
        return None if found is None else (found, await self.store.ledger(route, epoch))

    async def drawn(self, route: str, since: int) -> Sequence[Drawn]:
        """Return the newest requests of a route's present epoch, in the periods from ``since`` on."""
        async with self.store.read() as connection:
            return await newest_drawn(connection, route, self._snapshot().routes[route].epoch, since)

    async def served(self, route: str, since_ms: int) -> Mapping[str, int]:
        """Return how many of a route's newest calls since a time each variant answered."""
        async with self.store.read() as connection:
            return await newest_served(connection, route, self._snapshot().routes[route].epoch, since_ms)

    async def audited(
        self, limit: int, *, before: int | None = None, route: str | None = None, act: str | None = None
    ) -> list[Audited]:
        """Return entries of the audit log, the newest first, as ``audit.listed``."""
        async with self.store.read() as connection:
            return await audit.listed(connection, limit, before=before, route=route, act=act)

    async def sinks(self) -> Sequence[Mapping[str, Any]]:
        """Return each sink of the snapshot, and what became of the events that were made for it."""
        return await self._needed().sinks.shown(self._snapshot().sinks, now_ms())

    async def exported(self, route: str, since_ms: int, until_ms: int, *, texts: bool) -> AsyncIterator[ExportBatch]:
        """Yield a route's calls of [since, until) with their outcomes, batch by batch; ``texts`` as in the store.

        Raises KeyError if the route is neither served nor ever was, and what the store raises.
        """
        opened = self._needed()
        if route not in self._snapshot().routes:
            async with opened.store.read() as connection:
                if await calls.latest_ms(connection, route) is None:
                    raise KeyError(route)
        async for batch in exported(opened.store, calls.Span(route, since_ms, until_ms), texts=texts):
            yield batch
            if opened.recorder.lag()[0] > BEHIND_SECONDS:
                await asyncio.sleep(EXPORT_PAUSE_SECONDS)  # the recorder needs the interpreter more
