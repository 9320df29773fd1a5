"""How request bodies arrive: framing, upgrades, expectations, pipelines; none of it becomes a second request."""

from __future__ import annotations

import asyncio

import pytest

from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from gateway.proxy.wire.faults import ClientGone
from tests.gateway.proxy.raw import Seen, heads, play, served, status, until

POST = b"POST /x HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.0"])
@pytest.mark.parametrize("split", [False, True])
def test_the_body_of_a_request_that_asks_for_an_upgrade_is_its_body_and_no_second_request(
    framing: str, upgrade: bytes, split: bool
) -> None:
    """The parser skips such a body, and what it skips would be read as the next request: request smuggling."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + upgrade + b"\r\nHTTP2-Settings: AAMAAABk\r\n"
    if framing == "length":
        pieces = [head + b"Content-Length: %d\r\n\r\n" % len(smuggled), smuggled]
    else:
        pieces = [head + b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled)]

    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge:
            answers = await (edge.ask(*pieces, LAST) if split else edge.ask(b"".join(pieces) + LAST))
        assert heads(answers) == 2
        assert [request.target for request in seen.requests] == [b"/x", b"/last"]
        assert seen.bodies == [smuggled, b""]

    play(main())


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE"])
@pytest.mark.parametrize("framing", [b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
def test_a_request_of_a_method_without_content_that_brings_some_is_the_last_on_its_connection(
    method: bytes, framing: bytes
) -> None:
    """RFC 9110, sections 9.3.1, 9.3.2 and 9.3.5: what one server reads as its body is another's next request."""

    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge:
            answers = await edge.ask(method + b" /x HTTP/1.1\r\nHost: a\r\n" + framing + LAST)
            assert (heads(answers), status(answers)) == (1, 200)
            assert b"\r\nconnection: close\r\n" in answers
        assert [request.target for request in seen.requests] == [b"/x"]

    play(main())


def test_an_upgrade_without_a_body_is_ignored_and_the_next_request_is_read() -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge:
            ask = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
            assert heads(await edge.ask(ask + ask + LAST)) == 3
        assert [request.target for request in seen.requests] == [b"/ws", b"/ws", b"/last"]

    play(main())


@pytest.mark.parametrize("size", [2**10, 100_000, 2**18])
def test_a_long_body_that_came_at_once_does_not_keep_the_next_request_unread(size: int) -> None:
    """Reading is paused for a body of 64 KiB until a piece is taken, and of one that is complete none is."""

    async def handler(request: Request, response: Response) -> None:
        body = request.whole() if request.complete else await request.body()
        response.send(200, [], b"%d" % len(body))

    async def main() -> None:
        async with served(handler) as edge, edge.client() as client:
            await client.send(POST + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
            assert (await client.answer()).endswith(b"\r\n%d" % size)
            await client.send(LAST)
            assert (await client.rest()).endswith(b"\r\n0")

    play(main())


def test_pipelined_requests_of_every_framing_are_answered_in_order() -> None:
    kinds = [
        b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n\r\n\r\n\r\n",
        b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\nT: x\r\n\r\n",
    ]
    wire = b"".join(kinds[n % 3] % n for n in range(300)) + LAST

    async def main(size: int) -> None:
        targets = []

        async def handler(request: Request, response: Response) -> None:
            body = await request.body()
            targets.append((request.target, body))
            response.send(200, [], request.target)

        async with served(handler) as edge:
            answers = await edge.ask(*(wire[at : at + size] for at in range(0, len(wire), size)))
        bodies = [b"", b"\r\n\r\n\r\n", b"\r\n\r\n"]
        assert targets == [(b"/%d" % n, bodies[n % 3]) for n in range(300)] + [(b"/last", b"")]
        assert [answer.partition(b"\r\n\r\n")[2] for answer in answers.split(b"HTTP/1.1 200 OK\r\n")[1:]] == [
            target for target, _ in targets
        ]

    play(main(len(wire)))
    play(main(997))


def test_a_second_request_waits_for_the_answer_to_the_first() -> None:
    async def main() -> None:
        begun: list[bytes] = []
        go = asyncio.Event()

        async def handler(request: Request, response: Response) -> None:
            begun.append(request.target)
            await go.wait()
            response.send(200, [], b"")

        async with served(handler) as edge, edge.client() as client:
            await client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" + LAST)
            await asyncio.sleep(0.05)
            assert begun == [b"/1"]
            go.set()
            assert heads(await client.rest()) == 2

    play(main())


def test_what_is_held_of_an_endless_pipeline_does_not_grow() -> None:
    """Requests are taken off its front as others come in behind; for hours, so nothing of the old ones may stay."""

    async def main() -> None:
        one = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n" + b"x" * 30_000
        taker, held = None, 0

        async def handler(request: Request, response: Response) -> None:
            nonlocal taker, held
            taker = request._connection._intake
            held = max(held, sum(map(len, taker._pieces)))
            await asyncio.sleep(0.001)
            response.send(200, [], b"")

        async with served(handler) as edge, edge.client() as client:
            client.writer.write(one * 300)
            for _ in range(300):
                await client.answer()
        assert 30_000 < held < 600_000

    play(main())


def test_a_flood_of_pipelined_requests_is_not_read_while_one_is_unanswered() -> None:
    """What is held for later is bounded: the client's own send buffer fills instead."""

    async def main() -> None:
        go = asyncio.Event()

        async def handler(request: Request, response: Response) -> None:
            await go.wait()
            response.send(200, [], b"")

        async with served(handler) as edge, edge.client() as client:
            flood = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 40_000  # a megabyte and more
            for _ in range(20):
                client.writer.write(flood)
            await asyncio.sleep(0.3)
            assert client.writer.transport.get_write_buffer_size() > len(flood) * 10
            go.set()
            assert heads(await client.reader.readexactly(200_000)) > 1000

    play(main())


def test_a_client_that_pipelines_and_reads_nothing_is_not_answered_for_long() -> None:
    """Each answer costs a call to a backend and a row: the kernel's buffer, of megabytes, may not pay for thousands."""

    async def main() -> None:
        answered = 0

        async def handler(request: Request, response: Response) -> None:
            nonlocal answered
            answered += 1
            response.send(200, [], b"x" * 300)

        async with served(handler) as edge, edge.client() as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 40_000)
            before = -1
            while answered != before:
                before = answered
                await asyncio.sleep(0.2)
            assert 0 < answered < 4_000

    play(main())


