"""Passing the listening socket and the data directory from one supervisor to the next, without refusing a connection.

Rule: the predecessor serves until its successor can. ``serve`` on a data directory that is already served connects to a
socket in it (same user only), receives the listening socket and the lock, starts its workers on that socket, and sends
"go" when all of them take requests; only then does the predecessor drain and end. In between the workers of both accept
from one socket. The predecessor's controller ends at "go", because an older program may not be able to read what the
successor's workers write. The successor's controller starts when every process of the predecessor has ended: one store,
one controller. Until then each supervisor has its own snapshot file (``published.NEXT``). A successor that fails before
"go" changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import orjson

from gateway.process.premises import Hold, Unavailable

logger = logging.getLogger(__name__)

SOCKET: Final = "supervisor.sock"
#: Seconds that the predecessor may take to answer, and that the successor may take until its workers are ready.
_ANSWER_SECONDS: Final = 5.0
READY_SECONDS: Final = 30.0
_GO: Final = b"go"


class Predecessor:
    """The supervisor that serves now, as seen by its successor."""

    def __init__(self, peer: socket.socket, listener: socket.socket, hold: Hold, listen: str) -> None:
        self.listener = listener
        self.hold = hold
        #: ``gateway.listen`` of the predecessor's configuration.
        self.listen = listen
        self._peer = peer

    def go(self) -> None:
        """Tell the predecessor to drain, and take the lock: now, or after it was killed, the directory is ours."""
        with contextlib.suppress(OSError):
            self._peer.sendall(_GO)
        self.hold.take()
        self._peer.setblocking(False)

    async def gone(self) -> None:
        """Return when the predecessor has ended."""
        with contextlib.suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(self._peer, 1):
                pass


@contextlib.contextmanager
def predecessor(data_dir: Path) -> Iterator[Predecessor | None]:
    """Ask the supervisor of this directory to hand over; None if there is none. Raises Unavailable if it does not."""
    with socket.socket(socket.AF_UNIX) as peer, _short(data_dir) as place:
        peer.settimeout(_ANSWER_SECONDS)
        try:
            peer.connect(place)
        except OSError:  # either no supervisor serves it, or one that offers no socket: the lock tells which
            yield None
            return
        try:
            said, fds, _, _ = socket.recv_fds(peer, 4_096, 2)
            listen = orjson.loads(said)["listen"]
        except (OSError, ValueError, KeyError, TypeError):
            fds = []
        if len(fds) != 2:
            raise Unavailable(f"the supervisor that serves {data_dir} does not hand over")
        with socket.socket(fileno=fds[0]) as listener, contextlib.closing(Hold(fds[1])) as hold:
            yield Predecessor(peer, listener, hold, listen)


async def offer(data_dir: Path, listener: socket.socket, listen: str, hold: Hold, taken: Callable[[], None]) -> None:
    """Wait for a successor that becomes ready, hand over to it, and call ``taken``."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as offering, _short(data_dir) as place:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)
        offering.bind(place)
        os.chmod(place, 0o600)
        offering.listen(1)
        offering.setblocking(False)
        while True:
            peer, _ = await loop.sock_accept(offering)
            if _uid(peer) not in (0, os.geteuid()) or not await _handed(peer, listener, listen, hold):
                peer.close()
                continue
            with contextlib.suppress(OSError):  # after "go" nothing may keep this process from draining
                os.unlink(place)
            hold.passed_on = True
            # Kept open until this process ends: the successor sees the end of the connection.
            _successors.append(peer)
            taken()
            return


_successors: Final[list[socket.socket]] = []


async def _handed(peer: socket.socket, listener: socket.socket, listen: str, hold: Hold) -> bool:
    """Send the successor what it needs, and return whether it then said that it is ready to serve."""
    try:
        socket.send_fds(peer, [orjson.dumps({"listen": listen})], [listener.fileno(), hold.fd])
        peer.setblocking(False)
        said = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, len(_GO)), 2 * READY_SECONDS)
    except (OSError, TimeoutError):
        return False
    return said == _GO


def _uid(peer: socket.socket) -> int:
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


@contextlib.contextmanager
def _short(data_dir: Path) -> Iterator[str]:
    """Yield a short path of the socket, through a descriptor: the path of a socket has at most 107 bytes."""
    fd = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)
