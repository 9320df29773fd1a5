"""What a supervisor must have to itself before it starts: the data directory and the address.

Rule: whoever comes second is told at once, and told who was first. Two locks in the data directory: ``supervisor.pid``
is the supervisor's own. ``processes.lock`` is held by every child too: after ``kill -9`` of a supervisor the next one
waits until the children of the last, which leave by themselves, are gone. Two controllers on one store, or a journal
that still grows behind the back of its reader, would lose what was promised to be kept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.regular import open_regular
from router.spellings import address

logger = logging.getLogger(__name__)

#: Seconds to wait for the children and the port of a supervisor that was killed.
_ORPHANS_SECONDS: Final = 60.0
_PORT_SECONDS: Final = 5.0

_BACKLOG: Final = 4096


class Unavailable(Exception):
    """What is needed to serve cannot be had; the message says what and, if known, who has it."""


@contextlib.contextmanager
def sole_supervisor(data_dir: Path) -> Iterator[bool]:
    """Hold the directory; True when its last supervisor was killed. Raises Unavailable if there is another."""
    fd = open_regular(data_dir / "supervisor.pid", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 20).decode(errors="replace").strip()
            raise Unavailable(f"{data_dir} is in use by the supervisor with pid {pid or 'unknown'}") from None
        killed = os.read(fd, 1) != b""
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        try:
            yield killed
        finally:
            os.ftruncate(fd, 0)  # a pid that is left in the file is of one that was killed
    finally:
        os.close(fd)


def running_supervisor(data_dir: Path) -> int | None:
    """Return the pid of the supervisor that holds the directory, None if none does."""
    try:
        fd = os.open(data_dir / "supervisor.pid", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 20).decode(errors="replace").strip()
            return int(pid) if pid.isdecimal() else None
        return None
    finally:
        os.close(fd)


@contextlib.contextmanager
def sole_processes(data_dir: Path) -> Iterator[int]:
    """Hold the lock that children inherit, once those of a supervisor before are gone. Raises Unavailable."""
    fd = open_regular(data_dir / "processes.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + _ORPHANS_SECONDS
        waiting = False
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"processes of the supervisor before still use {data_dir} after {_ORPHANS_SECONDS:g} s"
                    ) from None
            if not waiting:
                logger.warning("the processes of a supervisor that was killed are still draining: waiting for them")
            waiting = True
            time.sleep(0.05)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def listening(listen: str, *, patient: bool) -> Iterator[socket.socket]:
    """Listen where the config says, ``patient`` for a moment with whoever is about to leave. Raises Unavailable."""
    host, port = address(listen)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise Unavailable(f"gateway.listen: {host} is not an address of this machine: {error.strerror}") from None
    # A name such as localhost may stand for both; what names no family is expected at the older one.
    family, kind, protocol, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    deadline = time.monotonic() + (_PORT_SECONDS if patient else 0.0)
    with socket.socket(family, kind, protocol) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                sock.bind(where)
                sock.listen(_BACKLOG)
                break
            except OSError as error:
                if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                reason = "is in use by another process" if error.errno == errno.EADDRINUSE else error.strerror
                raise Unavailable(f"gateway.listen: {listen} {reason}") from None
        yield sock
