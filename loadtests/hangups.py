"""``python -m loadtests.hangups``: clients of the admin port hang up early, and recording must go on meanwhile.

Rule: a whole `turnout serve` on SQLite, requests that are recorded, and many clients that ask for metrics, reports,
exports and predictions and hang up at random moments. The recorded part of the journal is read from outside, many times
a second: the longest time in which it did not change is the longest pause of recording.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from gateway.demo.processes import free_ports
from loadtests.outage import AROUND_SECONDS, CONFIG, Clients, _says, _told_port
from loadtests.processes import listening, running, until

_ROUTE: Final = "/api/v1/routes/infer"
PATHS: Final = ("/metrics", "/api/v1/routes", _ROUTE, "/api/v1/export?route=infer", "/api/v1/sinks", "/")
#: The longest time after which a client hangs up.
LONGEST_SECONDS: Final = 0.3
LOOK_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Result:
    """The result.

    ``pause_seconds`` is the longest time in which nothing was recorded, ``alone_seconds`` the same before any client
    hung up; ``lost`` is the number of answered calls without a row.
    """

    answered: int
    wrong: dict[str, int]
    hangups: int
    pause_seconds: float
    alone_seconds: float
    lost: int
    ready: bool

    def __str__(self) -> str:
        return (
            f"answered {self.answered:,}, traffic errors {self.wrong or 0}, hung up {self.hangups:,} times\n"
            f"the longest pause of recording: {self.pause_seconds:.2f} s, {self.alone_seconds:.2f} s before anybody "
            f"hung up\n{self.lost} calls lost; readyz {'200' if self.ready else '503'}"
        )


class Watch(threading.Thread):
    """Reads how far the journal is recorded, through a read-only connection."""

    def __init__(self, database: Path) -> None:
        super().__init__(daemon=True)
        self._name = f"{database.absolute().as_uri()}?mode=ro"
        self.over = threading.Event()
        self.longest = 0.0

    def run(self) -> None:
        with contextlib.closing(sqlite3.connect(self._name, uri=True, isolation_level=None)) as connection:
            seen, since = None, time.monotonic()
            while not self.over.wait(LOOK_SECONDS):
                [found] = connection.execute("SELECT total(offset), count(*), max(segment) FROM offsets")
                now = time.monotonic()
                self.longest = max(self.longest, now - since)
                if found != seen:
                    seen, since = found, now


async def hang_up(port: int, clients: int, seconds: float, seed: int) -> int:
    """Send requests and hang up for ``seconds``; return how often."""
    chance, ends, done = Random(seed), time.monotonic() + seconds, Counter[str]()

    async def client() -> None:
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                reading, writing = await asyncio.open_connection("127.0.0.1", port)
                writing.write(f"GET {chance.choice(PATHS)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(chance.random() * LONGEST_SECONDS):
                        await reading.read(chance.choice((1, 10_000, 1_000_000)))
                writing.transport.abort()
                done["hung up"] += 1
            await asyncio.sleep(chance.random() * LONGEST_SECONDS)

    await asyncio.gather(*(client() for _ in range(clients)))
    return done["hung up"]


def measure(clients: int, seconds: float, rate: float) -> Result:
    """Have ``clients`` hang up for ``seconds`` while ``rate`` requests a second are recorded."""
    with tempfile.TemporaryDirectory(prefix="turnout-hangups-") as name:
        directory = Path(name)
        (listen, admin), config = free_ports(2), directory / "turnout.toml"
        data, log = directory / "data", directory / "log"
        with running((sys.executable, "-m", "loadtests.backend"), log, says=True) as model:
            port = _told_port(model.stdout)
            config.write_text(CONFIG.format(listen=listen, admin=admin, data_dir=data, store="sqlite", model=port))
            with running((sys.executable, "-m", "gateway.cli", "serve", "-c", config), log) as process:
                listening(listen, process, log)
                until(lambda: _says(admin, "/readyz"), "the store is open", log=log)
                with Clients(listen, rate) as traffic:
                    time.sleep(AROUND_SECONDS)
                    watch = Watch(data / "turnout.db")
                    watch.start()
                    time.sleep(seconds / 3)
                    alone, watch.longest = watch.longest, 0.0
                    hangups = asyncio.run(hang_up(admin, clients, seconds, 1))
                    watch.over.set()
                    watch.join()
                ready = _says(admin, "/readyz")
            ids = [one for held in traffic.held for one in held.ids]
        wrong = Counter[str]()
        for held in traffic.held:
            wrong += held.wrong
        with contextlib.closing(sqlite3.connect(data / "turnout.db")) as connection:
            stored = {row[0] for row in connection.execute("SELECT id FROM calls")}
        return Result(len(ids), dict(wrong), hangups, watch.longest, alone, len(set(ids) - stored), ready)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.hangups", description="Clients hang up on the admin port while calls are recorded."
    )
    parser.add_argument("--clients", type=int, default=200, help="(200)")
    parser.add_argument("--seconds", type=float, default=30.0, help="(30)")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second that are recorded (300)")
    options = parser.parse_args()
    if not (0 < options.clients <= 1_000 and 0 < options.seconds <= 600 and 0 < options.rate <= 5_000):
        parser.error("clients must lie in (0, 1000], seconds in (0, 600], the rate in (0, 5000]")
    found = measure(options.clients, options.seconds, options.rate)
    print(found)
    sys.exit(0 if found.ready and not found.lost and found.pause_seconds <= 1.0 else 1)


if __name__ == "__main__":
    main()
