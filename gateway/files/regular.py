"""Reading and replacing files of the data directory, where anything may lie.

Rule: only a regular file is opened, and nothing is waited for: a FIFO would keep its reader for ever, a directory or a
loop of links is not ours to mend. A file is replaced as a whole, durably, and for its owner alone. Standard library
only: workers import this.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

#: What opening something else than a file or a directory fails with.
_ODD: Final = frozenset({errno.ENXIO, errno.ELOOP, errno.EISDIR, errno.ENODEV, errno.ENOTDIR})


class NotRegular(OSError):
    """There is something, and it is no regular file."""


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Return a descriptor of a regular file. Raises NotRegular if it is another thing, and OSError as ``open`` does."""
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno in _ODD:
            raise NotRegular(error.errno, f"no regular file: {error.strerror}", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegular(errno.EINVAL, "no regular file", str(path))
    return fd


def read_regular(path: Path) -> bytes:
    """Return what a regular file holds. Raises as ``open_regular``."""
    with open(open_regular(path), "rb") as file:
        return file.read()


def replace_file(path: Path, content: bytes) -> None:
    """Put a file with this content in place of the one there may be. Raises OSError and leaves the old one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names of new files durable: without it, power loss may take a synced file away. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
