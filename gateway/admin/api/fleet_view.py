"""The fleet as JSON, and as the sentences of ``/readyz?verbose``.

Rule: it says what one node knows of the others, and how old that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.control.membership import FleetView


def as_shown(fleet: FleetView | None, revision: int) -> Mapping[str, Any]:
    """Return the fleet as plain JSON values."""
    if fleet is None:
        return {"node": None, "holder": None, "revision": revision, "cut_off_seconds": None, "nodes": []}
    differing = {node.name for node in fleet.differing}
    return {
        "node": fleet.node,
        "holder": fleet.holder or None,
        "revision": revision,
        "config": fleet.config,
        "cut_off_seconds": fleet.cut_off_seconds,
        "nodes": [
            {
                "node": node.name,
                "config": node.config,
                "config_differs": node.name in differing,
                "revision": node.revision,
                "silent_seconds": max(0, node.silent_ms) / 1000,
                "absent": node.absent,
                "waiting_bytes": fleet.waiting_bytes.get(node.name, 0),
            }
            for node in fleet.nodes
        ],
    }


def sentences(fleet: FleetView | None, revision: int) -> list[str]:
    """Return what an operator should know of the fleet, a line each; none where there is no fleet."""
    if fleet is None:
        return []
    if fleet.cut_off_seconds is not None:
        cut_off = f"cut off from the store for {fleet.cut_off_seconds:.0f} s"
        return [f"[-]fleet node {fleet.node}, {cut_off}; revision {revision} stays in force"]
    there = sum(not node.absent for node in fleet.nodes)
    holder = fleet.holder or "nobody"
    lines = [f"[+]fleet node {fleet.node} of {there}, {holder} holds the lease, revision {revision}"]
    for node in fleet.differing:
        lines.append(f"[-]config node {node.name} runs configuration {node.config}, the holder another")
    for node in fleet.nodes:
        if node.absent:
            lines.append(f"[-]node {node.name} was not heard of for {node.silent_ms / 1000:.0f} s")
    return lines
