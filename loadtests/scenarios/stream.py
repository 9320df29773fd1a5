"""stream: many event streams at once, as language models send them: what an event costs, and how long it is held."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Final

from loadtests.bench import Bench, rounds, standing
from loadtests.figures import ratios, spread
from loadtests.origin import backends
from loadtests.peers import Gateway, Job, direct
from loadtests.scenarios.scenario import Scenario
from loadtests.streams import Streamed, stream
from loadtests.table import Finding, count

_EVERY_MS: Final = 50
_ROUNDS: Final = 2


def _run(bench: Bench) -> Finding:
    directory, streams, events = bench.scratch("stream"), 100 if bench.quick else 300, 20 * bench.short
    deadline = 3 * bench.short + 10
    with (
        backends([("--events", str(events), "--wait-ms", str(_EVERY_MS))], directory) as (port,),
        standing(bench, bench.proxies, Job((port,)), directory) as gateways,
    ):
        everyone = {"direct": direct(port), **gateways}
        found = rounds(_ROUNDS, {name: partial(_turn, g, streams, deadline) for name, g in everyone.items()})
    cpu = {name: [us for _, us in own] for name, own in found.items() if name in gateways}
    return Finding(
        scenario="stream",
        method=f"{streams} streams at once, {events} events each, one every {_EVERY_MS} ms; {_ROUNDS} rounds in turns.",
        columns=("peer", "whole streams", "events", "CPU µs/event", "÷ Envoy", "delay p50 ms", "delay p99 ms"),
        rows=tuple(
            (
                name,
                f"{sum(s.whole for s, _ in own):,} of {streams * len(own):,}",
                count(sum(s.events for s, _ in own)),
                str(spread(cpu[name])) if name in cpu else "",
                str(ratios(cpu[name], cpu["Envoy"])) if name in cpu and "Envoy" in cpu else "",
                str(spread([s.p50_ms for s, _ in own])),
                str(spread([s.p99_ms for s, _ in own])),
            )
            for name, own in found.items()
        ),
        raw={name: [{**asdict(s), "cpu_us": us} for s, us in own] for name, own in found.items()},
    )


def _turn(gateway: Gateway, streams: int, deadline_seconds: float) -> tuple[Streamed, float]:
    """Return what came of the streams, and the microseconds that an event cost."""
    before = gateway.carrying_seconds()
    found = stream(gateway.port, count=streams, seconds=deadline_seconds)
    used = gateway.carrying_seconds() - before
    gateway.settle()
    return found, 1e6 * used / max(1, found.events)


STREAM: Final = Scenario("stream", "many event streams at once", _run)
