"""What clients are slow to send or to take costs the others nothing: no place at a backend, no unbounded memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.proxy.client.answer import Answer
from gateway.proxy.client.upstream import Upstream
from gateway.proxy.server.request import HELD_BYTES
from gateway.proxy.wire.buffers import EVICT_SECONDS, Buffers
from gateway.proxy.worker import Worker
from router.snapshot import Gateway
from tests.gateway.proxy import builders
from tests.gateway.proxy.chain import Chain, chain, statuses
from tests.gateway.proxy.faults import OK, Wire
from tests.gateway.proxy.payloads import get
from tests.gateway.proxy.raw import Client
from tests.gateway.proxy.stage import play, staged

PLACES = 2
LARGE = 8 * 2**20
HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


async def large_or_ok(wire: Wire) -> None:
    while (request := await wire.request()) is not None:
        large = request.line.startswith(b"GET /large")
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + b"x" * LARGE if large else OK)


@asynccontextmanager
async def slow_clients(c: Chain, count: int, sent: bytes) -> AsyncIterator[list[Client]]:
    """This many clients, which each send this and read nothing."""
    async with AsyncExitStack() as held:
        clients = [await held.enter_async_context(c.client()) for _ in range(count)]
        for client in clients:
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.write(sent)
            await client.writer.drain()
        yield clients


def worker(c: Chain) -> Worker:
    assert c.stage.worker is not None
    return c.stage.worker


def read_on(client: Client) -> None:
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]


def upstream(c: Chain) -> Upstream:
    return c.stage.upstreams()["b"]


async def served(c: Chain, times: int = 4) -> None:
    """Other clients are answered."""
    for _ in range(times):
        assert statuses(await c.get()) == (200,)


@pytest.mark.parametrize("sent", [HEAD % 10, HEAD % 10 + b"x" * 9, HEAD % 200_000 + b"x" * 30_000])
def test_a_body_that_is_announced_and_does_not_come_takes_no_place_at_the_backend(tmp_path: Path, sent: bytes) -> None:
    async def main() -> None:
        async with chain(tmp_path, max_concurrency=PLACES, max_waiting=0) as c, slow_clients(c, 8 * PLACES, sent):
            await served(c)
            assert upstream(c).in_flight == 0
            assert worker(c)._log.pending.watermark_ms(2**60) == 2**60, "nor does it hold back the watermark"

    play(main())


def test_a_client_that_reads_a_long_answer_slowly_takes_no_place_while_there_is_memory_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with chain(tmp_path, large_or_ok, max_concurrency=PLACES) as c:
            async with slow_clients(c, 3 * PLACES, get(b"Host: a", target=b"/large")):
                await c.stage.eventually(lambda: len(c.seen) == 3 * PLACES)
                await c.stage.eventually(lambda: upstream(c).in_flight == 0)
                await served(c)
            await c.stage.eventually(lambda: worker(c)._buffers.used == 0)

    play(main())


def test_beyond_the_memory_a_slow_reader_loses_its_place_to_a_waiting_request_and_is_counted(tmp_path: Path) -> None:
    async def main() -> None:
        gateway = Gateway(max_buffer_bytes=2**20)
        async with chain(tmp_path, large_or_ok, gateway=gateway, max_concurrency=PLACES, wait_timeout_ms=5_000) as c:
            async with slow_clients(c, PLACES, get(b"Host: a", target=b"/large")) as slow:
                await c.stage.eventually(lambda: upstream(c).in_flight == PLACES)
                assert worker(c)._buffers.used < 2 * 2**20
                await served(c)
                assert upstream(c).in_flight < PLACES
                counted = worker(c)._counts.samples()
                assert any(name == "slow_clients" and labels == {"reason": "answer"} for name, labels, _ in counted)
                # What it has not got it never gets, and it can tell.
                rests = [asyncio.create_task(client.rest()) for client in slow]
                for client in slow:
                    read_on(client)
                ended, others = await asyncio.wait(rests, timeout=10, return_when=asyncio.FIRST_COMPLETED)
                assert len(ended.pop().result()) < LARGE
                for other in others:
                    other.cancel()
            await c.stage.eventually(lambda: worker(c)._buffers.used == 0)
            await c.stage.eventually(lambda: len(c.stage.rows()) >= 4 + PLACES)
            faults = [row.get("fault") for row in c.stage.rows()]
            assert "client_gone" in faults

    play(main())


def test_an_upload_that_stops_after_its_beginning_loses_its_place_to_a_waiting_request(tmp_path: Path) -> None:
    async def main() -> None:
        sent = HEAD % 200_000 + b"x" * 100_000
        async with (
            chain(tmp_path, max_concurrency=PLACES, wait_timeout_ms=5_000) as c,
            slow_clients(c, PLACES, sent) as slow,
        ):
            await c.stage.eventually(lambda: upstream(c).in_flight == PLACES)
            await served(c)
            answers = [asyncio.create_task(client.answer()) for client in slow]
            for client in slow:
                read_on(client)
            ended, others = await asyncio.wait(answers, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            assert statuses(ended.pop().result()) == (408,)
            for other in others:
                other.cancel()

    play(main())


@asynccontextmanager
async def holding(tmp_path: Path, gateway: Gateway) -> AsyncIterator[Chain]:
    """A worker whose one route needs each body as a whole."""
    async with chain(tmp_path, large_or_ok, gateway=gateway) as inner:
        cast = builders.snapshot(
            gateway,
            builders.backend("b", inner.backend.url),
            builders.route("all", builders.only("b"), path="/*", fallback="b"),
        )
        own = tmp_path / "own"
        own.mkdir()
        async with staged(own, cast) as stage:
            yield Chain(stage, inner.backend)


def test_a_body_that_has_to_be_whole_gets_503_when_there_is_no_memory_for_it_and_short_ones_go_on(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with holding(tmp_path, Gateway(max_buffer_bytes=2**20)) as c:
            async with slow_clients(c, 4, HEAD % 600_000 + b"x" * 500_000) as slow:
                await c.stage.eventually(lambda: worker(c)._edge.unheld >= 2)
                assert worker(c)._buffers.used <= 2**20
                await served(c)
                for client in slow:
                    client.writer.transport.abort()
            await c.stage.eventually(lambda: worker(c)._buffers.used == 0)

    play(main())


@pytest.mark.parametrize("slow", [HEAD % 600_000 + b"x" * 500_000, get(b"Host: a", target=b"/large")])
def test_a_client_that_drips_body_or_answer_loses_the_memory_to_a_body_that_comes(tmp_path: Path, slow: bytes) -> None:
    """Within the least rates they could keep all of it for hours: what came at once counts for them."""

    async def main() -> None:
        async with holding(tmp_path, Gateway(max_buffer_bytes=2**20)) as c, slow_clients(c, 2, slow) as clients:
            await c.stage.eventually(lambda: worker(c)._buffers.used > 700_000)
            await asyncio.sleep(2 * EVICT_SECONDS)
            if slow.startswith(b"POST"):
                for client in clients:
                    await client.send(b"x" * 100)  # it goes on, slowly
            async with c.client() as other:
                await other.send(HEAD % 700_000 + b"x" * 700_000)
                assert statuses(await other.answer()) == (200,)
            assert worker(c)._buffers.evicted == 1, "no more of them than had to go"
            for client in clients:
                client.writer.transport.abort()
            await c.stage.eventually(lambda: worker(c)._buffers.used == 0)
            assert not worker(c)._buffers._slow

    play(main())


def test_a_client_that_takes_less_of_its_answer_than_it_must_is_cut_and_counted(tmp_path: Path) -> None:
    """It reads all the time: between bytes it is never late."""

    async def main() -> None:
        gateway = Gateway(body_timeout_ms=400, min_read_bytes_per_second=10_000_000)
        async with chain(tmp_path, large_or_ok, gateway=gateway) as c, c.client() as client:
            await client.send(get(b"Host: a", target=b"/large"))
            while not worker(c)._edge.unread:
                await asyncio.sleep(0.02)
                await client.reader.read(1_000)
            await c.stage.eventually(lambda: worker(c)._buffers.used == 0)

    play(main())


@given(
    st.lists(st.one_of(st.integers(1, 300_000), st.just("take")), max_size=30),
    st.integers(0, 2**20),
    st.sampled_from(["close", "end", "fail"]),
)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_and_is_taken_the_budget_is_kept_and_given_back_and_no_byte_is_lost(
    steps: list[int | str], limit: int, last: str
) -> None:
    async def main() -> None:
        buffers = Buffers(limit)
        answer = Answer(buffers)
        left: list[str] = []

        def leave() -> None:
            left.append(last)
            answer.fail(RuntimeError("closed"))

        answer.begin(200, b"OK", [])
        answer.streams(lambda: None, leave)
        came = taken = b""
        for step in steps:
            if isinstance(step, int):
                data = bytes([len(came) % 251]) * step
                going_on = answer.receive(data)
                came += data
                assert going_on or answer._buffered >= HELD_BYTES
            elif answer._chunks:
                taken += await answer.next_chunk()
            assert buffers.used <= limit
        if last == "end":
            answer.end(at_once=False)
        elif last == "fail":
            answer.fail(RuntimeError("gone"))
        if last != "close":
            while answer._chunks:
                taken += await answer.next_chunk()
            assert taken == came
        answer.close()
        answer.close()
        assert buffers.used == 0
        assert left == (["close"] if last == "close" else []), "the call is ended once"

    asyncio.run(main())
