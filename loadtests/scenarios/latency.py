"""latency: split again, at 2,000 requests a second on a schedule: what is added to an answer, as users would see it."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Final

from loadtests.bench import Bench, rounds, standing
from loadtests.figures import differences, spread
from loadtests.openloop import Latency, open_loop
from loadtests.origin import origins
from loadtests.peers import Gateway, Job
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, count

_RATE: Final = 2_000


def _run(bench: Bench) -> Finding:
    directory = bench.scratch("latency")

    def turn(port: int, gateway: Gateway | None) -> Latency:
        found = open_loop(port, rate=_RATE, seconds=bench.short)
        if gateway is not None:
            gateway.settle()
        return found

    with (
        origins(3, directory) as (one, two, copy),
        standing(bench, bench.proxies, Job((one, two), mirror=copy), directory) as gateways,
    ):
        for gateway in gateways.values():
            open_loop(gateway.port, rate=_RATE / 4, seconds=1)
        turns = {"direct": partial(turn, one, None)}
        turns |= {name: partial(turn, gateway.port, gateway) for name, gateway in gateways.items()}
        found = rounds(bench.rounds, turns)
    p99 = {name: [r.p99_ms for r in own] for name, own in found.items()}
    targets = [Target("added p99 over going direct", differences(p99["Turnout"], p99["direct"]), bound=1.5, unit=" ms")]
    if "Envoy" in p99:
        targets.append(Target("p99 over Envoy's", differences(p99["Turnout"], p99["Envoy"]), bound=1.0, unit=" ms"))
    return Finding(
        scenario="latency",
        method=f"Open loop, {_RATE:,} requests/s for {bench.short} s, {bench.rounds} rounds in turns; each latency "
        "counts from when its request was to leave.",
        columns=("peer", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms", "generator late by p99 ms", "errors"),
        rows=tuple(
            (
                name,
                str(spread([r.p50_ms for r in own])),
                str(spread([r.p99_ms for r in own])),
                str(differences([r.p50_ms for r in own], [r.p50_ms for r in found["direct"]])),
                str(differences(p99[name], p99["direct"])),
                str(spread([r.late_p99_ms for r in own])),
                count(sum(r.errors for r in own)),
            )
            for name, own in found.items()
        ),
        targets=tuple(targets),
        raw={name: [asdict(r) for r in own] for name, own in found.items()},
    )


LATENCY: Final = Scenario("latency", "2,000 requests/s on a schedule: what is added to an answer", _run)
