"""How answers leave the edge: framing for every kind of client, persistence, failures of the handler, lost clients."""

from __future__ import annotations

import asyncio
import logging
import re
import socket

import pytest

from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from gateway.proxy.wire.faults import ClientGone
from tests.gateway.proxy.raw import Seen, heads, play, served, status, until

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OLD = b"GET /x HTTP/1.0\r\n\r\n"


def test_a_whole_answer_has_its_length_its_date_and_its_fields_in_order() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            response.send(299, [(b"Set-Cookie", b"a=1"), (b"X-\xe9", b"\xff"), (b"set-cookie", b"b=2")], b"hello")

        async with served(handler) as edge, edge.client() as client:
            await client.send(GET)
            answer = await client.answer()
        date = rb"date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"
        expected = rb"HTTP/1.1 299 \r\nSet-Cookie: a=1\r\nX-\xe9: \xff\r\nset-cookie: b=2\r\n%b\r\n%b\r\n\r\nhello"
        assert re.fullmatch(expected % (date, rb"content-length: 5"), answer)

    play(main())


def test_framing_and_connection_fields_of_the_handler_are_not_sent() -> None:
    """They were about the backend's connection; the date was not."""
    given = [
        (b"Content-Length", b"99"), (b"Transfer-Encoding", b"chunked"), (b"Connection", b"close"),
        (b"Keep-Alive", b"timeout=5"), (b"Upgrade", b"h2c"), (b"Date", b"yesterday"),
    ]  # fmt: skip

    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            response.send(200, given, b"hello")

        async with served(handler) as edge, edge.client() as client:
            await client.send(GET)
            assert await client.answer() == b"HTTP/1.1 200 OK\r\nDate: yesterday\r\ncontent-length: 5\r\n\r\nhello"

    play(main())


@pytest.mark.parametrize("code", [200, 204, 304])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("way", ["send", "start"])
def test_answers_that_have_no_body_send_none_and_the_next_answer_follows(code: int, method: bytes, way: str) -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            if way == "send":
                response.send(code, [], b"hello" if code == 200 else b"", declared=5)
            else:
                response.start(code, [], length=5)
                await response.write(b"he")
                response.finish(b"llo")

        async with served(handler) as edge:
            answers = await edge.ask(method + GET[3:] + method + LAST[3:])
        _, first, second = answers.split(b"HTTP/1.1 ")
        for answer in (first, second):
            head, _, body = answer.partition(b"\r\n\r\n")
            assert body == (b"hello" if code == 200 and method == b"GET" else b"")
            assert (b"content-length: 5" in head) == (code != 204)  # 204 must not have one; HEAD and 304 may
            assert b"transfer-encoding" not in head

    play(main())


def test_an_own_answer_to_head_declares_the_length_that_get_would_have() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            response.send(404, [], b"nothing here")

        async with served(handler) as edge:
            answer = await edge.ask(b"HEAD" + LAST[3:])
            assert b"content-length: 12\r\n" in answer
            assert answer.endswith(b"\r\n\r\n")

    play(main())


def test_an_answer_of_unknown_length_is_chunked_and_each_piece_leaves_at_once() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def handler(request: Request, response: Response) -> None:
            response.start(200, [], length=None)
            await response.write(b"one")
            await response.write(b"")
            await go.wait()
            await response.write(b"three" * 4)
            response.finish(b"end")

        async with served(handler) as edge, edge.client() as client:
            await client.send(LAST)
            assert b"transfer-encoding: chunked\r\n" in await client.reader.readuntil(b"\r\n\r\n")
            assert await client.reader.readexactly(8) == b"3\r\none\r\n"
            go.set()
            assert await client.rest() == b"14\r\n" + b"three" * 4 + b"\r\n3\r\nend\r\n0\r\n\r\n"

    play(main())


