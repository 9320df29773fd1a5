"""``python -m loadtests.hostile_clients``: every kind of hostile client at once, beside ordinary load.

Rule: a black box, on the loopback only. Ordinary requests are sent in an open loop while pipelining clients that do not
read, half bodies and endless heads, slow readers of long answers, floods of feedback and of invented units attack, each
kind from a process of its own; then the same against nginx. Every attack has a bound, and starts again when its
connection is closed or refused. The whole run has a time limit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from loadtests.lifeline import until_stdin_closes
from loadtests.machine import LOAD_CORE, rss_bytes
from loadtests.openloop import Latency, open_loop
from loadtests.origin import backends
from loadtests.peers import turnout
from loadtests.peers.nginx import NGINX
from loadtests.peers.peer import Gateway, Job
from loadtests.processes import running
from loadtests.request import PATH, request

RATE: Final = 500.0
#: The bounds that must hold.
WORKER_BYTES: Final = 200 * 2**20
CONTROLLER_BYTES: Final = 400 * 2**20
WATERMARK_SECONDS: Final = 5.0

_LARGE_BYTES: Final = 8 * 2**20
_LARGE: Final = b"GET /large HTTP/1.1\r\nhost: models.example\r\n\r\n"
_HEAD: Final = b"POST %b HTTP/1.1\r\nhost: models.example\r\nx-user-id: hostile\r\n" % PATH.encode()
#: How long one attacker keeps a connection before it opens a new one, and waits to be accepted.
_HOLD_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 0.1
_FEW: Final = 0.1

_ROUTES: Final = """
[routes.large]
path = "/large"
policy = { kind = "single", variant = "one" }
"""
_AB: Final = 'baseline = "one"\npolicy = { kind = "ab", shares = { one = 0.5, two = 0.5 } }'


Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


async def _pipeline(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Send pipelined requests and read none of the answers."""
    lot = request(number) * 1_000
    async with asyncio.timeout(_HOLD_SECONDS):
        while True:
            writer.write(lot)
            await writer.drain()


async def _half_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Send a head and at most a part of the body, and wait."""
    sent, length = ((0, 10), (9, 10), (20_000, 40_000))[number % 3]
    writer.write(_HEAD + b"content-length: %d\r\n\r\n" % length + b"x" * sent)
    async with asyncio.timeout(6 * _HOLD_SECONDS):
        await reader.read()


async def _read_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Ask for a long answer and read a thousand bytes a second of it."""
    writer.write(_LARGE)
    async with asyncio.timeout(6 * _HOLD_SECONDS):
        while await reader.read(1_000):
            await asyncio.sleep(1)


async def _head_without_end(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Send header fields for ever."""
    writer.write(_HEAD)
    async with asyncio.timeout(_HOLD_SECONDS):
        for field in itertools.count():
            writer.write(b"x-%d: %b\r\n" % (field, b"y" * 1_000) * 10)
            await writer.drain()
            await asyncio.sleep(0.01)


async def _flood_of_feedback(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Send feedback about predictions that never existed, as fast as it is accepted."""
    async with asyncio.timeout(_HOLD_SECONDS):
        while True:
            at = f"{time.time_ns() // 1_000_000:012x}"
            events = [
                {
                    "prediction_id": f"{at[:8]}-{at[8:]}-7{random.getrandbits(12):03x}-8{random.getrandbits(12):03x}"
                    f"-{random.getrandbits(48):012x}",
                    "metric": "correct",
                    "value": 1,
                }
                for _ in range(500)
            ]
            body = json.dumps(events).encode()
            head = b"POST /-/feedback HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
            writer.write(head + body)
            await _answer(reader)
            await asyncio.sleep(0.02)


async def _mint_units(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Ask as another user each time."""
    async with asyncio.timeout(_HOLD_SECONDS):
        while True:
            writer.write(request(random.getrandbits(40)))
            await _answer(reader)
            await asyncio.sleep(0.05)


async def _answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = (line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(next(lengths, b"0")))


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Hold a silent connection open."""
    async with asyncio.timeout(6 * _HOLD_SECONDS):
        await reader.read()


#: Each attack, and its number of concurrent attackers.
ATTACKS: Final[Mapping[str, tuple[Attack, int]]] = {
    "pipeline": (_pipeline, 8),
    "half-a-body": (_half_a_body, 300),
    "slow-reader": (_read_slowly, 48),
    "head-without-end": (_head_without_end, 8),
    "feedback": (_flood_of_feedback, 4),
    "units": (_mint_units, 4),
    "silent": (_say_nothing, 300),
}
#: Those of them that also attack the admin port.
OPERATORS: Final = ("head-without-end", "silent")


async def _again_and_again(attack: Attack, port: int, number: int) -> None:
    await asyncio.sleep(random.random())
    while True:
        with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**14)
            try:
                await attack(reader, writer, number)
            finally:
                writer.transport.abort()
        await asyncio.sleep(_AGAIN_SECONDS)


async def attack_until_stdin_closes(targets: Sequence[tuple[str, int]], share: float) -> None:
    """Run the attackers of these kinds against these ports until standard input closes."""
    tasks = [
        asyncio.create_task(_again_and_again(ATTACKS[kind][0], port, number))
        for kind, port in targets
        for number in range(max(1, round(ATTACKS[kind][1] * share)))
    ]
    print("ready", flush=True)
    await until_stdin_closes()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@contextmanager
def attacked(targets: Sequence[tuple[str, int]], directory: Path, *, share: float = 1.0) -> Iterator[None]:
    """Attack these ports in these ways while inside; a small ``share`` of the attackers runs in one process."""
    alone = [[target] for target in targets] if share > _FEW else [targets]
    with ExitStack() as held:
        for group in alone:
            command = [sys.executable, "-m", "loadtests.hostile_clients", "--share", str(share), "--attack"]
            command += [f"{kind}:{port}" for kind, port in group]
            log = directory / "attackers.log"
            process = held.enter_context(running(command, log, core=LOAD_CORE, says=True))
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"no {command[-1]}: {log.read_text()}")
        yield


