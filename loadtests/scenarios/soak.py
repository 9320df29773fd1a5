"""soak: minutes of load with clients that leave, mirrors that are down and a slow backend: memory must stay flat."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from typing import Final

from gateway.demo.processes import free_ports
from loadtests.bench import Bench
from loadtests.figures import brief, spread
from loadtests.openloop import Latency, open_loop
from loadtests.origin import backends, origins
from loadtests.peers import Gateway, turnout
from loadtests.peers.turnout import serving
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, count

_RATE: Final = 400
_WAIT_MS: Final = 50
_CANCEL_EVERY: Final = 10
#: When the first reading counts, and over how long a reading is taken.
_FIRST_SECONDS: Final = 60.0
_READING_SECONDS: Final = 10.0
_POLICY: Final = """
prediction = "/outputs/0/data/0"
mirrors = [{ variant = "dead", share = 0.2 }, { variant = "hanging", share = 0.2 }]
baseline = "one"
policy = { kind = "ab", shares = { one = 0.5, slow = 0.5 } }
"""


def _run(bench: Bench) -> Finding:
    seconds = 60 * bench.soak_minutes
    columns = ("after", "MB of the worker")
    if not seconds:
        return Finding("soak", "Not run (--soak 0, or --quick).", columns, (("not run", ""),))
    directory, (dead,) = bench.scratch("soak"), free_ports(1)
    slow = [("--wait-ms", str(_WAIT_MS)), ("--silent",)]
    with origins(1, directory) as (one,), backends(slow, directory) as (late, hanging):
        ports = {"one": one, "slow": late, "dead": dead, "hanging": hanging}
        with serving(turnout.backends(ports) + turnout.route(_POLICY), directory) as gateway:
            readings, load = _load(gateway, seconds)
            lag = gateway.settle()
    first_at = min(_FIRST_SECONDS, seconds / 4)
    first, last = _reading(readings, first_at), _reading(readings, seconds)
    return Finding(
        scenario="soak",
        method=f"Open loop, {_RATE} requests/s for {seconds:g} s; half of the users get a backend of {_WAIT_MS} ms, "
        f"every {_CANCEL_EVERY}th client hangs up after 5 ms, 20 % are mirrored to a closed port and 20 % to a mirror "
        "that never answers.",
        columns=columns,
        rows=((f"{first_at:g} s", brief(first)), (f"{seconds:g} s", brief(last))),
        targets=(
            Target(
                f"memory of a worker after {seconds / 60:g} minutes of soak ÷ after {first_at:g} s",
                spread([last / first]),
                bound=1.05,
            ),
        ),
        notes=(
            f"{count(load.answered)} answered, {count(load.refused)} refused, {count(load.broken)} broken, "
            f"{count(load.cancelled)} cancelled, {count(load.unanswered)} unanswered of {count(load.offered)}; "
            f"settled {lag:.1f} s after the load",
        ),
        raw={"mb": readings, "load": asdict(load)},
    )


def _load(gateway: Gateway, seconds: float) -> tuple[list[tuple[float, float]], Latency]:
    """Load for so long; return the worker's memory (seconds, MB) once a second, and what became of the load."""
    readings, over, began = list[tuple[float, float]](), threading.Event(), time.monotonic()

    def read() -> None:
        while not over.wait(1.0):
            readings.append((time.monotonic() - began, gateway.carrying_bytes() / 2**20))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        return readings, open_loop(gateway.port, rate=_RATE, seconds=seconds, cancel_every=_CANCEL_EVERY)
    finally:
        over.set()
        reader.join()


def _reading(readings: list[tuple[float, float]], at: float) -> float:
    """Return the median of the seconds up to a moment."""
    return spread([mb for second, mb in readings if at - _READING_SECONDS <= second <= at]).median


SOAK: Final = Scenario("soak", "minutes of everything going wrong: does memory stay flat", _run)