def test_an_http_1_0_client_gets_no_chunks_and_the_close_ends_its_answer() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            response.start(200, [], length=None)
            await response.write(b"one")
            response.finish(b"two")

        async with served(handler) as edge:
            head, _, body = (await edge.ask(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")).partition(
                b"\r\n\r\n"
            )
        assert b"connection: close" in head
        assert b"transfer-encoding" not in head
        assert b"content-length" not in head
        assert body == b"onetwo"

    play(main())


def test_a_broken_answer_to_an_http_1_0_client_is_a_reset_because_a_close_would_look_whole() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            response.start(200, [], length=None)
            await response.write(b"one")
            await asyncio.sleep(0.02)
            response.abort()

        async with served(handler) as edge:
            assert (await edge.ask(OLD)).endswith(b"one<reset>")

    play(main())


@pytest.mark.parametrize(
    ("request_head", "stays", "field"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True, None),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False, b"close"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n", False, b"close"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: Close\r\n\r\n", False, b"close"),
        (b"GET / HTTP/1.0\r\n\r\n", False, b"close"),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True, b"keep-alive"),
    ],
)
def test_the_connection_persists_as_the_client_asked(request_head: bytes, stays: bool, field: bytes | None) -> None:
    async def main() -> None:
        seen = Seen()
        async with served(seen) as edge, edge.client() as client:
            await client.send(request_head + LAST)
            answers = await client.rest()
        assert heads(answers) == len(seen.requests) == (2 if stays else 1)
        first = answers.split(b"\r\n\r\n")[0]
        assert re.findall(rb"connection: ([\w-]+)", first) == ([] if field is None else [field])

    play(main())


