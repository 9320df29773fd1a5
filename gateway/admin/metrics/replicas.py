"""What workers see of the backends' replicas, as plain JSON values.

Rule: it is counted, never averaged: each worker judges by its own calls and probes, and they may differ for a while.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gateway.admin.metrics.workers import Labels
from gateway.proxy.client.health import STATES
from gateway.proxy.log.worker_series import REPLICAS, WAITING
from router.settings.backend import replica_name
from router.snapshot import Backend, Snapshot

Gauges = Mapping[tuple[str, Labels], float]


def backends(snapshot: Snapshot, gauges: Gauges) -> list[dict[str, Any]]:
    """Return every backend: its calls that wait, and per replica how many workers see it in each state."""
    return [
        {
            "name": backend.name,
            "model": backend.model,
            "version": backend.version,
            "waiting": int(gauges.get((WAITING.name, (("variant", backend.name),)), 0)),
            "replicas": [_replica(backend, replica_name(url), gauges) for url in backend.urls],
        }
        for backend in snapshot.backends.values()
    ]


def out_of_use(found: list[dict[str, Any]], names: Collection[str]) -> list[dict[str, Any]]:
    """Return the replicas of these backends that some worker does not ask, each with its ``backend``."""
    return [
        {"backend": backend["name"], **one}
        for backend in found
        if backend["name"] in names
        for one in backend["replicas"]
        if one["ejected"] or one["unhealthy"]
    ]


def _replica(backend: Backend, name: str, gauges: Gauges) -> dict[str, Any]:
    def workers(state: str) -> int:
        labels = (("replica", name), ("state", state), ("variant", backend.name))
        return int(gauges.get((REPLICAS.name, labels), 0))

    return {"name": name, **{state: workers(state) for state in STATES}}
