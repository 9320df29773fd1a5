"""plain: one variant and no mirror; the log stays on, because no peer can do without."""

from __future__ import annotations

from typing import Final

from loadtests.bench import Bench, standing
from loadtests.origin import origins
from loadtests.peers import Job
from loadtests.scenarios.carrying import COLUMNS, alternate, raw, rows, warm
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, in_turns
from loadtests.wrk import Load


def _run(bench: Bench) -> Finding:
    directory, load = bench.scratch("plain"), Load(bench.seconds)
    with origins(1, directory) as ports, standing(bench, bench.peers, Job(ports), directory) as gateways:
        warm(gateways, directory)
        found = alternate(bench, gateways, load, directory, times=bench.few)
    return Finding(
        scenario="plain",
        method=f"wrk, {load.connections} connections, {in_turns(bench.few, load.seconds)}.",
        columns=COLUMNS,
        rows=rows(found),
        raw=raw(found),
    )


PLAIN: Final = Scenario("plain", "one variant, no mirror: the least a request costs", _run)
