"""What one client can make a worker hold: so much in every state of its connection, whatever it sends unread."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest

from gateway.proxy.server.edge import Edge
from gateway.proxy.server.request import HELD_BYTES, Request
from gateway.proxy.server.response import Response
from gateway.proxy.wire.wire import add_piece
from router.snapshot import Gateway
from tests.gateway.proxy.raw import play, served

#: What uvloop reads at once.
ONE_READ = 262_144
MAX_BODY = 2**20

STATES = ("at-once", "large", "stream", "never", "body", "chunks", "slowly", "half")


async def handler(request: Request, response: Response) -> None:
    match request.path.strip("/"):
        case "large":
            response.send(200, [], b"x" * 300_000)
            return
        case "stream":
            response.start(200, [], length=None)
            while True:
                await response.write(b"x" * 10_000)
                await asyncio.sleep(0.001)  # a transport that is closing takes everything
        case "never":
            await asyncio.Event().wait()
        case "body":
            await request.body()
        case "chunks":
            async for _ in request.chunks():
                pass
        case "slowly":
            async for _ in request.chunks():
                await asyncio.sleep(0.05)
        case "half":
            response.start(200, [], length=100)
            await asyncio.Event().wait()
    response.send(200, [], b"ok")


def floods(state: str) -> dict[str, tuple[bytes, bytes]]:
    """What a client begins with, and what it then sends for ever."""
    line = b"%b /" + state.encode() + b" HTTP/1.1\r\nHost: a\r\n"
    get, post = line % b"GET" + b"\r\n", line % b"POST"
    small = post + b"Content-Length: 2\r\n\r\n{}"
    return {
        "requests": (b"", get),
        "requests with a body": (b"", small),
        "requests with a long body": (b"", post + b"Content-Length: 30000\r\n\r\n" + b"x" * 30_000),
        "a body without end": (post + b"Content-Length: 1000000\r\n\r\n", b"x"),
        "a chunked body without end": (post + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nxx\r\n"),
        "a head without end": (line % b"GET", b"X: y\r\n"),
        "one request and noise": (get, b"\0"),
        "one request and a head without end": (get + line % b"GET", b"X: y\r\n"),
    }


async def flood(port: int, first: bytes, again: bytes) -> None:
    """Send without ever reading, until nothing more is taken."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        lot = again * (100_000 // len(again))
        with suppress(OSError, TimeoutError):
            await loop.sock_sendall(sock, first)
            for _ in range(40):
                async with asyncio.timeout(0.4):
                    await loop.sock_sendall(sock, lot)


def held(edge: Edge) -> int:
    """The most that any one connection holds of what its client sent."""
    most = 0
    for connection in edge._connections:
        request = connection._request
        buffered = 0 if request is None or request._collecting else request._buffered
        most = max(most, connection._intake.held, buffered)
    return most


@pytest.mark.parametrize("state", STATES)
def test_a_client_that_sends_without_reading_is_held_to_64_kib_and_one_read_in_every_state(state: str) -> None:
    async def main() -> None:
        async with served(handler, max_body_bytes=MAX_BODY) as edge:
            over = False

            async def watch() -> int:
                most = 0
                while not over:
                    most = max(most, held(edge.edge))
                    await asyncio.sleep(0.001)
                return most

            watching = asyncio.create_task(watch())
            await asyncio.gather(*(flood(edge.port, first, again) for first, again in floods(state).values()))
            over = True
            found = await watching
            assert found < HELD_BYTES + ONE_READ

    play(main())


def test_pieces_that_are_held_are_neither_copied_again_nor_millions_of_objects() -> None:
    """A copy of all that is held at each read is quadratic; an object for every two bytes is 25 times their memory."""
    pieces: list[bytes] = []
    long = b"x" * HELD_BYTES
    add_piece(pieces, long)
    for _ in range(100_000):
        add_piece(pieces, b"yz")
    assert pieces[0] is long
    assert len(pieces) < 60
    assert b"".join(pieces) == long + b"yz" * 100_000


def test_a_chunked_body_of_two_bytes_a_chunk_is_held_in_few_pieces() -> None:
    async def main() -> None:
        pieces: list[int] = []

        async def collect(request: Request, response: Response) -> None:
            body = asyncio.ensure_future(request.body())
            while not request.complete:
                pieces.append(len(request._chunks))
                await asyncio.sleep(0.005)
            response.send(200, [], b"%d" % len(await body))

        async def in_a_task(request: Request, response: Response) -> None:
            await asyncio.get_running_loop().create_task(collect(request, response))

        async with served(in_a_task) as edge:
            head = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            answer = await edge.ask(head + b"2\r\nxx\r\n" * 100_000 + b"0\r\n\r\n")
            assert answer.endswith(b"200000")
            assert max(pieces) < 100

    play(main())


def test_the_default_bounds_are_those_that_the_readme_names() -> None:
    assert HELD_BYTES == 64 * 1024
    assert Gateway().max_body_bytes == 10_485_760