@pytest.mark.parametrize("body", [b"0x1\r\nx\r\n", b"1\r\nxGET", b"0\r\n\rX", b"0\r\nbad trailer\r\n\r\n"])
@pytest.mark.parametrize("split", [False, True])
def test_a_bad_chunk_is_400_and_the_end_of_the_connection(body: bytes, split: bool) -> None:
    async def main() -> None:
        gone = []

        async def handler(request: Request, response: Response) -> None:
            try:
                await request.body()
            except asyncio.CancelledError:
                gone.append(request.client_gone)
                raise

        async with served(handler) as edge:
            pieces = (CHUNKED, body + LAST)
            answer = await (edge.ask(*pieces) if split else edge.ask(b"".join(pieces)))
            assert status(answer) == 400
            assert heads(answer) == 1
            assert gone == ([True] if split else [])  # cancelled before it began, or while it read

    play(main())


def test_trailers_never_become_headers() -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge:
            trailers = b"X-User-Id: root\r\nHost: evil\r\n\r\n"
            await edge.ask(CHUNKED, b"3\r\nabc\r\n0\r\n", trailers, LAST)
            await edge.ask(CHUNKED + b"3\r\nabc\r\n0\r\n" + trailers + LAST)
        assert seen.bodies == [b"abc", b""] * 2
        assert {name.lower() for request in seen.requests for name, _ in request.headers} == {
            b"host", b"transfer-encoding", b"connection",
        }  # fmt: skip
        assert all((b"Host", b"a") in request.headers for request in seen.requests)

    play(main())


def test_endless_chunk_extensions_and_trailers_are_cut_off() -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen, max_header_bytes=2000) as edge:
            assert status(await edge.ask(CHUNKED + b"1;" + b"x" * 5000)) == 400
            assert status(await edge.ask(CHUNKED + b"1\r\nx\r\n0\r\nT: ", b"x" * 5000)) == 400
            # A long body does not buy long trailers.
            long = CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n"
            assert status(await edge.ask(long + b"0\r\nT: ", *[b"x" * 500] * 6)) == 431
            assert status(await edge.ask(long + b"0\r\n", *[b"T: x\r\n" * 100] * 6)) == 431
            assert status(await edge.ask(long + b"1;", *[b"x" * 500] * 6)) == 431
            assert status(await edge.ask(CHUNKED, b"1\r\nx\r\n" * 3000 + b"0\r\n\r\n" + LAST)) == 200
            assert seen.bodies == [b"x" * 3000, b""]

    play(main())