def test_a_half_closed_client_still_gets_its_answers() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            await asyncio.sleep(0.05)
            response.send(200, [], await request.body())

        async with served(handler) as edge, edge.client() as client:
            await client.send(GET + b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            client.writer.write_eof()
            answers = await client.rest()
        assert heads(answers) == 2
        assert answers.endswith(b"\r\n\r\nabc")
        assert b" 100 " not in answers

    play(main())


def test_a_half_closed_client_is_asked_with_100_whether_it_is_there_and_may_wait_long() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            await asyncio.sleep(1.2)
            response.send(200, [], b"late")

        async with served(handler) as edge, edge.client() as client:
            await client.send(GET)
            client.writer.write_eof()
            answers = await client.rest()
        assert answers.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert heads(answers) == 2

    play(main())


def test_a_half_closed_client_within_a_stream_is_asked_by_a_zero_before_the_next_chunks_size() -> None:
    """RFC 9112, section 7.1: a size may begin with zeros, that of the last chunk too."""

    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            response.start(200, [], length=None)
            await response.write(b"one")
            await asyncio.sleep(0.8)
            if request.path == "/more":
                await response.write(b"two")
            response.finish()

        async with served(handler) as edge:
            for path, end in ((b"/more", b"3\r\none\r\n03\r\ntwo\r\n0\r\n\r\n"), (b"/", b"3\r\none\r\n00\r\n\r\n")):
                async with edge.client() as client:
                    await client.send(GET.replace(b"/x", path))
                    client.writer.write_eof()
                    answer = await client.rest()
                    assert answer.partition(b"\r\n\r\n")[2] == end

    play(main())


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("stage", ["body", "waiting", "streaming", "silent"])
def test_when_the_client_leaves_its_handler_is_cancelled_within_a_second(how: str, stage: str) -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()
        gone = []

        async def handler(request: Request, response: Response) -> None:
            begun.set()
            try:
                if stage == "body":
                    await request.body()
                elif stage in ("streaming", "silent"):
                    response.start(200, [], length=None)
                    while True:
                        await response.write(b"event")
                        await asyncio.sleep(0.1 if stage == "streaming" else 60)
                else:
                    await asyncio.sleep(60)
            except (asyncio.CancelledError, ClientGone):
                gone.append(request.client_gone)
                raise
            finally:
                ended.set()

        async with served(handler) as edge:
            with socket.create_connection(("127.0.0.1", edge.port)) as sock:
                sock.setblocking(False)
                loop = asyncio.get_running_loop()
                body = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"
                await loop.sock_sendall(sock, body if stage == "body" else GET)
                await begun.wait()
                if how == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await asyncio.wait_for(ended.wait(), 1.0)
            assert gone == [True]
            await until(lambda: edge.edge.connections == 0)

    play(main())


def test_answering_a_client_that_has_gone_is_harmless() -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def handler(request: Request, response: Response) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                response.send(200, [], b"nobody hears")
                ended.set()
                raise

        async with served(handler) as edge:
            async with edge.client() as client:
                await client.send(GET)
                await until(lambda: edge.edge.connections)
                await asyncio.sleep(0.02)
            await until(ended.is_set)

    play(main())


def test_a_handler_that_goes_on_after_its_answer_is_not_cancelled_when_the_client_leaves() -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def handler(request: Request, response: Response) -> None:
            response.send(200, [], b"")
            await asyncio.sleep(0.1)
            assert not request.client_gone
            ended.set()

        async with served(handler) as edge:
            assert heads(await edge.ask(GET + LAST)) == 2
            await until(ended.is_set)

    play(main())


def test_a_handler_that_fails_before_its_answer_is_logged_and_answered_for(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            raise LookupError("secret detail")

        async with served(handler) as edge:
            answers = await edge.ask(GET + LAST)  # and the connection persists
        assert heads(answers) == 2
        assert status(answers) == 500
        assert b"application/problem+json" in answers
        assert b"secret detail" not in answers
        assert b"Traceback" not in answers

    with caplog.at_level(logging.ERROR):
        play(main())
    assert caplog.records[0].exc_info is not None
    assert isinstance(caplog.records[0].exc_info[1], LookupError)


def test_a_handler_that_fails_within_its_answer_breaks_the_connection() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            response.start(200, [], length=None)
            await response.write(b"one")
            await asyncio.sleep(0.02)
            raise LookupError

        async with served(handler) as edge:
            answer = await edge.ask(GET + LAST)
        assert heads(answer) == 1
        assert b"3\r\none\r\n" in answer
        assert b"0\r\n\r\n" not in answer

    play(main())


@pytest.mark.parametrize(("length", "pieces"), [(5, [b"ab"]), (5, [b"ab", b"cdefgh"])])
def test_an_answer_that_is_not_as_long_as_announced_breaks_the_connection(length: int, pieces: list[bytes]) -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            response.start(200, [], length=length)
            for piece in pieces:
                await response.write(piece)
            response.finish()

        async with served(handler) as edge:
            answer = await edge.ask(GET + LAST)
        assert heads(answer) <= 1
        assert len(answer.partition(b"\r\n\r\n")[2].removesuffix(b"<reset>")) < length

    play(main())


def test_a_handler_that_gives_no_answer_is_answered_for() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            pass

        async with served(handler) as edge:
            assert status(await edge.ask(LAST)) == 500

    play(main())


def test_a_second_answer_and_a_line_break_in_a_field_are_refused_to_the_handler() -> None:
    async def main() -> None:
        async def handler(request: Request, response: Response) -> None:
            for bad in (b"a\r\nX: y", b"a\nb", b"a\rb"):
                with pytest.raises(ValueError, match="line break"):
                    response.send(200, [(b"x", bad)], b"")
            with pytest.raises(ValueError, match="status"):
                response.send(100, [], b"")
            response.send(200, [], b"")
            with pytest.raises(RuntimeError):
                response.send(200, [], b"")
            with pytest.raises(RuntimeError):
                await response.write(b"x")

        async with served(handler) as edge:
            assert heads(await edge.ask(LAST)) == 1

    play(main())


def test_a_client_that_reads_slowly_makes_the_handler_wait() -> None:
    async def main() -> None:
        written = 0

        async def handler(request: Request, response: Response) -> None:
            nonlocal written
            response.start(200, [], length=20_000_000)
            for _ in range(200):
                await response.write(b"x" * 100_000)
                written += 100_000
            response.finish()

        async with served(handler) as edge, edge.client() as client:
            await client.send(LAST)
            await asyncio.sleep(0.3)
            assert 0 < written < 15_000_000
            assert len(await client.rest()) > 20_000_000
            assert written == 20_000_000

    play(main())
