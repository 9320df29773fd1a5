"""Load in an open loop: requests are sent on a schedule, whether or not earlier ones were answered.

Rule: a latency counts from the scheduled time of its request, not from when it was sent, so a server that stalls is
charged for every request scheduled meanwhile. Every request is answered, refused, broken, cancelled or unanswered, and
these add up to the schedule. A process of its own (``python -m loadtests.openloop``), so that nothing else delays it.

Timers are whole milliseconds in uvloop and in epoll: at 2,000 requests a second that alone would make half of them
late. ``select`` takes microseconds, and its limit of 1,024 descriptors does not matter here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, cast

import httptools

from loadtests.figures import percentile
from loadtests.machine import LOAD_CORE, pinned, stolen_seconds
from loadtests.request import REQUESTS

#: How long the last answers may take.
GRACE_SECONDS: Final = 5.0
#: How many connections one ``select`` can watch, with some to spare.
MOST_CONNECTIONS: Final = 900
#: A cancelled request is given up after this long.
_CANCEL_SECONDS: Final = 0.005


@dataclass(slots=True)
class Schedule:
    """The times of requests: evenly, ``rate`` a second for ``seconds``. Times are seconds from the beginning."""

    rate: float
    seconds: float
    _next: int = 0

    @property
    def count(self) -> int:
        """The number of requests in all."""
        return round(self.rate * self.seconds)

    @property
    def next_at(self) -> float | None:
        """The time of the next request; None when all were due."""
        return self._next / self.rate if self._next < self.count else None

    def due(self, now: float) -> list[float]:
        """Take every request that is due by now: none is left out, however late this is called."""
        found = []
        while (at := self.next_at) is not None and at <= now:
            found.append(at)
            self._next += 1
        return found


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    broken: int = 0
    cancelled: int = 0

    @property
    def count(self) -> int:
        """The number of requests that have ended."""
        return len(self.answered) + len(self.refused) + self.broken + self.cancelled


@dataclass(frozen=True, slots=True)
class Latency:
    """What an open loop measured. ``late_p99_ms`` is the generator's own delay: how long after their time requests were
    sent. ``stolen`` is the machine's: the share of all processors' time that its host took away meanwhile."""

    offered: int
    answered: int
    refused: int
    broken: int
    cancelled: int
    unanswered: int
    p50_ms: float
    p99_ms: float
    refused_p99_ms: float
    late_p99_ms: float
    stolen: float

    @property
    def errors(self) -> int:
        """The number of requests that should have been answered and were not."""
        return self.refused + self.broken + self.unanswered


def summary(offered: int, tally: Tally, *, stolen: float = 0.0) -> Latency:
    """Summarise a tally."""
    return Latency(
        offered=offered,
        answered=len(tally.answered),
        refused=len(tally.refused),
        broken=tally.broken,
        cancelled=tally.cancelled,
        unanswered=offered - tally.count,
        p50_ms=_ms(tally.answered, 0.5),
        p99_ms=_ms(tally.answered, 0.99),
        refused_p99_ms=_ms(tally.refused, 0.99),
        late_p99_ms=_ms(tally.late, 0.99),
        stolen=stolen,
    )


def _ms(seconds: Sequence[float], share: float) -> float:
    return 1000 * percentile(seconds, share) if seconds else 0.0


class Connection(asyncio.Protocol):
    """One connection: carries one request at a time."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._intended: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._generator.free(self)

    def send(self, request: bytes, intended: float, *, cancel: bool) -> None:
        """Send one request; with ``cancel``, hang up soon after."""
        self._intended = intended
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)
        if cancel:
            self._generator.loop.call_later(_CANCEL_SECONDS, self._cancel)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        intended, self._intended = self._intended, None
        assert intended is not None
        self._generator.answered(intended, self._parser.get_status_code())
        if self._parser.should_keep_alive():
            self._generator.free(self)
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._generator.lost(self, broke=self._intended is not None)

    def _cancel(self) -> None:
        if self._intended is not None:
            self._intended = None
            self._generator.tally.cancelled += 1
            self._transport.abort()


