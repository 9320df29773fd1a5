"""Several replicas of one variant: which one is asked, which one is not, and when a call is sent again to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.proxy.client.upstream import LEAST_RETRIES, Upstream
from gateway.proxy.log.counters import Counts
from gateway.proxy.wire.faults import UpstreamFault
from tests.gateway.proxy.faults import HOST, OK, Script, Wire, backend, get, nowhere, polite, says, stays, upstream
from tests.gateway.proxy.raw import play, until
from tests.ports import free_port

BROKEN = b"HTTP/1.1 500 Broken\r\ncontent-length: 3\r\n\r\nbad"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"


def slow(go: asyncio.Event) -> Script:
    async def script(wire: Wire) -> None:
        while await wire.request() is not None:
            await go.wait()
            await wire.send(OK)

    return script


def silent_once_asked(times: int = 1) -> Script:
    """Break the connection of the first requests without an answer, then answer."""
    left = times

    async def script(wire: Wire) -> None:
        nonlocal left
        while await wire.request() is not None:
            if left:
                left -= 1
                return
            await wire.send(OK)

    return script


async def fault(up: Upstream, method: str = "GET", body: bytes = b"x") -> UpstreamFault:
    with pytest.raises(UpstreamFault) as caught:
        await get(up, b"/", method, body)
    assert up.in_flight == 0
    return caught.value


def counted(counts: Counts, name: str) -> dict[str, float]:
    """A counter by its last label."""
    return {list(labels.values())[-1]: number for found, labels, number in counts.samples() if found == name}


def test_the_busier_of_two_is_never_asked() -> None:
    async def main() -> None:
        go = asyncio.Event()
        async with backend(slow(go)) as busy, backend(polite) as idle:
            up = upstream(busy, idle)
            first = [asyncio.create_task(get(up)) for _ in range(20)]
            await until(lambda: busy.requests and up.in_flight == len(busy.requests))
            held = len(busy.requests)
            for _ in range(50):
                await get(up)
            assert len(busy.requests) == held
            go.set()
            await asyncio.gather(*first)
            await up.close()

    play(main())


def test_calls_spread_over_replicas_that_are_as_busy() -> None:
    """By chance, so that no order falls into step with the backend's own; 300 fair draws of 3 stay within 50 to 150."""

    async def main() -> None:
        async with backend() as one, backend() as two, backend() as three:
            up = upstream(one, two, three)
            for _ in range(300):
                await get(up)
            assert all(50 < len(b.requests) < 150 for b in (one, two, three))
            await up.close()

    play(main())


def test_a_replica_that_keeps_failing_is_ejected_and_comes_back_when_it_is_well() -> None:
    async def main() -> None:
        ill = True

        async def script(wire: Wire) -> None:
            while await wire.request() is not None:
                await wire.send(BROKEN if ill else OK)

        counts = Counts()
        async with backend(script) as patient, backend(polite) as well:
            up = upstream(patient, well, counts=counts, eject_after=3, eject_ms=100)
            while up.states()[0][1] == "fit":
                await get(up)
            assert len(patient.requests) == 3  # its clients got 500s, as it had said: no call is repeated for one
            assert up.states()[1][1] == "fit"
            assert counts.samples() == [
                ("ejections", {"variant": "b", "replica": up.states()[0][0], "reason": "answer"}, 1)
            ]
            ill = False
            while up.states()[0][1] != "fit":
                assert await get(up) == b"ok"
                await asyncio.sleep(0.005)
            assert len(patient.requests) == 4
            await up.close()

    play(main())


def test_a_replica_that_is_gone_costs_its_variant_no_call() -> None:
    async def main() -> None:
        counts = Counts()
        async with backend(polite) as well:
            up = upstream(nowhere(), well, counts=counts, eject_after=3)
            for _ in range(50):
                assert await get(up, b"/", "POST", b"x") == b"ok"
            assert len(well.requests) == 50
            assert counted(counts, "retries") == {"refused": 3}
            assert counted(counts, "ejections") == {"connection": 1}
            await up.close()

    play(main())


