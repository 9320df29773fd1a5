"""A full disk: the journal is drained into a store on the same disk, and everything continues without an operator."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from gateway.journal.appender import Appender
from gateway.journal.reserve import RESERVE, Reserve, free_bytes, is_spent, reserve_bytes
from gateway.journal.segments import PREDICTIONS, roll_bytes, segments, size_bytes
from gateway.store.counts.ledger import CALLS
from tests.gateway.control.builders import RUN, T0, WRITER, Desk, at_desk, call
from tests.gateway.control.test_control import House, recording, until
from tests.router.journal_lines import call_line

DISK_BYTES = 16 * 2**20
JOURNAL_BYTES = 4 * 2**20
SUCCESSOR = f"{RUN}-00-{T0 + 1_000:012x}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB; skips where this user may not mount one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", bytes(tmp_path), b"tmpfs", 0, f"size={DISK_BYTES}".encode()) != 0:
        pytest.skip(f"a small file system cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        yield tmp_path
    finally:
        libc.umount2(bytes(tmp_path), 2)  # detached: freed when the last file is closed


def fill(directory: Path) -> Path:
    """Leave no byte free."""
    ballast = directory / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free_bytes(directory)))
    return ballast


def written(journal: Path) -> int:
    """Append calls until the disk takes no more; return how many it took."""
    appender, n = Appender(journal / PREDICTIONS, WRITER, roll_bytes=roll_bytes(JOURNAL_BYTES)), 0
    while True:
        try:
            appender.append(call_line(call(n, features={"text": "x" * 200})))
        except OSError:
            appender.close()
            return n
        n += 1


async def for_ever(desk: Desk) -> None:
    while True:
        await desk.recorder.step()


def test_a_full_disk_is_drained_into_the_store_that_is_on_it(small_disk: Path) -> None:
    async def story(desk: Desk) -> None:
        journal = desk.journal.path
        (journal / PREDICTIONS).mkdir(parents=True)
        await desk.record()
        reserve = Reserve(journal)
        size = reserve_bytes(JOURNAL_BYTES)
        assert reserve.tend(size, drained=False) == "kept"
        # Other files take half of what is left, so that the reserve matters.
        (small_disk / "ballast").write_bytes(b"x" * (free_bytes(small_disk) // 2))
        calls = written(journal)
        assert calls > 5_000
        assert free_bytes(small_disk) < 4_096
        with pytest.raises(OperationalError, match=r"full|disk I/O error"):
            await for_ever(desk)

        assert reserve.tend(size, drained=False) == "spent"
        assert is_spent(journal)
        desk.recorder.sparing = True
        desk.journal.calls(call(calls), writer=SUCCESSOR)  # the first writer is dead, and all it wrote is final
        ledger = await desk.record()
        assert ledger.pooled("a", "primary", CALLS, "live").d == calls + 1
        assert desk.met == {}
        assert [segment.writer for segment in segments(journal / PREDICTIONS)] == [SUCCESSOR]
        (small_disk / "ballast").unlink()
        assert reserve.tend(size, drained=True) == "kept"
        assert not is_spent(journal)

    at_desk(Desk(small_disk), story)


def test_a_controller_spends_its_reserve_when_the_store_says_that_the_disk_is_full(tmp_path: Path) -> None:
    """Here the error is that SQLite may have no more pages."""

    async def story() -> None:
        house = House(tmp_path)
        house.journal.calls(call(0))
        reserve = house.data / "journal" / RESERVE
        async with recording(house.control()) as control:
            await until(lambda: control.readiness.lag() == (0.0, 0))
            await control.full_disk.look()
            assert reserve.stat().st_size == reserve_bytes(10 * 2**30)
            await pages(control, 1)
            house.journal.calls(*(call(n, unit="u" * 500) for n in range(1, 200)))
            await until(lambda: control.opened is not None and control.opened.recorder.trouble is not None)
            await control.full_disk.look()
            assert is_spent(house.data / "journal")
            assert [event["kind"] for event in control.event_log.newest][-1] == "disk_full"
            await pages(control, 2**30)
            await until(lambda: control.readiness.lag() == (0.0, 0))
            await control.full_disk.look()
            assert not is_spent(house.data / "journal")
            assert [event["kind"] for event in control.event_log.newest][-1] == "disk_has_room"
        assert size_bytes(house.data / "journal") > 0

    asyncio.run(story())


async def pages(control: Any, most: int) -> None:
    async with control.queries.store._engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute_fetchall(f"PRAGMA max_page_count = {most}")
