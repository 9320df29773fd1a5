"""What a supervisor must have to itself before it starts: the data directory and the address.

Rule: a second supervisor fails at once, and its error names the first. There are two locks in the data directory.
``supervisor.pid`` is held by the supervisor alone. ``processes.lock`` is held by every child too: after ``kill -9`` of
a supervisor the next one waits until the children of the former, which end by themselves, have ended. Two controllers
on one store, or a journal that grows after its reader has finished with it, would lose acknowledged data.
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

from gateway.files.regular import open_regular
from router.config.spellings import address

logger = logging.getLogger(__name__)

#: Seconds to wait for the children and the port of a supervisor that was killed.
_ORPHANS_SECONDS: Final = 60.0
_PORT_SECONDS: Final = 5.0

_BACKLOG: Final = 4096
#: SD_LISTEN_FDS_START.
_FIRST_PASSED: Final = 3


class Unavailable(Exception):
    """Something that is needed to serve is missing or in use; the message says what and, if known, by whom."""


class Hold:
    """The lock on a data directory, a file with its holder's pid. ``killed``: the last supervisor did not end cleanly.

    ``passed_on`` becomes True when a successor has the lock too (``gateway.process.handover``): it is held as long as
    one of the two keeps it open.
    """

    def __init__(self, fd: int, *, killed: bool = False) -> None:
        self.fd = fd
        self.killed = killed
        self.passed_on = False
        self._ours = False

    def take(self) -> None:
        """Write this process's pid into the file."""
        self._ours = True
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Release the lock, and remove the pid: one that is left in the file is of a supervisor that was killed."""
        if self._ours and not self.passed_on:
            os.ftruncate(self.fd, 0)
        os.close(self.fd)


@contextlib.contextmanager
def sole_supervisor(data_dir: Path) -> Iterator[Hold]:
    """Hold the lock on the directory. Raises Unavailable if another supervisor has it."""
    fd = open_regular(data_dir / "supervisor.pid", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 20).decode(errors="replace").strip()
        os.close(fd)
        raise Unavailable(f"{data_dir} is in use by the supervisor with pid {pid or 'unknown'}") from None
    with contextlib.closing(Hold(fd, killed=os.read(fd, 1) != b"")) as hold:
        hold.take()
        yield hold


def running_supervisor(data_dir: Path) -> int | None:
    """Return the pid of the supervisor that holds the directory, None if none does."""
    try:
        fd = open_regular(data_dir / "supervisor.pid")
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
def processes_lock(data_dir: Path) -> Iterator[int]:
    """Open the lock that children inherit. Once it is ``locked``, every child holds it too."""
    fd = open_regular(data_dir / "processes.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def locked(fd: int) -> bool:
    """Take the lock, unless processes of another supervisor hold it; return whether this process has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def sole_processes(data_dir: Path) -> Iterator[int]:
    """Wait until the children of a former supervisor have ended, and hold the lock that children inherit.

    Raises Unavailable if they do not end in time.
    """
    with processes_lock(data_dir) as fd:
        deadline = time.monotonic() + _ORPHANS_SECONDS
        waiting = False
        while not locked(fd):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"processes of the supervisor before still use {data_dir} after {_ORPHANS_SECONDS:g} s"
                )
            if not waiting:
                logger.warning("the processes of a supervisor that was killed are still draining: waiting for them")
            waiting = True
            time.sleep(0.05)
        yield fd


def activated() -> socket.socket | None:
    """Return the socket that systemd listens on for us (sd_listen_fds(3)), None if there is none.

    Raises Unavailable if there are several, or it does not listen.
    """
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return None
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if count != "1":
        raise Unavailable(f"systemd has to pass one socket, and passes {count}")
    sock = socket.socket(fileno=_FIRST_PASSED)
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise Unavailable("the socket that systemd passes does not listen: it needs ListenStream, and Accept=no")
    sock.set_inheritable(False)
    return sock


@contextlib.contextmanager
def listening(listen: str, *, patient: bool) -> Iterator[socket.socket]:
    """Listen at the configured address. If ``patient``, wait some seconds for a process that still uses it.

    Raises Unavailable.
    """
    host, port = address(listen)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise Unavailable(f"gateway.listen: {host} is not an address of this machine: {error.strerror}") from None
    # A name such as localhost may stand for IPv4 and IPv6. Without a family IPv4 is expected.
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
