"""Faults of clients, and too many of them, through a whole worker: what they saw, what was logged, what is left.

Rule: as in ``test_faults_backends``.
"""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from policies.plans import Mirror, Weighted
from router.snapshot import Gateway
from tests.gateway.proxy import faults
from tests.gateway.proxy.builders import backend
from tests.gateway.proxy.faults import OK, Wire
from tests.gateway.proxy.raw import status
from tests.gateway.proxy.stage import Stage, play, read_answer
from tests.gateway.proxy.trouble import (
    CHUNKED,
    LONG,
    PLACES,
    SHORT,
    Act,
    Muster,
    Trouble,
    drips,
    late,
    saw,
    stalls,
    troubled,
)

ASK = b"POST /a HTTP/1.1\r\nhost: models.example\r\ncontent-length: 1\r\n\r\nx"
GONE = ("call", None, "client_gone", 0)


def hang_up(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Leave, in good order or not."""
    if reset:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# F7: the client leaves.


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    ("act", "head"),
    [
        (stalls(), b""),
        (stalls(SHORT + b"abc"), b""),  # a short answer is passed on when it is whole
        (drips(LONG, b"x"), b"200"),  # in a body of known length only the next bytes show whether it is there
        (stalls(CHUNKED + b"3\r\nabc\r\n"), b"200"),
    ],
)
def test_f7_a_client_that_leaves_ends_its_call_and_no_copy(tmp_path: Path, act: Act, head: bytes, reset: bool) -> None:
    async def main() -> None:
        async with faults.backend() as shadow:
            cast = (backend("s", shadow.url),)
            plan = Weighted((("a", 1.0),), mirrors=(Mirror("s", 1.0),))
            async with troubled(tmp_path, act, cast=cast, route={"plan": plan}) as t:
                reader, writer = await t.stage.send("/a", b"x")
                if head:
                    assert head in await reader.readuntil(b"\r\n\r\n")
                else:
                    await t.stage.eventually(lambda: t.seen)
                hang_up(writer, reset=reset)
                await t.stage.eventually(lambda: not t.open)  # the call to the backend is closed
                await t.idle()
                assert t.logged("call", "close") == [("close", 200, "client_gone", 0) if head else GONE]
                (copy,) = (row for row in t.stage.rows() if row["role"] == "shadow")
                assert (copy["status"], copy.get("fault")) == (200, None)
                assert not t.stage.counted()

    play(main())


@pytest.mark.parametrize("reset", [False, True])
def test_f7_a_client_that_leaves_while_it_waits_for_a_place_is_never_sent(tmp_path: Path, reset: bool) -> None:
    async def main() -> None:
        async with troubled(tmp_path, wait_timeout_ms=60_000) as t:
            t.usual = muster = Muster()
            up = t.stage.upstreams()["a"]
            stuck = [asyncio.create_task(t.saw(b"stuck")) for _ in range(PLACES)]
            await t.stage.eventually(lambda: muster.present == PLACES)
            _, leaving = await t.stage.send("/a", b"left")
            await t.stage.eventually(lambda: up.waiting)
            hang_up(leaving, reset=reset)
            await t.stage.eventually(lambda: not up.waiting)
            assert t.logged() == [GONE]
            muster.over.set()
            assert [await answer for answer in stuck] == ["200 ok"] * PLACES
            assert {request.body for request in t.seen} == {b"stuck"}

    play(main())


@pytest.mark.parametrize("reset", [False, True])
def test_f7_a_client_that_leaves_while_its_call_connects_leaves_no_connection(tmp_path: Path, reset: bool) -> None:
    async def main() -> None:
        async with troubled(tmp_path, deaf=True, connect_timeout_ms=60_000) as t:
            _, writer = await t.stage.send("/a", b"x")
            await t.stage.eventually(lambda: t.stage.upstreams()["a"].in_flight)
            hang_up(writer, reset=reset)
            await t.idle()
            assert t.logged() == [GONE]

    play(main())


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_f7_a_client_that_leaves_within_its_upload_leaves_half_a_request_with_nobody(
    tmp_path: Path, reset: bool, mirrored: bool
) -> None:
    async def main() -> None:
        async with faults.backend() as shadow:
            cast = (backend("s", shadow.url),)
            plan = Weighted((("a", 1.0),), mirrors=(Mirror("s", 1.0),) if mirrored else ())
            async with troubled(tmp_path, cast=cast, route={"plan": plan}) as t:
                # Its first 64 KiB take a place at the backend.
                _, writer = await t.stage.send("/a", b"half" * 25_000, headers={"content-length": "200000"})
                await t.stage.eventually(lambda: t.open)
                hang_up(writer, reset=reset)
                await t.idle()
                await t.stage.eventually(lambda: not t.open)
                assert (t.seen, shadow.requests) == ([], [])
                assert t.logged() == [GONE]
                assert t.stage.counted() == ({("mirror_drops", "a", "s", "body_cut"): 1} if mirrored else {})

    play(main())


# F8: thousands of them, at every stage, in no order.

STAGES = ("head", "body", "sent", "answering", "answered")


class Crowd:
    """Clients that hang up, and what each of them had seen by then."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.saw: Counter[str] = Counter()
        self._chance = random.Random(5)

    async def one(self, number: int) -> None:
        chance = self._chance
        until_stage = STAGES[number % len(STAGES)]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.stage.port)
        try:
            if until_stage == "head":
                writer.write(ASK[: chance.randrange(len(ASK) - 4)])
            elif until_stage == "body":
                writer.write(ASK.replace(b"length: 1", b"length: 9") + b"half")
            else:
                writer.write(ASK)
            await writer.drain()
            if until_stage == "answering":
                await reader.readuntil(b" ")
            elif until_stage == "answered":
                got = await read_answer(reader)
                self.saw[saw(got)] += 1
            else:
                await asyncio.sleep(chance.random() * 0.02)
        finally:
            hang_up(writer, reset=chance.random() < 0.5)


