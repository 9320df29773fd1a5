"""mirror: what clients notice of a mirror that works, is dead, or takes requests and never answers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Final

from gateway.demo.processes import free_ports
from loadtests.bench import Bench, rounds
from loadtests.figures import differences, ratios, spread
from loadtests.openloop import Latency, open_loop
from loadtests.origin import backends, origins
from loadtests.peers import Gateway, Job
from loadtests.peers.turnout import TURNOUT
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, count

_RATE: Final = 1_000


def _run(bench: Bench) -> Finding:
    directory, (dead,) = bench.scratch("mirror"), free_ports(1)
    with origins(2, directory) as (one, well), backends([("--silent",)], directory) as (hanging,), ExitStack() as held:
        mirrors = {"no mirror": None, "a mirror": well, "a dead mirror": dead, "a hanging mirror": hanging}
        gateways = {
            name: held.enter_context(
                TURNOUT.serve(Job((one,), mirror=port), bench.scratch(f"mirror/{name.replace(' ', '-')}"))
            )
            for name, port in mirrors.items()
        }
        turns = {name: partial(_turn, gateway, bench.short) for name, gateway in gateways.items()}
        rounds(1, turns)  # nobody counts the first
        found = rounds(bench.few, turns)
    p99 = {name: [r.p99_ms for r in own] for name, own in found.items()}
    return Finding(
        scenario="mirror",
        method=f"Open loop, {_RATE:,} requests/s for {bench.short} s, {bench.few} rounds in turns; 10 % mirrored.",
        columns=("mirror", "p50 ms", "p99 ms", "p99 − none ms", "generator late by p99 ms", "errors"),
        rows=tuple(
            (
                name,
                str(spread([r.p50_ms for r in own])),
                str(spread(p99[name])),
                str(differences(p99[name], p99["no mirror"])),
                str(spread([r.late_p99_ms for r in own])),
                count(sum(r.errors for r in own)),
            )
            for name, own in found.items()
        ),
        targets=tuple(
            Target(f"p99 beside {name} ÷ none", ratios(p99[name], p99["no mirror"]))
            for name in ("a dead mirror", "a hanging mirror")
        ),
        raw={name: [asdict(r) for r in own] for name, own in found.items()},
    )


def _turn(gateway: Gateway, seconds: float) -> Latency:
    found = open_loop(gateway.port, rate=_RATE, seconds=seconds)
    gateway.settle()
    return found


MIRROR: Final = Scenario("mirror", "a dead and a hanging mirror", _run)
