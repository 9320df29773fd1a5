"""workers: two workers beside one. With two cores the second shares its core with generator and backend."""

from __future__ import annotations

from typing import Final

from loadtests.bench import Bench
from loadtests.figures import ratios
from loadtests.machine import CORES
from loadtests.origin import origins
from loadtests.peers import Job
from loadtests.peers.turnout import TURNOUT
from loadtests.scenarios.carrying import COLUMNS, alternate, raw, rows, warm
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, in_turns
from loadtests.wrk import Load


def _run(bench: Bench) -> Finding:
    directory, load = bench.scratch("workers"), Load(bench.short)
    with (
        origins(1, directory) as ports,
        TURNOUT.serve(Job(ports), bench.scratch("workers/one")) as one,
        TURNOUT.serve(Job(ports, workers=2), bench.scratch("workers/two")) as two,
    ):
        gateways = {"one worker": one, "two workers": two}
        warm(gateways, directory)
        found = alternate(bench, gateways, load, directory, times=bench.few)
    gained = ratios([r.per_second for r in found["two workers"]], [r.per_second for r in found["one worker"]])
    return Finding(
        scenario="workers",
        method=f"plain; wrk, {load.connections} connections, {in_turns(bench.few, load.seconds)}. "
        f"{len(CORES)} cores: generator and backend have the last one, which the second worker shares.",
        columns=COLUMNS,
        rows=rows(found),
        targets=(Target(f"requests/s of two workers ÷ one ({len(CORES)} cores, shared with the load)", gained),),
        raw=raw(found),
    )


WORKERS: Final = Scenario("workers", "two workers beside one", _run)