class Generator:
    """Sends due requests on free connections; a request that finds none waits, and its latency counts the wait."""

    def __init__(self, port: int, schedule: Schedule, *, connections: int, cancel_every: int = 0) -> None:
        self.loop = asyncio.get_running_loop()
        self.tally = Tally()
        self._port = port
        self._schedule = schedule
        self._connections = connections
        self._cancel_every = cancel_every
        self._free = deque[Connection]()
        self._waiting = deque[float]()
        self._sent = 0
        self._began = 0.0
        self._opening = set[asyncio.Task[None]]()
        self._over = False

    async def run(self) -> Latency:
        """Send everything, wait for the last answers, and return what was found."""
        await asyncio.gather(*(self._open() for _ in range(self._connections)))
        self._began, stolen_before = self.loop.time(), stolen_seconds()
        self._tick()
        deadline = self._began + self._schedule.seconds + GRACE_SECONDS
        while self.tally.count < self._schedule.count and self.loop.time() < deadline:
            await asyncio.sleep(0.05)
        self._over = True
        stolen = (stolen_seconds() - stolen_before) / (self.loop.time() - self._began) / (os.cpu_count() or 1)
        return summary(self._schedule.count, self.tally, stolen=stolen)

    def free(self, connection: Connection) -> None:
        """Accept a connection that has no request."""
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def answered(self, intended: float, status: int) -> None:
        """Count one answer."""
        taken = self.loop.time() - self._began - intended
        (self.tally.answered if status < 400 else self.tally.refused).append(taken)

    def lost(self, connection: Connection, *, broke: bool) -> None:
        """Replace a connection that was closed."""
        self.tally.broken += broke
        if connection in self._free:
            self._free.remove(connection)
        if not self._over:
            task = asyncio.ensure_future(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _tick(self) -> None:
        now = self.loop.time() - self._began
        for intended in self._schedule.due(now):
            self.tally.late.append(now - intended)
            if self._free:
                self._send(self._free.popleft(), intended)
            else:
                self._waiting.append(intended)
        if (at := self._schedule.next_at) is not None:
            self.loop.call_at(self._began + at, self._tick)

    def _send(self, connection: Connection, intended: float) -> None:
        self._sent += 1
        cancel = bool(self._cancel_every) and self._sent % self._cancel_every == 0
        connection.send(REQUESTS[self._sent % len(REQUESTS)], intended, cancel=cancel)

    async def _open(self) -> None:
        for pause in (0.0, 0.1, 0.5, 1.0):
            await asyncio.sleep(pause)
            try:
                await self.loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
            except OSError:
                continue
            return


def open_loop(port: int, *, rate: float, seconds: float, connections: int = 64, cancel_every: int = 0) -> Latency:
    """Run the generator in a process of its own on the core of the load, and return what it found."""
    command = [sys.executable, "-m", "loadtests.openloop", "--port", str(port), "--rate", str(rate)]
    command += ["--seconds", str(seconds), "--connections", str(connections), "--cancel-every", str(cancel_every)]
    with pinned(LOAD_CORE):
        run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE_SECONDS + 30)
    if run.returncode:
        raise RuntimeError(f"the generator ended with {run.returncode}: {run.stderr}")
    return Latency(**json.loads(run.stdout))


async def _main(options: argparse.Namespace) -> Latency:
    schedule = Schedule(options.rate, options.seconds)
    connections = min(options.connections, MOST_CONNECTIONS)
    return await Generator(options.port, schedule, connections=connections, cancel_every=options.cancel_every).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m loadtests.openloop")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument(
        "--cancel-every", type=int, default=0, help="give up every so-manyth request soon after it left"
    )
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        print(json.dumps(asdict(runner.run(_main(parser.parse_args())))))
