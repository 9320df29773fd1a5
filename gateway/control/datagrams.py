"""What workers report of themselves once a second, over a Unix datagram socket.

Rule: a datagram is handled or dropped at once; a lost one does no harm, because every number is cumulative.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.control.event_log import EventLog
from router.snapshot import Gateway

#: The socket, in the data directory.
METRICS: Final = "metrics.sock"


class WorkerReports:
    """The newest datagram of each worker. ``observe`` is called with every one."""

    def __init__(
        self, gateway: Callable[[], Gateway], observe: Callable[[Mapping[str, Any]], None], event_log: EventLog
    ) -> None:
        self.newest: dict[str, Mapping[str, Any]] = {}
        self._gateway = gateway
        self._observe = observe
        self._event_log = event_log

    def receive(self, datagram: dict[str, Any]) -> None:
        """Take a worker's datagram."""
        writer = str(datagram.get("writer"))
        if writer not in self.newest:
            self._event_log.note("worker_started", None, f"worker {datagram.get('slot')}, pid {datagram.get('pid')}")
        # The newest is last; the workers that have been silent for longest are forgotten.
        self.newest.pop(writer, None)
        self.newest[writer] = datagram
        while len(self.newest) > 4 * max(1, self._gateway().workers):
            del self.newest[next(iter(self.newest))]
        self._observe(datagram)


class Datagrams(asyncio.DatagramProtocol):
    """Calls ``receive`` with each JSON object that comes."""

    def __init__(self, receive: Callable[[dict[str, Any]], None]) -> None:
        self._receive = receive

    def datagram_received(self, data: bytes, addr: object) -> None:
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(data)
            if isinstance(value, dict):
                self._receive(value)


async def listen(path: Path, receive: Callable[[dict[str, Any]], None]) -> asyncio.DatagramTransport:
    """Bind the socket in place of one that a dead controller left. Raises OSError, also if the path is too long."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind(str(path))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Datagrams(receive), sock=sock)
    except BaseException:
        sock.close()
        raise
    return transport
