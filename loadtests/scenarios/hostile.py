"""hostile: 500 clients that send a byte at a time, of a header or of a body, held open beside normal load."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from loadtests.bench import Bench, beside, standing
from loadtests.figures import ratios
from loadtests.holders import holding
from loadtests.openloop import Latency
from loadtests.origin import backends
from loadtests.peers import Gateway, Job
from loadtests.scenarios.pacing import CALMLY, COLUMNS, Found, calmly, cells, p99s, paced, raw
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, in_turns

_RATE: Final = 1_000
_EACH: Final = 250
_WHAT: Final = f"{2 * _EACH} hostile"


def _run(bench: Bench) -> Finding:
    directory = bench.scratch("hostile")
    with (
        # These backends read a body to its end before they answer; nginx would answer early, and slow clients would
        # leave.
        backends([()] * 3, directory) as (one, two, copy),
        standing(bench, bench.named("Turnout", "Envoy"), Job((one, two), mirror=copy), directory) as gateways,
        calmly(bench.many, directory) as calm,
    ):
        for gateway in gateways.values():
            _disturbed(gateway, bench.short, directory)  # the first turn is not counted
        alone = partial(paced, rate=_RATE, seconds=bench.short)
        disturbed = partial(_disturbed, seconds=bench.short, directory=directory)
        found = beside(bench, gateways, _WHAT, alone, disturbed, take=calm.take)
    p99 = p99s(found)
    return Finding(
        scenario="hostile",
        method=f"Open loop, {_RATE:,} requests/s, {in_turns(bench.many, bench.short)} ({bench.few} of others than "
        f"Turnout), with and without {_EACH} slow-header and {_EACH} slow-body clients, each of which comes again when "
        f"it is closed. {CALMLY}",
        columns=("peer", "p99 ÷ without", *COLUMNS),
        rows=tuple(
            (name, str(ratios(p99[name], p99[name.partition(",")[0]])), *cells(own)) for name, own in found.items()
        ),
        targets=_targets(found),
        notes=calm.notes(found, _targets),
        raw={"calm": raw(found), "as they came": raw(calm.first)},
    )


def _targets(found: Found) -> tuple[Target]:
    """Return the targets with the measured values."""
    p99 = p99s(found)
    ratio = ratios(p99[f"Turnout, {_WHAT}"], p99["Turnout"])
    return (Target(f"normal p99 beside {2 * _EACH} hostile clients ÷ without", ratio, bound=1.2),)


def _disturbed(gateway: Gateway, seconds: float, directory: Path) -> Latency:
    with (
        holding("slow-header", _EACH, gateway.port, directory),
        holding("slow-body", _EACH, gateway.port, directory),
    ):
        return paced(gateway, rate=_RATE, seconds=seconds)


HOSTILE: Final = Scenario("hostile", "500 slow clients beside normal load", _run)
