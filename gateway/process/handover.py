"""Passing the listening socket and the data directory from one supervisor to the next, so that nobody is refused.

Rule: the one that serves goes on until the other can. ``serve`` on a data directory that is served asks on a socket in
it (same user only), is sent the listening socket and the lock, starts its workers on it, and says "go" when all of them
take requests; only then does the first one drain and end. Both listen on one socket meanwhile: what one does not
accept, the other does. The first one's controller ends at "go", for what the successor's workers write may be news to
it, and the successor's begins when every process of the first is gone: one store, one controller. Until then each has a
snapshot of its own (``published.NEXT``). A successor that fails before "go" changes nothing.
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
#: Seconds for the one that serves to answer, and for its successor to have its workers ready.
_ANSWER_SECONDS: Final = 5.0
READY_SECONDS: Final = 30.0
_GO: Final = b"go"


class Predecessor:
    """The supervisor that serves, as the one that is to follow it knows it."""

    def __init__(self, peer: socket.socket, listener: socket.socket, hold: Hold, listen: str) -> None:
        self.listener = listener
        self.hold = hold
        #: What the configuration of the other says in ``gateway.listen``.
        self.listen = listen
        self._peer = peer

    def go(self) -> None:
        """Let it drain: the directory is ours, also if it was killed meanwhile."""
        with contextlib.suppress(OSError):
            self._peer.sendall(_GO)
        self.hold.take()
        self._peer.setblocking(False)

    async def gone(self) -> None:
        """Return when it has ended."""
        with contextlib.suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(self._peer, 1):
                pass


@contextlib.contextmanager
def predecessor(data_dir: Path) -> Iterator[Predecessor | None]:
    """Ask who serves this directory for its place; None if nobody does. Raises Unavailable if it does not answer."""
    with socket.socket(socket.AF_UNIX) as peer, _short(data_dir) as place:
        peer.settimeout(_ANSWER_SECONDS)
        try:
            peer.connect(place)
        except OSError:  # nobody serves it, or not by a socket: the lock says which
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
    """Hand over to the first successor that is ready, and then call ``taken``; for ever until then."""
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
            with contextlib.suppress(OSError):  # the successor has said "go": nothing may keep this one from draining
                os.unlink(place)
            hold.passed_on = True
            # Open until this process ends: its end is what tells the successor.
            _successors.append(peer)
            taken()
            return


_successors: Final[list[socket.socket]] = []


async def _handed(peer: socket.socket, listener: socket.socket, listen: str, hold: Hold) -> bool:
    """Send what the successor needs, and return whether it is ready to serve."""
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
    """The socket's path, by way of a descriptor: the names of sockets have at most 107 bytes."""
    fd = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)