def test_under_load_a_replica_may_go_and_come_again_and_every_idempotent_call_is_answered() -> None:
    async def main() -> None:
        going = True
        answers: list[bytes] = []

        async def client(up: Upstream) -> None:
            while going:
                answers.append(await get(up))

        async with backend(slowly) as stays_up:
            port = free_port()
            async with backend(slowly, port=port) as first:
                up = upstream(stays_up, first, eject_after=3, eject_ms=100)
                # As many as may be repeated at a time, should all of them be there when it goes.
                clients = [asyncio.create_task(client(up)) for _ in range(LEAST_RETRIES)]
                await until(lambda: len(first.requests) > 100)
            await until(lambda: up.states()[1][1] == "ejected")
            async with backend(slowly, port=port) as second:
                await until(lambda: len(second.requests) > 100)
                assert up.states()[1][1] == "fit"
                going = False
                await asyncio.gather(*clients)
                assert set(answers) == {b"ok"}
                await up.close()

    async def slowly(wire: Wire) -> None:
        while await wire.request() is not None:
            await asyncio.sleep(0.001)
            await wire.send(OK)

    play(main())


def test_a_stream_that_its_client_was_slow_to_send_is_no_failure_of_the_replica() -> None:
    """Or a few slow clients would have replicas ejected for all."""

    async def main() -> None:
        async def impatient(wire: Wire) -> None:
            await wire.head()
            await asyncio.sleep(0.02)

        async def slow_body() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.sleep(10)
            yield b"y"

        async with backend(impatient) as one, backend(impatient) as two:
            up = upstream(one, two, eject_after=1)
            for _ in range(4):
                with pytest.raises(UpstreamFault, match="reset"):
                    await up.call("POST", b"/", HOST, slow_body())
            assert [state for _, state in up.states()] == ["fit", "fit"]
            assert up.in_flight == 0
            await up.close()

    play(main())


def test_an_answer_that_breaks_off_is_a_failure_and_one_that_is_not_read_to_its_end_is_none() -> None:
    async def main() -> None:
        async with backend(says(HEAD + b"abc")) as one, backend(says(HEAD + b"abc")) as two:
            up = upstream(one, two, eject_after=2)
            for _ in range(4):
                with pytest.raises(UpstreamFault, match="incomplete"):
                    await get(up)
            assert sorted(state for _, state in up.states()) == ["ejected", "fit"]
            await up.close()
        async with backend(stays(HEAD + b"abc")) as one, backend(stays(HEAD + b"abc")) as two:
            up = upstream(one, two, eject_after=2)
            for _ in range(10):
                (await up.call("GET", b"/", HOST, b"")).close()
            assert [state for _, state in up.states()] == ["fit", "fit"]
            await up.close()

    play(main())


def test_the_only_replica_is_asked_however_often_it_fails() -> None:
    async def main() -> None:
        async with backend(says(b"nonsense")) as b:
            up = upstream(b, eject_after=1, max_ejected_share=1.0)
            for _ in range(5):
                assert (await fault(up)).fault == "protocol"
            assert up.states()[0][1] == "fit"
            await up.close()

    play(main())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_where_nothing_was_sent_another_replica_is_asked_whatever_the_method(method: str) -> None:
    async def main() -> None:
        async with backend(polite) as well:
            up = upstream(nowhere(), nowhere(), well, retries=2, eject_after=0)
            answers = [await up.call(method, b"/", HOST, b"x") for _ in range(30)]
            assert {answer.complete for answer in answers} == {b"ok"}
            assert {answer.retries for answer in answers} == {0, 1, 2}
            assert len(well.requests) == 30
            await up.close()

    play(main())


@pytest.mark.parametrize(
    ("method", "again"), [("GET", True), ("PUT", True), ("DELETE", True), ("POST", False), ("PATCH", False)]
)
@pytest.mark.parametrize("broken", [says(b""), stays(b"")])
def test_where_no_byte_came_another_replica_is_asked_if_twice_is_as_good_as_once(
    method: str, again: bool, broken: Script
) -> None:
    async def main() -> None:
        async with backend(broken) as ill, backend(polite) as well:
            up = upstream(ill, well, eject_after=0, timeout_ms=100)
            outcomes: list[bytes] = []
            while not ill.requests or len(outcomes) < 4:
                try:
                    outcomes.append(await get(up, b"/", method, b"x"))
                except UpstreamFault as error:
                    outcomes.append(error.fault.encode())
            assert (set(outcomes) == {b"ok"}) == again
            assert len(ill.requests) + len(well.requests) == len(outcomes) + (len(ill.requests) if again else 0)
            await up.close()

    play(main())


