"""The reserve: disk space that is held until the disk is full, and then used only to drain the journal.

A controller whose store is on the journal's disk could not record anything when that disk is full, and so could delete
nothing. So it holds a file there and truncates it then: recording goes on, recorded segments are deleted, and when the
journal is drained and there is room again, the file is made anew.

Rule: the released space is the controller's alone. Workers treat the journal as full while the reserve is spent: the
file is empty and its controller has touched it lately, so a dead controller stops no worker. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from gateway.journal.segments import roll_bytes

RESERVE: Final = "reserve"

#: The reserve's size, in segments: the store's own log takes 16 MiB between checkpoints, the rows of the segment take
#: space in the store, and workers learn of the full disk up to a second late.
SEGMENTS: Final = 4
#: The disk counts as full when less than this part of the reserve is free.
_LOW: Final = 8
#: An empty reserve that was not touched for so long was left by a dead controller.
STALE_SECONDS: Final = 30.0

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

Change = Literal["spent", "kept"]


def reserve_bytes(max_journal_bytes: int) -> int:
    """Return how large the reserve is: 64 MiB, or less where the journal is bounded by less than 128 MiB."""
    return SEGMENTS * roll_bytes(max_journal_bytes)


def is_spent(journal: Path) -> bool:
    """Return whether the free disk space is the controller's alone, to drain the journal with. Raises OSError."""
    try:
        found = os.stat(journal / RESERVE)
    except FileNotFoundError:
        return False
    return found.st_size == 0 and time.time() - found.st_mtime < STALE_SECONDS


def free_bytes(directory: Path) -> int:
    """Return how much may be written to the disk. Raises OSError."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class Reserve:
    """The reserve of one journal, kept by its controller. ``free`` says how many bytes its disk has left."""

    def __init__(self, journal: Path, *, free: Callable[[Path], int] = free_bytes) -> None:
        self._journal = journal
        self._path = journal / RESERVE
        self._free = free

    @property
    def spent(self) -> bool:
        """True while the file is truncated."""
        with contextlib.suppress(OSError):
            return self._path.stat().st_size == 0
        return False

    def tend(self, size: int, *, drained: bool) -> Change | None:
        """Release the reserve if the disk is full; make it when there is room, anew once all is ``drained``.

        Called about once a second; returns what changed. ``size`` is how large the reserve should be. Raises OSError.
        """
        free = self._free(self._journal)
        try:
            held = self._path.stat().st_size
        except FileNotFoundError:
            held = -1
        if held > 0:
            return self._release() if free < held // _LOW else None
        if (drained or held < 0) and free >= size + 2 * size // _LOW and self._make(size):
            return "kept"
        if held == 0:
            os.utime(self._path)
        return None

    def release(self, error: BaseException) -> Change | None:
        """Release the reserve if ``error``, or its cause, says that the disk or a quota is full."""
        return self._release() if _is_full(error) and not self.spent and self._path.exists() else None

    def drop(self) -> None:
        """Delete the reserve: the journal is drained, and no worker writes to it any more. Raises OSError."""
        self._path.unlink(missing_ok=True)

    def _release(self) -> Change:
        # Truncated, not deleted: workers look for the empty file.
        os.truncate(self._path, 0)
        os.utime(self._path)
        return "spent"

    def _make(self, size: int) -> bool:
        """Allocate the reserve, all of it or none."""
        new = self._path.with_suffix(".new")
        try:
            with open(new, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            new.replace(self._path)
        except OSError as error:
            new.unlink(missing_ok=True)
            if error.errno not in _FULL:
                raise
            return False
        return True


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    # SQLite's words; a store on another machine has disk space of its own.
    return "database or disk is full" in str(error)
