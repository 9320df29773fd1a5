"""What a backend is sent, byte for byte, and how its answers are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.proxy.client.upstream import Upstream
from gateway.proxy.wire.faults import UpstreamFault
from tests.gateway.proxy import builders
from tests.gateway.proxy.certificates import authority, certificate
from tests.gateway.proxy.faults import HOST, MEGABYTE, OK, Wire, backend, get, polite, says, stays, upstream
from tests.gateway.proxy.raw import play, until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece
        await asyncio.sleep(0)


def test_a_backend_is_sent_what_was_given_and_nothing_else() -> None:
    given = [*HOST, (b"X-A", b"1"), (b"x-a", b""), (b"X-A", b"caf\xe9\tx"), (b"Cookie", b"a=1")]

    async def main() -> None:
        async with backend() as b:
            up = upstream(b)
            await up.call("GET", b"/a/../b?x=%2F", given, b"")
            await up.close()
            assert b.requests[0].line == b"GET /a/../b?x=%2F HTTP/1.1"
            assert b.requests[0].fields == given

    play(main())


def test_a_request_without_host_gets_that_of_the_url() -> None:
    async def main() -> None:
        async with backend() as b:
            up = upstream(b)
            await up.call("GET", b"/", [], b"")
            await up.close()
            assert b.requests[0].fields == [(b"host", b"localhost:%d" % b.port)]

    play(main())


@pytest.mark.parametrize(
    ("path", "base", "target", "expected"),
    [
        (None, "", b"/a//../b?", b"/a//../b?"),
        (None, "/", b"/a", b"/a"),
        (None, "/v1/", b"/a?b", b"/v1/a?b"),
        (None, "/v1", b"*", b"*"),
        ("/predict", "", b"/a?b?c", b"/predict?b?c"),
        ("/predict", "/v1", b"/a", b"/v1/predict"),
        ("/a b", "", b"/x?", b"/a%20b?"),
    ],
)
def test_the_path_is_the_clients_behind_the_base_or_the_configured_one(
    path: str | None, base: str, target: bytes, expected: bytes
) -> None:
    async def main() -> None:
        async with backend() as b:
            up = Upstream(builders.backend("b", b.url + base, path=path))
            await get(up, target, "OPTIONS")
            await up.close()
            assert b.requests[0].line == b"OPTIONS " + expected + b" HTTP/1.1"

    play(main())


@pytest.mark.parametrize(
    ("method", "body", "lengths"),
    [
        ("GET", b"", []), ("GET", b"q", [b"1"]), ("DELETE", b"q", [b"1"]), ("POST", b"", [b"0"]), ("PUT", b"", [b"0"]),
        ("PATCH", b"", [b"0"]), ("POST", b"x" * 300_000, [b"300000"]), ("HEAD", b"", []),
    ],
)  # fmt: skip
def test_a_body_goes_out_with_its_length_whatever_the_method(method: str, body: bytes, lengths: list[bytes]) -> None:
    async def main() -> None:
        async with backend() as b:
            up = upstream(b)
            # Framing that was about another connection does not count.
            stale = [*HOST, (b"Content-Length", b"77"), (b"Transfer-Encoding", b"chunked"), (b"Connection", b"close")]
            answer = await up.call(method, b"/", stale, body)
            answer.close()
            await up.close()
            [request] = b.requests
            assert request.body == body
            assert request.values(b"content-length") == lengths
            assert not request.values(b"transfer-encoding")
            assert not request.values(b"connection")

    play(main())


@pytest.mark.parametrize("declared", [False, True])
def test_a_body_that_comes_in_pieces_is_chunked_or_keeps_its_declared_length(declared: bool) -> None:
    async def main() -> None:
        async with backend() as b:
            up = upstream(b)
            headers = [*HOST, (b"Content-Length", b"6")] if declared else HOST
            for _ in range(2):
                answer = await up.call("POST", b"/", headers, pieces(b"abc", b"", b"def"))
                assert await answer.read(10) == b"ok"
            await up.close()
            assert [request.body for request in b.requests] == [b"abcdef"] * 2
            assert b.requests[0].values(b"content-length") == ([b"6"] if declared else [])
            assert b.requests[0].values(b"transfer-encoding") == ([] if declared else [b"chunked"])
            assert b.wires == 1

    play(main())


@pytest.mark.parametrize("given", [b"abc", b"abcdefgh"])
def test_a_body_that_is_not_as_long_as_declared_ends_the_call(given: bytes) -> None:
    async def main() -> None:
        async with backend() as b:
            up = upstream(b)
            with pytest.raises(ValueError, match="its length, 6 bytes"):
                await up.call("POST", b"/", [*HOST, (b"content-length", b"6")], pieces(given))
            assert up.in_flight == 0
            await up.close()
            assert b.requests == []

    play(main())


def test_what_the_body_raises_ends_the_call_and_comes_out_as_it_is() -> None:
    class Odd(Exception):
        pass

    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise Odd

    async def main() -> None:
        async with backend() as b:
            up = upstream(b)
            with pytest.raises(Odd):
                await up.call("POST", b"/", HOST, broken())
            assert up.in_flight == 0
            await until(lambda: b.wires and not b.open)
            await up.close()

    play(main())


def test_a_line_break_in_a_field_is_never_sent() -> None:
    async def main() -> None:
        async with backend() as b:
            up = upstream(b)
            with pytest.raises(ValueError, match="line break"):
                await up.call("GET", b"/", [*HOST, (b"x", b"1\r\n\r\nGET /smuggled HTTP/1.1")], b"")
            assert up.in_flight == 0
            await up.close()
            assert b.wires == 0

    play(main())


@pytest.mark.parametrize(
    ("wire", "status", "length", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, 5, b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, 0, b""),
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 1\r\n\r\nx", 999, 1, b"x"),
        (b"HTTP/1.1 599 \r\nContent-Length: 1\r\n\r\nx", 599, 1, b"x"),
        (CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: 1\r\n\r\n", 200, None, b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, 0, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304, 99, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, 2, b"ok"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("split", [False, True])
def test_an_answer_is_read_by_its_framing_and_its_connection_used_again(
    wire: bytes, status: int, length: int | None, body: bytes, split: bool
) -> None:
    async def script(connection: Wire) -> None:
        while await connection.request() is not None:
            await connection.send(*([bytes([byte]) for byte in wire] if split else [wire]))

    async def main() -> None:
        async with backend(script) as b:
            up = upstream(b)
            for _ in range(2):
                answer = await up.call("GET", b"/", HOST, b"")
                assert (answer.status, answer.length) == (status, length)
                assert [name for name, _ in answer.headers if name in (b"T", b"Link")] == []
                if not split:
                    assert answer.complete == body
                assert b"".join([piece async for piece in answer.chunks()]) == body
                answer.close()
                assert up.in_flight == 0
            assert b.wires == 1
            await up.close()

    play(main())


@pytest.mark.parametrize("size", [65_536, 65_537, 1_000_000])
def test_a_long_answer_ends_at_its_length_and_its_connection_is_used_again(size: int) -> None:
    body = (OK * (size // len(OK) + 1))[:size]  # what it holds is no answer

    async def script(connection: Wire) -> None:
        while await connection.request() is not None:
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, body[:70_000], body[70_000:])
            await connection.request()
            await connection.send(OK)

    async def main() -> None:
        async with backend(script) as b:
            up = upstream(b)
            for _ in range(2):
                assert await get(up) == body
                assert await get(up) == b"ok"
            assert b.wires == 1
            await up.close()

    play(main())


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_answer_without_a_length_ends_when_the_backend_closes(version: bytes) -> None:
    async def main() -> None:
        async with backend(says(b"HTTP/" + version + b" 200 OK\r\nServer: x\r\n\r\nhello " + b"x" * 1000)) as b:
            up = upstream(b)
            answer = await up.call("GET", b"/", HOST, b"")
            assert answer.length is None
            assert await answer.read(MEGABYTE) == b"hello " + b"x" * 1000
            assert up.in_flight == 0
            await up.close()

    play(main())


def test_an_http_1_0_backend_keeps_its_connection_only_if_it_says_so() -> None:
    async def main(field: bytes, wires: int) -> None:
        answer = b"HTTP/1.0 200 OK\r\n" + field + b"Content-Length: 2\r\n\r\nok"
        async with backend(stays(*[answer] * 3)) as b:
            up = upstream(b)
            for _ in range(3):
                assert await get(up) == b"ok"
            assert b.wires == wires
            await up.close()

    play(main(b"", 3))
    play(main(b"Connection: keep-alive\r\n", 1))


def test_headers_that_cross_and_reason_come_as_they_were_sent() -> None:
    fields = b"Set-Cookie: a=1\r\nset-cookie: b=2\r\nX: caf\xe9\r\nE:\r\nContent-Length: 0\r\n"

    async def main() -> None:
        async with backend(says(b"HTTP/1.1 203 Well \xff well\r\n" + fields + b"\r\n")) as b:
            up = upstream(b)
            answer = await up.call("GET", b"/", HOST, b"")
            await up.close()
        assert answer.reason == b"Well \xff well"
        assert list(answer.headers) == [
            (b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"X", b"caf\xe9"), (b"E", b""),
        ]  # fmt: skip

    play(main())


def test_cookies_are_not_kept_and_redirects_not_followed() -> None:
    """A jar would hand one user's session to the next. By name and not by address: jars skip addresses."""

    async def main() -> None:
        moved = (
            b"HTTP/1.1 302 Found\r\nSet-Cookie: session=1; Path=/\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
        )
        async with backend(stays(moved, OK)) as b:
            up = upstream(b)
            answer = await up.call("GET", b"/", HOST, b"")
            assert answer.status == 302
            await get(up)
            await up.close()
            assert [request.line for request in b.requests] == [b"GET / HTTP/1.1"] * 2
            assert all(not request.values(b"cookie") for request in b.requests)

    play(main())


