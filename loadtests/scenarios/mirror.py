"""mirror: what clients notice of a mirror that works, is dead, or takes requests and never answers."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Final

from gateway.demo.processes import free_ports
from loadtests.bench import Bench, rounds
from loadtests.figures import differences, ratios
from loadtests.origin import backends, origins
from loadtests.peers import Job
from loadtests.peers.turnout import TURNOUT
from loadtests.scenarios.pacing import COLUMNS, cells, p99s, paced, raw
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, in_turns

_RATE: Final = 1_000


def _run(bench: Bench) -> Finding:
    directory, (dead,) = bench.scratch("mirror"), free_ports(1)
    with origins(2, directory) as (one, well), backends([("--silent",)], directory) as (hanging,), ExitStack() as held:
        turns = {}
        for name, port in (("no", None), ("a", well), ("a dead", dead), ("a hanging", hanging)):
            here = bench.scratch(f"mirror/{name.replace(' ', '-')}")
            gateway = held.enter_context(TURNOUT.serve(Job((one,), mirror=port), here))
            turns[f"{name} mirror"] = partial(paced, gateway, rate=_RATE, seconds=bench.short)
        rounds(1, turns)  # the first round is not counted
        found = rounds(bench.few, turns)
    p99 = p99s(found)
    return Finding(
        scenario="mirror",
        method=f"Open loop, {_RATE:,} requests/s, {in_turns(bench.few, bench.short)}; 10 % mirrored.",
        columns=("Turnout with", "p99 − none ms", *COLUMNS),
        rows=tuple((name, str(differences(p99[name], p99["no mirror"])), *cells(own)) for name, own in found.items()),
        targets=tuple(
            Target(f"p99 beside {name} ÷ none", ratios(p99[name], p99["no mirror"]))
            for name in ("a dead mirror", "a hanging mirror")
        ),
        raw=raw(found),
    )


MIRROR: Final = Scenario("mirror", "a dead and a hanging mirror", _run)
