"""Calls over the bound wait: in order, not for ever, and not too many of them."""

from __future__ import annotations

import asyncio

import pytest

from gateway.proxy.client.upstream import Upstream
from gateway.proxy.wire.faults import UpstreamFault
from tests.gateway.proxy import builders
from tests.gateway.proxy.faults import HOST, OK, Backend, Script, Wire, backend, get, upstream
from tests.gateway.proxy.raw import play, until


def gated(go: asyncio.Semaphore) -> Script:
    """Answer one request for each time that ``go`` is released."""

    async def script(wire: Wire) -> None:
        while await wire.request() is not None:
            await go.acquire()
            await wire.send(OK)

    return script


async def waiting(up: Upstream, number: int) -> None:
    await until(lambda: len(up.waiting) == number)


def test_who_waits_is_served_in_order_and_the_bound_holds() -> None:
    async def main() -> None:
        go = asyncio.Semaphore(0)
        async with backend(gated(go)) as b:
            up = upstream(b, max_concurrency=1)
            calls = []
            for number in range(5):
                calls.append(asyncio.create_task(get(up, b"/%d" % number)))
                await until(lambda: up.in_flight == 1)
                await waiting(up, number)
            for _ in range(5):
                assert up.in_flight == 1
                go.release()
            assert await asyncio.gather(*calls) == [b"ok"] * 5
            assert [request.line for request in b.requests] == [b"GET /%d HTTP/1.1" % n for n in range(5)]
            assert (b.wires, up.in_flight, len(up.waiting)) == (1, 0, 0)
            await up.close()

    play(main())


def test_a_call_that_comes_later_does_not_overtake_one_that_was_just_called() -> None:
    async def main() -> None:
        go = asyncio.Semaphore(0)
        async with backend(gated(go)) as b:
            up = upstream(b, max_concurrency=1)
            answer = await started(up, b, go)
            second = asyncio.create_task(get(up, b"/second"))
            await waiting(up, 1)
            answer.cancel()  # its place is handed over at once
            third = asyncio.create_task(get(up, b"/third"))
            await until(lambda: len(b.requests) == 2)
            assert b.requests[1].line == b"GET /second HTTP/1.1"
            go.release()
            go.release()
            go.release()
            await asyncio.gather(second, third)
            await up.close()

    async def started(up: Upstream, b: Backend, go: asyncio.Semaphore) -> asyncio.Task[bytes]:
        call = asyncio.create_task(get(up, b"/first"))
        await until(lambda: len(b.requests) == 1)
        return call

    play(main())


def test_one_more_than_may_wait_is_overloaded_at_once() -> None:
    async def main() -> None:
        go = asyncio.Semaphore(0)
        async with backend(gated(go)) as b:
            up = upstream(b, max_concurrency=1, max_waiting=2, wait_timeout_ms=60_000)
            calls = [asyncio.create_task(get(up)) for _ in range(3)]
            await waiting(up, 2)
            with pytest.raises(UpstreamFault) as caught:
                await get(up)
            assert caught.value.fault == "overloaded"
            assert len(up.waiting) == 2
            for _ in calls:
                go.release()
            await asyncio.gather(*calls)
            await up.close()

    play(main())


def test_a_call_that_waits_too_long_is_overloaded_and_waits_no_more() -> None:
    async def main() -> None:
        go = asyncio.Semaphore(0)
        async with backend(gated(go)) as b:
            up = upstream(b, max_concurrency=1, wait_timeout_ms=50)
            first = asyncio.create_task(get(up))
            await until(lambda: b.requests)
            with pytest.raises(UpstreamFault, match=r"none ended within 0\.05 s") as caught:
                await get(up)
            assert caught.value.fault == "overloaded"
            assert (up.in_flight, len(up.waiting)) == (1, 0)
            go.release()
            await first
            assert (up.in_flight, len(b.requests)) == (0, 1)
            await up.close()

    play(main())


def test_a_call_that_stops_waiting_leaves_no_place_taken() -> None:
    """While it waits, in the moment in which it is handed a place, and several at once."""

    async def main() -> None:
        go = asyncio.Semaphore(0)
        async with backend(gated(go)) as b:
            up = upstream(b, max_concurrency=1)
            first = asyncio.create_task(get(up))
            await until(lambda: b.requests)
            line = [asyncio.create_task(get(up, b"/%d" % number)) for number in range(6)]
            await waiting(up, 6)
            line[1].cancel()
            await waiting(up, 5)
            first.cancel()
            line[2].cancel()  # in one moment: the place goes to 0, which is gone before it knows
            line[0].cancel()
            await until(lambda: len(b.requests) == 2)
            assert b.requests[1].line == b"GET /3 HTTP/1.1"
            for _ in range(4):
                go.release()
            results = await asyncio.gather(*line, return_exceptions=True)
            assert [isinstance(result, asyncio.CancelledError) for result in results] == [True] * 3 + [False] * 3
            assert (up.in_flight, len(up.waiting)) == (0, 0)
            await up.close()

    play(main())


def test_copies_do_not_wait() -> None:
    """They would hold memory and room among the waiting calls, though no client waits for them."""

    async def main() -> None:
        go = asyncio.Semaphore(0)
        async with backend(gated(go)) as b:
            up = Upstream(builders.backend("b", b.url, max_concurrency=1), waits=False)
            first = asyncio.create_task(get(up))
            await until(lambda: b.requests)
            with pytest.raises(UpstreamFault, match="overloaded"):
                await get(up)
            go.release()
            await first
            await up.close()

    play(main())


def test_waiting_counts_towards_the_total_time() -> None:
    async def main() -> None:
        go = asyncio.Semaphore(0)
        async with backend(gated(go)) as b:
            up = upstream(b, max_concurrency=1, wait_timeout_ms=60_000, total_timeout_ms=300)
            answer = asyncio.create_task(up.call("GET", b"/", HOST, b""))
            await until(lambda: b.requests)
            with pytest.raises(UpstreamFault) as caught:
                await get(up)
            assert caught.value.fault == "timeout"
            with pytest.raises(UpstreamFault, match=r"no whole answer within 0\.3 s"):
                await answer
            assert (up.in_flight, len(up.waiting)) == (0, 0)
            await up.close()

    play(main())
