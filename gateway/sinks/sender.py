"""Delivers the events that wait for one sink, in order, until it is cancelled.

Rule: at least once. An event is deleted from the outbox after it was delivered; one whose delivery is uncertain is sent
again. When the receiver or the store fails, the sender tries again after pauses that grow, and reports it once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from gateway.sinks.outlet import Outlet, Trouble
from gateway.store import Store
from gateway.store.rows import outbox
from gateway.store.rows.outbox import OutboxBatch

logger = logging.getLogger(__name__)

#: The pause before an outbox that was empty is read again.
LOOK_SECONDS: Final = 0.2
SHORTEST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 30.0


class Sender:
    """Sends by an outlet that ``make`` makes when there is something to send; ``make`` may raise Trouble.

    ``trouble`` is why nothing can be delivered at present. ``report`` is called with it when it begins, and with None
    when it ends.
    """

    def __init__(
        self, store: Store, sink: str, make: Callable[[], Outlet], report: Callable[[str | None], None] = lambda _: None
    ) -> None:
        self._store = store
        self._sink = sink
        self._make = make
        self._report = report
        self._outlet: Outlet | None = None
        self._batch: OutboxBatch | None = None
        self._sent = self._refused = 0  # of that batch
        self.trouble: str | None = None

    async def run(self) -> None:
        """Deliver until cancelled."""
        pause = SHORTEST_PAUSE_SECONDS
        try:
            while True:
                try:
                    delivered = await self.step()
                    pause = SHORTEST_PAUSE_SECONDS
                except Trouble as error:
                    await self._close()  # a connection that failed in the middle is not used again
                    self._in_trouble(str(error))
                    await asyncio.sleep(max(pause, error.after_seconds))
                    pause = min(pause * 2, self._longest_pause())
                except Exception as error:
                    # The store failed: the recorder reports that.
                    logger.debug("the outbox of %s cannot be used", self._sink, exc_info=error)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, self._longest_pause())
                else:
                    if not delivered:
                        await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._close()

    async def step(self) -> bool:
        """Deliver the next batch; return whether there was one. Raises Trouble, and errors of the store."""
        async with self._store.read() as connection:
            batch = await outbox.first(connection, self._sink)
        if batch is None:
            return False
        if batch != self._batch:  # another one, or the same after some events were erased
            self._batch, self._sent, self._refused = batch, 0, 0
        await self._send(batch)
        async with self._store.change() as connection:
            await outbox.finish(connection, batch, self._refused)
        if self._refused:
            logger.warning("sinks.%s refused %d events: they are given up", self._sink, self._refused)
        self._recovered()
        return True

    async def _send(self, batch: OutboxBatch) -> None:
        """Send the lines of a batch that were not sent before. Raises Trouble."""
        try:
            outlet = self._outlet = self._outlet or self._make()
            while self._sent < len(batch.lines):
                rest = batch.lines[self._sent :]
                together = rest[: outlet.take(rest)]
                self._refused += await outlet.send(together)
                self._sent += len(together)
        except Trouble:
            raise
        except Exception as error:
            logger.exception("sinks.%s cannot be sent to", self._sink)
            raise Trouble(f"it cannot be sent: {type(error).__name__}") from error

    def _longest_pause(self) -> float:
        return LONGEST_PAUSE_SECONDS

    async def _close(self) -> None:
        outlet, self._outlet = self._outlet, None
        if outlet is not None:
            with suppress(Exception):
                await outlet.close()

    def _in_trouble(self, reason: str) -> None:
        before, self.trouble = self.trouble, reason
        if before is None:
            self._report(reason)

    def _recovered(self) -> None:
        if self.trouble is not None:
            self.trouble = None
            self._report(None)
