"""overload: five times the backend's capacity. It is used in full, and the other requests are refused at once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from loadtests.bench import Bench
from loadtests.figures import brief, spread
from loadtests.openloop import Latency, open_loop
from loadtests.origin import backends
from loadtests.peers import turnout
from loadtests.peers.turnout import serving
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, count

#: The backend serves this many requests at a time, each for a fixed time: 800 a second.
_AT_A_TIME: Final = 16
_WAIT_MS: Final = 20
_CAPACITY: Final = _AT_A_TIME * 1000 / _WAIT_MS

#: The gateway's limit of concurrent requests to the backend, and so the longest queue there.
_MAX_CONCURRENCY: Final = 64
_POLICY: Final = 'prediction = "/outputs/0/data/0"\npolicy = { kind = "single", variant = "one" }'


def _run(bench: Bench) -> Finding:
    directory = bench.scratch("overload")
    with backends([("--at-a-time", str(_AT_A_TIME), "--wait-ms", str(_WAIT_MS))], directory) as (port,):
        settings = turnout.backends({"one": port}, max_concurrency=_MAX_CONCURRENCY) + turnout.route(_POLICY)
        with serving(settings, directory) as gateway:
            found = {
                times: open_loop(gateway.port, rate=times * _CAPACITY, seconds=bench.seconds, connections=512)
                for times in (0.5, 0.9, 5.0)
            }
            gateway.settle()
    most = found[5.0].answered / bench.seconds
    return Finding(
        scenario="overload",
        method=f"A backend that does {_CAPACITY:,.0f} a second and queues the rest; max_concurrency = "
        f"{_MAX_CONCURRENCY}; open loop for {bench.seconds} s.",
        columns=(
            "offered",
            "answered/s",
            "refused/s",
            "p99 ms answered",
            "p99 ms refused",
            "generator late by p99 ms",
            "broken",
            "unanswered",
        ),
        rows=tuple(_row(times, own, bench.seconds) for times, own in found.items()),
        targets=(Target("answered at 5 × the capacity ÷ the capacity", spread([most / _CAPACITY]), "at least"),),
        raw={str(times): asdict(own) for times, own in found.items()},
    )


def _row(times: float, own: Latency, seconds: float) -> tuple[str, ...]:
    return (
        f"{times:g} × capacity",
        count(own.answered / seconds),
        count(own.refused / seconds),
        brief(own.p99_ms),
        brief(own.refused_p99_ms),
        brief(own.late_p99_ms),
        count(own.broken),
        count(own.unanswered),
    )


OVERLOAD: Final = Scenario("overload", "five times what the backend can do", _run)
