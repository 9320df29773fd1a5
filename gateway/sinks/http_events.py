"""CloudEvents over HTTP.

Rule: an answer of 2xx, and only that, is a delivery. 400, 413 and 422 say that the event is at fault: of several, each
is sent again alone, and one that is refused alone is dropped and counted. Anything else (another status, a redirect, no
answer) is a failure of the receiver, which passes or which an operator mends: the event is sent again, without end,
after pauses that grow.

Source: CloudEvents 1.0.2, HTTP Protocol Binding, sections 3.1 (binary), 3.2 (structured) and 3.3 (batched).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import orjson

from gateway.sinks.outlet import Trouble
from gateway.sinks.sink_client import AT_ONCE, SinkClient
from router.snapshot import Sink

#: Events in one batch, and bytes: what receivers take (Azure Event Grid 1 MiB, Google Eventarc 512 KiB).
BATCH_EVENTS: Final = 100
BATCH_BYTES: Final = 2**18

#: Statuses that say that the event is at fault, and not the receiver.
AT_FAULT: Final = frozenset({400, 413, 422})

#: The longest pause that a receiver may ask for.
LONGEST_SECONDS: Final = 300.0

#: Printable ASCII without what the binding wants escaped in a header: the space, the quotation mark, the percent sign.
_PLAIN: Final = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")


class HttpEvents:
    """Sends one sink's events to its url. Raises Trouble where a secret or a certificate cannot be read."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._client = SinkClient(sink, guarded=False)

    def take(self, lines: Sequence[bytes]) -> int:
        if self._sink.mode != "batch":
            return min(len(lines), AT_ONCE)
        size = 0
        for n, line in enumerate(lines[:BATCH_EVENTS]):
            size += len(line) + 1
            if n and size > BATCH_BYTES:
                return n
        return min(len(lines), BATCH_EVENTS)

    async def send(self, lines: Sequence[bytes]) -> int:
        if self._sink.mode == "batch":
            return await self._batch(lines)
        send = self._structured if self._sink.mode == "structured" else self._binary
        sent = await asyncio.gather(*map(send, lines), return_exceptions=True)
        failed = [one for one in sent if isinstance(one, BaseException)]
        if failed:
            raise max(failed, key=lambda error: getattr(error, "after_seconds", 0.0))
        return sum(not taken for taken in sent)

    async def close(self) -> None:
        await self._client.close()

    async def _batch(self, lines: Sequence[bytes]) -> int:
        """Send lines in one request; where that is refused, in halves, down to those at fault."""
        content = b"[" + b",".join(lines) + b"]"
        if await self._taken(content, {"content-type": "application/cloudevents-batch+json; charset=UTF-8"}):
            return 0
        if len(lines) == 1:
            return 1
        half = len(lines) // 2
        return await self._batch(lines[:half]) + await self._batch(lines[half:])

    async def _structured(self, line: bytes) -> bool:
        return await self._taken(line, {"content-type": "application/cloudevents+json; charset=UTF-8"})

    async def _binary(self, line: bytes) -> bool:
        event = orjson.loads(line)
        data, content_type = event.pop("data"), event.pop("datacontenttype")
        return await self._taken(orjson.dumps(data), {"content-type": content_type, **_attributes(event)})

    async def _taken(self, content: bytes, headers: Mapping[str, str]) -> bool:
        """Send one request; return False if it was refused for its content. Raises Trouble."""
        answered = await self._client.send(content, headers)
        if answered.ok:
            return True
        if answered.status in AT_FAULT:
            return False
        raise Trouble(f"it answers {answered.status}", min(answered.after_seconds, LONGEST_SECONDS))


def _attributes(event: Mapping[str, Any]) -> dict[str, str]:
    return {f"ce-{name}": quote(str(value), safe=_PLAIN) for name, value in event.items()}
