"""Delivers what waits for one sink, in order, until it is told to stop.

Rule: at least once. An event is deleted from the outbox after it was delivered, and what is not known to be is sent
again. Trouble, of the receiver or of the store, is waited out, longer and longer, and told once.
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

#: Until the next look at an outbox that was empty.
LOOK_SECONDS: Final = 0.2
SHORTEST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 30.0


class Sender:
    """Sends by an outlet that ``make`` makes, when there is something to send. It may raise Trouble.

    ``trouble`` is why nothing can be delivered at present; ``tell`` hears when that begins, and of None when it ends.
    """

    def __init__(
        self, store: Store, sink: str, make: Callable[[], Outlet], tell: Callable[[str | None], None] = lambda _: None
    ) -> None:
        self._store = store
        self._sink = sink
        self._make = make
        self._tell = tell
        self._outlet: Outlet | None = None
        self._portion: OutboxBatch | None = None
        self._sent = self._refused = 0  # of that portion
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
                    await self._close()  # of what was cut off in the middle nothing is used again
                    self._in_trouble(str(error))
                    await asyncio.sleep(max(pause, error.after_seconds))
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                except Exception as error:
                    # The store's, which is told of by whoever records.
                    logger.debug("the outbox of %s cannot be used", self._sink, exc_info=error)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                else:
                    if not delivered:
                        await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._close()

    async def step(self) -> bool:
        """Deliver the next portion; return whether there was one. Raises Trouble, and what the store raises."""
        async with self._store.read() as connection:
            portion = await outbox.first(connection, self._sink)
        if portion is None:
            return False
        if portion != self._portion:  # another one, or the same with something erased
            self._portion, self._sent, self._refused = portion, 0, 0
        await self._send(portion)
        async with self._store.change() as connection:
            await outbox.finish(connection, portion, self._refused)
        if self._refused:
            logger.warning("sinks.%s refused %d events: they are given up", self._sink, self._refused)
        self._well()
        return True

    async def _send(self, portion: OutboxBatch) -> None:
        """Send what is left of a portion. Raises Trouble."""
        try:
            outlet = self._outlet = self._outlet or self._make()
            while self._sent < len(portion.lines):
                rest = portion.lines[self._sent :]
                together = rest[: outlet.take(rest)]
                self._refused += await outlet.send(together)
                self._sent += len(together)
        except Trouble:
            raise
        except Exception as error:
            logger.exception("sinks.%s cannot be sent to", self._sink)
            raise Trouble(f"it cannot be sent: {type(error).__name__}") from error

    async def _close(self) -> None:
        outlet, self._outlet = self._outlet, None
        if outlet is not None:
            with suppress(Exception):
                await outlet.close()

    def _in_trouble(self, reason: str) -> None:
        before, self.trouble = self.trouble, reason
        if before is None:
            self._tell(reason)

    def _well(self) -> None:
        if self.trouble is not None:
            self.trouble = None
            self._tell(None)
