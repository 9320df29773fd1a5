"""Clients that ask as fast as they are answered: one request at a time on each connection.

Rule: measures and judges nothing. A client in a closed loop waits when the server is slow, so its quantiles say what a
request costs, not what users of an overloaded server would see.
"""

from __future__ import annotations

import asyncio
import time
from typing import cast

import httptools
import uvloop

#: How long the last answers may take.
GRACE_SECONDS = 10.0


class Asking(asyncio.Protocol):
    """One connection: asks, and asks again when answered, until ``end`` (of ``time.perf_counter``)."""

    def __init__(self, request: bytes, end: float, done: asyncio.Future[None]) -> None:
        self._request = request
        self._end = end
        self._done = done
        self.seconds: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        if self._parser.get_status_code() != 200:
            self._finish(RuntimeError(f"answered {self._parser.get_status_code()}"))
            return
        self.seconds.append(now - self._asked)
        if now >= self._end:
            self._finish(None)
            return
        self._parser = httptools.HttpResponseParser(self)
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(error or ConnectionResetError("the server hung up"))

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._request)

    def _finish(self, error: Exception | None) -> None:
        if not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)
        self._transport.close()


def ask(host: str, port: int, request: bytes, *, connections: int, seconds: float) -> list[float]:
    """Return the seconds that each answer took, of everything asked within ``seconds``.

    Raises RuntimeError if an answer is not 200, ConnectionError if a connection breaks, TimeoutError if one hangs.
    """

    async def run() -> list[float]:
        loop = asyncio.get_running_loop()
        end = time.perf_counter() + seconds
        clients: list[Asking] = []
        waiting: list[asyncio.Future[None]] = []
        for _ in range(connections):
            waiting.append(loop.create_future())
            _, client = await loop.create_connection(lambda: Asking(request, end, waiting[-1]), host, port)
            clients.append(client)
        # A connection that hangs must not hang the measurement.
        await asyncio.wait_for(asyncio.gather(*waiting), seconds + GRACE_SECONDS)
        return [taken for client in clients for taken in client.seconds]

    return uvloop.run(run())
