"""Clients that hold a connection open: idle ones, slow ones, and ones that do not read.

Rule: the requested number of connections stays open; one that is closed or refused is opened again. It prints its first
line when all are open, ends when its standard input closes, and then prints how often the server closed one. A process
of its own: ``python -m loadtests.holders``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

import uvloop

from loadtests.lifeline import until_stdin_closes
from loadtests.machine import LOAD_CORE
from loadtests.processes import running
from loadtests.request import PATH, request

#: The time between two bytes of a slow client.
_DRIP_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 0.2
_HEAD: Final = b"POST %b HTTP/1.1\r\nhost: models.example\r\nx-user-id: slow\r\n" % PATH.encode()
_LARGE: Final = 2**20


class Holder(asyncio.Protocol):
    """One connection. ``first`` is sent at once, then ``drip`` again and again; ``reading`` False: nothing is read."""

    def __init__(self, holders: Holders, first: bytes, drip: bytes, *, reading: bool) -> None:
        self._holders = holders
        self._first = first
        self._drip = drip
        self._reading = reading
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._reading:
            self._transport.pause_reading()
        self._transport.write(self._first)
        if self._drip:
            # Each connection starts at its own moment: in step they would make one burst twice a second.
            asyncio.get_running_loop().call_later(_DRIP_SECONDS * self._holders.spread(), self._next)

    def data_received(self, data: bytes) -> None:
        if not self._answered:
            self._answered = True
            self._holders.answered += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._holders.lost()

    def _next(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._drip)
            asyncio.get_running_loop().call_later(_DRIP_SECONDS, self._next)


class Holders:
    """All connections of the process."""

    def __init__(self, port: int, make: Callable[[Holders], Holder]) -> None:
        self.closed = 0
        self.answered = 0
        self._opened = 0
        self._port = port
        self._make = make
        self._opening = set[asyncio.Task[None]]()

    async def open(self) -> None:
        """Open one connection; retry until it succeeds."""
        while True:
            try:
                await asyncio.get_running_loop().create_connection(lambda: self._make(self), "127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    def spread(self) -> float:
        """Return a number between 0 and 1 that differs from one holder to the next, evenly spread in the long run."""
        self._opened += 1
        return self._opened * 0.618 % 1

    def lost(self) -> None:
        """A connection was closed: open another."""
        self.closed += 1
        task = asyncio.ensure_future(self.open())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)


def kinds() -> dict[str, Callable[[Holders], Holder]]:
    """Return the ways to hold a connection, by name."""
    large = request(1, body=b"x" * _LARGE)
    return {
        "idle": lambda holders: Holder(holders, request(1), b"", reading=True),
        "slow-header": lambda holders: Holder(holders, _HEAD + b"x-slow: ", b"x", reading=True),
        "slow-body": lambda holders: Holder(holders, _HEAD + b"content-length: 100000\r\n\r\n", b"x", reading=True),
        "deaf": lambda holders: Holder(holders, large, b"", reading=False),
    }


@contextmanager
def holding(kind: str, count: int, port: int, directory: Path) -> Iterator[None]:
    """Hold ``count`` connections open while the context is open."""
    command = (sys.executable, "-m", "loadtests.holders", kind, str(count), str(port))
    with running(command, directory / "holders.log", core=LOAD_CORE, says=True) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"no {kind} clients: {(directory / 'holders.log').read_text()}")
        yield


async def _main(options: argparse.Namespace) -> None:
    holders = Holders(options.port, kinds()[options.kind])
    for _ in range(options.count):
        await holders.open()
    while options.kind == "idle" and holders.answered < options.count:
        await asyncio.sleep(0.02)
    print("all here", flush=True)
    await until_stdin_closes()
    print(json.dumps({"closed": holders.closed}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m loadtests.holders")
    parser.add_argument("kind", choices=sorted(kinds()))
    parser.add_argument("count", type=int)
    parser.add_argument("port", type=int)
    uvloop.run(_main(parser.parse_args()))
