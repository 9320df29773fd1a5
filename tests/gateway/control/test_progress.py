"""Ready means progress: whatever stops recording is noted within seconds, and so is its end."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError

from gateway.control import progress
from gateway.control.record import liveness
from tests.gateway.control.builders import Desk, at_desk, call
from tests.gateway.control.test_control import House, kinds, recording, until


def test_a_recorder_that_has_nothing_to_do_is_well(tmp_path: Path, store: str) -> None:
    async def story(desk: Desk) -> None:
        await desk.record()
        assert not desk.recorder.progress().stalled
        desk.journal.calls(call(1))
        desk.journal.beat(50)
        await desk.record()
        found = desk.recorder.progress()
        assert (found.stalled, found.stalled_seconds, found.oldest_seconds) == (False, 0.0, 0.0)
        assert found.committed_seconds is not None
        assert found.watermark_age_seconds is not None

    at_desk(Desk(tmp_path, store=store), story)


@pytest.mark.parametrize(
    "error",
    [
        DatabaseError("INSERT", None, sqlite3.DatabaseError("database disk image is malformed")),
        OSError(24, "Too many open files"),
        TimeoutError(),
    ],
)
def test_a_store_that_raises_is_a_recording_that_is_stalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("gateway.control.readiness.LOOK_SECONDS", 0.05)

    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            watching = asyncio.create_task(control.readiness.keep_noting())
            await until(lambda: control.queries.ready and not control.readiness.progress().stalled)
            assert control.opened is not None
            recorder = control.opened.recorder
            real = recorder._step

            async def failing(limit: int, sweep: int) -> bool:
                raise error

            recorder._step = failing  # type: ignore[method-assign]
            await until(lambda: control.readiness.progress().stalled)
            assert "recording fails" in control.readiness.progress().trouble
            await until(lambda: "recording_stalled" in kinds(control))
            recorder._step = real  # type: ignore[method-assign]
            await until(lambda: not control.readiness.progress().stalled)
            await until(lambda: "recording_resumed" in kinds(control))
            watching.cancel()

    asyncio.run(story())


def test_malformed_pages_are_not_called_ready(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
        path = house.data / "turnout.db"
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xa5" * (len(content) - 4096)
        path.write_bytes(content)
        house.journal.calls(call(1))
        control = house.control()
        stopping = asyncio.Event()
        task = asyncio.create_task(control.keep_recording(stopping))
        await asyncio.sleep(0.5)
        assert control.readiness.progress().stalled
        stopping.set()
        await task
        await control.close(1)

    asyncio.run(story())


def test_a_recorder_that_hangs_is_stalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(desk: Desk) -> None:
        await desk.record()
        desk.journal.calls(call(1))
        now = [1e9]
        monkeypatch.setattr(liveness, "monotonic", lambda: now[0])
        desk.recorder._liveness._succeeded = desk.recorder._liveness._moved = now[0]
        now[0] += progress.STEP_SECONDS / 2
        assert not desk.recorder.progress().stalled
        now[0] += progress.STEP_SECONDS
        found = desk.recorder.progress()
        assert (found.stalled, found.stalled_seconds) == (True, 1.5 * progress.STEP_SECONDS)

    at_desk(Desk(tmp_path), story)


def test_a_watermark_that_stands_still_is_a_recording_that_is_stalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows went on being recorded when heartbeats were set aside, and no window closed any more."""

    async def story(desk: Desk) -> None:
        desk.journal.beat(1)
        await desk.record()
        now = [desk.recorder._liveness._moved]
        monkeypatch.setattr(liveness, "monotonic", lambda: now[0])
        for number in range(20):
            now[0] += 2
            desk.journal.calls(call(number))
            await desk.recorder.step()
        assert desk.recorder.progress().trouble == "the watermark stands still, so that no window closes"
        desk.journal.beat(500)
        await desk.recorder.step()
        assert not desk.recorder.progress().stalled
        desk.journal.bye(600)
        await desk.record()
        now[0] += 1_000
        await desk.recorder.step()
        assert not desk.recorder.progress().stalled, "no writer is waited for"

    at_desk(Desk(tmp_path), story)


def test_a_store_that_is_not_open_is_stalled(tmp_path: Path) -> None:
    house = House(tmp_path)
    found = house.control().readiness.progress()
    assert (found.stalled, found.trouble) == (True, "the store is not open")
