"""Standard Webhooks: each event in a request of its own, signed.

Rule: an answer of 2xx, and only that, is a delivery; 410 says that the receiver wants nothing any more. An event has
the same ``webhook-id`` however often it is sent; the time and the signature are those of each request.

Source: Standard Webhooks 1.0.0, sections "Webhook headers", "Deliverability and reliability".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from time import time
from typing import Final

import orjson

from gateway.files.secret import secret
from gateway.sinks.outlet import Trouble
from gateway.sinks.signature import signed, signing_keys
from gateway.sinks.sink_client import SinkClient
from router.settings.placeholders import fill
from router.snapshot import Sink

#: The longest pause that a receiver may ask for.
LONGEST_SECONDS: Final = 3_600.0


class Webhook:
    """Sends one sink's events to its url. Raises Trouble where a secret is missing. ``clock`` is in Unix seconds."""

    def __init__(self, sink: Sink, clock: Callable[[], float] = time) -> None:
        assert sink.secret is not None
        try:
            self._keys = signing_keys(fill(sink.secret, secret))
        except (OSError, ValueError) as error:
            raise Trouble(f"secret: {error}") from None
        #: What was answered to the last event that was delivered.
        self.status: int | None = None
        self._client = SinkClient(sink, guarded=not sink.allow_private)
        self._clock = clock

    def take(self, lines: Sequence[bytes]) -> int:
        return 1

    async def send(self, lines: Sequence[bytes]) -> int:
        (body,) = lines
        message, seconds = str(orjson.loads(body)["id"]), int(self._clock())
        answered = await self._client.send(
            body,
            {
                "content-type": "application/cloudevents+json; charset=UTF-8",
                "webhook-id": message,
                "webhook-timestamp": str(seconds),
                "webhook-signature": signed(self._keys, message, seconds, body),
            },
        )
        if not answered.ok:
            status = answered.status
            redirects = ", and redirects are not followed" if 300 <= status < 400 else ""
            pause = min(answered.after_seconds, LONGEST_SECONDS)
            raise Trouble(f"it answers {status}{redirects}", pause, status=status, gone=status == HTTPStatus.GONE)
        self.status = answered.status
        return 0

    async def close(self) -> None:
        await self._client.close()
