"""``python -m loadtests.growth``: what the controller costs as its configuration and its history grow.

Rule: a real controller and nothing else. Its CPU time is what the kernel reports for its process, its answers are timed
at its admin port one after another, and the answers are checked for completeness. The journal is written as a worker
writes it: a heartbeat a second, and rows where there is traffic.
"""

from __future__ import annotations

import argparse
import http.client
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from gateway.demo.processes import free_ports
from gateway.files.published import SNAPSHOT, SnapshotFile, publish
from gateway.journal.appender import Appender
from gateway.journal.segments import FEEDBACK, JOURNAL, PREDICTIONS, new_run, new_writer, roll_bytes
from gateway.process.first_snapshot import ensure_snapshot
from gateway.proxy.exchange.ids import new_id
from gateway.store.store import FILE
from loadtests.processes import running, until
from loadtests.recorder import line_of
from policies.plans import Weighted, encode_plan
from router.config.config import load
from router.records import Prediction, mark_line
from router.snapshot import Route, Snapshot

HEAD: Final = """
schema_version = 1
[gateway]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
data_dir = "{data_dir}"
[backends]
one = {{ url = "http://127.0.0.1:9", version = "1" }}
two = {{ url = "http://127.0.0.1:9", version = "2" }}
[metrics]
correct = {{ kind = "label" }}
click = {{ kind = "event", missing = 0, window = "1s" }}
"""
ROUTE: Final = """
[routes.r{n}]
path = "/r{n}"
prediction = "/outputs/0"
unit = "header:x-user-id"
metrics = ["correct"]
baseline = "one"
policy = {{ kind = "ab", shares = {{ one = {share}, two = {rest} }} }}
"""
BANDIT: Final = """
[routes.r0]
path = "/r0"
metrics = ["click"]
policy = { kind = "thompson", variants = ["one", "two"], reward = "click" }
"""

#: The longest wait until a controller with a large history has started; and then until it is idle.
PATIENCE_SECONDS: Final = 240.0
REST_SECONDS: Final = 8.0


@dataclass(frozen=True, slots=True)
class Idle:
    """What routes without traffic cost: shares of a core, and seconds."""

    routes: int
    core: float
    scrape: float
    whole: bool
    api: float
    overview: float
    page: float
    edit: float

    def cells(self) -> tuple[str, ...]:
        scrape = f"{self.scrape:.2f} s" + ("" if self.whole else ", in part")
        rest = (f"{seconds:.2f} s" for seconds in (self.api, self.overview, self.page, self.edit))
        return f"{self.routes:,}", f"{self.core:.1%}", scrape, *rest


@dataclass(frozen=True, slots=True)
class Bandit:
    """What a bandit costs after a number of plan revisions, at 20 requests a second."""

    revisions: int
    core: float
    report: float
    scrape: float
    whole: bool
    rows: int

    def cells(self) -> tuple[str, ...]:
        scrape = f"{self.scrape:.2f} s" + ("" if self.whole else ", in part")
        return f"{self.revisions:,}", f"{self.core:.1%}", f"{self.report:.2f} s", scrape, f"{self.rows:,}"