@dataclass(slots=True)
class Peak:
    """The largest values that were seen."""

    worker_bytes: int = 0
    controller_bytes: int = 0
    watermark_seconds: float = 0.0


@contextmanager
def watching(gateway: Gateway, every_seconds: float = 0.5) -> Iterator[Peak]:
    """Read memory and watermark of Turnout again and again while inside."""
    peak, over = Peak(), threading.Event()

    def watch() -> None:
        while not over.wait(every_seconds):
            with contextlib.suppress(OSError):
                peak.worker_bytes = max(peak.worker_bytes, *(rss_bytes((pid,)) for pid in gateway.carriers))
                peak.controller_bytes = max(peak.controller_bytes, rss_bytes(gateway.others))
            assert gateway.data_dir is not None
            with contextlib.suppress(sqlite3.Error), turnout.reading(gateway.data_dir) as store:
                row = store.execute("SELECT value FROM numbers WHERE name = 'watermark_ms'").fetchone()
                if row is not None:
                    peak.watermark_seconds = max(peak.watermark_seconds, time.time() - row[0] / 1000)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class Found:
    """What ordinary clients saw during the attack, at Turnout and at nginx, and the peaks of Turnout."""

    turnout: Latency
    peak: Peak
    nginx: Latency | None

    @property
    def held(self) -> bool:
        """Whether every bound was kept."""
        peak = self.peak
        return (
            self.turnout.errors == 0
            and peak.worker_bytes <= WORKER_BYTES
            and peak.controller_bytes <= CONTROLLER_BYTES
            and peak.watermark_seconds <= WATERMARK_SECONDS
        )

    def __str__(self) -> str:
        peak = self.peak
        lines = [
            f"Turnout: {_told(self.turnout)}",
            f"worker at most {peak.worker_bytes / 2**20:.0f} MB (≤ {WORKER_BYTES / 2**20:.0f}), "
            f"controller {peak.controller_bytes / 2**20:.0f} MB (≤ {CONTROLLER_BYTES / 2**20:.0f}), "
            f"watermark {peak.watermark_seconds:.1f} s old (≤ {WATERMARK_SECONDS:g})",
        ]
        lines.append("nginx: absent" if self.nginx is None else f"nginx: {_told(self.nginx)}")
        return "\n".join(lines)


def _told(found: Latency) -> str:
    return (
        f"{found.offered:,} ordinary requests, failed {found.errors} (refused {found.refused}, broken {found.broken}, "
        f"unanswered {found.unanswered}; target 0), p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms"
    )


def measure(seconds: float, *, rate: float = RATE, share: float = 1.0, beside_nginx: bool = True) -> Found:
    """Run every attack against Turnout for ``seconds``, then against nginx for a fifth of that."""
    with tempfile.TemporaryDirectory(prefix="turnout-hostile-") as name:
        directory = Path(name)
        with backends([("--large", str(_LARGE_BYTES))] * 2, directory) as (one, two):
            rest = turnout.backends({"one": one, "two": two}, max_concurrency=256) + turnout.route(
                f'prediction = "/outputs/0/data/0"\n{_AB}'
            )
            with turnout.serving(rest + _ROUTES, directory) as gateway:
                assert gateway.admin is not None
                targets = [(kind, gateway.port) for kind in ATTACKS]
                targets += [(kind, gateway.admin) for kind in OPERATORS]
                with watching(gateway) as peak, attacked(targets, directory, share=share):
                    ours = open_loop(gateway.port, rate=rate, seconds=seconds)
            theirs = None
            if beside_nginx and NGINX.absent() is None:
                with NGINX.serve(Job((one, two)), directory) as gateway:
                    targets = [(kind, gateway.port) for kind in ATTACKS if kind != "feedback"]
                    with attacked(targets, directory, share=share):
                        theirs = open_loop(gateway.port, rate=rate, seconds=max(5.0, seconds / 5))
        return Found(ours, peak, theirs)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.hostile_clients", description="Ordinary load beside every kind of hostile client."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--rate", type=float, default=RATE, help="ordinary requests a second (500)")
    parser.add_argument("--share", type=float, default=1.0, help="of the attackers (1)")
    parser.add_argument("--attack", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack is not None:
        os.nice(1)
        targets = [(kind, int(port)) for kind, _, port in (target.partition(":") for target in options.attack)]
        uvloop.run(attack_until_stdin_closes(targets, options.share))
        return
    if not (0 < options.minutes <= 60 and 0 < options.rate <= 5_000 and 0 < options.share <= 1):
        parser.error("minutes must lie in (0, 60], the rate in (0, 5000], the share in (0, 1]")
    found = measure(options.minutes * 60, rate=options.rate, share=options.share)
    print(found)
    sys.exit(0 if found.held else 1)


if __name__ == "__main__":
    main()
