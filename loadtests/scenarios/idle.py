"""idle: what 1,000 silent connections cost the clients that send requests."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from loadtests.bench import Bench, Round, beside, standing, turn
from loadtests.figures import ratios, spread
from loadtests.holders import holding
from loadtests.origin import origins
from loadtests.peers import Gateway, Job
from loadtests.scenarios.carrying import raw, warm
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, count, in_turns
from loadtests.wrk import Load

_IDLE: Final = 1_000
_WHAT: Final = f"{_IDLE:,} idle"


def _run(bench: Bench) -> Finding:
    directory, load = bench.scratch("idle"), Load(bench.shortest)
    with (
        origins(3, directory) as (one, two, copy),
        standing(bench, bench.named("Turnout", "Envoy"), Job((one, two), mirror=copy), directory) as gateways,
    ):
        warm(gateways, directory)
        alone = partial(turn, load=load, directory=directory)
        found = beside(bench, gateways, _WHAT, alone, partial(_turn, load=load, directory=directory))
    cpu = {name: [r.cpu_us for r in own] for name, own in found.items()}
    return Finding(
        scenario="idle",
        method=f"wrk, {load.connections} connections, {in_turns(bench.many, load.seconds)} ({bench.few} of others than "
        f"Turnout), with and without {_IDLE:,} keep-alive connections that have asked once.",
        columns=("peer", "CPU µs/request", "÷ without", "requests/s", "p99 ms", "errors"),
        rows=tuple(
            (
                name,
                str(spread(cpu[name])),
                str(ratios(cpu[name], cpu[name.partition(",")[0]])),
                str(spread([r.per_second for r in own])),
                str(spread([r.p99_ms for r in own])),
                count(sum(r.errors for r in own)),
            )
            for name, own in found.items()
        ),
        targets=(
            Target(
                f"CPU per request at {_IDLE:,} idle keep-alive connections ÷ without",
                ratios(cpu[f"Turnout, {_WHAT}"], cpu["Turnout"]),
                bound=1.1,
            ),
        ),
        raw=raw(found),
    )


def _turn(gateway: Gateway, load: Load, directory: Path) -> Round:
    with holding("idle", _IDLE, gateway.port, directory):
        gateway.settle()
        return turn(gateway, load, directory)


IDLE: Final = Scenario("idle", "1,000 idle connections beside the load", _run)
