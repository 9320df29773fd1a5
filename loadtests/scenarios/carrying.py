"""What split and plain have in common: every peer carries as much as it can, in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from loadtests.bench import Bench, Round, rounds, turn
from loadtests.client import ask
from loadtests.figures import ratios, spread
from loadtests.parity import Parity, parity
from loadtests.peers import Gateway
from loadtests.request import REQUESTS
from loadtests.table import count
from loadtests.wrk import Load

COLUMNS: Final = (
    "peer",
    "requests/s",
    "CPU µs/request",
    "with all of it",
    "÷ Envoy",
    "p50 ms",
    "p99 ms",
    "errors",
    "settled after s",
)

#: How many prediction ids are looked up one by one.
SAMPLE: Final = 5_000


def warm(gateways: Mapping[str, Gateway], directory: Path) -> dict[str, Round]:
    """Load every gateway once without counting: connection pools fill, caches warm."""
    return {name: turn(gateway, Load(2), directory) for name, gateway in gateways.items()}


def alternate(
    bench: Bench, gateways: Mapping[str, Gateway], load: Load, directory: Path, *, times: int | None = None
) -> dict[str, list[Round]]:
    """Let the gateways take turns under one load."""

    def one(name: str) -> Round:
        found = turn(gateways[name], load, directory)
        bench.say(f"{name}: {found.per_second:,.0f} requests/s, {found.cpu_us:.1f} µs each")
        return found

    return rounds(times or bench.rounds, {name: partial(one, name) for name in gateways})


def rows(found: Mapping[str, Sequence[Round]]) -> tuple[tuple[str, ...], ...]:
    """Return a line of the table for each peer."""
    return tuple(_row(name, own, found.get("Envoy")) for name, own in found.items())


def _row(name: str, own: Sequence[Round], envoy: Sequence[Round] | None) -> tuple[str, ...]:
    cpu = [r.cpu_us for r in own]
    beside = any(r.all_cpu_us > r.cpu_us * 1.05 for r in own)
    return (
        name,
        str(spread([r.per_second for r in own])),
        str(spread(cpu)),
        str(spread([r.all_cpu_us for r in own])) if beside else "",
        str(ratios(cpu, [r.cpu_us for r in envoy])) if envoy else "",
        str(spread([r.p50_ms for r in own])),
        str(spread([r.p99_ms for r in own])),
        count(sum(r.errors for r in own)),
        str(spread([r.lag_seconds for r in own])) if beside else "",
    )


def sampled_parity(gateway: Gateway, taken: Sequence[Round], load: Load) -> Parity:
    """Send a sample whose ids are kept, and compare all answers with the rows in the store."""
    sample = ask("127.0.0.1", gateway.port, REQUESTS, connections=8, seconds=30, most=SAMPLE)
    gateway.settle()
    assert gateway.data_dir is not None
    answers = sum(r.answers for r in taken) + len(sample.seconds)
    return parity(gateway.data_dir, answers=answers, stops=load.connections * len(taken), ids=sample.ids)


def raw(found: Mapping[str, Sequence[Round]]) -> dict[str, Any]:
    """Return every number of every round."""
    return {name: [asdict(r) for r in own] for name, own in found.items()}
