"""What becomes of a call when its backend fails, and that the next call succeeds all the same."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from gateway.proxy.client.upstream import Upstream
from gateway.proxy.wire.faults import UpstreamFault
from tests.gateway.proxy import builders
from tests.gateway.proxy.faults import HOST, OK, Script, Wire, backend, get, polite, says, stays, upstream
from tests.gateway.proxy.raw import play, until
from tests.ports import free_port


async def fault(up: Upstream, method: str = "GET", body: bytes = b"") -> str:
    """Return the fault that the call ends in, before its head or after; check that its place is free again."""
    with pytest.raises(UpstreamFault) as caught:
        await get(up, b"/", method, body)
    assert caught.value.detail
    assert up.in_flight == 0
    return caught.value.fault


def reset_after(*pieces: bytes) -> Script:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(*pieces)
        wire.reset()

    return script


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (says(b""), "reset"),
        (reset_after(), "reset"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Le"), "reset"),
        (says(HEAD + b"abc"), "incomplete"),
        (reset_after(HEAD, b"abc"), "incomplete"),
        (says(CHUNKED + b"3\r\nabc\r\n"), "incomplete"),
        (says(CHUNKED + b"3\r\nabc\r\n0\r\n"), "incomplete"),
        (reset_after(b"HTTP/1.1 200 OK\r\n\r\n", b"until close, and then a reset"), "incomplete"),
        (says(CHUNKED + b"3\r\nabcd\r\n"), "protocol"),
        (says(CHUNKED + b"xyz\r\n"), "protocol"),
        (says(b"<html>hello</html>"), "protocol"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), "protocol"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "protocol"),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), "protocol"),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"), "protocol"),
        (says(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"), "protocol"),
        (says(b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n"), "protocol"),
        (says(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), "protocol"),
        (says(b"HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n"), "protocol"),
        (says(b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n"), "protocol"),
        (says(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello"), "protocol"),
        (says(b"HTTP/1.1 101 Switching Protocols\r\n\r\nhello"), "protocol"),
        (says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 600_000), "protocol"),
        (says(b"HTTP/1.1 100 Continue\r\n\r\n" * 30_000), "protocol"),
        (says(CHUNKED + b"1;" + b"x" * 600_000), "protocol"),
        (stays(b""), "timeout"),
        (stays(b"HTTP/1.1 200 OK\r\nContent-Le"), "timeout"),
        (stays(b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout"),
        (stays(HEAD + b"abc"), "timeout"),
        (stays(CHUNKED + b"3\r\nabc\r\n"), "timeout"),
        (stays(b"HTTP/1.1 200 OK\r\n\r\nuntil close"), "timeout"),
    ],
)
def test_each_way_to_fail_has_its_name_and_drops_the_connection(script: Script, expected: str) -> None:
    async def main() -> None:
        async with backend(script) as b:
            up = upstream(b, timeout_ms=300, idle_timeout_ms=200)
            assert await fault(up) == expected
            await until(lambda: not b.open)
            assert await fault(up) == expected  # on a connection of its own
            assert b.wires == 2
            await up.close()

    play(main())


def test_the_bytes_before_a_fault_are_delivered_first() -> None:
    async def main() -> None:
        async with backend(says(HEAD + b"abc")) as b:
            up = upstream(b)
            answer = await up.call("GET", b"/", HOST, b"")
            chunks = answer.chunks()
            assert await anext(chunks) == b"abc"
            with pytest.raises(UpstreamFault):
                await anext(chunks)
            await up.close()

    play(main())


def test_a_port_without_a_listener_is_refused() -> None:
    async def main() -> None:
        up = Upstream(builders.backend("b", f"http://127.0.0.1:{free_port()}"))
        assert await fault(up) == "refused"
        await up.close()
        nowhere = Upstream(builders.backend("b", "http://nowhere.invalid:1"))
        assert await fault(nowhere) == "refused"
        await nowhere.close()

    play(main())


def test_a_connection_that_takes_too_long_is_a_timeout() -> None:
    """The backlog of a listener that accepts no connection is full: the kernel does not answer the next one."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
            others = []
            for _ in range(4):
                other = socket.socket()
                other.setblocking(False)
                other.connect_ex(deaf.getsockname())
                others.append(other)
            up = Upstream(builders.backend("b", f"http://127.0.0.1:{deaf.getsockname()[1]}", connect_timeout_ms=150))
            began = time.monotonic()
            assert await fault(up) == "timeout"
            assert time.monotonic() - began < 1
            await up.close()
            for other in others:
                other.close()

    play(main())


def test_an_answer_longer_than_wanted_is_not_read_to_its_end() -> None:
    async def main() -> None:
        async with backend(stays(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000)) as b:
            up = upstream(b)
            answer = await up.call("GET", b"/", HOST, b"")
            with pytest.raises(UpstreamFault, match="longer than 1000 bytes"):
                await answer.read(1000)
            assert up.in_flight == 0
            await until(lambda: not b.open)
            await up.close()

    play(main())


