"""Delivers a webhook's events, each on its own, until it is cancelled.

Rule: at least once, and one that fails delays no other: it is tried again after pauses that grow, with a part drawn at
random, while others pass it. What has failed for ``GIVE_UP_MS`` is listed, and not tried any more. A receiver that
answers 410 gets nothing until an operator enables it or changes its url; what waits for it that long is listed too.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from hashlib import blake2b
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Final

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.sinks.outlet import Outlet, Trouble
from gateway.sinks.sender import Sender
from gateway.store import Store
from gateway.store.rows import deliveries, outbox
from gateway.store.rows.deliveries import Try
from gateway.store.rows.outbox import OutboxBatch
from router.snapshot import Sink

if TYPE_CHECKING:
    from gateway.sinks.webhook import Webhook  # imports httpx, which takes a good part of the start

logger = logging.getLogger(__name__)

#: How long an event is tried.
GIVE_UP_MS: Final = 24 * 3_600_000
#: The pauses between two tries of one event: the first, and the longest.
FIRST_MS: Final = 1_000
LONGEST_MS: Final = 5 * 60_000
#: The longest pause after a failure before another event is tried: it may be deliverable, or the receiver be back.
PAUSE_SECONDS: Final = 5.0


def target(sink: Sink) -> str:
    """Return the name under which a sink's url is stored, which shows nothing of it."""
    return blake2b((sink.url or "").encode(), digest_size=8).hexdigest()


class Courier(Sender):
    """Sends by a Webhook that ``make`` makes. ``clock`` is in Unix milliseconds. Otherwise as Sender."""

    def __init__(
        self,
        store: Store,
        sink: Sink,
        make: Callable[[], Webhook],
        report: Callable[[str | None], None] = lambda _: None,
        clock: Callable[[], int] = lambda: time_ns() // 1_000_000,
    ) -> None:
        super().__init__(store, sink.name, self._made, report)
        self._make_webhook = make
        self._webhook: Webhook | None = None
        self._target = target(sink)
        self._clock = clock
        self._disabled = False

    async def step(self) -> bool:
        """Try to deliver the next event; return whether there was one. Raises Trouble, and errors of the store."""
        now_ms = self._clock()
        async with self._store.read() as connection:
            disabled = await deliveries.disabled(connection, self._sink, self._target)
            if disabled is None:
                event = await outbox.first_due(connection, self._sink, now_ms)
            else:
                event = await outbox.first(connection, self._sink)
        if disabled is None and self._disabled:
            self._recovered()
        self._disabled = disabled is not None
        if disabled is not None:
            said = f"{disabled.why}: disabled until `turnout sink enable {self._sink}`"
            self._in_trouble(said)
            if event is None or now_ms - event.made_ms < GIVE_UP_MS:
                return False
            async with self._store.change() as connection:
                await deliveries.give_up(connection, event, now_ms, said)
            return True
        if event is None:
            return False
        await self._deliver(event)
        self._recovered()
        return True

    async def _deliver(self, event: OutboxBatch) -> None:
        """Send an event, and store what came of it. Raises Trouble."""
        self._batch, self._sent, self._refused = event, 0, 0
        id_, at_ms, began = str(orjson.loads(event.lines[0])["id"]), self._clock(), monotonic()
        trouble: Trouble | None = None
        try:
            await self._send(event)
        except Trouble as error:
            trouble = error
        took_ms = round(1000 * (monotonic() - began))
        async with self._store.change() as connection:
            if trouble is None:
                status = None if self._webhook is None else self._webhook.status
                await deliveries.note(connection, self._sink, Try(at_ms, id_, status, took_ms, None))
                await outbox.finish(connection, event, 0)
                return
            await deliveries.note(connection, self._sink, Try(at_ms, id_, trouble.status, took_ms, str(trouble)))
            if trouble.gone:
                await deliveries.disable(connection, self._sink, self._target, self._clock(), str(trouble))
            await self._put_off(connection, event, trouble)
        raise trouble

    async def _put_off(self, connection: AsyncConnection, event: OutboxBatch, trouble: Trouble) -> None:
        """Have an event wait for its next try, or give it up."""
        now_ms = self._clock()
        if event.tried_ms is not None and now_ms - event.tried_ms >= GIVE_UP_MS:
            await deliveries.give_up(connection, event._replace(tries=event.tries + 1), now_ms, str(trouble))
            logger.error("sinks.%s: an event is given up after a day: %s", self._sink, trouble)
            return
        pause_ms = min(FIRST_MS * 2 ** min(event.tries, 20), LONGEST_MS) * random.uniform(0.5, 1.0)
        due_ms = now_ms + round(max(pause_ms, 1000 * trouble.after_seconds))
        await outbox.postpone(connection, event, now_ms, due_ms)

    def _made(self) -> Outlet:
        self._webhook = self._make_webhook()
        return self._webhook

    def _longest_pause(self) -> float:
        return min(super()._longest_pause(), PAUSE_SECONDS)
