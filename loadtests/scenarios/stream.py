"""stream: many event streams at once, as language models send them: what an event costs, and how long it is held."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Final

from loadtests.bench import Bench, rounds, standing
from loadtests.figures import ratios, spread
from loadtests.origin import backends
from loadtests.peers import Gateway, Job
from loadtests.scenarios.scenario import Scenario
from loadtests.streams import Streamed, stream
from loadtests.table import Finding, count

_EVERY_MS: Final = 50


def _run(bench: Bench) -> Finding:
    directory, streams, events = bench.scratch("stream"), 100 if bench.quick else 300, 20 * bench.short

    def turn(port: int, gateway: Gateway | None) -> tuple[Streamed, float]:
        before = gateway.carrying_seconds() if gateway else 0.0
        found = stream(port, count=streams, seconds=3 * bench.short + 10)
        used = gateway.carrying_seconds() - before if gateway else 0.0
        if gateway:
            gateway.settle()
        return found, 1e6 * used / max(1, found.events)

    with (
        backends([("--events", str(events), "--wait-ms", str(_EVERY_MS))], directory) as (port,),
        standing(bench, bench.proxies, Job((port,)), directory) as gateways,
    ):
        turns = {"direct": partial(turn, port, None)}
        turns |= {name: partial(turn, gateway.port, gateway) for name, gateway in gateways.items()}
        found = rounds(2, turns)
    cpu = {name: [us for _, us in own] for name, own in found.items()}
    return Finding(
        scenario="stream",
        method=f"{streams} streams at once, {events} events each, one every {_EVERY_MS} ms; 2 rounds in turns.",
        columns=("peer", "whole streams", "events", "CPU µs/event", "÷ Envoy", "delay p50 ms", "delay p99 ms"),
        rows=tuple(
            (
                name,
                f"{sum(s.whole for s, _ in own):,} of {streams * len(own):,}",
                count(sum(s.events for s, _ in own)),
                str(spread(cpu[name])) if name in gateways else "",
                str(ratios(cpu[name], cpu["Envoy"])) if name in gateways and "Envoy" in cpu else "",
                str(spread([s.p50_ms for s, _ in own])),
                str(spread([s.p99_ms for s, _ in own])),
            )
            for name, own in found.items()
        ),
        raw={name: [{**asdict(s), "cpu_us": us} for s, us in own] for name, own in found.items()},
    )


STREAM: Final = Scenario("stream", "many event streams at once", _run)
