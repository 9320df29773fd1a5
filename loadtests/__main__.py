"""``python -m loadtests``: what one worker adds to a request, in time and in CPU.

Rule: the same requests go to the model directly and through Turnout in alternate rounds; what is printed is the median
of the rounds and how far they spread. Everything on: a split by user, a 10 % mirror, the log and the prediction.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.demo.processes import free_ports
from loadtests.client import ask

CONFIG = """
schema_version = 1
[gateway]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
data_dir = "{data_dir}"

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

BODY = b'{"inputs":[{"name":"x","shape":[1,16],"datatype":"FP64","data":[' + b",".join([b"0.5"] * 16) + b"]}]}"
REQUEST = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\nx-user-id: user-17\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


@dataclass(frozen=True, slots=True)
class Round:
    """One round: how many answers, the milliseconds of two quantiles, and the worker's CPU per answer."""

    answers: int
    p50_ms: float
    p99_ms: float
    cpu_us: float | None


@contextmanager
def running(command: Sequence[str], log: Path, *, says: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Start a process of this interpreter, and end it, by its id, on leaving; ``says``: its output can be read."""
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if says else written,
            stderr=written,
            text=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@contextmanager
def setting() -> Iterator[tuple[int, int, int]]:
    """Start a model and Turnout in front of it; give both ports and the id of the worker."""
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as name:
        directory = Path(name)
        with running(("-m", "loadtests.backend"), directory / "model.log", says=True) as model:
            assert model.stdout is not None
            port = int(model.stdout.readline())
            listen, admin = free_ports(2)
            file = directory / "turnout.toml"
            file.write_text(CONFIG.format(listen=listen, admin=admin, data_dir=directory / "data", model=port))
            with running(("-m", "gateway.cli", "serve", "-c", str(file)), directory / "turnout.log") as turnout:
                _wait(f"http://127.0.0.1:{listen}/-/readyz", turnout, directory / "turnout.log")
                yield port, listen, _worker(turnout.pid)


def _wait(url: str, turnout: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and turnout.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit(f"turnout serve did not come up:\n{log.read_text()}")


def _worker(supervisor: int) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == supervisor and "gateway.proxy" in (entry / "cmdline").read_text():
                return int(entry.name)
        except OSError:
            continue
    raise SystemExit("the supervisor has no worker")


def measure(port: int, worker: int | None, *, connections: int, seconds: float) -> Round:
    """Ask one server for one round."""
    before = _cpu_seconds(worker) if worker else 0.0
    taken = sorted(ask("127.0.0.1", port, REQUEST, connections=connections, seconds=seconds))
    cpu = (_cpu_seconds(worker) - before) / len(taken) * 1e6 if worker else None
    return Round(len(taken), 1000 * taken[len(taken) // 2], 1000 * taken[int(len(taken) * 0.99)], cpu)


def _cpu_seconds(pid: int) -> float:
    user, system = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _spread(numbers: Sequence[float], unit: str) -> str:
    return f"{statistics.median(numbers):8.3f} {unit} ({min(numbers):.3f} to {max(numbers):.3f})"


def report(direct: Sequence[Round], through: Sequence[Round], *, connections: int, seconds: float) -> str:
    """Return the table."""
    added = [t.p50_ms - d.p50_ms for t, d in zip(through, direct, strict=True)]
    tail = [t.p99_ms - d.p99_ms for t, d in zip(through, direct, strict=True)]
    lines = [
        f"{len(direct)} rounds of {seconds:g} s each way, {connections} connection(s), one worker, "
        f"{os.cpu_count()} cores; median (least to most)",
        "",
        f"{'':24}{'median answer':34}{'99 % of answers':34}answers",
    ]
    for name, rounds in (("direct", direct), ("through Turnout", through)):
        p50, p99 = (_spread(list(part), "ms") for part in zip(*((r.p50_ms, r.p99_ms) for r in rounds), strict=True))
        lines.append(f"{name:24}{p50:34}{p99:34}{sum(r.answers for r in rounds):,}")
    cpu = [r.cpu_us for r in through if r.cpu_us is not None]
    lines += [
        f"{'added':24}{_spread(added, 'ms'):34}{_spread(tail, 'ms')}",
        "",
        f"CPU of the worker per request: {statistics.median(cpu):.1f} µs ({min(cpu):.1f} to {max(cpu):.1f})",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests", description="What one worker adds to a request.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds each way (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round (2)")
    parser.add_argument("--connections", type=int, default=1, help="connections that ask at a time (1)")
    options = parser.parse_args()
    if min(options.rounds, options.connections) < 1 or options.seconds <= 0:
        parser.error("rounds, seconds and connections must be above 0")
    load = {"connections": options.connections, "seconds": options.seconds}
    with setting() as (model, listen, worker):
        measure(listen, None, **load)  # a first round that nobody counts: pools fill, caches warm
        direct, through = [], []
        for _ in range(options.rounds):
            direct.append(measure(model, None, **load))
            through.append(measure(listen, worker, **load))
    print(report(direct, through, **load))


if __name__ == "__main__":
    main()