def test_a_client_that_expects_100_gets_it_when_the_handler_reads_and_not_before() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def handler(request: Request, response: Response) -> None:
            await go.wait()
            response.send(200, [], await request.body())

        async with served(handler) as edge, edge.client() as client:
            await client.send(POST + b"Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.read(1), 0.05)
            go.set()
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(b"abc")
            assert (await client.answer()).endswith(b"\r\n\r\nabc")
            # and the connection goes on
            await client.send(LAST)
            assert heads(await client.rest()) == 1

    play(main())


def test_a_client_that_expects_100_and_is_answered_at_once_is_not_asked_for_its_body() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            response.send(401, [], b"")

        async with served(handler) as edge:
            answer = await edge.ask(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert status(answer) == 401
            assert b"connection: close" in answer  # the body may never come

    play(main())


def test_no_interim_answer_goes_to_http_1_0_or_to_a_client_whose_body_is_here() -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge:
            old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
            assert status(await edge.ask(old, b"abc")) == 200
            eager = POST + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
            assert status(await edge.ask(eager)) == 200
        assert seen.bodies == [b"abc", b"abc"]

    play(main())


def test_a_declared_body_over_the_limit_is_413_before_it_is_sent() -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen, max_body_bytes=10) as edge:
            assert status(await edge.ask(POST + b"Content-Length: 11\r\n\r\n")) == 413
            assert status(await edge.ask(POST + b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\n")) == 413
            assert status(await edge.ask(POST + b"Connection: close\r\nContent-Length: 10\r\n\r\n0123456789")) == 200
        assert len(seen.requests) == 1

    play(main())


def test_a_client_still_sending_a_body_that_is_too_long_gets_to_read_its_413() -> None:
    """A close with unread bytes would be a reset, and throw the answer away."""

    async def main() -> None:
        async with served(Seen(), max_body_bytes=1000) as edge, edge.client() as client:
            client.writer.write(POST + b"Content-Length: 4000000\r\n\r\n" + b"x" * 4_000_000)
            assert status(await client.rest()) == 413

    play(main())


@pytest.mark.parametrize("reading", ["body", "chunks"])
def test_a_chunked_body_over_the_limit_raises_where_it_is_read_and_is_answered_413(reading: str) -> None:
    async def main() -> None:
        read = 0

        async def handler(request: Request, response: Response) -> None:
            nonlocal read
            if reading == "body":
                await request.body()
            async for piece in request.chunks():
                read += len(piece)

        async with served(handler, max_body_bytes=10) as edge:
            answer = await edge.ask(CHUNKED + b"8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n" + LAST)
            assert status(answer) == 413
            assert heads(answer) == 1
            assert read <= 10

    play(main())


def test_a_body_arrives_in_pieces_and_the_client_waits_while_none_is_taken() -> None:
    async def main() -> None:
        size, taken = 8_000_000, 0
        go = asyncio.Event()

        async def handler(request: Request, response: Response) -> None:
            nonlocal taken
            await go.wait()
            async for piece in request.chunks():
                assert piece
                taken += len(piece)
            response.send(200, [], b"")

        async with served(handler) as edge, edge.client() as client:
            client.writer.write(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
            await asyncio.sleep(0.3)
            unsent = client.writer.transport.get_write_buffer_size()
            assert unsent > 1_000_000  # the rest is in the kernel's buffers, not ours
            go.set()
            assert status(await client.rest()) == 200
            assert taken == size

    play(main())


def test_the_body_can_be_asked_for_again() -> None:
    async def main() -> None:
        bodies: list[bytes] = []

        async def handler(request: Request, response: Response) -> None:
            bodies.extend([await request.body(), await request.body()])
            bodies.extend([piece async for piece in request.chunks()])
            response.send(200, [], b"")

        async with served(handler) as edge:
            await edge.ask(POST + b"Connection: close\r\nContent-Length: 3\r\n\r\n", b"a", b"bc")
        assert bodies == [b"abc"] * 3

    play(main())


def test_a_small_body_that_is_not_read_does_not_cost_the_connection() -> None:
    async def main() -> None:
        targets: list[bytes] = []

        async def handler(request: Request, response: Response) -> None:
            targets.append(request.target)
            response.send(404, [], b"")

        async with served(handler) as edge, edge.client() as client:
            await client.send(POST + b"Content-Length: 5\r\n\r\n")
            assert status(await client.answer()) == 404
            await client.send(b"GET /" + LAST)  # its body, and the next request
            assert status(await client.rest()) == 404
        assert targets == [b"/x", b"/last"]

    play(main())


def test_an_answer_before_a_long_body_closes_and_the_body_is_not_read_as_requests() -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def handler(request: Request, response: Response) -> None:
            seen.append(request.target)
            response.send(401, [], b"")

        async with served(handler) as edge, edge.client() as client:
            await client.send(POST + b"Content-Length: 1000000\r\n\r\n")
            answer = await client.answer()
            assert status(answer) == 401
            assert b"connection: close" in answer
            assert await client.ask(LAST * 1000) == b""
        assert seen == [b"/x"]

    play(main())


def test_reading_on_after_the_answer_does_not_wait_for_ever() -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def handler(request: Request, response: Response) -> None:
            response.send(200, [], b"")
            with pytest.raises(ClientGone):
                await request.body()
            ended.set()

        async with served(handler) as edge:
            await edge.ask(POST + b"Content-Length: 1000000\r\n\r\n")
            await until(ended.is_set)

    play(main())
