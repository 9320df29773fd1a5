"""slow: a backend that takes 200 ms, and 1,000 who wait for it at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from loadtests.bench import Bench, rounds, standing
from loadtests.figures import ratios, spread
from loadtests.origin import backends
from loadtests.peers import Gateway, Job
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, count
from loadtests.wrk import Answers, Load, wrk

_CONCURRENT: Final = 1_000
_WAIT_MS: Final = 200


def _run(bench: Bench) -> Finding:
    directory, load = bench.scratch("slow"), Load(max(3, bench.seconds), connections=_CONCURRENT, spread_ms=1000)
    with (
        backends([("--wait-ms", str(_WAIT_MS))], directory) as (port,),
        standing(bench, bench.proxies, Job((port,)), directory) as gateways,
    ):
        turns = {"direct": partial(_turn, port, None, load, directory)}
        turns |= {name: partial(_turn, g.port, g, load, directory) for name, g in gateways.items()}
        found = rounds(2, turns)
    p99 = {name: [a.p99_ms for a in own] for name, own in found.items()}
    errors = {name: sum(a.errors for a in own) for name, own in found.items()}
    return Finding(
        scenario="slow",
        method=f"wrk, {_CONCURRENT:,} connections, each answer takes {_WAIT_MS} ms; 2 rounds of {load.seconds:g} s in "
        "turns. They begin spread over a second, or they would go on in step.",
        columns=("peer", "requests/s", "p50 ms", "p99 ms", "p99 ÷ direct", "errors"),
        rows=tuple(
            (
                name,
                str(spread([a.per_second for a in own])),
                str(spread([a.p50_ms for a in own])),
                str(spread(p99[name])),
                str(ratios(p99[name], p99["direct"])),
                count(errors[name]),
            )
            for name, own in found.items()
        ),
        targets=(
            Target(f"{_CONCURRENT:,} concurrent: errors", spread([float(errors["Turnout"])]), bound=0),
            Target(
                f"{_CONCURRENT:,} concurrent: p99 ÷ the backend's", ratios(p99["Turnout"], p99["direct"]), bound=1.3
            ),
        ),
        raw={"p99_ms": p99, "errors": errors},
    )


def _turn(port: int, gateway: Gateway | None, load: Load, directory: Path) -> Answers:
    found = wrk(port, load, directory)
    if gateway is not None:
        gateway.settle()
    return found


SLOW: Final = Scenario("slow", "a 200 ms backend and 1,000 at a time", _run)
