"""``python -m loadtests.volume``: a store of millions of predictions, and how fast it is read.

Rule: some go through journal and controller into the store as usual, and leave every kind of count; the database itself
generates the rest, as they would be in its tables after days. Then a new controller starts on this store, answers
queries, records some more, and answers queries again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from gateway.files.published import SNAPSHOT, SnapshotFile
from gateway.journal.appender import Appender
from gateway.journal.segments import FEEDBACK, JOURNAL, PREDICTIONS, new_run, new_writer, roll_bytes
from gateway.proxy.exchange.ids import new_id
from gateway.store import Store
from gateway.store.schema import partitions
from gateway.store.store import FILE
from loadtests import postgresql
from loadtests.recorder import controller, prediction_of, recorded, wait_for
from router.records import Feedback, feedback_line, mark_line
from router.snapshot import Route
from tests.router.journal_lines import call_line

DAY_MS: Final = 86_400_000
#: Predictions are spread over the days before today.
DAYS: Final = 10
UNITS: Final = 100_000
#: The predictions that go through the journal before the measurement, and the same number during it.
RECORDED: Final = 20_000
CHUNK: Final = 1_000
VARIANTS: Final = ("one", "two")
ASKED: Final = 20

#: The bounds.
REPORT_SECONDS: Final = 1.0
METRICS_SECONDS: Final = 0.2
MEMORY_MB: Final = 250.0


@dataclass(frozen=True, slots=True)
class Looked:
    """How long answers took, the median and the slowest in seconds, and the controller's memory after."""

    report: tuple[float, float]
    metrics: tuple[float, float]
    memory_mb: float
    peak_mb: float

    @property
    def reached(self) -> bool:
        return self.report[0] <= REPORT_SECONDS and self.metrics[0] <= METRICS_SECONDS and self.memory_mb <= MEMORY_MB

    def __str__(self) -> str:
        return (
            f"report {self.report[0] * 1000:.0f} ms (slowest {self.report[1] * 1000:.0f}), "
            f"/metrics {self.metrics[0] * 1000:.0f} ms (slowest {self.metrics[1] * 1000:.0f}), "
            f"memory {self.memory_mb:.0f} MB (peak {self.peak_mb:.0f})"
        )


def measure(predictions: int, events: int, store: str, *, count: int = RECORDED) -> Iterator[tuple[str, Looked]]:
    """Fill a store, and yield how long answers take: after the start, and after some traffic.

    ``count`` predictions go through the journal first, and as many again during the measurement: whole chunks.
    """
    started = time.time_ns() // 1_000_000
    run = new_run(started)
    with tempfile.TemporaryDirectory(prefix="turnout-volume-") as name:
        directory = Path(name)
        data, writer = directory / "data", new_writer(run, 0, started)
        with controller(directory, run, store) as process:
            snapshot = SnapshotFile(data / SNAPSHOT).read()
            assert snapshot is not None
            route = snapshot.routes["infer"]
            _feed(data, route, writer, 0, count)
            wait_for(lambda: recorded(data, store) >= count, process, "the predictions")
            wait_for(lambda: _joined(_admin(directory)) > 0, process, "the labels")
        began = time.monotonic()
        first_ms = started // DAY_MS * DAY_MS - DAYS * DAY_MS
        if store == "sqlite":
            _fill_sqlite(data / FILE, predictions - count, events, first_ms)
        else:
            asyncio.run(_fill_postgresql(store, data, predictions - count, events, first_ms))
        print(f"  filled in {time.monotonic() - began:.0f} s", flush=True)
        with _again(directory, run) as process:
            admin = _admin(directory)
            wait_for(lambda: _joined(admin) > 0, process, "the controller to begin again")
            yield "at once", _look(admin, process)
            _feed(data, route, new_writer(run, 0, started + 1), count, count)
            wait_for(lambda: recorded(data, store) >= 2 * count, process, "more predictions")
            yield "at work", _look(admin, process)


def _feed(data: Path, route: Route, writer: str, first: int, count: int) -> None:
    """Write ``count`` predictions, from number ``first`` on, as a worker would, and a label for every tenth."""
    calls = Appender(data / JOURNAL / PREDICTIONS, writer, roll_bytes=roll_bytes(2**30))
    labels_out = Appender(data / JOURNAL / FEEDBACK, writer, roll_bytes=roll_bytes(2**30))
    for start in range(first, first + count, CHUNK):
        at_ms = time.time_ns() // 1_000_000
        made = [
            prediction_of(route, VARIANTS[n % 2], "primary", n, at_ms, new_id(at_ms), units=UNITS)
            for n in range(start, start + CHUNK)
        ]
        labels = [
            Feedback(metric="correct", value=n % 7, received_ms=at_ms + 1, prediction_id=one.id)
            for n, one in enumerate(made[::10])
        ]
        calls.append(b"".join([*map(call_line, made), mark_line("beat", at_ms)]))
        labels_out.append(b"".join(map(feedback_line, labels)))
    calls.close()
    labels_out.close()


