"""POST requests to the url of one sink.

Rule: a request has a deadline as a whole, an answer a bound in bytes; no redirect is followed, no cookie is kept, no
proxy of the environment is used. No error text holds a secret.

Source: RFC 9110, section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from time import time
from typing import Any, Final, NamedTuple

import httpx

from gateway.files.secret import secret
from gateway.files.tls import Unusable, sink_context
from gateway.sinks.outlet import Trouble
from gateway.sinks.targets import public_addresses
from router.settings.placeholders import fill
from router.snapshot import Sink

#: Concurrent requests, where each event has its own.
AT_ONCE: Final = 8
#: How much of an answer is read, only so that its connection can be used again.
_ANSWER_BYTES: Final = 2**16


class Answered(NamedTuple):
    """The status of an answer, and for how many seconds the receiver asks to pause."""

    status: int
    after_seconds: float

    @property
    def ok(self) -> bool:
        """Whether it took what was sent."""
        return 200 <= self.status < 300


class SinkClient:
    """Sends requests to a sink's url. Raises Trouble where a secret or a certificate cannot be read.

    ``guarded`` says whether only public addresses may be reached.
    """

    def __init__(self, sink: Sink, *, guarded: bool) -> None:
        assert sink.url is not None
        self._sink = sink
        self._url = httpx.URL(sink.url)
        self._guarded = guarded
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

    async def send(self, content: bytes, headers: Mapping[str, str]) -> Answered:
        """Send one request, and return what was answered. Raises Trouble if nothing was."""
        try:
            async with asyncio.timeout(self._sink.timeout_ms / 1000):
                return await self._send(content, {**headers, **self._headers})
        except TimeoutError:
            raise Trouble(f"no answer within {self._sink.timeout_ms} ms") from None
        except httpx.TransportError as error:
            # The text of a local protocol error may quote a header, which may hold a secret.
            local = isinstance(error, httpx.LocalProtocolError)
            raise Trouble("it cannot be sent as HTTP" if local else str(error) or type(error).__name__) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Trouble(f"it cannot be sent: {type(error).__name__}") from None

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, content: bytes, headers: Mapping[str, str]) -> Answered:
        if not self._guarded:
            return await self._request(self._url, content, headers, {})
        failed: httpx.ConnectError | None = None
        host = self._url.host
        for address in await public_addresses(host, self._url.port or (443 if self._url.scheme == "https" else 80)):
            named = {} if address == host else {"sni_hostname": host}  # the certificate must be the name's
            whose = {**headers, "host": self._url.netloc.decode("ascii")}
            try:
                return await self._request(self._url.copy_with(host=address), content, whose, named)
            except httpx.ConnectError as error:
                failed = error
        assert failed is not None
        raise failed

    async def _request(
        self, url: httpx.URL, content: bytes, headers: Mapping[str, str], extensions: dict[str, Any]
    ) -> Answered:
        async with self._client.stream("POST", url, content=content, headers=headers, extensions=extensions) as answer:
            await _read(answer)
        return Answered(answer.status_code, _after_seconds(answer))


async def _read(answer: httpx.Response) -> None:
    read = 0
    async for chunk in answer.aiter_raw():
        read += len(chunk)
        if read > _ANSWER_BYTES:
            return


def _after_seconds(answer: httpx.Response) -> float:
    """Return the pause that the receiver asks for, in seconds or until a date; 0 if it asks for none."""
    asked = answer.headers.get("retry-after", "")
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time())
    return 0.0


def _filled(name: str, text: str) -> str:
    """Return a header's value with its secrets. Raises OSError or ValueError, which do not show them."""
    value = fill(text, secret)
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        raise ValueError(f"the header {name} would not be one line of ASCII without spaces at its ends")
    return value