def test_f8_two_thousand_clients_that_hang_up_at_every_stage_leave_nothing_behind(tmp_path: Path) -> None:
    """In their heads and bodies, waiting in line, connecting, before and within the answer, and just after it."""
    chance = random.Random(3)

    async def moody(wire: Wire) -> None:
        await asyncio.sleep(chance.random() * 0.01)
        if chance.random() < 0.5:
            await wire.send(OK)
        else:
            await wire.send(CHUNKED + b"3\r\none\r\n")
            await asyncio.sleep(chance.random() * 0.01)
            await wire.send(b"0\r\n\r\n")

    async def main() -> None:
        settings: dict[str, Any] = {"max_concurrency": 8, "max_waiting": 24, "wait_timeout_ms": 60_000}
        async with troubled(tmp_path, **settings) as t:
            t.usual = moody
            crowd = Crowd(t.stage)
            for start in range(0, 2_000, 80):
                await asyncio.gather(*(crowd.one(number) for number in range(start, start + 80)))
            await t.idle()
            told = Counter((row[1], row[2]) for row in t.logged("call", "close"))
            # Clients that left before an answer; one that leaves within a short body began no call and is only counted.
            unfinished = t.stage.counted()["unfinished_requests", "a"]
            assert min(told[(None, "client_gone")], unfinished) > 50
            assert told[(None, "client_gone")] + unfinished > 300
            assert told[(200, None)] > 100
            assert not set(told) - {(None, "client_gone"), (200, "client_gone"), (200, None), (503, "overloaded")}
            assert not {saw for saw in crowd.saw if saw not in ("200 ok", "200 one", "503 overloaded")}
            assert crowd.saw["200 ok"] + crowd.saw["200 one"] > 50
            assert set(t.stage.counted()) == {("unfinished_requests", "a")}
            assert {state for _, state in t.stage.upstreams()["a"].states()} == {"fit"}

    play(main())


# F9: the client reads slowly, or not at all.


