"""Clients in a closed loop that keep every prediction id: one request at a time on each connection.

Rule: measures and judges nothing. A client in a closed loop waits when the server is slow, so its quantiles say what a
request costs, not what users of an overloaded server would see.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import httptools
import uvloop

#: How long the last answers may take.
GRACE_SECONDS: Final = 10.0

#: The header of an answer that names its prediction.
_ID: Final = b"turnout-prediction-id"


@dataclass(frozen=True, slots=True)
class Asked:
    """The answers: how long each took, and the prediction id of each that had one."""

    seconds: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)


class Asking(asyncio.Protocol):
    """One connection: sends the next request when the last is answered, until ``end`` (of ``time.perf_counter``)."""

    def __init__(self, requests: Iterator[bytes], end: float, asked: Asked, done: asyncio.Future[None]) -> None:
        self._requests = requests
        self._end = end
        self._asked = asked
        self._done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == _ID:
            self._asked.ids.append(value.decode())

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        if self._parser.get_status_code() >= 300:
            self._finish(RuntimeError(f"answered {self._parser.get_status_code()}"))
            return
        self._asked.seconds.append(now - self._began)
        if now >= self._end:
            self._finish(None)
            return
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(error or ConnectionResetError("the server hung up"))

    def _ask(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._finish(None)
            return
        self._parser = httptools.HttpResponseParser(self)
        self._began = time.perf_counter()
        self._transport.write(request)

    def _finish(self, error: Exception | None) -> None:
        if not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)
        self._transport.close()


def ask(host: str, port: int, requests: Sequence[bytes], *, connections: int, seconds: float, most: int = 0) -> Asked:
    """Send the requests in turn, again and again, for ``seconds`` or until ``most`` were sent (0: no bound).

    Raises RuntimeError if an answer is 300 or more, ConnectionError if a connection breaks, TimeoutError if one hangs.
    """

    async def run() -> Asked:
        loop = asyncio.get_running_loop()
        end = time.perf_counter() + seconds
        endless = itertools.cycle(requests)
        each = itertools.islice(endless, most) if most else endless
        asked, waiting = Asked(), list[asyncio.Future[None]]()
        for _ in range(connections):
            waiting.append(loop.create_future())
            await loop.create_connection(lambda: Asking(each, end, asked, waiting[-1]), host, port)
        # A connection that hangs must not hang the measurement.
        await asyncio.wait_for(asyncio.gather(*waiting), seconds + GRACE_SECONDS)
        return asked

    return uvloop.run(run())
