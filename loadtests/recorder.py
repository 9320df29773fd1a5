"""``python -m loadtests.recorder``: what the controller costs a journal row, in CPU.

Rule: a real controller, a journal written as a worker writes it, and nothing else; its CPU is what the kernel reports
for its process, from before the first row until the last one is in the store. Each round ends with a check that every
row is counted there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import psycopg

from gateway.demo.processes import free_ports
from gateway.files.published import SNAPSHOT, SnapshotFile
from gateway.journal.appender import Appender
from gateway.journal.segments import FEEDBACK, JOURNAL, PREDICTIONS, new_run, new_writer, roll_bytes
from gateway.proxy.exchange.ids import new_id
from gateway.store.store import FILE
from loadtests import postgresql
from router.records import Prediction, Role, mark_line, stamp, stamped
from router.snapshot import Route

CONFIG = """
schema_version = 1
[gateway]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
data_dir = "{data_dir}"
store = "{store}"

[backends]
one = {{ url = "http://127.0.0.1:{model}", version = "1" }}
two = {{ url = "http://127.0.0.1:{model}", version = "2" }}

[metrics]
correct = {{ kind = "label" }}

[routes.infer]
path = "/v2/models/m/infer"
unit = "header:x-user-id"
prediction = "/outputs/0/data/0"
metrics = ["correct"]
baseline = "one"
mirrors = [{{ variant = "two", share = 0.1 }}]
policy = {{ kind = "ab", shares = {{ one = 0.5, two = 0.5 }} }}
"""

UNITS = 1_000
MIRRORED = 0.1
LATENCIES_MS = tuple(round(random.Random(n).lognormvariate(0.5, 0.6), 3) for n in range(19_997))

#: The longest wait for the controller to start and for the last rows to be recorded.
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Round:
    """One round: its requests and rows, the controller's CPU, how long the last rows took, and its memory."""

    requests: int
    rows: int
    cpu_seconds: float
    lag_seconds: float
    peak_mb: float


def request_lines(route: Route, n: int, at_ms: int) -> tuple[bytes, int]:
    """Return the rows of the ``n``-th request as a worker writes them, and how many they are."""
    variant, prediction_id = "one" if n * 7 % UNITS % 2 else "two", new_id(at_ms)
    written = line_of(prediction_of(route, variant, "primary", n, at_ms, prediction_id))
    if n % round(1 / MIRRORED):
        return written, 1
    return written + line_of(prediction_of(route, "two", "shadow", n, at_ms, prediction_id)), 2


#: The fields that a worker writes at the beginning of a line, encoded once for all calls to a variant of a route.
COMMON = ("route", "epoch", "period", "revision", "variant", "model", "version", "role", "by_unit")
OWN = tuple((f.name, f.default) for f in fields(Prediction) if f.name not in COMMON)


def line_of(prediction: Prediction) -> bytes:
    """Return the call as the line that a worker writes: the fields shared with other calls come first."""
    common = stamp("call", **{name: getattr(prediction, name) for name in COMMON})
    own = {name: getattr(prediction, name) for name, _ in OWN}
    return stamped(common, {name: own[name] for name, default in OWN if own[name] != default})


def prediction_of(
    route: Route, variant: str, role: Role, n: int, at_ms: int, prediction_id: str, *, units: int = UNITS
) -> Prediction:
    """Return what was predicted for the ``n``-th request; a user comes again after ``units`` requests."""
    latency_ms = LATENCIES_MS[n % len(LATENCIES_MS)]
    return Prediction(
        id=prediction_id,
        at_ms=at_ms,
        route=route.name,
        epoch=route.epoch,
        period=route.period,
        revision=route.revision,
        variant=variant,
        model=variant,
        version="1" if variant == "one" else "2",
        role=role,
        reason="mirror" if role == "shadow" else "unit",
        propensity=None if role == "shadow" else 0.5,
        unit=f"user-{n * 7 % units}",
        by_unit=True,
        status=200,
        latency_ms=latency_ms,
        overhead_ms=None if role == "shadow" else round(latency_ms / 9, 3),
        predicted=True,
        prediction=n % 10,
    )


