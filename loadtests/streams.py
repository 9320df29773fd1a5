"""Clients of event streams: many at once, each measuring the delay of every event.

Rule: the backend's clock and this one's are the same (``time.monotonic``, one machine), so an event's age on arrival is
its delay. A process of its own: ``python -m loadtests.streams``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final, cast

import uvloop

from loadtests.figures import percentile
from loadtests.machine import LOAD_CORE, pinned
from loadtests.request import request

_AT: Final = re.compile(rb'"at":([0-9.]+),')
_END: Final = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Streamed:
    """The result of the streams. ``whole`` is the number that were read to their end."""

    whole: int
    events: int
    p50_ms: float
    p99_ms: float
    seconds: float


class Stream(asyncio.Protocol):
    """One stream: notes the delay of each event, until its end."""

    def __init__(self, user: int, done: asyncio.Future[bool], delays: list[float]) -> None:
        self._user = user
        self._done = done
        self._delays = delays
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(request(self._user))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        data = self._rest + data
        end = 0
        for found in _AT.finditer(data):
            self._delays.append(now - float(found[1]))
            end = found.end()
        self._rest = data[max(end, len(data) - 40) :]
        if data.endswith(_END):
            self._finish(True)

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(False)

    def _finish(self, whole: bool) -> None:
        if not self._done.done():
            self._done.set_result(whole)
        self._transport.close()


def stream(port: int, *, count: int, seconds: float) -> Streamed:
    """Read ``count`` streams at once, in a separate process; one that has not ended after ``seconds`` is not whole."""
    command = [sys.executable, "-m", "loadtests.streams", str(port), str(count), str(seconds)]
    with pinned(LOAD_CORE):
        run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
    if run.returncode:
        raise RuntimeError(f"the streams ended with {run.returncode}: {run.stderr}")
    return Streamed(**json.loads(run.stdout))


async def _main(port: int, count: int, seconds: float) -> Streamed:
    loop = asyncio.get_running_loop()
    delays, ends, began = list[float](), list[asyncio.Future[bool]](), time.monotonic()
    for user in range(count):
        ends.append(loop.create_future())
        await loop.create_connection(lambda: Stream(user, ends[-1], delays), "127.0.0.1", port)  # noqa: B023
    done, _ = await asyncio.wait(ends, timeout=seconds)
    return Streamed(
        whole=sum(end.result() for end in done),
        events=len(delays),
        p50_ms=1000 * percentile(delays, 0.5) if delays else 0.0,
        p99_ms=1000 * percentile(delays, 0.99) if delays else 0.0,
        seconds=time.monotonic() - began,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m loadtests.streams")
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    print(json.dumps(asdict(uvloop.run(_main(options.port, options.count, options.seconds)))))
