"""Answers and bodies that arrive piece by piece: no piece is held back, and an end differs from a break."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.files.published import SNAPSHOT, publish
from router.snapshot import Backend, Gateway, Route
from tests.gateway.proxy.builders import backend, only, route, snapshot
from tests.gateway.proxy.stage import RUN, Asked, Model, Stage, play, read_answer, staged


async def events(asked: Asked) -> None:
    """Send five server-sent events, each after the client had time to see the one before."""
    await asked.start(content_type="text/event-stream")
    for n in range(5):
        await asked.chunk(b"data: %d\n\n" % n)
        await asyncio.sleep(0.03)
    asked.writer.write(b"0\r\n\r\n")


async def endless(asked: Asked) -> None:
    """Send pieces until the other side closes the connection."""
    await asked.start(content_type="text/event-stream")
    gone = asyncio.create_task(asked.gone())
    n = 0
    while not gone.done():
        await asked.chunk(b"data: %d\n\n" % n)
        await asyncio.wait([gone], timeout=0.02)
        n += 1


async def silent(asked: Asked) -> None:
    await asked.start()
    await asked.chunk(b"some")
    await asked.gone()


async def cut(asked: Asked) -> None:
    await asked.start()
    await asked.chunk(b"some")
    await asyncio.sleep(0.05)
    asked.writer.transport.abort()


def parts(model: Model, **settings: Any) -> tuple[Backend, Route]:
    return backend("a", model.url), route("r", only("a"), **settings)


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def data_of(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readline(), 16)
    return (await reader.readexactly(size + 2))[:-2]


def test_server_sent_events_arrive_one_by_one(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Model(events) as model, staged(tmp_path, snapshot(*parts(model, prediction="/p"))) as stage:
            reader, writer = await stage.send("/r")
            answered = await head(reader)
            assert b"text/event-stream" in answered
            times = []
            for n in range(5):
                assert await data_of(reader) == b"data: %d\n\n" % n
                times.append(loop.time())
            assert all(later - earlier > 0.02 for earlier, later in pairwise(times))
            assert await reader.readline() == b"0\r\n"
            writer.close()
        opened, closed = stage.rows()
        assert (opened["line"], opened["fault"], opened["status"]) == ("open", "incomplete", 200)
        assert (closed["line"], closed["status"]) == ("close", 200)
        assert opened["id"] == closed["id"]
        assert "fault" not in closed
        assert closed["latency_ms"] > 100
        assert stage.counters == {}  # no prediction is read from a stream of events

    play(main())


def test_the_open_row_is_written_before_the_head_and_the_close_row_before_the_end(tmp_path: Path) -> None:
    goes_on = asyncio.Event()

    async def stepwise(asked: Asked) -> None:
        await asked.start()
        await goes_on.wait()
        asked.writer.write(b"0\r\n\r\n")

    async def main() -> None:
        async with Model(stepwise) as model, staged(tmp_path, snapshot(*parts(model))) as stage:
            reader, writer = await stage.send("/r")
            await head(reader)
            assert [row["line"] for row in stage.rows()] == ["open"]
            goes_on.set()
            assert await reader.readline() == b"0\r\n"
            assert [row["line"] for row in stage.rows()] == ["open", "close"]
            writer.close()

    play(main())


@pytest.mark.parametrize("declared", [True, False])
def test_a_long_answer_is_streamed_and_still_read(tmp_path: Path, declared: bool) -> None:
    body = b'{"p": 7, "rest": "' + b"x" * 900_000 + b'"}' + b" " * (200_000 if declared else 0)

    async def long(asked: Asked) -> None:
        if declared:  # more than a MiB: not kept
            await asked.answer(body)
        else:
            await asked.start()
            for at in range(0, len(body), 100_000):
                await asked.chunk(body[at : at + 100_000])
            asked.writer.write(b"0\r\n\r\n")

    async def main() -> None:
        async with Model(long) as model, staged(tmp_path, snapshot(*parts(model, prediction="/p"))) as stage:
            got = await stage.ask("/r")
        assert (got.body, got.whole) == (body, True)
        assert got.headers.get("content-length") == (str(len(body)) if declared else None)
        opened, closed = stage.rows()
        assert (opened["line"], closed["line"]) == ("open", "close")
        if declared:
            assert "predicted" not in closed
            assert stage.counters == {("extraction_failures", "r", "a"): 1}
        else:
            assert (closed["predicted"], closed["prediction"]) == (True, 7)

    play(main())


def test_the_last_bytes_of_a_long_answer_wait_for_their_row(tmp_path: Path) -> None:
    """The length says which bytes are the last."""
    rest = asyncio.Event()

    async def long(asked: Asked) -> None:
        asked.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n" + b"x" * 1_999_999)
        await rest.wait()
        asked.writer.write(b"y")

    async def main() -> None:
        async with Model(long) as model, staged(tmp_path, snapshot(*parts(model))) as stage:
            reader, writer = await stage.send("/r")
            await head(reader)
            await reader.readexactly(1_999_999)
            assert [row["line"] for row in stage.rows()] == ["open"]
            rest.set()
            assert await reader.readexactly(1) == b"y"
            assert [row["line"] for row in stage.rows()] == ["open", "close"]
            writer.close()

    play(main())


def test_an_answer_that_breaks_off_breaks_off_for_the_client(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(cut) as model, staged(tmp_path, snapshot(*parts(model, fallback="a"))) as stage:
            reader, writer = await stage.send("/r")
            got = await read_answer(reader)
            writer.close()
        assert (got.status, got.body, got.whole) == (200, b"some", False)
        (closed,) = stage.rows("close")
        assert (closed["fault"], closed["status"]) == ("incomplete", 200)

    play(main())


def test_a_stream_that_falls_silent_is_cut(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(silent) as model:
            cast = snapshot(backend("a", model.url, idle_timeout_ms=100), route("r", only("a")))
            async with staged(tmp_path, cast) as stage:
                assert not (await stage.ask("/r")).whole
        assert stage.rows("close")[0]["fault"] == "timeout"

    play(main())


def test_a_client_that_leaves_a_stream_makes_the_backend_see_it(tmp_path: Path) -> None:
    seen = asyncio.Event()

    async def watched(asked: Asked) -> None:
        await endless(asked)
        seen.set()

    async def main() -> None:
        async with Model(watched) as model, staged(tmp_path, snapshot(*parts(model))) as stage:
            reader, writer = await stage.send("/r")
            await head(reader)
            writer.close()
            async with asyncio.timeout(1):
                await seen.wait()
            await stage.eventually(lambda: stage.rows("close"))
            (closed,) = stage.rows("close")
            assert (closed["fault"], closed["status"]) == ("client_gone", 200)

    play(main())


def test_a_client_that_leaves_before_the_answer_makes_the_backend_see_it(tmp_path: Path) -> None:
    seen = asyncio.Event()

    async def watched(asked: Asked) -> None:
        await asked.gone()
        seen.set()

    async def main() -> None:
        async with Model(watched) as model, staged(tmp_path, snapshot(*parts(model))) as stage:
            _, writer = await stage.send("/r")
            await stage.eventually(lambda: model.asked)
            writer.close()
            async with asyncio.timeout(1):
                await seen.wait()
            await stage.eventually(stage.rows)
            (row,) = stage.rows()
            assert (row["line"], row["fault"]) == ("call", "client_gone")
            assert "status" not in row

    play(main())


def test_an_open_stream_does_not_hold_back_the_watermark(tmp_path: Path) -> None:
    """A stream may last for hours; its row is in the journal already, as an open one."""

    async def main() -> None:
        async with Model(endless) as model, staged(tmp_path, snapshot(*parts(model))) as stage:
            reader, writer = await stage.send("/r")
            await head(reader)
            began = stage.rows()[0]["at_ms"]
            await stage.eventually(lambda: stage.beats()[-1] > began)
            writer.close()

    play(main())


def test_a_request_that_is_not_answered_yet_holds_back_the_watermark(tmp_path: Path) -> None:
    async def slow(asked: Asked) -> None:
        await asyncio.sleep(1.3)
        await asked.answer()

    async def main() -> None:
        async with Model(slow) as model, staged(tmp_path, snapshot(*parts(model))) as stage:
            before = len(stage.beats())
            asking = asyncio.create_task(stage.ask("/r"))
            await stage.eventually(lambda: len(stage.beats()) > before)
            beat = stage.beats()[-1]
            await asking
            assert beat <= stage.rows()[0]["at_ms"]

    play(main())


# The request's body.


def test_a_body_that_nobody_needs_streams_through(tmp_path: Path) -> None:
    """The backend has the first 64 KiB before the client sent the last piece."""
    seen = asyncio.Event()
    first = b"10000\r\n" + b"x" * 65_536 + b"\r\n"

    async def watching(asked: Asked) -> None:
        await asked.answer(asked.body)

    class Early(Model):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(first)) == first
            seen.set()
            rest = await reader.readuntil(b"0\r\n\r\n")
            await Asked("POST", "/r", {}, rest, reader, writer).answer(rest)
            writer.close()

    async def main() -> None:
        async with Early(watching) as model, staged(tmp_path, snapshot(*parts(model))) as stage:
            sent = {"transfer-encoding": "chunked", "content-length": ""}
            reader, writer = await stage.send("/r", headers=sent)
            writer.write(first)
            async with asyncio.timeout(2):
                await seen.wait()
            writer.write(b"4\r\nlast\r\n0\r\n\r\n")
            assert b"last" in (await read_answer(reader)).body
            writer.close()
        assert stage.rows()[0]["status"] == 200

    play(main())


@pytest.mark.parametrize("unit", [None, "body:/user"])
def test_a_body_over_the_limit_is_413_whoever_needs_it(tmp_path: Path, unit: str | None) -> None:
    async def main() -> None:
        async with Model(lambda asked: asked.answer()) as model:
            cast = snapshot(Gateway(max_body_bytes=1000), *parts(model, unit=unit))
            async with staged(tmp_path, cast) as stage:
                sent = {"transfer-encoding": "chunked", "content-length": ""}
                reader, writer = await stage.send("/r", headers=sent)
                writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n0\r\n\r\n")
                got = await read_answer(reader)
                writer.close()
        assert got.status == 413
        assert "turnout-prediction-id" not in got.headers
        assert not stage.rows()

    play(main())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_to_be_read_for_its_unit_is_413_and_calls_nothing(
    tmp_path: Path, chunked: bool
) -> None:
    """Ten megabytes of JSON would stop every other request for a quarter of a second or more."""

    async def main() -> None:
        async with Model(lambda asked: asked.answer()) as model:
            cast = snapshot(Gateway(max_parsed_body_bytes=1000), *parts(model, unit="body:/user"))
            async with staged(tmp_path, cast) as stage:
                body = b"x" * 1001
                sent = {"transfer-encoding": "chunked", "content-length": ""} if chunked else {}
                reader, writer = await stage.send(
                    "/r", b"3e9\r\n" + body + b"\r\n0\r\n\r\n" if chunked else body, headers=sent
                )
                got = await read_answer(reader)
                writer.close()
        assert got.status == 413
        assert b"max_parsed_body_bytes" in got.body
        assert not stage.rows()
        assert not model.asked

    play(main())


# kill -9.


def test_a_worker_killed_in_mid_stream_leaves_an_open_row(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(endless) as model:
            publish(tmp_path / SNAPSHOT, snapshot(*parts(model)))
            with socket.create_server(("127.0.0.1", 0)) as sock:
                command = [
                    sys.executable,
                    "-m",
                    "gateway.proxy",
                    "--fd",
                    str(sock.fileno()),
                    "--data-dir",
                    str(tmp_path),
                ]
                command += ["--run", RUN, "--slot", "0"]
                worker = subprocess.Popen(command, pass_fds=[sock.fileno()], stderr=subprocess.DEVNULL)
                stage = Stage(tmp_path, sock.getsockname()[1])
                reader, writer = await stage.send("/r")
                await head(reader)
                assert await data_of(reader) == b"data: 0\n\n"
                worker.kill()
                assert worker.wait() == -signal.SIGKILL
                with contextlib.suppress(ConnectionResetError):
                    await reader.read()
                writer.close()
        (row,) = stage.rows()
        assert (row["line"], row["fault"], row["status"]) == ("open", "incomplete", 200)

    play(main())
