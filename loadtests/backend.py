"""The models behind the measurements, in one small program. ``python -m loadtests.backend [--wait-ms …]``.

Rule: it costs as little as a server can, so that the measured cost is that of the gateway in front of it. It takes a
free port, prints the port as its first line of output, and ends when its standard input closes. An ``Answering`` says
how it answers.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, cast

import httptools
import uvloop

from loadtests.lifeline import until_stdin_closes

CONTENT: Final = (
    b'{"model_name":"m","model_version":"1","outputs":[{"name":"y","shape":[1],"datatype":"INT64","data":[7]}]}'
)
_EVENTS_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
#: Makes an event about as long as one token of a language model with the JSON around it.
_PADDING: Final = "x" * 120


class Answering(Protocol):
    """One way to answer: called when a request is complete."""

    def __call__(self, transport: asyncio.Transport) -> None: ...


def answer(content: bytes, content_type: str = "application/json") -> bytes:
    """Return a whole answer as bytes."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


def at_once(whole: bytes) -> Answering:
    """Answer at once."""
    return lambda transport: transport.write(whole)


def silent() -> Answering:
    """Take everything and never answer."""
    return lambda transport: None


def late(whole: bytes, seconds: float) -> Answering:
    """Answer each request after ``seconds``, however many are waiting."""
    loop = asyncio.get_running_loop()

    def answering(transport: asyncio.Transport) -> None:
        loop.call_later(seconds, _write, transport, whole)

    return answering


def limited(whole: bytes, seconds: float, at_a_time: int) -> Answering:
    """Serve ``at_a_time`` requests at once, each for ``seconds``; the others queue, as for one accelerator."""
    loop = asyncio.get_running_loop()
    queue = deque[asyncio.Transport]()
    busy = 0

    def begin(transport: asyncio.Transport) -> None:
        nonlocal busy
        busy += 1
        loop.call_later(seconds, end, transport)

    def end(transport: asyncio.Transport) -> None:
        nonlocal busy
        busy -= 1
        _write(transport, whole)
        while queue and busy < at_a_time:
            waiting = queue.popleft()
            if not waiting.is_closing():
                begin(waiting)

    def answering(transport: asyncio.Transport) -> None:
        if busy < at_a_time:
            begin(transport)
        else:
            queue.append(transport)

    return answering


def events(count: int, every_seconds: float) -> Answering:
    """Answer with a stream of server-sent events, each of which holds the time it was sent (``time.monotonic``)."""
    loop = asyncio.get_running_loop()

    def send(transport: asyncio.Transport, left: int) -> None:
        if transport.is_closing():
            return
        if not left:
            transport.write(b"0\r\n\r\n")
            return
        event = f'data: {{"at":{time.monotonic():.6f},"token":"{_PADDING}"}}\n\n'.encode()
        transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        loop.call_later(every_seconds, send, transport, left - 1)

    def answering(transport: asyncio.Transport) -> None:
        transport.write(_EVENTS_HEAD)
        loop.call_later(every_seconds, send, transport, count)

    return answering


class Connection(asyncio.Protocol):
    """One connection: reads whole requests and passes them to an Answering; requests for /large go to ``large``."""

    def __init__(self, answering: Answering, large: Answering) -> None:
        self._answering = answering
        self._large = large
        self._target = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_message_complete(self) -> None:
        (self._large if self._target.startswith(b"/large") else self._answering)(self._transport)


def ranking(items: int, first: int) -> bytes:
    """Return a ranker's answer: a list of ids from ``first`` on, every second of which another ranker returns too."""
    return b'{"items":[%b]}' % b",".join(b'{"id":"doc-%d"}' % (first + 2 * number) for number in range(items))


def _write(transport: asyncio.Transport, whole: bytes) -> None:
    if not transport.is_closing():
        transport.write(whole)


def _answering(options: argparse.Namespace) -> Answering:
    whole = answer(CONTENT)
    if options.bytes:
        whole = answer(b"x" * options.bytes, "application/octet-stream")
    if options.ranking is not None:
        whole = answer(ranking(20, options.ranking))
    seconds = options.wait_ms / 1000
    if options.silent:
        return silent()
    if options.events:
        return events(options.events, seconds)
    if options.at_a_time:
        return limited(whole, seconds, options.at_a_time)
    return late(whole, seconds) if seconds else at_once(whole)


async def serve(answering: Callable[[], Answering], large: int | None = None) -> None:
    """Serve until standard input closes."""
    loop = asyncio.get_running_loop()
    how = answering()
    how_large = how if large is None else at_once(answer(b"x" * large, "application/octet-stream"))
    server = await loop.create_server(lambda: Connection(how, how_large), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await until_stdin_closes()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m loadtests.backend")
    parser.add_argument("--wait-ms", type=float, default=0.0, help="before an answer, or between events")
    parser.add_argument("--at-a-time", type=int, default=0, help="how many are worked on at a time (0: all)")
    parser.add_argument("--bytes", type=int, default=0, help="length of the answer")
    parser.add_argument("--large", type=int, help="length of the answer to what asks for /large, if another")
    parser.add_argument("--events", type=int, default=0, help="answer with so many events")
    parser.add_argument("--ranking", type=int, help="answer with a ranked list that begins with this id")
    parser.add_argument("--silent", action="store_true", help="never answer")
    given = parser.parse_args()
    uvloop.run(serve(lambda: _answering(given), given.large))
