"""The sinks of the snapshot in force: one sender each, begun and ended as the file says.

Rule: here is who owns the senders' tasks. They run where the store may be changed: at the holder of the lease, where
there are several nodes. What waits for a sink that the file no longer has is dropped, and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from gateway.sinks.outlet import Outlet
from gateway.sinks.sender import LOOK_SECONDS, Sender
from gateway.sinks.stdout import Stdout
from gateway.store import Store
from gateway.store.rows import outbox
from router.snapshot import Sink

logger = logging.getLogger(__name__)

#: How often it is looked whether the file's sinks are still these.
STEP_SECONDS: Final = 0.5

RESULTS: Final = ("made", "delivered", "refused", "dropped", "erased", "pending")


class Sinks:
    """Keeps senders. ``wanted`` gives the sinks in force, None where they are another node's to send to.

    ``note`` hears, with a sink's name, why it cannot be reached, and None once it can again.
    """

    def __init__(
        self, store: Store, wanted: Callable[[], Mapping[str, Sink] | None], note: Callable[[str, str | None], None]
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._note = note
        self._running: dict[str, tuple[Sink, Sender, asyncio.Task[None]]] = {}
        self._tidied: frozenset[str] | None = None

    async def run(self) -> None:
        """Keep the senders as the file says, until cancelled."""
        try:
            while True:
                try:
                    await self._step()
                except Exception:
                    logger.exception("sinks are not as the file says")
                await asyncio.sleep(STEP_SECONDS)
        finally:
            await self._end(list(self._running))

    async def drain(self, timeout_seconds: float) -> None:
        """Wait until what senders can deliver is delivered, or the time is up: the rest waits for the next start."""
        with suppress(Exception):
            async with asyncio.timeout(timeout_seconds):
                while True:
                    if not await self._waiting():
                        return
                    await asyncio.sleep(LOOK_SECONDS)

    async def shown(self, sinks: Mapping[str, Sink], now_ms: int) -> list[dict[str, Any]]:
        """Return each sink and what became of its events, as plain JSON values. Raises what the store raises."""
        async with self._store.read() as connection:
            counts, oldest_ms = await outbox.counted(connection), await outbox.oldest_ms(connection)
        shown = []
        for name, sink in sinks.items():
            running, its = self._running.get(name), counts.get(name, Counter())
            shown.append(
                {
                    "name": name,
                    "kind": sink.kind,
                    **{result: its[result] for result in RESULTS},
                    "pending_bytes": its["pending_bytes"],
                    "oldest_seconds": max(0, now_ms - oldest_ms.get(name, now_ms)) / 1000,
                    "sending": running is not None,
                    "trouble": None if running is None else running[1].trouble,
                }
            )
        return shown

    async def _waiting(self) -> bool:
        """Return whether anything waits that could be delivered."""
        well = [name for name, (_, sender, _) in self._running.items() if sender.trouble is None]
        async with self._store.read() as connection:
            counts = await outbox.counted(connection)
        return any(counts[name]["pending"] for name in well if name in counts)

    async def _step(self) -> None:
        ours = self._wanted()
        wanted = ours or {}
        if ours is None:
            self._tidied = None  # whoever has them now may leave anything
        await self._end([name for name, (sink, _, _) in self._running.items() if wanted.get(name) != sink])
        for name, sink in wanted.items():
            if name not in self._running:
                sender = Sender(self._store, name, _made(sink), partial(self._note, name))
                self._running[name] = sink, sender, asyncio.create_task(sender.run())
        if ours is not None and self._tidied != frozenset(ours):
            await self._tidy(frozenset(wanted))

    async def _tidy(self, names: frozenset[str]) -> None:
        try:
            async with self._store.change() as connection:
                gone = await outbox.drop(connection, names)
        except Exception as error:  # the store's: it is tried again
            logger.debug("the outbox cannot be tidied", exc_info=error)
            return
        for name in sorted(gone):
            logger.warning("what waited for sinks.%s is dropped: the file has no such sink any more", name)
        self._tidied = names

    async def _end(self, names: Sequence[str]) -> None:
        ended = [self._running.pop(name)[2] for name in names]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)


def _made(sink: Sink) -> Callable[[], Outlet]:
    if sink.kind == "stdout":
        return Stdout
    from gateway.sinks.webhook import Webhook  # and httpx, which is a good part of a start: only where it is needed

    return lambda: Webhook(sink)
