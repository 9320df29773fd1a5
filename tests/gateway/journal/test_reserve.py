"""Disk space that is held until the disk is full, and then used only to drain the journal."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path

import pytest

from gateway.journal.reserve import RESERVE, STALE_SECONDS, Reserve, is_spent, reserve_bytes

SIZE = 80_000


class Disk:
    """So much is free, by its own word."""

    free = 10 * SIZE

    def __call__(self, directory: Path) -> int:
        return self.free


def test_the_reserve_is_four_segments() -> None:
    assert reserve_bytes(10 * 2**30) == 64 * 2**20
    assert reserve_bytes(2 * SIZE) == SIZE


def test_it_is_given_up_when_the_disk_is_full_and_made_again_when_the_journal_is_drained(tmp_path: Path) -> None:
    disk, file = Disk(), tmp_path / RESERVE
    reserve = Reserve(tmp_path, free=disk)
    assert not is_spent(tmp_path)
    assert reserve.tend(SIZE, drained=False) == "kept"
    assert (file.stat().st_size, file.stat().st_blocks * 512 >= SIZE) == (SIZE, True)
    assert (reserve.tend(SIZE, drained=False), is_spent(tmp_path), reserve.spent) == (None, False, False)
    disk.free = SIZE // 8 - 1
    assert reserve.tend(SIZE, drained=False) == "spent"
    assert (file.stat().st_size, is_spent(tmp_path), reserve.spent) == (0, True, True)
    disk.free = 10 * SIZE
    assert reserve.tend(SIZE, drained=False) is None
    assert is_spent(tmp_path), "there is room, but the journal comes first"
    disk.free = SIZE
    assert reserve.tend(SIZE, drained=True) is None
    assert is_spent(tmp_path), "what is free would not be enough for the next time"
    disk.free = 2 * SIZE
    assert reserve.tend(SIZE, drained=True) == "kept"
    assert not is_spent(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        sqlite3.OperationalError("database or disk is full"),
    ],
)
def test_whoever_meets_the_full_disk_first_may_say_so(tmp_path: Path, error: Exception) -> None:
    """A quota is reached long before the disk is full."""
    reserve = Reserve(tmp_path, free=Disk())
    assert reserve.release(error) is None, "there is none yet"
    reserve.tend(SIZE, drained=True)
    assert reserve.release(OSError(errno.EIO, "Input/output error")) is None
    assert reserve.release(error) == "spent"
    assert reserve.release(error) is None


def test_a_controller_that_died_stops_no_worker(tmp_path: Path) -> None:
    (tmp_path / RESERVE).touch()
    assert is_spent(tmp_path)
    long_ago = time.time() - STALE_SECONDS - 1
    os.utime(tmp_path / RESERVE, (long_ago, long_ago))
    assert not is_spent(tmp_path)
    Reserve(tmp_path, free=Disk()).tend(SIZE, drained=False)
    assert is_spent(tmp_path), "its successor goes on where it was"


def test_a_reserve_that_does_not_fit_is_not_made_by_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert Reserve(tmp_path, free=Disk()).tend(SIZE, drained=True) is None
    assert list(tmp_path.iterdir()) == []
