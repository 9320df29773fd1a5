"""What the kernel knows about a client's connection, and what a transport cannot be asked for.

Rule: a transport without a socket, or one that is closed already, has an answer to each of these, and no error.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Final

# SO_LINGER of no seconds: a close discards what is not sent or not read, and the peer gets a reset.
_RESET: Final = struct.pack("ii", 1, 0)


def untaken(transport: asyncio.Transport) -> int:
    """Return how many bytes of what was written the client's side has not taken: those here, and those in the kernel.

    The kernel takes hundreds of kilobytes at once of an answer that is read slowly: without its share such a client
    would seem to have stopped.
    """
    here = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    try:
        return here + int.from_bytes(ioctl(sock.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, AttributeError):
        return here


def was_reset(transport: asyncio.Transport) -> bool:
    """Return whether the client answered something that was sent with a reset."""
    sock = transport.get_extra_info("socket")
    return sock is None or bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def reset_at_close(transport: asyncio.Transport) -> None:
    """Make the close of this connection a reset."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