class Site:
    """A data directory with a controller's config, and the journal of its one worker."""

    def __init__(self, folder: Path, routes: str) -> None:
        self.data_dir, self.config, self.log = folder / "data", folder / "turnout.toml", folder / "controller.log"
        listen, self.admin = free_ports(2)
        for name in (PREDICTIONS, FEEDBACK):
            (self.data_dir / JOURNAL / name).mkdir(parents=True)
        self.head = HEAD.format(listen=listen, admin=self.admin, data_dir=self.data_dir)
        self.config.write_text(self.head + routes)
        self.run = new_run(now_ms())
        first = ensure_snapshot(self.data_dir / SNAPSHOT, load(self.config), now_ms())
        publish(self.data_dir / SNAPSHOT, first)
        writer = new_writer(self.run, 0, now_ms())
        self.appender = Appender(self.data_dir / JOURNAL / PREDICTIONS, writer, roll_bytes=roll_bytes(2**30))

    def snapshot(self) -> Snapshot:
        found = SnapshotFile(self.data_dir / SNAPSHOT).read()
        assert found is not None
        return found

    @contextmanager
    def controlled(self) -> Iterator[subprocess.Popen[str]]:
        """Start the controller, and wait until its store is open."""
        command: list[str | Path] = [sys.executable, "-m", "gateway.control", "--config", self.config]
        with running([*command, "--data-dir", self.data_dir, "--run", self.run], self.log) as process:
            until(self._ready, "the store is open", seconds=PATIENCE_SECONDS, pause=0.2, log=self.log)
            yield process

    def _ready(self) -> bool:
        try:
            return self.get("/readyz", seconds=60)[0] == 200
        except OSError:
            return False

    def get(self, path: str, seconds: float = 600) -> tuple[int, bytes]:
        """Ask the admin port."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.admin, timeout=seconds)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def timed(self, path: str, times: int = 5, pause: float = 1.2) -> tuple[float, bytes]:
        """Return the median time of some answers, each requested once reports are stale again, and the last answer."""
        took, content = [], b""
        for _ in range(times):
            time.sleep(pause)
            self.appender.append(mark_line("beat", now_ms()))
            began = time.monotonic()
            _, content = self.get(path)
            took.append(time.monotonic() - began)
        return statistics.median(took), content

    def busy(self, process: subprocess.Popen[str], seconds: float, rows: Callable[[int], bytes] | None = None) -> float:
        """Write a heartbeat a second, and 20 rows a second if ``rows`` is given; return the share of a core it cost."""
        before, began, n = cpu_seconds(process.pid), time.monotonic(), 0
        while (now := time.monotonic()) < began + seconds:
            lines = [] if rows is None else [rows(at) for at in range(n, int((now - began) * 20))]
            n += len(lines)
            self.appender.append(b"".join(lines) + mark_line("beat", now_ms()))
            time.sleep(1 - (time.monotonic() - began) % 1)
        return (cpu_seconds(process.pid) - before) / (time.monotonic() - began)


def idle(routes: int, seconds: float) -> Idle:
    """Measure a controller that has ``routes`` routes without traffic."""
    with tempfile.TemporaryDirectory(prefix="turnout-growth-") as name:
        site = Site(Path(name), _routes(routes, 0.5))
        with site.controlled() as process:
            site.busy(process, REST_SECONDS)
            core = site.busy(process, seconds)
            scrape, text = site.timed("/metrics")
            whole = text.count(b"turnout_verdict{") >= routes
            api, answer = site.timed("/api/v1/routes", times=3)
            assert len(orjson.loads(answer).get("routes", ())) in (0, routes)
            overview, _ = site.timed("/", times=3)
            page, _ = site.timed("/routes/r1")
            before, began = site.snapshot().revision, time.monotonic()
            site.config.write_text(site.head + _routes(routes, 0.4))
            until(lambda: site.snapshot().revision > before, "the edit is in force", seconds=PATIENCE_SECONDS)
            edit = time.monotonic() - began
    return Idle(routes, core, scrape, whole, api, overview, page, edit)


def bandit(revisions: int, seconds: float) -> Bandit:
    """Measure a controller whose one bandit has made ``revisions`` plans."""
    with tempfile.TemporaryDirectory(prefix="turnout-growth-") as name:
        site = Site(Path(name), BANDIT)
        with site.controlled():
            pass  # the controller creates its tables
        route = site.snapshot().routes["r0"]
        _make_history(site.data_dir / FILE, route, revisions)
        with site.controlled() as process:
            site.busy(process, REST_SECONDS, lambda n: _row(site.snapshot().routes["r0"], n))
            until(lambda: _folded(site), "what can be folded is", seconds=PATIENCE_SECONDS, pause=1.0)
            core = site.busy(process, seconds, lambda n: _row(site.snapshot().routes["r0"], n))
            report, content = site.timed("/api/v1/routes/r0")
            assert orjson.loads(content)["checks"]["sample_ratio"]["p"] is not None
            scrape, text = site.timed("/metrics")
        with closing(sqlite3.connect(site.data_dir / FILE)) as connection:
            rows = sum(connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("plans", "stretches"))
    return Bandit(revisions, core, report, scrape, b"turnout_sample_ratio_p{" in text, rows)


def _routes(number: int, share: float) -> str:
    """Return ``number`` routes; ``share`` is that of the second route, the others keep theirs."""
    shares = (share if n == 1 else 0.5 for n in range(number))
    return "".join(ROUTE.format(n=n, share=own, rest=round(1 - own, 3)) for n, own in enumerate(shares))


def _row(route: Route, n: int) -> bytes:
    variant, at_ms = ("one", "two")[n % 2], now_ms()
    common = {name: getattr(route, name) for name in ("epoch", "period", "revision")}
    return line_of(
        Prediction(
            id=new_id(at_ms),
            at_ms=at_ms,
            route=route.name,
            **common,
            variant=variant,
            model=variant,
            version="1" if variant == "one" else "2",
            role="primary",
            reason="weighted",
            propensity=route.plan.shares[variant],
            by_unit=False,
            status=200,
            latency_ms=3.0,
        )
    )


def _make_history(path: Path, route: Route, revisions: int) -> None:
    """Write what a bandit with a plan a second leaves in a store: the plans, and the shares that were in force when."""
    since = now_ms() - 1_000 * revisions

    def plans() -> Iterator[tuple[object, ...]]:
        for n in range(1, revisions + 1):
            share = 0.5 + 0.4 * ((n * 7_919) % 10_007 - 5_003) / 10_007
            shares = {"one": share, "two": 1 - share}
            plan = orjson.dumps(encode_plan(Weighted(tuple(shares.items()), sticky=False))).decode()
            dumped = orjson.dumps(shares).decode()
            yield route.name, route.revision + n, route.epoch, route.period, since + 1_000 * n, plan, dumped

    def stretches() -> Iterator[tuple[object, ...]]:
        for n in range(1, revisions + 1):
            share = 0.5 + 0.4 * ((n * 7_919) % 10_007 - 5_003) / 10_007
            given = round(20 * share)
            yield route.name, route.epoch, route.period, route.revision + n, "one", given
            yield route.name, route.epoch, route.period, route.revision + n, "two", 20 - given

    with closing(sqlite3.connect(path)) as connection, connection:
        names = "route, revision, epoch, period, at_ms, plan, shares"
        connection.executemany(f"INSERT INTO plans ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", plans())
        names = "route, epoch, period, revision, variant, n"
        connection.executemany(f"INSERT INTO stretches ({names}) VALUES (?, ?, ?, ?, ?, ?)", stretches())


def _folded(site: Site) -> bool:
    """Return whether the number of rows of history no longer changes; old commits do not fold them at all."""
    counts = []
    for _ in range(2):
        with closing(sqlite3.connect(f"file:{site.data_dir / FILE}?mode=ro", uri=True, timeout=30)) as connection:
            counts.append(connection.execute("SELECT count(*) FROM stretches").fetchone()[0])
        time.sleep(3.0)
    return bool(counts[1] >= counts[0] - 1)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process by the scheduler's account, which is finer than ticks."""
    total = 0.0
    for task in (Path("/proc") / str(pid) / "task").iterdir():
        total += int((task / "schedstat").read_text().split()[0]) / 1e9
    return total


def main(arguments: list[str] | None = None) -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.growth", description=__doc__)
    parser.add_argument("--routes", type=int, nargs="*", default=[10, 50, 200, 300, 500])
    parser.add_argument("--revisions", type=int, nargs="*", default=[864, 86_400])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each controller is watched (20)")
    given = parser.parse_args(arguments)
    _print(("routes", "controller", "/metrics", "/api/v1/routes", "console", "a page", "an edit"))
    for routes in given.routes:
        print(f"| {' | '.join(idle(routes, given.seconds).cells())} |", flush=True)
    print()
    _print(("revisions", "controller, 20 requests/s", "report", "/metrics", "rows of plans and stretches"))
    for revisions in given.revisions:
        print(f"| {' | '.join(bandit(revisions, given.seconds).cells())} |", flush=True)


def _print(columns: tuple[str, ...]) -> None:
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


if __name__ == "__main__":
    main()
