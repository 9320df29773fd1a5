"""CloudEvents over HTTP.

Rule: an answer of 2xx, and only that, is a delivery. 400, 413 and 422 say that the event is at fault: of several, each
is sent again alone, and one that is refused alone is dropped and counted. Anything else (another status, a redirect, no
answer) is a failure of the receiver, which passes or which an operator mends: the event is sent again, without end,
after pauses that grow.

No cookie is kept and no proxy of the environment is used. No error text holds a secret.

Source: CloudEvents 1.0.2, HTTP Protocol Binding, sections 3.1 (binary), 3.2 (structured) and 3.3 (batched);
RFC 9110, section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson

from gateway.files.secret import secret
from gateway.files.tls import Unusable, sink_context
from gateway.sinks.outlet import Trouble
from router.settings.placeholders import fill
from router.snapshot import Sink

#: Events in one batch, and bytes: what receivers take (Azure Event Grid 1 MiB, Google Eventarc 512 KiB).
BATCH_EVENTS: Final = 100
BATCH_BYTES: Final = 2**18
#: Concurrent requests, where each event has its own.
AT_ONCE: Final = 8

#: Statuses that say that the event is at fault, and not the receiver.
AT_FAULT: Final = frozenset({400, 413, 422})

#: The longest pause that a receiver may ask for.
LONGEST_SECONDS: Final = 300.0
#: How much of an answer is read, only so that its connection can be used again.
_ANSWER_BYTES: Final = 2**16

#: Printable ASCII without what the binding wants escaped in a header: the space, the quotation mark, the percent sign.
_PLAIN: Final = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")


class Webhook:
    """Sends one sink's events to its url. Raises Trouble where a secret or a certificate cannot be read."""

    def __init__(self, sink: Sink) -> None:
        assert sink.url is not None
        self._sink = sink
        self._url = sink.url
        try:
            self._headers = {name: _filled(name, text) for name, text in sink.headers}
            context = sink_context(sink)
        except (OSError, ValueError, Unusable) as error:
            raise Trouble(str(error)) from None
        self._client = httpx.AsyncClient(
            verify=False if context is None else context,  # without https there is nothing to verify
            timeout=None,  # each request has a deadline as a whole
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=AT_ONCE, keepalive_expiry=4.0),
        )
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))

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
        await self._client.aclose()

    async def _batch(self, lines: Sequence[bytes]) -> int:
        """Send lines in one request; where that is refused, in halves, down to those at fault."""
        content = b"[" + b",".join(lines) + b"]"
        if await self._post(content, {"content-type": "application/cloudevents-batch+json; charset=UTF-8"}):
            return 0
        if len(lines) == 1:
            return 1
        half = len(lines) // 2
        return await self._batch(lines[:half]) + await self._batch(lines[half:])

    async def _structured(self, line: bytes) -> bool:
        return await self._post(line, {"content-type": "application/cloudevents+json; charset=UTF-8"})

    async def _binary(self, line: bytes) -> bool:
        event = orjson.loads(line)
        data, content_type = event.pop("data"), event.pop("datacontenttype")
        return await self._post(orjson.dumps(data), {"content-type": content_type, **_attributes(event)})

    async def _post(self, content: bytes, headers: Mapping[str, str]) -> bool:
        """Send one request; return False if it was refused for its content. Raises Trouble."""
        try:
            async with (
                asyncio.timeout(self._sink.timeout_ms / 1000),
                self._client.stream("POST", self._url, content=content, headers={**headers, **self._headers}) as answer,
            ):
                await _read(answer)
        except TimeoutError:
            raise Trouble(f"no answer within {self._sink.timeout_ms} ms") from None
        except httpx.TransportError as error:
            # The text of a local protocol error may quote a header, which may hold a secret.
            local = isinstance(error, httpx.LocalProtocolError)
            raise Trouble("it cannot be sent as HTTP" if local else str(error) or type(error).__name__) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Trouble(f"it cannot be sent: {type(error).__name__}") from None
        if answer.is_success:
            return True
        if answer.status_code in AT_FAULT:
            return False
        raise Trouble(f"it answers {answer.status_code}", _after_seconds(answer))


async def _read(answer: httpx.Response) -> None:
    read = 0
    async for chunk in answer.aiter_raw():
        read += len(chunk)
        if read > _ANSWER_BYTES:
            return


def _after_seconds(answer: httpx.Response) -> float:
    """Return the pause that the receiver asks for; a date counts as none: a try that is too early is refused again."""
    asked = answer.headers.get("retry-after", "")
    return min(float(asked), LONGEST_SECONDS) if asked.isascii() and asked.isdigit() else 0.0


def _attributes(event: Mapping[str, Any]) -> dict[str, str]:
    return {f"ce-{name}": quote(str(value), safe=_PLAIN) for name, value in event.items()}


def _filled(name: str, text: str) -> str:
    """Return a header's value with its secrets. Raises OSError or ValueError, which do not show them."""
    value = fill(text, secret)
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        raise ValueError(f"the header {name} would not be one line of ASCII without spaces at its ends")
    return value
