"""slow: a backend that takes 200 ms, and 1,000 concurrent requests."""

from __future__ import annotations

from typing import Final

from loadtests.bench import Bench, standing
from loadtests.figures import ratios, spread
from loadtests.origin import backends
from loadtests.peers import Job, direct
from loadtests.scenarios.carrying import alternate, raw
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, count
from loadtests.wrk import Load

_CONCURRENT: Final = 1_000
_WAIT_MS: Final = 200
_ROUNDS: Final = 2


def _run(bench: Bench) -> Finding:
    directory = bench.scratch("slow")
    load = Load(max(4, bench.seconds), connections=_CONCURRENT, spread_ms=1000)
    with (
        backends([("--wait-ms", str(_WAIT_MS))], directory) as (port,),
        standing(bench, bench.proxies, Job((port,)), directory) as gateways,
    ):
        found = alternate(bench, {"direct": direct(port), **gateways}, load, directory, times=_ROUNDS)
    p99 = {name: [r.p99_ms for r in own] for name, own in found.items()}
    errors = {name: sum(r.errors for r in own) for name, own in found.items()}
    return Finding(
        scenario="slow",
        method=f"wrk, {_CONCURRENT:,} connections, each answer takes {_WAIT_MS} ms; {_ROUNDS} rounds of "
        f"{load.seconds:g} s in turns. They begin spread over a second, or they would go on in step.",
        columns=("peer", "requests/s", "p50 ms", "p99 ms", "p99 ÷ direct", "errors"),
        rows=tuple(
            (
                name,
                str(spread([r.per_second for r in own])),
                str(spread([r.p50_ms for r in own])),
                str(spread(p99[name])),
                str(ratios(p99[name], p99["direct"])),
                count(errors[name]),
            )
            for name, own in found.items()
        ),
        targets=(
            Target(f"{_CONCURRENT:,} concurrent: errors", spread([errors["Turnout"]]), bound=0),
            Target(
                f"{_CONCURRENT:,} concurrent: p99 ÷ the backend's", ratios(p99["Turnout"], p99["direct"]), bound=1.3
            ),
        ),
        raw=raw(found),
    )


SLOW: Final = Scenario("slow", "a 200 ms backend and 1,000 at a time", _run)