def test_the_answer_to_head_has_no_body_and_its_connection_is_not_used_again() -> None:
    """Some backends send a body all the same: it would be the answer to the next call."""
    answer_to_head = b"HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n"
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"

    async def script(wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            await (wire.send(answer_to_head, poison) if request.line.startswith(b"HEAD") else wire.send(OK))

    async def main() -> None:
        async with backend(script) as b:
            up = upstream(b)
            answer = await up.call("HEAD", b"/", HOST, b"")
            assert (answer.complete, answer.length) == (b"", 38)
            assert await get(up) == b"ok"
            await up.close()

    play(main())


def test_a_stream_arrives_piece_by_piece() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.request()
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            await go.wait()
            await wire.send(b"3\r\ntwo\r\n0\r\n\r\n")

        async with backend(script) as b:
            up = upstream(b)
            answer = await up.call("GET", b"/", HOST, b"")
            assert answer.complete is None
            chunks = answer.chunks()
            assert await anext(chunks) == b"one"
            assert up.in_flight == 1
            go.set()
            assert [piece async for piece in chunks] == [b"two"]
            assert up.in_flight == 0
            await up.close()

    play(main())


def test_a_backend_waits_while_its_answer_is_not_taken() -> None:
    async def main() -> None:
        sent = 0

        async def script(wire: Wire) -> None:
            nonlocal sent
            await wire.request()
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
            for _ in range(200):
                await wire.send(b"x" * 100_000)
                sent += 100_000

        async with backend(script) as b:
            up = upstream(b, idle_timeout_ms=100)
            answer = await up.call("GET", b"/", HOST, b"")
            await asyncio.sleep(0.5)  # which is no silence of the backend's
            assert 0 < sent < 15_000_000
            assert sum([len(piece) async for piece in answer.chunks()]) == 20_000_000
            await up.close()

    play(main())


def test_an_upload_waits_while_the_backend_does_not_take_it() -> None:
    async def main() -> None:
        given = 0
        go = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            nonlocal given
            for _ in range(200):
                yield b"x" * 100_000
                given += 100_000

        async def script(wire: Wire) -> None:
            await wire.head()
            await go.wait()
            assert sum([len(piece) async for piece in wire.chunks()]) == 20_000_000
            await wire.send(OK)

        async with backend(script) as b:
            up = upstream(b)
            call = asyncio.create_task(up.call("POST", b"/", HOST, body()))
            await asyncio.sleep(0.3)
            assert 0 < given < 15_000_000
            go.set()
            assert (await call).complete == b"ok"
            await up.close()

    play(main())


@pytest.mark.parametrize("known", [False, True])
def test_a_final_answer_while_the_upload_runs_is_delivered_and_the_connection_dropped(known: bool) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10_000
            await asyncio.sleep(0.001)

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nstop")
        await wire.gone()

    async def main() -> None:
        async with backend(script) as b:
            up = upstream(b)
            answer = await up.call("POST", b"/", HOST, b"x" * 30_000_000 if known else endless())
            assert (answer.status, await answer.read(100)) == (413, b"stop")
            assert up.in_flight == 0
            await until(lambda: not b.open)
            await up.close()

    play(main())


def test_https_names_the_host_to_the_backend_and_checks_its_certificate(tmp_path: Path) -> None:
    async def main() -> None:
        async with backend(polite, tls=certificate(tmp_path)) as b:
            description = builders.backend("b", b.url)
            up = Upstream(description, tls=authority(tmp_path))
            assert await get(up) == b"ok"
            await up.close()
            stranger = Upstream(description)
            with pytest.raises(UpstreamFault) as caught:
                await get(stranger)
            assert caught.value.fault == "refused"
            assert "certificate" in caught.value.detail
            await stranger.close()

    play(main())
