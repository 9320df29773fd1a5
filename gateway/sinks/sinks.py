"""Runs one sender for each sink of the snapshot in force.

Rule: the senders' tasks are owned here. They run on the node that may change the store: with several nodes, the holder
of the lease. Events that wait for a sink that was removed from the operator's file are dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gateway.sinks.courier import Courier, target
from gateway.sinks.outlet import Outlet
from gateway.sinks.sender import LOOK_SECONDS, Sender
from gateway.sinks.stdout import Stdout
from gateway.store import Store
from gateway.store.rows import deliveries, outbox
from router.snapshot import Sink

if TYPE_CHECKING:
    from gateway.sinks.webhook import Webhook

logger = logging.getLogger(__name__)

#: How often the senders are compared with the sinks in force.
STEP_SECONDS: Final = 0.5

RESULTS: Final = ("made", "delivered", "refused", "dropped", "erased", "dead", "pending")


class Sinks:
    """Keeps the senders. ``wanted`` returns the sinks in force, None while another node is the one that sends.

    ``note`` is called with a sink's name and why it cannot be reached, and with None once it can be again.
    """

    def __init__(
        self, store: Store, wanted: Callable[[], Mapping[str, Sink] | None], note: Callable[[str, str | None], None]
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._note = note
        self._running: dict[str, tuple[Sink, Sender, asyncio.Task[None]]] = {}
        self._dropped_for: frozenset[str] | None = None

    async def run(self) -> None:
        """Start and stop senders so that they are those of the sinks in force, until cancelled."""
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
        """Wait until everything that can be delivered is, or the time is up: the rest is sent after the next start."""
        with suppress(Exception):
            async with asyncio.timeout(timeout_seconds):
                while True:
                    if not await self._waiting():
                        return
                    await asyncio.sleep(LOOK_SECONDS)

    async def shown(self, sinks: Mapping[str, Sink], now_ms: int) -> list[dict[str, Any]]:
        """Return each sink with the counts of its events, as plain JSON values. Raises errors of the store."""
        async with self._store.read() as connection:
            counts, oldest_ms = await outbox.counted(connection), await outbox.oldest_ms(connection)
            disabled = {
                name for name, sink in sinks.items() if await deliveries.disabled(connection, name, target(sink))
            }
        shown = []
        for name, sink in sinks.items():
            running, results = self._running.get(name), counts.get(name, Counter())
            shown.append(
                {
                    "name": name,
                    "kind": sink.kind,
                    **{result: results[result] for result in RESULTS},
                    "pending_bytes": results["pending_bytes"],
                    "oldest_seconds": max(0, now_ms - oldest_ms.get(name, now_ms)) / 1000,
                    "sending": running is not None,
                    "trouble": None if running is None else running[1].trouble,
                    "disabled": name in disabled,
                }
            )
        return shown

    def _sender(self, sink: Sink) -> Sender:
        note = partial(self._note, sink.name)
        if sink.kind == "webhook":
            return Courier(self._store, sink, partial(_webhook, sink), note)
        return Sender(self._store, sink.name, Stdout if sink.kind == "stdout" else partial(_events, sink), note)

    async def _waiting(self) -> bool:
        """Return whether events wait for a sink that can be reached."""
        reachable = [name for name, (_, sender, _) in self._running.items() if sender.trouble is None]
        async with self._store.read() as connection:
            counts = await outbox.counted(connection)
        return any(counts[name]["pending"] for name in reachable if name in counts)

    async def _step(self) -> None:
        ours = self._wanted()
        wanted = ours or {}
        if ours is None:
            self._dropped_for = None  # the node that sends now may leave any events
        await self._end([name for name, (sink, _, _) in self._running.items() if wanted.get(name) != sink])
        for name, sink in wanted.items():
            if name not in self._running:
                sender = self._sender(sink)
                self._running[name] = sink, sender, asyncio.create_task(sender.run())
        if ours is not None and self._dropped_for != frozenset(ours):
            await self._drop_others(frozenset(wanted))

    async def _drop_others(self, names: frozenset[str]) -> None:
        try:
            async with self._store.change() as connection:
                gone = await outbox.drop(connection, names)
        except Exception as error:  # the store failed: the next step tries again
            logger.debug("the outbox cannot be tidied", exc_info=error)
            return
        for name in sorted(gone):
            logger.warning("what waited for sinks.%s is dropped: the file has no such sink any more", name)
        self._dropped_for = names

    async def _end(self, names: Sequence[str]) -> None:
        ended = [self._running.pop(name)[2] for name in names]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)


def _events(sink: Sink) -> Outlet:
    from gateway.sinks.http_events import HttpEvents  # imports httpx, which takes a good part of the start

    return HttpEvents(sink)


def _webhook(sink: Sink) -> Webhook:
    from gateway.sinks.webhook import Webhook

    return Webhook(sink)