@pytest.mark.parametrize(
    "extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", b"garbage", b"HTTP/1.1 2", b"\0"]
)
@pytest.mark.parametrize("late", [False, True])
def test_bytes_after_a_whole_answer_drop_the_connection_and_are_no_answer(extra: bytes, late: bool) -> None:
    """A client that kept them would give one user's call the answer that was made for another's."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await (wire.send(OK, extra) if late else wire.send(OK + extra))
        await wire.gone()

    async def main() -> None:
        async with backend(script) as b:
            up = upstream(b)
            for _ in range(3):
                assert await get(up) == b"ok"
                if late:
                    await until(lambda: not b.open)
            await until(lambda: not b.open)
            assert b.wires == 3
            await up.close()

    play(main())


def test_bytes_after_a_long_answer_drop_the_connection_and_are_no_answer() -> None:
    body = b"x" * 500_000

    async def script(wire: Wire) -> None:
        await wire.request()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        await wire.send(head + body[:1_000], body[1_000:] + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await wire.gone()

    async def main() -> None:
        async with backend(script) as b:
            up = upstream(b)
            for _ in range(2):
                assert await get(up) == body
                await until(lambda: not b.open)
            assert b.wires == 2
            await up.close()

    play(main())


def test_a_long_answer_that_breaks_off_is_incomplete() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n"

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(head, b"x" * 499_999)

    async def main() -> None:
        async with backend(script) as b:
            up = upstream(b)
            assert await fault(up) == "incomplete"
            await up.close()

    play(main())


@pytest.mark.parametrize(
    ("method", "body", "repeated"),
    [("GET", b"", True), ("PUT", b"x", True), ("DELETE", b"", True), ("POST", b"x", False), ("PATCH", b"", False)],
)
def test_a_call_is_repeated_only_on_a_used_connection_that_closed_and_only_if_twice_is_as_good_as_once(
    method: str, body: bytes, repeated: bool
) -> None:
    async def once_each(wire: Wire) -> None:
        """Answer the first request of a connection, and close on the second without an answer."""
        await wire.request()
        await wire.send(OK)
        await wire.request()

    async def main() -> None:
        async with backend(once_each) as b:
            up = upstream(b)
            assert await get(up, b"/", method, body) == b"ok"
            if repeated:
                assert await get(up, b"/", method, body) == b"ok"
                assert (len(b.requests), b.wires) == (3, 2)
            else:
                assert await fault(up, method, body) == "reset"
                assert (len(b.requests), b.wires) == (2, 1)
            assert up.in_flight == 0
            await up.close()

    play(main())


def test_a_fresh_connection_that_closes_is_not_tried_again() -> None:
    async def main() -> None:
        async with backend(says(b"")) as b:
            up = upstream(b)
            assert await fault(up) == "reset"
            assert (len(b.requests), b.wires) == (1, 1)
            await up.close()

    play(main())


def test_a_call_that_runs_out_of_time_on_a_used_connection_is_not_repeated() -> None:
    async def main() -> None:
        async with backend(stays(OK)) as b:
            up = upstream(b, timeout_ms=150)
            await get(up)
            assert await fault(up) == "timeout"
            assert b.wires == 1
            await up.close()

    play(main())


def test_a_call_is_not_repeated_once_any_byte_of_an_answer_came() -> None:
    async def main() -> None:
        async with backend(says(OK, b"H")) as b:
            up = upstream(b)
            await get(up)
            assert await fault(up) == "reset"
            assert len(b.requests) == 2
            await up.close()

    play(main())


def test_the_time_for_an_answer_counts_from_the_end_of_the_upload() -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(0.15)
            yield b"x"

    async def main() -> None:
        async with backend(polite) as b:
            up = upstream(b, timeout_ms=300)
            assert (await up.call("POST", b"/", HOST, slow())).complete == b"ok"
            await up.close()

    play(main())


def test_a_backend_that_does_not_take_the_upload_runs_out_of_time() -> None:
    async def long() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    async def main() -> None:
        go = asyncio.Event()

        async def script(wire: Wire) -> None:
            await go.wait()

        async with backend(script) as b:
            up = upstream(b, timeout_ms=300)
            with pytest.raises(UpstreamFault) as caught:
                await up.call("POST", b"/", HOST, long())
            assert caught.value.fault == "timeout"
            assert up.in_flight == 0
            go.set()
            await up.close()

    play(main())


def test_one_replica_that_fails_does_not_hurt_the_other() -> None:
    async def main() -> None:
        async with backend(polite) as well, backend(says(b"nonsense")) as ill:
            up = upstream(well, ill, eject_after=0)
            results: list[bytes] = []
            while len(set(results)) < 2 or len(results) < 10:
                try:
                    results.append(await get(up))
                except UpstreamFault as error:
                    results.append(error.fault.encode())
            assert set(results) == {b"ok", b"protocol"}
            assert (results.count(b"ok"), results.count(b"protocol")) == (len(well.requests), len(ill.requests))
            await up.close()

    play(main())
