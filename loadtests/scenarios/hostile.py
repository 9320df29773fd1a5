"""hostile: 500 clients that send a byte at a time, of a header or of a body, held open beside normal load."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from loadtests.bench import Bench, rounds, standing
from loadtests.figures import ratios
from loadtests.holders import holding
from loadtests.openloop import Latency
from loadtests.origin import backends
from loadtests.peers import Gateway, Job
from loadtests.scenarios.pacing import COLUMNS, cells, p99s, paced, raw
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, in_turns

_RATE: Final = 1_000
_EACH: Final = 250


def _run(bench: Bench) -> Finding:
    directory = bench.scratch("hostile")
    with (
        # They read a body to its end before they answer; nginx would not wait, and the slow ones would come and go.
        backends([()] * 3, directory) as (one, two, copy),
        standing(bench, bench.named("Turnout", "Envoy"), Job((one, two), mirror=copy), directory) as gateways,
    ):
        turns = {name: partial(paced, g, rate=_RATE, seconds=bench.short) for name, g in gateways.items()}
        turns |= {_beside(name): partial(_beset, g, bench.short, directory) for name, g in gateways.items()}
        rounds(1, turns)  # nobody counts the first
        found = rounds(bench.few, turns)
    p99 = p99s(found)
    return Finding(
        scenario="hostile",
        method=f"Open loop, {_RATE:,} requests/s, {in_turns(bench.few, bench.short)}, with and without "
        f"{_EACH} slow-header and {_EACH} slow-body clients, each of which comes again when it is closed.",
        columns=("peer", "p99 ÷ without", *COLUMNS),
        rows=tuple(
            (name, str(ratios(p99[name], p99[name.partition(",")[0]])), *cells(own)) for name, own in found.items()
        ),
        targets=(
            Target(
                f"normal p99 beside {2 * _EACH} hostile clients ÷ without",
                ratios(p99[_beside("Turnout")], p99["Turnout"]),
                bound=1.2,
            ),
        ),
        raw=raw(found),
    )


def _beside(name: str) -> str:
    return f"{name}, {2 * _EACH} hostile"


def _beset(gateway: Gateway, seconds: float, directory: Path) -> Latency:
    with (
        holding("slow-header", _EACH, gateway.port, directory),
        holding("slow-body", _EACH, gateway.port, directory),
    ):
        return paced(gateway, rate=_RATE, seconds=seconds)


HOSTILE: Final = Scenario("hostile", "500 slow clients beside normal load", _run)