def test_f9_a_client_that_does_not_read_makes_its_backend_wait_and_is_cut_off(tmp_path: Path) -> None:
    async def main() -> None:
        sent = 0

        async def endless(wire: Wire) -> None:
            nonlocal sent
            await wire.send(CHUNKED)
            for _ in range(1_000):
                await wire.send(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
                sent += 100_000

        async with troubled(tmp_path, endless, gateway=Gateway(body_timeout_ms=500, max_buffer_bytes=2**20)) as t:
            reader, writer = await t.stage.send("/a", b"x")
            assert b"200" in await reader.readuntil(b"\r\n\r\n")
            assert [await t.saw() for _ in range(20)] == ["200 ok"] * 20
            await t.stage.eventually(lambda: t.logged("close"))
            assert sent < 20_000_000  # the kernel's buffers on both sides of the worker, and little else
            assert t.logged("close") == [("close", 200, "client_gone", 0)]
            writer.transport.abort()

    play(main())


# F10: clients that take their time.


def test_f10_five_hundred_slow_clients_are_closed_on_their_deadlines_and_all_others_are_served(tmp_path: Path) -> None:
    """Half of them never end their heads and half never their bodies, each sending a byte now and then.

    No body was ever there, so none of them takes a place at the backend, and there is but one.
    """
    slow = 500

    async def drip(stage: Stage, number: int) -> int:
        """Send byte after byte until the gateway has had enough; return its answer's status, 0 for none."""
        begun = (ASK[:40], ASK.replace(b"length: 1", b"length: 5000"))[number % 2]
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        answer = asyncio.create_task(reader.read(65_536))
        try:
            writer.write(begun)
            while not answer.done():
                await asyncio.wait((answer,), timeout=0.1)
                writer.write(b"x")
            return status(await answer)
        finally:
            writer.transport.abort()

    async def main() -> None:
        gateway = Gateway(header_timeout_ms=1_000, body_timeout_ms=1_000, min_body_bytes_per_second=500)
        async with troubled(tmp_path, gateway=gateway, max_concurrency=1, timeout_ms=10_000) as t:
            dripping = [asyncio.create_task(drip(t.stage, number)) for number in range(slow)]
            served: Counter[str] = Counter()
            while not all(task.done() for task in dripping):
                served[await t.saw()] += 1
            assert Counter([await task for task in dripping]) == {408: slow}
            assert set(served) == {"200 ok"}
            assert served["200 ok"] > 20
            await t.idle()
            rows = Counter(t.logged())
            assert rows == {("call", 200, None, 0): served["200 ok"]}
            await t.stage.eventually(lambda: t.open <= 1)

    play(main())


# F11: more than can be served.


def test_f11_five_times_too_many_are_answered_or_told_so_at_once_and_all_of_it_is_counted(tmp_path: Path) -> None:
    async def main() -> None:
        gateway = Gateway(admission="fixed", max_in_flight=4)
        async with troubled(tmp_path, gateway=gateway, max_concurrency=4) as t:
            t.usual = late(0.005, OK)

            async def client() -> Counter[str]:
                answers: Counter[str] = Counter()
                for _ in range(20):
                    got = await t.ask()
                    assert ("turnout-prediction-id" in got.headers, got.headers.get("retry-after")) == (
                        (True, None) if got.status == 200 else (False, "1")
                    )
                    answers[saw(got)] += 1
                return answers

            answers: Counter[str] = Counter()
            asking = [asyncio.create_task(client()) for _ in range(20)]
            assert (await t.ask(target="/-/readyz", method="GET")).status == 200
            for task in asking:
                answers += await task
            assert set(answers) == {"200 ok", "503 None"}
            assert answers["200 ok"] > 20
            assert Counter(t.logged()) == {("call", 200, None, 0): answers["200 ok"]}
            assert len(t.seen) == answers["200 ok"]
            assert t.stage.counted() == {("shed", "max_in_flight"): answers["503 None"]}
            assert t.stage.worker is not None
            t.stage.worker._admission.limit = 100  # one more than places is to wait, and not to be turned away

    play(main())


# F27: the clock jumps.


def test_f27_a_clock_that_jumps_moves_no_deadline_and_no_latency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and ids tell the time there was; what is waited for is measured on a clock that only goes forward."""
    hour = 3_600_000
    shift = 0
    monkeypatch.setattr("gateway.proxy.worker.time_ns", lambda: time.time_ns() + shift * 1_000_000)

    async def main() -> None:
        nonlocal shift
        settings: dict[str, Any] = {"timeout_ms": 5_000, "idle_timeout_ms": 5_000, "total_timeout_ms": 10_000}
        async with troubled(tmp_path, **settings) as t:
            for shift in (0, hour, -hour):
                t.usual = muster = Muster()
                asking = [asyncio.create_task(t.ask()) for _ in range(PLACES + 1)]
                await all_here(t, muster)
                shift = hour - shift
                await asyncio.sleep(0.3)  # several sweeps of every deadline
                assert not any(task.done() for task in asking)
                muster.over.set()
                assert [saw(await got) for got in asking] == ["200 ok"] * (PLACES + 1)
            rows = t.stage.rows()
            assert all(0 <= row["overhead_ms"] <= row["latency_ms"] < 10_000 for row in rows)
            assert len({row["id"] for row in rows}) == 3 * (PLACES + 1)
            spans = {round((row["at_ms"] - time.time_ns() // 1_000_000) / hour) for row in rows}
            assert spans == {0, 1, -1}

    play(main())


async def all_here(t: Trouble, muster: Muster) -> None:
    await t.stage.eventually(lambda: muster.present == PLACES)


# Memory: what is over is freed at once.


async def leave(t: Trouble) -> None:
    """Ask, wait until the backend has it, and hang up."""
    before = len(t.seen)
    _, writer = await asyncio.open_connection("127.0.0.1", t.stage.port)
    writer.write(ASK)
    await t.stage.eventually(lambda: len(t.seen) > before)
    hang_up(writer, reset=True)
    await t.idle()


@pytest.mark.parametrize(("act", "seen"), [(stalls(), None), (late(0, OK), "200 ok"), (late(0, b"nonsense"), "502")])
def test_a_request_that_is_over_however_it_ended_leaves_nothing_to_a_collector(
    act: Act, seen: str | None, tmp_path: Path
) -> None:
    """Cycles are freed by a collection only, and of the oldest generation there are few: memory would creep up."""

    async def main() -> None:
        async with troubled(tmp_path) as t:
            t.usual = act
            for _ in range(2):  # what is made once stays
                gc.collect()
                gc.disable()
                try:
                    for _ in range(5):
                        if seen is None:
                            await leave(t)
                        else:
                            assert (await t.saw()).startswith(seen)
                    await t.idle()
                    left = garbage()
                finally:
                    gc.enable()
            assert left == Counter()

    play(main())


def garbage() -> Counter[str]:
    """Collect, and return which objects of the gateway's were found."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        kinds = (type(found) for found in gc.garbage)
        return Counter(kind.__qualname__ for kind in kinds if kind.__module__.startswith(("gateway.", "router.")))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
