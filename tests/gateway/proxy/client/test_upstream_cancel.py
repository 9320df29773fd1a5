"""Ten thousand calls cancelled under contention, at every stage: afterwards the backend's capacity is what it was."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from gateway.proxy.client.upstream import Upstream
from gateway.proxy.wire.faults import UpstreamFault
from gateway.proxy.wire.fiber import Fiber
from tests.gateway.proxy import builders
from tests.gateway.proxy.faults import HOST, OK, Backend, Wire, backend, get, upstream
from tests.gateway.proxy.raw import play, until

PLACES = 8


async def script(wire: Wire) -> None:
    """Answer after a while: half of the time at once as a whole, else in two pieces."""
    chance = random.Random(7)
    while await wire.request() is not None:
        await asyncio.sleep(chance.random() * 0.002)
        if chance.random() < 0.5:
            await wire.send(OK)
        else:
            await wire.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
            await asyncio.sleep(chance.random() * 0.002)
            await wire.send(b"0\r\n\r\n")


class CancelledCalls:
    """Calls that are cancelled sooner or later, and the stage in which each of them was."""

    def __init__(self, up: Upstream) -> None:
        self.up = up
        self.stages: Counter[str] = Counter()
        self._chance = random.Random(11)

    async def one(self) -> None:
        """Begin a call as a request does, in a fiber, and cancel it."""
        stage = ["before"]
        ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        fiber = Fiber(self._call(stage), lambda _, error: ended.set_result(error))
        fiber.run()
        await asyncio.sleep(self._chance.random() * 0.03)
        fiber.cancel()
        error = await ended
        if isinstance(error, asyncio.CancelledError):
            self.stages[stage[0]] += 1
        elif isinstance(error, UpstreamFault):
            self.stages[error.fault] += 1
        elif error is not None:
            raise error

    async def _call(self, stage: list[str]) -> None:
        stage[0] = "waiting or head"
        answer = await self.up.call("GET", b"/", HOST, b"")
        stage[0] = "body"
        try:
            assert await answer.read(100) in (b"ok", b"one")
        finally:
            answer.close()
        stage[0] = "answered"
        self.stages["answered"] += 1


async def whole(up: Upstream) -> None:
    """Check that every place is free, that there is no further one, and that the next calls work."""
    await until(lambda: not up.in_flight and not up.waiting)
    assert [replica.in_flight for replica in up.replicas] == [0] * len(up.replicas)
    answers = [asyncio.create_task(up.call("GET", b"/", HOST, b"")) for _ in range(PLACES + 1)]
    await asyncio.sleep(0)  # each has begun, and no answer can be here
    assert (up.in_flight, len(up.waiting)) == (PLACES, 1)
    assert [await (await answer).read(100) for answer in answers]
    assert (up.in_flight, len(up.waiting)) == (0, 0)


@pytest.mark.parametrize("replicas", [1, 3])
def test_three_thousand_cancelled_calls_leave_the_capacity_unchanged(replicas: int) -> None:
    """Waiting for a place, connecting, before the head, within the body, and in the same moment as the answer."""

    async def main() -> None:
        async with backend(script) as one, backend(script) as two, backend(script) as three:
            backends = (one, two, three)[:replicas]
            up = upstream(*backends, max_concurrency=PLACES, max_waiting=64, wait_timeout_ms=60_000)
            calls = CancelledCalls(up)
            for _ in range(30):
                await asyncio.gather(*(calls.one() for _ in range(100)))
            assert calls.stages["waiting or head"] > 300
            assert calls.stages["body"] > 3
            assert calls.stages["answered"] > 30
            assert calls.stages["overloaded"] > 30  # of a hundred, eight are under way and sixty-four may wait
            assert not set(calls.stages) - {"waiting or head", "body", "answered", "overloaded"}
            await whole(up)
            assert {state for _, state in up.states()} == {"fit"}  # a client that leaves is no failure of a replica
            await until(lambda: sum(b.open for b in backends) <= PLACES)
            await up.close()
            await until(lambda: not any(b.open for b in backends))

    play(main())


@pytest.mark.parametrize("as_task", [False, True])
def test_calls_cancelled_while_they_connect_leave_no_connection_behind(as_task: bool) -> None:
    """Whether it was on its way, or had just come up and was not taken yet."""

    async def asked(up: Upstream) -> None:
        await get(up)

    def begin(up: Upstream) -> asyncio.Task[None] | Fiber:
        if as_task:
            return asyncio.create_task(asked(up))
        fiber = Fiber(asked(up), lambda _, __: None)
        fiber.run()
        return fiber

    async def main() -> None:
        async with backend() as b:
            up = Upstream(builders.backend("b", b.url, max_concurrency=PLACES))
            for turn in range(300):
                calls = [begin(up) for _ in range(PLACES)]
                for _ in range(turn % 12):
                    await asyncio.sleep(0)
                if turn % 12 == 11:
                    await asyncio.sleep(0.001)
                for call in calls:
                    call.cancel()
                await until(lambda: not up.in_flight)
            await whole(up)
            await until(lambda: b.open <= PLACES)
            assert len(up.replicas[0].links) == b.open
            await up.close()
            await until(lambda: not b.open)

    play(main())


def test_a_call_cancelled_in_the_moment_it_is_handed_a_place_gives_it_back_and_sends_nothing() -> None:
    """What it waited for is there, so that nothing is left to cancel but the call itself."""

    async def main() -> None:
        async def held(wire: Wire) -> None:
            await wire.request()
            await wire.gone()

        ended: list[BaseException | None] = []

        async def asked(up: Upstream) -> None:
            await get(up)

        async with backend(held) as b:
            up = upstream(b, max_concurrency=1)
            first = await begun(up, b)
            second = Fiber(asked(up), lambda _, error: ended.append(error))
            second.run()
            assert len(up.waiting) == 1
            first.cancel()
            assert (up.in_flight, len(up.waiting)) == (1, 0)  # the place is the second's, which does not know yet
            second.cancel()
            await until(lambda: ended)
            assert isinstance(ended[0], asyncio.CancelledError)
            assert up.in_flight == 0
            assert len(b.requests) == 1
            await up.close()

    async def begun(up: Upstream, b: Backend) -> Fiber:
        async def asked() -> None:
            await get(up)

        fiber = Fiber(asked(), lambda _, __: None)
        fiber.run()
        await until(lambda: b.requests)
        return fiber

    play(main())
