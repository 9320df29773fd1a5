"""The pool of connections: reuse, bounds, and that a call gives back its place in whichever way it ends."""

from __future__ import annotations

import asyncio

import pytest

from gateway.proxy.client import phases
from gateway.proxy.wire.faults import UpstreamFault
from tests.gateway.proxy.faults import HOST, OK, Wire, backend, get, says, stays, upstream
from tests.gateway.proxy.raw import play, until


def test_calls_one_after_another_share_one_connection() -> None:
    async def main() -> None:
        async with backend() as b:
            up = upstream(b)
            for _ in range(20):
                assert await get(up) == b"ok"
            assert (b.wires, b.open, up.in_flight) == (1, 1, 0)
            await up.close()
            await until(lambda: not b.open)

    play(main())


def test_the_connection_used_last_is_used_next() -> None:
    """So that connections no longer needed stay idle, and are closed."""

    async def main() -> None:
        ports: list[int] = []

        async def script(wire: Wire) -> None:
            while await wire.request() is not None:
                ports.append(id(wire))
                await asyncio.sleep(0.02)
                await wire.send(OK)

        async with backend(script) as b:
            up = upstream(b)
            await asyncio.gather(*(get(up) for _ in range(5)))
            assert b.wires == len(set(ports)) == 5
            ports.clear()
            for _ in range(5):
                await get(up)
            assert len(set(ports)) == 1
            await up.close()

    play(main())


@pytest.mark.interpreted
def test_idle_connections_close_before_the_backend_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """Common servers close after five seconds; a request on its way just then would be lost."""
    assert phases.IDLE_SECONDS < 5
    monkeypatch.setattr(phases, "IDLE_SECONDS", 0.1)

    async def main() -> None:
        async with backend() as b:
            up = upstream(b, timeout_ms=500)
            await get(up)
            await until(lambda: not b.open, seconds=2)
            assert await get(up) == b"ok"
            assert b.wires == 2
            await up.close()

    play(main())


def test_a_connection_the_backend_closed_while_idle_is_not_used() -> None:
    async def main() -> None:
        async with backend(says(OK)) as b:
            up = upstream(b)
            for _ in range(5):
                assert await get(up, method="POST", body=b"x") == b"ok"
                await until(lambda: not b.open)
                await asyncio.sleep(0.01)
            await up.close()

    play(main())


def test_a_connection_whose_backend_says_close_is_not_used_again() -> None:
    async def main() -> None:
        async with backend(stays(b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n")) as b:
            up = upstream(b)
            for _ in range(3):
                await get(up)
            assert b.wires == 3
            await up.close()

    play(main())


def test_where_no_call_may_wait_calls_over_the_bound_fail_at_once_and_those_under_it_go_on() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def script(wire: Wire) -> None:
            while await wire.request() is not None:
                await go.wait()
                await wire.send(OK)

        async with backend(script) as b:
            up = upstream(b, max_concurrency=2, max_waiting=0)
            calls = [asyncio.create_task(get(up)) for _ in range(2)]
            await until(lambda: len(b.requests) == 2)
            for _ in range(10):
                with pytest.raises(UpstreamFault) as caught:
                    await asyncio.wait_for(get(up), 0.1)
                assert caught.value.fault == "overloaded"
            assert up.in_flight == 2
            go.set()
            assert await asyncio.gather(*calls) == [b"ok", b"ok"]
            assert await get(up) == b"ok"
            assert b.wires == 2
            await up.close()

    play(main())


def test_an_answer_that_is_not_read_takes_its_place_until_it_is_closed() -> None:
    async def main() -> None:
        stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
        async with backend(stays(stream)) as b:
            up = upstream(b, max_concurrency=1)
            answer = await up.call("GET", b"/", HOST, b"")
            waiting = asyncio.create_task(up.call("GET", b"/", HOST, b""))
            await until(lambda: len(up.waiting) == 1)
            answer.close()
            answer.close()
            (await waiting).close()
            assert up.in_flight == 0
            await until(lambda: not b.open)  # what was still to come would be the next answer
            again = await up.call("GET", b"/", HOST, b"")
            again.close()
            await up.close()

    play(main())


def test_closing_lets_calls_end_and_keeps_no_connection() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def script(wire: Wire) -> None:
            while await wire.request() is not None:
                await go.wait()
                await wire.send(OK)

        async with backend(script) as b:
            up = upstream(b)
            call = asyncio.create_task(get(up))
            await until(lambda: b.requests)
            await up.close()
            go.set()
            assert await call == b"ok"
            await until(lambda: not b.open)

    play(main())