@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"nonsense", HEAD + b"abc"])
def test_once_a_byte_of_an_answer_came_no_other_replica_is_asked(said: bytes) -> None:
    async def main() -> None:
        async with backend(says(said)) as one, backend(says(said)) as two:
            up = upstream(one, two)
            assert (await fault(up)).retries == 0
            assert len(one.requests) + len(two.requests) == 1
            await up.close()

    play(main())


def test_a_body_that_streams_is_sent_once() -> None:
    async def main() -> None:
        async def body() -> AsyncIterator[bytes]:
            yield b"x"

        counts = Counts()
        async with backend(says(b"")) as one, backend(says(b"")) as two:
            up = upstream(one, two, counts=counts)
            with pytest.raises(UpstreamFault) as caught:
                await up.call("PUT", b"/", HOST, body())
            assert caught.value.fault == "reset"
            assert len(one.requests) + len(two.requests) == 1
            assert not counted(counts, "retries")
            assert up.in_flight == 0
            await up.close()

    play(main())


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_body_that_streams_goes_to_another_replica_while_nothing_of_it_was_taken(method: str) -> None:
    """Long bodies stream: without this, every one of them that is sent to a replica that is gone would fail."""

    async def main() -> None:
        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        async with backend(polite) as well:
            up = upstream(nowhere(), nowhere(), well, retries=2, eject_after=0)
            answers = [await up.call(method, b"/", HOST, body()) for _ in range(30)]
            assert {answer.complete for answer in answers} == {b"ok"}
            assert {answer.retries for answer in answers} == {0, 1, 2}
            assert [request.body for request in well.requests] == [b"onetwo"] * 30
            await up.close()

    play(main())


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
def test_a_call_is_repeated_no_more_often_than_set_and_no_replica_is_asked_twice(retries: int) -> None:
    async def main() -> None:
        async with backend(says(b"")) as one, backend(says(b"")) as two, backend(says(b"")) as three:
            up = upstream(one, two, three, retries=retries, eject_after=0)
            assert (await fault(up)).retries == min(retries, 2)
            asked = [len(b.requests) for b in (one, two, three)]
            assert sum(asked) == min(retries, 2) + 1
            assert max(asked) == 1
            await up.close()

    play(main())


def test_without_retries_a_pooled_connection_that_closed_is_the_end_of_its_call() -> None:
    async def main() -> None:
        async def once_each(wire: Wire) -> None:
            await wire.request()
            await wire.send(OK)
            await wire.request()

        async with backend(once_each) as b:
            up = upstream(b, retries=0)
            await get(up)
            assert (await fault(up)).fault == "reset"
            assert b.wires == 1
            await up.close()

    play(main())


def test_repeats_stay_within_their_budget_when_everything_fails() -> None:
    """Or a backend in trouble would be asked twice as much as one that is well."""

    async def main() -> None:
        go = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.request()
            await go.wait()

        counts = Counts()
        async with backend(script) as one, backend(script) as two:
            up = upstream(one, two, counts=counts, eject_after=0)
            calls = [asyncio.create_task(fault_of(up)) for _ in range(100)]
            await until(lambda: len(one.requests) + len(two.requests) == 100)
            go.set()
            await asyncio.gather(*calls)
            (repeated,) = counted(counts, "retries").values()
            (exhausted,) = counted(counts, "retry_budget_exhausted").values()
            assert LEAST_RETRIES <= repeated <= 20
            assert repeated + exhausted == 100
            assert len(one.requests) + len(two.requests) == 100 + repeated
            assert up.in_flight == 0
            await get_fault_free(up)
            await up.close()

    async def fault_of(up: Upstream) -> None:
        with pytest.raises(UpstreamFault):
            await get(up)

    async def get_fault_free(up: Upstream) -> None:
        """The budget is whole again: the next call that fails is repeated."""
        with pytest.raises(UpstreamFault) as caught:
            await get(up)
        assert caught.value.retries == 1

    play(main())


def test_a_repeat_keeps_its_place_among_the_calls_under_way() -> None:
    """The bound holds exactly, and a call that waits does not get in between."""

    async def main() -> None:
        most = 0

        async def script(wire: Wire) -> None:
            nonlocal most
            while await wire.request() is not None:
                most = max(most, one.open + two.open)
                await wire.send(OK)

        async with backend(silent_once_asked()) as one, backend(script) as two:
            up = upstream(one, two, max_concurrency=1, eject_after=0)
            assert await asyncio.gather(*(get(up) for _ in range(50))) == [b"ok"] * 50
            assert up.in_flight == 0
            await up.close()

    play(main())
