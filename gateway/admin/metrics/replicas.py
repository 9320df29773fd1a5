"""The state of the backends' replicas as the workers see it, as plain JSON values.

Rule: workers are counted by the state they see, never averaged: each judges by its own calls and probes, and two may
differ for a while.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gateway.admin.metrics.workers import Labels
from gateway.proxy.client.health import STATES
from gateway.proxy.log.worker_series import REPLICAS, WAITING
from router.settings.backend import replica_name
from router.snapshot import Backend, Snapshot

#: The workers' gauges, added up over the workers, by name and labels.
Sums = Mapping[tuple[str, Labels], float]


def backends(snapshot: Snapshot, gauges: Sums) -> list[dict[str, Any]]:
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
    """Return the replicas of these backends to which some worker sends no calls, each with its ``backend``."""
    return [
        {"backend": backend["name"], **one}
        for backend in found
        if backend["name"] in names
        for one in backend["replicas"]
        if one["ejected"] or one["unhealthy"]
    ]


def _replica(backend: Backend, name: str, gauges: Sums) -> dict[str, Any]:
    def workers(state: str) -> int:
        labels = (("replica", name), ("state", state), ("variant", backend.name))
        return int(gauges.get((REPLICAS.name, labels), 0))

    return {"name": name, **{state: workers(state) for state in STATES}}