@contextmanager
def controller(directory: Path, run: str, store: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a controller over this directory and end it, by its id, on leaving."""
    data, config = directory / "data", directory / "turnout.toml"
    for folder in (PREDICTIONS, FEEDBACK):
        (data / JOURNAL / folder).mkdir(parents=True)
    listen, admin, model = free_ports(3)
    config.write_text(CONFIG.format(listen=listen, admin=admin, data_dir=data, model=model, store=store))
    command = [sys.executable, "-m", "gateway.control", "--config", str(config), "--data-dir", str(data), "--run", run]
    with (directory / "controller.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log)
        try:
            wait_for(lambda: (data / SNAPSHOT).exists() and _begun(data, store), process, "the controller to begin")
            time.sleep(1.0)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


def measure(rows: int, rate: float, store: str = "sqlite") -> Round:
    """Write about ``rows`` rows, ``rate`` a second (0: as fast as possible), and measure the cost."""
    started = time.time_ns() // 1_000_000
    run = new_run(started)
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as name, controller(Path(name), run, store) as process:
        data = Path(name) / "data"
        snapshot = SnapshotFile(data / SNAPSHOT).read()
        assert snapshot is not None
        appender = Appender(data / JOURNAL / PREDICTIONS, new_writer(run, 0, started), roll_bytes=roll_bytes(2**30))
        before = _cpu_seconds(process.pid)
        requests, written = _feed(appender, snapshot.routes["infer"], rows, rate)
        ended = time.monotonic()
        wait_for(lambda: recorded(data, store) >= written, process, "the last rows")
        lag = time.monotonic() - ended
        cpu = _cpu_seconds(process.pid) - before
        appender.close()
        if (counted := recorded(data, store)) != written:
            raise SystemExit(f"{written} rows were written, but {counted} are counted")
        return Round(requests, written, cpu, lag, _peak_mb(process.pid))


def _feed(appender: Appender, route: Route, rows: int, rate: float) -> tuple[int, int]:
    """Append until there are ``rows``; return how many requests that was, and how many rows."""
    requests = written = 0
    began = beaten = time.monotonic()
    while written < rows:
        now, at_ms = time.monotonic(), time.time_ns() // 1_000_000
        if now - beaten >= 1:
            appender.append(mark_line("beat", at_ms))
            beaten = now
        due = min(rows, int((now - began) * rate)) if rate else written + 100
        lines = []
        while written < due:
            line, n = request_lines(route, requests, at_ms)
            lines.append(line)
            requests, written = requests + 1, written + n
        if lines:
            appender.append(b"".join(lines))
        if rate:
            time.sleep(0.005)
    appender.append(mark_line("beat", time.time_ns() // 1_000_000))
    return requests, written


def recorded(data: Path, store: str) -> int:
    """Return how many calls the store has counted."""
    query = "SELECT coalesce(sum(d), 0) FROM tallies WHERE metric = '@calls'"
    if store != "sqlite":
        with psycopg.connect(store) as connection:
            row = connection.execute(query).fetchone()
            return int(row[0]) if row else 0
    with closing(sqlite3.connect(f"file:{data / FILE}?mode=ro", uri=True)) as connection:
        return int(connection.execute(query).fetchone()[0])


def _begun(data: Path, store: str) -> bool:
    """Return whether the store can be queried."""
    try:
        return recorded(data, store) >= 0
    except (sqlite3.Error, psycopg.Error):
        return False


def wait_for(
    done: Callable[[], bool], process: subprocess.Popen[bytes], what: str, *, seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until a condition holds. Raises SystemExit when the time is up or the controller has ended."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline or process.poll() is not None:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.1)


def _cpu_seconds(pid: int) -> float:
    user, system = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def report(rounds: list[Round], what: str) -> str:
    """Return one line: the median of the rounds and how far they spread."""
    a_row = [1e6 * r.cpu_seconds / r.rows for r in rounds]
    a_request = [1e6 * r.cpu_seconds / r.requests for r in rounds]
    return (
        f"{what:24}{statistics.median(a_row):6.1f} µs a row ({min(a_row):.1f} to {max(a_row):.1f}), "
        f"{statistics.median(a_request):6.1f} µs a request; last rows after "
        f"{max(r.lag_seconds for r in rounds):.1f} s, memory {max(r.peak_mb for r in rounds):.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.recorder", description="The controller's CPU per row.")
    parser.add_argument(
        "--store", choices=("sqlite", "postgresql", "both"), default="sqlite", help="into which (sqlite)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each kind (3)")
    parser.add_argument("--rows", type=int, default=60_000, help="rows in a round (60000)")
    parser.add_argument("--rate", type=float, default=4_000.0, help="rows a second where they come steadily (4000)")
    options = parser.parse_args()
    if min(options.rounds, options.rows) < 1 or options.rate <= 0:
        parser.error("rounds, rows and rate must be above 0")
    for kind in ("sqlite", "postgresql") if options.store == "both" else (options.store,):
        with contextlib.ExitStack() as held:
            server = held.enter_context(postgresql.running(durable=True)) if kind == "postgresql" else None
            steady: list[Round] = []
            backlog: list[Round] = []
            for _ in range(options.rounds):
                for rounds, rate in ((steady, options.rate), (backlog, 0.0)):
                    store = server.url(server.new_schema()) if server else kind
                    rounds.append(measure(options.rows, rate, store))
        print(f"{options.rounds} rounds of {options.rows:,} rows, {UNITS:,} units, {MIRRORED:.0%} mirrored, {kind}")
        print(report(steady, f"{options.rate:,.0f} rows/s"))
        print(report(backlog, "as fast as can be"))


if __name__ == "__main__":
    main()
