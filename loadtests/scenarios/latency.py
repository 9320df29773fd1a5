"""latency: split again, at 2,000 requests a second on a schedule: what is added to an answer, as users would see it."""

from __future__ import annotations

from functools import partial
from typing import Final

from loadtests.bench import Bench, rounds, standing
from loadtests.figures import differences
from loadtests.origin import origins
from loadtests.peers import Job, direct
from loadtests.scenarios.pacing import COLUMNS, cells, p99s, paced, raw
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, in_turns

_RATE: Final = 2_000


def _run(bench: Bench) -> Finding:
    directory = bench.scratch("latency")
    with (
        origins(3, directory) as (one, two, copy),
        standing(bench, bench.proxies, Job((one, two), mirror=copy), directory) as gateways,
    ):
        everyone = {"direct": direct(one), **gateways}
        for gateway in everyone.values():
            paced(gateway, rate=_RATE / 4, seconds=1)  # nobody counts the first
        found = rounds(
            bench.rounds, {name: partial(paced, g, rate=_RATE, seconds=bench.short) for name, g in everyone.items()}
        )
    p99 = p99s(found)
    targets = [Target("added p99 over going direct", differences(p99["Turnout"], p99["direct"]), bound=1.5, unit=" ms")]
    if "Envoy" in p99:
        targets.append(Target("p99 over Envoy's", differences(p99["Turnout"], p99["Envoy"]), bound=1.0, unit=" ms"))
    return Finding(
        scenario="latency",
        method=f"Open loop, {_RATE:,} requests/s, {in_turns(bench.rounds, bench.short)}; each latency "
        "counts from when its request was to leave.",
        columns=("peer", "added p50 ms", "added p99 ms", *COLUMNS),
        rows=tuple(
            (
                name,
                str(differences([r.p50_ms for r in own], [r.p50_ms for r in found["direct"]])),
                str(differences(p99[name], p99["direct"])),
                *cells(own),
            )
            for name, own in found.items()
        ),
        targets=tuple(targets),
        raw=raw(found),
    )


LATENCY: Final = Scenario("latency", "2,000 requests/s on a schedule: what is added to an answer", _run)
