"""What the scenarios with a schedule have in common: an open loop against each gateway, in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from loadtests.figures import spread
from loadtests.openloop import Latency, open_loop
from loadtests.peers import Gateway
from loadtests.table import count

#: The columns that ``cells`` fills.
COLUMNS: Final = ("p50 ms", "p99 ms", "generator late by p99 ms", "errors")


def paced(gateway: Gateway, *, rate: float, seconds: float) -> Latency:
    """Ask one gateway on a schedule and let it settle."""
    found = open_loop(gateway.port, rate=rate, seconds=seconds)
    gateway.settle()
    return found


def cells(own: Sequence[Latency]) -> tuple[str, ...]:
    """Return what is in a line of the table for everyone."""
    return (
        str(spread([r.p50_ms for r in own])),
        str(spread([r.p99_ms for r in own])),
        str(spread([r.late_p99_ms for r in own])),
        count(sum(r.errors for r in own)),
    )


def p99s(found: Mapping[str, Sequence[Latency]]) -> dict[str, list[float]]:
    """Return the p99 of each round, in milliseconds."""
    return {name: [r.p99_ms for r in own] for name, own in found.items()}


def raw(found: Mapping[str, Sequence[Latency]]) -> dict[str, Any]:
    """Return every number of every round."""
    return {name: [asdict(r) for r in own] for name, own in found.items()}
