"""The edge's deadlines, its bound on connections, TLS, and the drain."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest

from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from gateway.proxy.wire.faults import BodyTimeout
from router.snapshot import Gateway
from tests.gateway.proxy.certificates import authority, certificate
from tests.gateway.proxy.raw import Seen, heads, play, served, status, until

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((), 0),  # says nothing
        ((b"\r\n",), 0),
        ((b"GET / HT",), 408),
        ((GET[:-2],), 408),
        (tuple(bytes([byte]) for byte in GET[:-2]), 408),  # drips
    ],
)
def test_a_head_that_does_not_come_in_time_ends_the_connection(pieces: tuple[bytes, ...], expected: int) -> None:
    async def main() -> None:
        async with served(Seen(), header_timeout_ms=150) as edge:
            began = time.monotonic()
            assert status(await edge.ask(*pieces)) == expected
            assert 0.1 < time.monotonic() - began < 1.5

    play(main())


@pytest.mark.parametrize("reading", ["body", "chunks", "nothing"])
def test_a_body_that_stops_is_408_and_one_that_drips_is_not(reading: str) -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            if reading == "body":
                response.send(200, [], await request.body())
            elif reading == "chunks":
                response.send(200, [], b"".join([piece async for piece in request.chunks()]))
            else:
                await asyncio.sleep(0.4)
                with pytest.raises(BodyTimeout):
                    await request.body()
                raise BodyTimeout

        post = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 8\r\n\r\n"
        async with served(handler, body_timeout_ms=200, min_body_bytes_per_second=0) as edge:
            assert status(await edge.ask(post + b"abc")) == 408
            if reading != "nothing":
                async with edge.client() as client:
                    await client.send(post)
                    for _ in range(8):
                        await asyncio.sleep(0.07)
                        await client.send(b"x")
                    assert status(await client.rest()) == 200

    play(main())


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_drips_below_the_least_rate_is_408_and_one_that_keeps_it_up_is_not(framing: str) -> None:
    """Each byte comes in time for the limit between bytes, for longer than a whole body may take at this rate."""

    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            response.send(200, [], b"%d" % len(await request.body()))

        def wire(data: bytes) -> bytes:
            return data if framing == "length" else b"%x\r\n%b\r\n" % (len(data), data)

        field = b"Content-Length: 100000" if framing == "length" else b"Transfer-Encoding: chunked"
        post = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + field + b"\r\n\r\n"
        async with served(handler, body_timeout_ms=300, min_body_bytes_per_second=1_000) as edge:
            for piece, expected in ((b"x", 408), (b"x" * 1_000, 200)):
                async with edge.client() as client:
                    await client.send(post)
                    answering = asyncio.create_task(client.rest())
                    for _ in range(100):
                        await asyncio.sleep(0.01)
                        if answering.done():
                            break
                        await client.send(wire(piece))
                    if framing == "chunked" and not answering.done():
                        await client.send(b"0\r\n\r\n")
                    assert status(await answering) == expected

    play(main())


def test_a_client_that_waits_to_be_asked_for_its_body_does_not_run_out_of_time() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            await asyncio.sleep(0.4)
            response.send(200, [], await request.body())

        async with served(handler, body_timeout_ms=200) as edge, edge.client() as client:
            await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(b"abc")
            assert (await client.answer()).endswith(b"abc")
            await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert b"408" in await client.rest()  # asked, and did not send it

    play(main())


def test_a_client_that_is_made_to_wait_does_not_run_out_of_time() -> None:
    async def main() -> None:
        size = 2_000_000

        async def handler(request: Request, response: Response) -> None:
            await asyncio.sleep(0.4)
            response.send(200, [], b"%d" % sum([len(piece) async for piece in request.chunks()]))

        # At the least rate, the time that passes while nothing is read would be nearly all the time there is.
        async with served(handler, body_timeout_ms=100, min_body_bytes_per_second=5_000_000) as edge:
            head = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
            assert (await edge.ask(head + b"x" * size)).endswith(b"\r\n\r\n%d" % size)

    play(main())


def test_an_idle_connection_is_closed_without_a_word_and_a_slow_answer_is_not_idle() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            await asyncio.sleep(0.4)
            response.send(200, [], b"")

        async with served(handler, keepalive_timeout_ms=150) as edge:
            began = time.monotonic()
            assert heads(await edge.ask(GET)) == 1
            assert 0.5 < time.monotonic() - began < 2

    play(main())


def test_a_client_that_does_not_take_its_answer_is_cut_off() -> None:
    async def main() -> None:
        gone = []

        async def handler(request: Request, response: Response) -> None:
            response.start(200, [], length=None)
            try:
                while True:
                    await response.write(b"x" * 100_000)
            except asyncio.CancelledError:
                gone.append(request.client_gone)
                raise

        async with served(handler, body_timeout_ms=200) as edge, edge.client() as client:
            await client.send(GET)
            await until(lambda: gone)
            assert gone == [True]
            assert edge.edge.connections == 0

    play(main())


@pytest.mark.parametrize("rest", [b"", b"x" * 50_000, b"x" * 99_000])
def test_a_client_that_does_not_take_its_answer_is_cut_off_though_it_goes_on_sending(rest: bytes) -> None:
    """Drips of a body, a body that fills what is held of it, or its end: none of it is taking the answer."""

    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            response.start(200, [], length=None)
            while True:
                await response.write(b"x" * 100_000)

        async with (
            served(handler, body_timeout_ms=300, min_body_bytes_per_second=0) as edge,
            edge.client() as client,
        ):
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 99001\r\n\r\nx")
            await until(lambda: edge.edge.connections == 1)
            await asyncio.sleep(0.1)
            client.writer.write(rest)
            for _ in range(100):
                if edge.edge.connections == 0:
                    break
                await asyncio.sleep(0.05)
                if not rest:
                    client.writer.write(b"x")
            assert edge.edge.connections == 0

    play(main())


def test_limits_can_be_swapped_while_clients_are_connected() -> None:
    async def main() -> None:
        async with served(Seen()) as edge, edge.client() as client:
            await client.send(GET)
            await client.answer()
            edge.edge.gateway = Gateway(max_body_bytes=3, keepalive_timeout_ms=100)
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            assert status(await client.answer()) == 200
            assert await asyncio.wait_for(client.rest(), 2) == b""  # idle
            assert status(await edge.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd")) == 413

    play(main())


def test_a_connection_too_many_gets_503_and_is_closed_and_the_others_go_on() -> None:
    async def main() -> None:
        async with (
            served(Seen(), max_connections=2) as edge,
            edge.client() as one,
            edge.client() as two,
        ):
            await until(lambda: edge.edge.connections == 2)
            answer = await edge.ask(GET)
            assert status(answer) == 503
            assert b"retry-after: 1\r\n" in answer
            for client in (one, two):
                await client.send(GET)
                assert status(await client.answer()) == 200
            one.writer.close()
            await until(lambda: edge.edge.connections == 1)
            assert status(await edge.ask(LAST)) == 200

    play(main())


def test_a_drain_closes_idle_clients_lets_requests_finish_and_accepts_no_more() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def handler(request: Request, response: Response) -> None:
            await go.wait()
            response.send(200, [], b"done")

        async with served(handler) as edge, edge.client() as idle, edge.client() as busy:
            await busy.send(GET)
            await until(lambda: edge.edge.connections == 2)
            draining = asyncio.create_task(edge.edge.drain(5))
            assert await idle.rest() == b""
            with pytest.raises(OSError, match="refused"):
                async with edge.client():
                    pass
            assert not draining.done()
            go.set()
            answer = await busy.rest()
            assert answer.endswith(b"done")
            assert b"connection: close" in answer
            await draining

    play(main())


def test_a_drain_that_is_out_of_time_answers_503_or_breaks_what_was_begun() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            if request.path == "/stream":
                response.start(200, [], length=None)
                await response.write(b"one")
            await asyncio.sleep(60)

        async with served(handler) as edge, edge.client() as silent, edge.client() as stream:
            await silent.send(GET)
            await stream.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
            await stream.reader.readuntil(b"one\r\n")
            began = time.monotonic()
            await edge.edge.drain(0.1)
            assert time.monotonic() - began < 1.5
            assert edge.edge.connections == 0
            assert status(await silent.rest()) == 503
            assert await stream.rest() in (b"", b"<reset>")

    play(main())


def test_a_drain_waits_for_a_handler_whose_answer_is_out() -> None:
    async def main() -> None:
        ended = False

        async def handler(request: Request, response: Response) -> None:
            nonlocal ended
            response.send(200, [], b"")
            await asyncio.sleep(0.1)
            ended = True

        async with served(handler) as edge:
            assert status(await edge.ask(LAST)) == 200
            await edge.edge.drain(5)
            assert ended

    play(main())


def test_clients_are_served_over_tls(tmp_path: Path) -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen, server_tls=certificate(tmp_path), client_tls=authority(tmp_path)) as edge:
            async with edge.client() as client:
                await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", b"abc")
                assert status(await client.answer()) == 200
                assert status(await client.ask(LAST)) == 200
            stranger = ssl.create_default_context()
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection("127.0.0.1", edge.port, ssl=stranger, server_hostname="localhost")
        assert [request.peer.scheme for request in seen.requests] == ["https", "https"]
        assert seen.bodies == [b"abc", b""]

    play(main())


def test_a_client_that_leaves_over_tls_is_noticed(tmp_path: Path) -> None:
    async def main() -> None:
        gone = []

        async def handler(request: Request, response: Response) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                gone.append(request.client_gone)
                raise

        async with served(handler, server_tls=certificate(tmp_path), client_tls=authority(tmp_path)) as edge:
            async with edge.client() as client:
                await client.send(GET)
                await until(lambda: edge.edge.connections)
                await asyncio.sleep(0.05)
                client.writer.close()
                await until(lambda: gone)
            assert gone == [True]

    play(main())