#: Ids and times evenly over the days; the columns of a call that are its own, and those of an event about it.
_SQLITE: Final = """
    WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < :count),
    made AS (SELECT i, :first + i * :span / :count AS at FROM numbers)
"""
_POSTGRESQL: Final = """
    WITH made AS (SELECT i, %(first)s + i * %(span)s / %(count)s AS at FROM generate_series(0::bigint, %(count)s - 1) i)
"""
_SQLITE_ID: Final = "printf('%08x-%04x-7000-8000-%012x', at >> 16, at & 65535, i)"
_POSTGRESQL_ID: Final = (
    "lpad(to_hex(at >> 16), 8, '0') || '-' || lpad(to_hex(at & 65535), 4, '0') || '-7000-8000-' "
    "|| lpad(to_hex(i), 12, '0')"
)
_CALLS: Final = """
    INSERT INTO calls (id, kin, route, at_ms, unit, latency_ms, overhead_ms, prediction)
    {made} SELECT {id}, (SELECT min(id) FROM kin), 'infer', at, 'user-' || (i * 7 - i * 7 / 100000 * 100000), 1.5, 0.25,
                  '7' FROM made
"""
_FEEDBACK: Final = """
    INSERT INTO feedback (identity, revision, received_ms, event_ms, metric, value, prediction_id, target, status,
                          counted, due_ms)
    {made} SELECT 'label ' || i, 0, at + 60000, at + 60000, 'correct', '7', {id}, {id}, 'joined', 'infer', at FROM made
"""


def _fill_sqlite(path: Path, predictions: int, events: int, first_ms: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for statement, count in ((_CALLS, predictions), (_FEEDBACK, events)):
            values = {"count": count, "first": first_ms, "span": DAYS * DAY_MS}
            connection.execute(statement.format(made=_SQLITE, id=_SQLITE_ID), values)
            connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    print(f"  {path.stat().st_size / 2**20:,.0f} MiB")


async def _fill_postgresql(store: str, data: Path, predictions: int, events: int, first_ms: int) -> None:
    opened = await Store.open(store, data)
    async with opened.begin() as connection:
        await partitions.ensure(connection, [partitions.day_of(first_ms) + day for day in range(DAYS)])
    await opened.close()
    with psycopg.connect(store) as connection:
        for statement, count in ((_CALLS, predictions), (_FEEDBACK, events)):
            values = {"count": count, "first": first_ms, "span": DAYS * DAY_MS}
            connection.execute(statement.format(made=_POSTGRESQL, id=_POSTGRESQL_ID).encode(), values)
        connection.commit()
        connection.autocommit = True
        connection.execute("ANALYZE")


@contextlib.contextmanager
def _again(directory: Path, run: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a new controller on the filled store."""
    arguments = ["--config", str(directory / "turnout.toml"), "--data-dir", str(directory / "data"), "--run", run]
    with (directory / "controller.log").open("a") as log:
        process = subprocess.Popen([sys.executable, "-m", "gateway.control", *arguments], stdin=-1, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


def _look(admin: int, process: subprocess.Popen[bytes]) -> Looked:
    report = [_ask(admin, "/api/v1/routes/infer")[0] for _ in range(ASKED)]
    metrics = [_ask(admin, "/metrics")[0] for _ in range(ASKED)]
    status = (Path("/proc") / str(process.pid) / "status").read_text().splitlines()
    memory, peak = (
        next(int(line.split()[1]) for line in status if line.startswith(what)) / 1024 for what in ("VmRSS", "VmHWM")
    )
    return Looked((statistics.median(report), max(report)), (statistics.median(metrics), max(metrics)), memory, peak)


def _ask(port: int, path: str) -> tuple[float, bytes]:
    """Return how long an answer took, and the answer."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path} answered {answer.status}")
        return time.monotonic() - began, content
    finally:
        connection.close()


def _joined(admin: int) -> int:
    """The number of labels that count in the report; 0 while the controller does not answer."""
    with contextlib.suppress(OSError, SystemExit, http.client.HTTPException):
        return int(json.loads(_ask(admin, "/api/v1/routes/infer")[1])["feedback"].get("joined", 0))
    return 0


def _admin(directory: Path) -> int:
    config = tomllib.loads((directory / "turnout.toml").read_text())
    return int(str(config["gateway"]["admin"]).rpartition(":")[2])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.volume", description="A look at millions of rows.")
    parser.add_argument("--predictions", type=int, default=5_000_000, help="(5000000)")
    parser.add_argument("--events", type=int, default=1_000_000, help="labels (1000000)")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite", help="(sqlite)")
    options = parser.parse_args()
    if not (RECORDED < options.predictions <= 20_000_000 and 0 < options.events <= options.predictions):
        parser.error("predictions must lie between 20,001 and 20,000,000, and events may not be more than those")
    print(f"{options.predictions:,} predictions, {options.events:,} labels, {UNITS:,} units, {options.store}")
    reached = True
    with contextlib.ExitStack() as held:
        store = "sqlite"
        if options.store == "postgresql":
            server = held.enter_context(postgresql.running())
            store = server.url(server.new_schema())
        for what, looked in measure(options.predictions, options.events, store):
            reached &= looked.reached
            print(f"  {what:10}{looked}", flush=True)
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
