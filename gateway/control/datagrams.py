"""What workers say of themselves once a second, over a Unix datagram socket.

Rule: whatever comes is taken or dropped at once; loss is fine, because every number is cumulative.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson


class Datagrams(asyncio.DatagramProtocol):
    """Passes each JSON object that comes to ``hear``."""

    def __init__(self, hear: Callable[[dict[str, Any]], None]) -> None:
        self._hear = hear

    def datagram_received(self, data: bytes, addr: object) -> None:
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(data)
            if isinstance(value, dict):
                self._hear(value)


async def listen(path: Path, hear: Callable[[dict[str, Any]], None]) -> asyncio.DatagramTransport:
    """Bind the socket, in the place of a dead controller's. Raises OSError, as when the path is too long for one."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind(str(path))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Datagrams(hear), sock=sock)
    except BaseException:
        sock.close()
        raise
    return transport
