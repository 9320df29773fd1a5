"""latency: split again, at 2,000 requests a second on a schedule: the latency that each peer adds for users."""

from __future__ import annotations

from functools import partial
from typing import Final

from loadtests.bench import Bench, rounds, standing
from loadtests.figures import differences
from loadtests.origin import origins
from loadtests.peers import Job, direct
from loadtests.scenarios.pacing import CALMLY, COLUMNS, Found, calmly, cells, p99s, paced, raw
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, in_turns, renamed

_RATE: Final = 2_000

#: The peers of the targets, compared directly after each other in many turns.
_JUDGED: Final = ("direct", "Turnout", "Envoy")


def _run(bench: Bench) -> Finding:
    directory = bench.scratch("latency")
    with (
        origins(3, directory) as (one, two, copy),
        standing(bench, bench.proxies, Job((one, two), mirror=copy), directory) as gateways,
        calmly(bench.many, directory) as calm,
    ):
        everyone = {"direct": direct(one), **gateways}
        for gateway in everyone.values():
            paced(gateway, rate=_RATE / 4, seconds=1)  # the first turn is not counted
        turns = {name: partial(paced, g, rate=_RATE, seconds=bench.short) for name, g in everyone.items()}
        found = rounds(bench.few, turns)
        judged = {name: partial(calm.take, name, turn) for name, turn in turns.items() if name in _JUDGED}
        closely = rounds(bench.many, judged)
    return Finding(
        scenario="latency",
        method=f"Open loop, {_RATE:,} requests/s, {in_turns(bench.few, bench.short)}, then {bench.many} of those "
        f"that are judged; each latency counts from when its request was to leave. {CALMLY}",
        columns=("peer", "added p50 ms", "added p99 ms", *COLUMNS),
        rows=(
            *_rows(found),
            *renamed(_rows(calm.first), f"{bench.many} rounds as they came"),
            *renamed(_rows(closely), f"{bench.many} rounds, calm"),
        ),
        targets=_targets(closely),
        notes=calm.notes(closely, _targets),
        raw={"rounds": raw(found), "as they came": raw(calm.first), "closely": raw(closely)},
    )


def _targets(found: Found) -> tuple[Target, ...]:
    """Return the targets with the measured values."""
    p99 = p99s(found)
    added = Target("added p99 over going direct", differences(p99["Turnout"], p99["direct"]), bound=1.5, unit=" ms")
    if "Envoy" not in p99:
        return (added,)
    return added, Target("p99 over Envoy's", differences(p99["Turnout"], p99["Envoy"]), bound=1.0, unit=" ms")


def _rows(found: Found) -> tuple[tuple[str, ...], ...]:
    """Return a line of the table for each peer."""
    straight = found["direct"]
    return tuple(
        (
            name,
            str(differences([r.p50_ms for r in own], [r.p50_ms for r in straight])),
            str(differences([r.p99_ms for r in own], [r.p99_ms for r in straight])),
            *cells(own),
        )
        for name, own in found.items()
    )


LATENCY: Final = Scenario("latency", "2,000 requests/s on a schedule: what is added to an answer", _run)
