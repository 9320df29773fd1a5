"""Reading and replacing files of the data directory, in which there may be anything.

Rule: only regular files are opened, without blocking: a FIFO would block its reader for ever, and a directory or a loop
of links cannot be read at all. A file is replaced atomically and durably, and only its owner may read it. Standard
library only: workers import this.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

#: The errors of opening something that is neither a file nor a directory.
_ODD: Final = frozenset({errno.ENXIO, errno.ELOOP, errno.EISDIR, errno.ENODEV, errno.ENOTDIR})


class NotRegular(OSError):
    """There is something at this path, but not a regular file."""


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Return a descriptor of a regular file. Raises NotRegular if it is something else, and OSError as ``open``."""
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
    """Return the content of a regular file. Raises as ``open_regular``."""
    with open(open_regular(path), "rb") as file:
        return file.read()


def replace_file(path: Path, content: bytes, *, owner: tuple[int, int] | None = None) -> None:
    """Write a file, atomically replacing one that is there. Raises OSError, and then the old one stays.

    ``owner`` is the user and the group it is to belong to, where that is not who writes it.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            if owner is not None:
                os.fchown(file.fileno(), *owner)
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
    """Make the names of new files durable: without it, a power loss may remove even a synced file. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
