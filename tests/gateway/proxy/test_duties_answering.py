"""Duties 32 to 46 of an intermediary: what a client gets of a backend's answer, and what becomes of a bad one.

Rule: each test is one duty, with bytes at both ends of a worker: those the backend sends, and those the client reads.
"""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from router.snapshot import Gateway
from tests.gateway.proxy import faults
from tests.gateway.proxy.chain import Chain, chain, parted, statuses, values
from tests.gateway.proxy.faults import OK, Script, Wire, says, stays
from tests.gateway.proxy.payloads import LAST, get, post
from tests.gateway.proxy.raw import until
from tests.gateway.proxy.stage import play
from tests.ports import free_port

GET = get(b"Host: a")


def answer(*fields: bytes, status: bytes = b"200 OK", body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join((version + b" " + status, *fields, b"", b"")) + body


async def next_is_right(c: Chain) -> None:
    """Nothing is left of the answer before: the next request gets its own."""
    assert parted(await c.get(target=b"/next"))[2] == b"ok"
    assert c.seen[-1].line == b"GET /next HTTP/1.1"


def then_polite(*answers: bytes) -> Script:
    """Send these bytes for the first requests and a good answer for each after them, on connections that stay open."""
    left = list(answers)

    async def script(wire: Wire) -> None:
        while await wire.request() is not None:
            await wire.send(*(left.pop(0) if left else OK,))

    return script


def test_duty_32_status_and_fields_pass_and_those_of_the_connection_stop(tmp_path: Path) -> None:
    """RFC 9110, sections 7.6.1, 5.3 and 15: any status of three digits, cookies on their own lines in their order."""

    async def main() -> None:
        for status in (b"200 OK", b"299 Hm", b"451 Unavailable", b"599 X", b"999 Beyond"):
            given = answer(
                b"Set-Cookie: a=1; Path=/", b"X-Latin: caf\xe9 \xff", b"set-cookie: b=2",
                b"Connection: x-hop, keep-alive",
                b"Keep-Alive: timeout=5", b"X-Hop: 1", b"Upgrade: h2", b"Proxy-Authenticate: Basic", b"Trailer: T",
                b"Set-Cookie: a=1; Path=/", b"Date: today", b"Turnout-Variant: forged", b"Content-Length: 2",
                status=status, body=b"ok",
            )  # fmt: skip
            async with chain(tmp_path, stays(given)) as c:
                line, fields, body = parted(await c.get())
            assert line.split()[1] == status.split()[0]
            *passed, prediction_id, length, connection = fields
            assert passed == [
                b"Set-Cookie: a=1; Path=/", b"X-Latin: caf\xe9 \xff", b"set-cookie: b=2", b"Set-Cookie: a=1; Path=/",
                b"Date: today",
            ]  # fmt: skip
            assert prediction_id.startswith(b"turnout-prediction-id: ")
            assert (length, connection, body) == (b"content-length: 2", b"connection: close", b"ok")

    play(main())


@pytest.mark.parametrize(
    ("method", "given", "length"),
    [
        (b"HEAD", answer(b"Content-Length: 5"), [b"5"]),
        (b"HEAD", answer(b"Transfer-Encoding: chunked"), []),
        (b"GET", answer(status=b"204 No Content"), []),
        (b"GET", answer(b"Content-Length: 0", status=b"204 No Content"), []),
        (b"GET", answer(b"Content-Length: 5", b'ETag: "x"', status=b"304 Not Modified"), [b"5"]),
        (b"GET", answer(b'ETag: "x"', status=b"304 Not Modified"), []),
    ],
)
def test_duty_33_answers_that_have_no_body_send_none_and_say_what_get_would_have(
    tmp_path: Path, method: bytes, given: bytes, length: list[bytes]
) -> None:
    """RFC 9112, sections 6.1 and 6.3; RFC 9110, section 8.6."""

    async def main() -> None:
        async with chain(tmp_path, then_polite(given)) as c, c.client() as client:
            await client.send(method + GET[3:] + LAST)
            first, second = (await client.rest()).split(b"HTTP/1.1 ")[1:]
            assert first.endswith(b"\r\n\r\n")
            assert values(first, b"content-length") == length
            assert values(first, b"transfer-encoding") == []
            assert second.endswith(b"\r\n\r\nok")

    play(main())


def test_duty_34_a_body_behind_the_answer_to_head_is_no_answer(tmp_path: Path) -> None:
    """RFC 9112, section 6.3."""

    async def main() -> None:
        async with chain(tmp_path, then_polite(answer(b"Content-Length: 5", body=b"HTTP/"))) as c:
            head = await c.get(method=b"HEAD")
            assert statuses(head) == (200,)
            assert head.endswith(b"\r\n\r\n")
            await next_is_right(c)

    play(main())


@pytest.mark.parametrize(
    "given",
    [
        answer(b"Content-Length: 1", b"Content-Length: 2", body=b"ab"),
        answer(b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        answer(b"Content-Length: 2, 2", body=b"ab"),
        answer(b"Content-Length: -1", body=b"ab"),
        answer(b"Content-Length: x", body=b"ab"),
        answer(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
        answer(b"Transfer-Encoding: chunked", body=b"x\r\n"),
        answer(b"Transfer-Encoding: chunked", body=b"3\r\nabcd\r\n"),
        b"<html>hello</html>",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_duty_35_an_answer_with_bad_framing_is_502_and_its_connection_closed(tmp_path: Path, given: bytes) -> None:
    """RFC 9112, section 6.3. Or it breaks off for the client, where its head was on the way."""

    async def main() -> None:
        async with chain(tmp_path, then_polite(given)) as c:
            got = await c.get()
            assert statuses(got) == (502,) or (statuses(got) == (200,) and not got.endswith(b"0\r\n\r\n"))
            assert b"abcd" not in got
            await until(lambda: c.backend.open == 0)
            await next_is_right(c)

    play(main())


@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"])
@pytest.mark.parametrize("late", [False, True])
def test_duty_36_bytes_behind_an_answer_are_no_answer(tmp_path: Path, extra: bytes, late: bool) -> None:
    """RFC 9112, section 6.3: the connection is dropped."""

    async def script(wire: Wire) -> None:
        while await wire.request() is not None:
            if wire_count[0]:
                await wire.send(OK)
            elif late:
                await wire.send(OK, extra)
            else:
                await wire.send(OK + extra)
            wire_count[0] += 1

    wire_count = [0]

    async def main() -> None:
        async with chain(tmp_path, script) as c:
            assert parted(await c.get())[2] == b"ok"
            await until(lambda: c.backend.open == 0)
            for _ in range(3):
                await next_is_right(c)
            assert len(c.seen) == 4

    play(main())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer(b"Content-Length: 5", body=b"ab"), 502),
        (answer(b"Content-Length: 5000000", body=b"ab"), 200),
        (answer(b"Transfer-Encoding: chunked", body=b"2\r\nab\r\n"), 200),
        (answer(b"Transfer-Encoding: chunked", body=b"2\r\nab\r\n0\r\n"), 200),
    ],
)
def test_duty_37_an_answer_that_breaks_off_is_never_whole_for_the_client(
    tmp_path: Path, given: bytes, expected: int
) -> None:
    """RFC 9112, section 8: 502 while nothing was sent, else neither the last chunk nor all of the length."""

    async def main() -> None:
        async with chain(tmp_path, says(given)) as c:
            got = await c.get()
            assert statuses(got) == (expected,)
            if expected == 200:
                assert not got.endswith(b"0\r\n\r\n")
                assert values(got, b"content-length") in ([], [b"5000000"])
            [row] = c.stage.rows("call", "close")
            assert row["fault"] == "incomplete"

    play(main())


@pytest.mark.parametrize("field", [b"X: a\r\n b", b"X: a\r\n\tb", b"X : a", b"X y: a", b"X: a\rb", b"X: a\0b"])
def test_duty_38_folded_lines_and_space_before_a_colon_in_an_answer_are_502(tmp_path: Path, field: bytes) -> None:
    """RFC 9112, sections 5.1 and 5.2. A name with a space behind could be passed on without it, but a server that
    sends one may be broken in other ways too; its answer is refused whole."""

    async def main() -> None:
        async with chain(tmp_path, then_polite(answer(field, b"Content-Length: 2", body=b"ok"))) as c:
            got = await c.get()
            assert statuses(got) == (502,)
            assert values(got, b"x") == []
            await next_is_right(c)

    play(main())


def test_duty_39_a_coded_body_passes_as_it_is_with_its_length(tmp_path: Path) -> None:
    """RFC 9110, section 8.4: nothing is unpacked, though the prediction is read from it."""
    body = gzip.compress(b'{"y": 7}' * 1000)

    async def main() -> None:
        fields = (b"Content-Encoding: gzip", b'ETag: "x"', b"Content-Length: %d" % len(body))
        async with chain(tmp_path, says(answer(*fields, body=body))) as c:
            got = await c.get()
            assert parted(got)[2] == body
            assert values(got, b"content-encoding") == [b"gzip"]
            assert values(got, b"content-length") == [b"%d" % len(body)]

    play(main())


def test_duty_40_interim_answers_are_dropped_and_101_is_502(tmp_path: Path) -> None:
    """RFC 9110, section 15.2: 1xx may be dropped by a proxy; 101 answers an upgrade, and we ask for none."""

    async def main() -> None:
        early = answer(b"Link: </a.css>", status=b"103 Early Hints") + answer(status=b"102 Processing")
        async with chain(tmp_path, then_polite(early + OK)) as c:
            assert statuses(await c.get()) == (200,)
            await next_is_right(c)
        switched = answer(b"Connection: upgrade", b"Upgrade: x", status=b"101 Switching Protocols", body=b"hello")
        async with chain(tmp_path, then_polite(switched)) as c:
            asking = (b"Connection: upgrade", b"Upgrade: x")
            got = await c.ask(get(b"Host: a", *asking, b"Connection: close"))
            assert statuses(got) == (502,)
            assert b"hello" not in got
            await next_is_right(c)

    play(main())


def test_duty_41_http_1_0_is_spoken_to_clients_and_backends_that_speak_it(tmp_path: Path) -> None:
    """RFC 9112, section 6.1: no chunks to HTTP/1.0; the close ends the answer, on either side."""

    async def main() -> None:
        async def streaming(wire: Wire) -> None:
            await wire.request()
            await wire.send(answer(b"Transfer-Encoding: chunked"), b"3\r\none\r\n", b"3\r\ntwo\r\n0\r\n\r\n")

        async with chain(tmp_path, streaming) as c:
            got = await c.ask(get(version=b"HTTP/1.0"))
            assert parted(got)[2] == b"onetwo"
            assert values(got, b"transfer-encoding") == values(got, b"content-length") == []
            assert values(got, b"connection") == [b"close"]
        async with chain(tmp_path, says(answer(version=b"HTTP/1.0", body=b"until the end"))) as c:
            got = await c.get()
            assert statuses(got) == (200,)
            assert b"until the end" in got

    play(main())


def test_duty_42_a_date_is_added_where_there_is_none_and_nothing_else_is_said_for_the_backend(tmp_path: Path) -> None:
    """RFC 9110, sections 6.6.1, 7.6.3 and 11.6.1. Via and Server are the backend's own."""

    async def main() -> None:
        given = (b"Server: model/1", b"Via: 1.1 inner", b'WWW-Authenticate: Basic realm="x", Bearer')
        for date in ((), (b"Date: Sat, 29 Oct 1994 19:43:31 GMT",)):
            whole = answer(*given, *date, b"Content-Length: 0", status=b"401 Unauthorized")
            async with chain(tmp_path, says(whole)) as c:
                got = await c.get()
            assert parted(got)[1][:3] == list(given)
            assert values(got, b"via") == [b"1.1 inner"]
            [found] = values(got, b"date")
            assert found.endswith(b"GMT")
            assert (found == b"Sat, 29 Oct 1994 19:43:31 GMT") == bool(date)

    play(main())


def test_duty_43_the_answer_of_a_backend_is_passed_on_while_the_upload_runs(tmp_path: Path) -> None:
    """RFC 9112, section 9.3: its status reaches the client, though the backend closes."""

    async def refusing(wire: Wire) -> None:
        await wire.head()
        await wire.send(answer(b"Connection: close", b"Content-Length: 4", status=b"413 Too Large", body=b"much"))

    async def main() -> None:
        async with chain(tmp_path, refusing) as c, c.client() as client:
            client.writer.write(post(b"Content-Length: 8000000") + b"x" * 4_000_000)
            got = await client.rest()
            assert statuses(got) == (413,)
            assert b"\r\n\r\nmuch" in got

    play(main())


def test_duty_44_a_stream_passes_as_it_comes_and_a_slow_reader_makes_the_backend_wait(tmp_path: Path) -> None:
    """RFC 9110, section 7.6: nothing is held back, and what is held is bounded."""
    go = asyncio.Event()
    sent = 0

    async def streaming(wire: Wire) -> None:
        nonlocal sent
        await wire.request()
        await wire.send(answer(b"Content-Type: text/event-stream", b"Transfer-Encoding: chunked"))
        await wire.send(b"b\r\ndata: one\n\n\r\n")
        await go.wait()
        for _ in range(400):
            await wire.send(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
            sent += 100_000
        await wire.send(b"0\r\n\r\n")

    async def main() -> None:
        async with chain(tmp_path, streaming, gateway=Gateway(max_buffer_bytes=2**20)) as c, c.client() as client:
            await client.send(LAST)
            assert (await client.reader.readuntil(b"\n\n")).endswith(b"data: one\n\n")
            go.set()
            before = 0
            while not before == sent > 0:  # until it waits
                before = sent
                await asyncio.sleep(0.5)
            assert sent < 20_000_000  # the kernel's buffers, on both sides of the worker, and little else
            rest = await client.rest()
            assert sent == 40_000_000
            assert rest.count(b"x") == 40_000_000
            assert rest.endswith(b"0\r\n\r\n")

    play(main())


def test_duty_45_redirects_are_passed_and_cookies_are_not_kept(tmp_path: Path) -> None:
    """RFC 9110, section 15.4; RFC 6265 binds user agents. Asked by name, as jars leave addresses out."""

    async def main() -> None:
        moved = answer(b"Location: /other", b"Set-Cookie: s=secret", b"Content-Length: 0", status=b"302 Found")
        async with chain(tmp_path, then_polite(moved)) as c:
            got = await c.get()
            assert statuses(got) == (302,)
            assert values(got, b"location") == [b"/other"]
            await next_is_right(c)
            assert [request.line for request in c.seen] == [b"GET /x HTTP/1.1", b"GET /next HTTP/1.1"]
            assert c.seen[1].values(b"cookie") == []

    play(main())


@pytest.mark.parametrize(
    ("script", "settings", "status", "fault"),
    [
        (None, {}, 502, "refused"),
        (says(b""), {}, 502, "reset"),
        (stays(b""), {"timeout_ms": 150}, 504, "timeout"),
        (stays(answer(b"Content-Length: 5", body=b"ab")), {"idle_timeout_ms": 150}, 504, "timeout"),
        (says(b"nonsense\r\n\r\n"), {}, 502, "protocol"),
    ],
)
def test_duty_46_each_way_a_backend_fails_has_its_status_and_differs_from_the_backends_own_errors(
    tmp_path: Path, script: Script | None, settings: dict[str, Any], status: int, fault: str
) -> None:
    """RFC 9110, section 15.6: the gateway's are problem documents (RFC 9457) with the fault, as in the row."""

    async def main() -> None:
        async with faults.backend(script or faults.polite) as backend:
            if script is None:
                backend.port = free_port()
            async with chain(tmp_path, backend=backend, **settings) as c:
                got = await c.get()
                assert statuses(got) == (status,)
                assert values(got, b"content-type") == [b"application/problem+json"]
                assert orjson.loads(parted(got)[2])["fault"] == fault
                [row] = c.stage.rows("call")
                assert (row["status"], row["fault"]) == (status, fault)

    play(main())


def test_duty_46_overload_is_503_with_a_time_to_come_back(tmp_path: Path) -> None:
    """RFC 9110, section 15.6.4. And a backend's own 503 passes as it is."""

    async def main() -> None:
        async with (
            chain(tmp_path, stays(b""), max_concurrency=1, max_waiting=0, timeout_ms=500) as c,
            c.client() as first,
        ):
            await first.send(GET)
            await until(lambda: c.seen)
            got = await c.get()
            assert statuses(got) == (503,)
            assert values(got, b"retry-after") == [b"1"]
            assert orjson.loads(parted(got)[2])["fault"] == "overloaded"
            assert len(c.seen) == 1
        own = answer(b"Content-Type: text/plain", b"Content-Length: 4", status=b"503 Mine", body=b"busy")
        async with chain(tmp_path, says(own)) as c:
            got = await c.get()
            assert (statuses(got), parted(got)[2]) == ((503,), b"busy")
            assert values(got, b"content-type") == [b"text/plain"]

    play(main())


def test_duty_46_a_client_that_leaves_is_only_logged_and_its_call_is_ended(tmp_path: Path) -> None:
    """What others log as 499: the row has no status, since there was no answer."""

    async def main() -> None:
        async with chain(tmp_path, stays(b"")) as c:
            async with c.client() as client:
                await client.send(GET)
                await until(lambda: c.seen)
            await until(lambda: c.backend.open == 0)
            await until(lambda: c.stage.rows("call"))
            [row] = c.stage.rows("call")
            assert (row.get("status"), row["fault"]) == (None, "client_gone")

    play(main())
