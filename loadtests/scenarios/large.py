"""large: 1 MB up and 1 MB down, and the memory held for clients that do not read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from loadtests.bench import Bench, standing
from loadtests.figures import brief, ratios, spread
from loadtests.holders import holding
from loadtests.origin import backends
from loadtests.peers import Gateway, Job
from loadtests.scenarios.carrying import alternate, raw
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, Target, count, in_turns
from loadtests.wrk import Load

_BYTES: Final = 2**20
_CONNECTIONS: Final = 8
_DEAF: Final = 64

#: The memory for bodies per connection, in KiB: 64 of a request and 64 of an answer, and the same again in the
#: transports that send them.
_STATED_KIB: Final = 256.0


def _run(bench: Bench) -> Finding:
    directory, load = bench.scratch("large"), Load(bench.short, connections=_CONNECTIONS, body=b"x" * _BYTES, users=7)
    with (
        backends([("--bytes", str(_BYTES))], directory) as ports,
        standing(bench, bench.proxies, Job(ports), directory) as gateways,
    ):
        kept = {name: _kept_kib(gateway, directory) for name, gateway in gateways.items()}
        alternate(bench, gateways, Load(1, connections=_CONNECTIONS, body=load.body, users=7), directory, times=1)
        found = alternate(bench, gateways, load, directory, times=bench.few)
        held = {name: gateway.carrying_bytes() / 2**20 for name, gateway in gateways.items()}
    rates = {name: [r.per_second for r in own] for name, own in found.items()}
    return Finding(
        scenario="large",
        method=f"wrk, {_CONNECTIONS} connections, {_BYTES:,} bytes each way, {in_turns(bench.few, load.seconds)}; "
        f"before that {_DEAF} clients that send such a request and do not read the answer.",
        columns=(
            "peer",
            "requests/s",
            "÷ Envoy",
            "CPU µs/request",
            "KiB kept per deaf client",
            "MB held after",
            "errors",
        ),
        rows=tuple(
            (
                name,
                str(spread(rates[name])),
                str(ratios(rates[name], rates["Envoy"])) if "Envoy" in rates else "",
                str(spread([r.cpu_us for r in own])),
                brief(kept[name]),
                brief(held[name]),
                count(sum(r.errors for r in own)),
            )
            for name, own in found.items()
        ),
        targets=_targets(rates, kept),
        raw={"rounds": raw(found), "kept_kib": kept, "held_mb": held},
    )


def _targets(rates: Mapping[str, list[float]], kept: Mapping[str, float]) -> tuple[Target, ...]:
    bounded = Target(
        "memory kept per client that does not read", spread([kept["Turnout"]]), bound=_STATED_KIB, unit=" KiB"
    )
    if "Envoy" not in rates:
        return (bounded,)
    return Target("throughput ÷ Envoy's", ratios(rates["Turnout"], rates["Envoy"]), "at least", 0.6), bounded


def _kept_kib(gateway: Gateway, directory: Path) -> float:
    """Return by how much a fresh gateway grows at most per client that does not read its answer."""
    before = most = gateway.carrying_bytes()
    with holding("deaf", _DEAF, gateway.port, directory):
        for _ in range(20):
            time.sleep(0.1)
            most = max(most, gateway.carrying_bytes())
    return (most - before) / _DEAF / 1024


LARGE: Final = Scenario("large", "1 MB bodies both ways, and clients that do not read", _run)
