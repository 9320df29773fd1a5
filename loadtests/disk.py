"""A disk that can be filled: a file system of a few megabytes in memory, mounted for as long as it is needed.

Rule: the context manager that mounts it also unmounts it. It needs the right to mount; without it NoSmallDisk is
raised, and the caller measures something else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_DETACH: Final = 2


class NoSmallDisk(Exception):
    """A file system cannot be mounted here; the message says why."""


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[Path]:
    """Mount a file system of ``size`` bytes on a directory. Raises NoSmallDisk."""
    libc = ctypes.CDLL(None, use_errno=True)
    directory.mkdir(parents=True, exist_ok=True)
    if libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, b"size=%d" % size) != 0:
        raise NoSmallDisk(f"a small file system cannot be mounted: {os.strerror(ctypes.get_errno())}")
    try:
        yield directory
    finally:
        libc.umount2(os.fsencode(directory), _DETACH)


def fill(disk: Path) -> Path:
    """Leave almost nothing free on a disk, even if others write to it; return the file that takes the space."""
    ballast = disk / "ballast"
    with ballast.open("ab") as file:
        for _ in range(100):
            free = _free_bytes(disk)
            if not free:
                break
            with contextlib.suppress(OSError):  # another process took the space first
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free)
    return ballast


def _free_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize
