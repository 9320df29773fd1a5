"""storm: feedback as fast as it is accepted: acknowledged once it is on the disk, then joined to its predictions."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Final

import httpx

from loadtests.bench import Bench
from loadtests.client import ask
from loadtests.figures import brief
from loadtests.origin import origins
from loadtests.peers import Gateway, turnout
from loadtests.peers.turnout import reading, serving
from loadtests.request import REQUESTS
from loadtests.scenarios.scenario import Scenario
from loadtests.table import Finding, count

_CONNECTIONS: Final = 32
_POLICY: Final = 'policy = { kind = "single", variant = "one" }'


def _run(bench: Bench) -> Finding:
    directory, scale = bench.scratch("storm"), 1 if bench.quick else 5
    with origins(1, directory) as (port,):
        settings = turnout.backends({"one": port}) + turnout.route(_POLICY, metrics='"click"')
        with serving(settings, directory) as gateway:
            ids = ask("127.0.0.1", gateway.port, REQUESTS, connections=8, seconds=30, most=2_000).ids
            gateway.settle()
            rows = [
                _turn(gateway, ids, events=2_000 * scale, batch=1),
                _turn(gateway, ids, events=20_000 * scale, batch=100),
            ]
            assert gateway.data_dir is not None
            with reading(gateway.data_dir) as store:
                statuses = dict(store.execute("SELECT status, sum(n) FROM feedback_counts GROUP BY status").fetchall())
    sent, counted = 22_000 * scale, sum(statuses.values())
    return Finding(
        scenario="storm",
        method=f"{_CONNECTIONS} connections in a closed loop, every event new, to {len(ids):,} predictions.",
        columns=(
            *("events a request", "events/s acknowledged", "events a fsync"),
            *("CPU µs/event", "with all of it", "settled after s"),
        ),
        rows=tuple(rows),
        notes=(
            f"{sent:,} events sent, {counted:,} accounted for: "
            + ", ".join(f"{n:,} {status}" for status, n in sorted(statuses.items())),
        ),
        raw={"sent": sent, "statuses": statuses},
    )


def _turn(gateway: Gateway, ids: Sequence[str], *, events: int, batch: int) -> tuple[str, ...]:
    bodies = [_body(ids, first, batch) for first in range(0, events, batch)]
    commits = _commits(gateway)
    before, all_before, began = gateway.carrying_seconds(), gateway.all_seconds(), time.monotonic()
    ask("127.0.0.1", gateway.port, bodies, connections=_CONNECTIONS, seconds=120, most=len(bodies))
    seconds, carried = time.monotonic() - began, gateway.carrying_seconds() - before
    lag = gateway.settle()
    everything = gateway.all_seconds() - all_before
    each = 1e6 / events
    shared = brief(events / (_commits(gateway) - commits))
    return str(batch), count(events / seconds), shared, brief(carried * each), brief(everything * each), brief(lag)


def _commits(gateway: Gateway) -> float:
    """The number of fsyncs for feedback, by the worker's counter, which is published once a second."""
    time.sleep(1.5)
    text = httpx.get(f"http://127.0.0.1:{gateway.admin}/metrics", timeout=30).raise_for_status().text
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("turnout_feedback_commits_total ")
    )


def _body(ids: Sequence[str], first: int, batch: int) -> bytes:
    """Return one request with events that were not sent before."""
    content = json.dumps(
        [
            {
                "prediction_id": ids[number % len(ids)],
                "metric": "click",
                "value": number % 2,
                "event_id": f"{batch}-{number}",
            }
            for number in range(first, first + batch)
        ]
    ).encode()
    head = "POST /-/feedback HTTP/1.1\r\nhost: models.example\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


STORM: Final = Scenario("storm", "feedback as fast as it is acknowledged", _run)
