"""Hand-built snapshots: one backend, route or metric at a time, everything else at its default."""

from __future__ import annotations

from typing import Any

from policies.plans import Weighted
from policies.types import Plan
from router.snapshot import Backend, Gateway, Metric, Route, Snapshot


def backend(name: str, *urls: str, **settings: Any) -> Backend:
    return Backend(name=name, urls=urls, **{"model": name, "version": "1", **settings})


def metric(name: str, kind: str = "label", **settings: Any) -> Metric:
    defaults: dict[str, Any] = {
        "score": "match" if kind == "label" else None,
        "better": "higher",
        "window_ms": 60_000,
        "mature": "window",
        "missing": None,
        "fold": "any" if kind == "event" else "last",
        "range": None,
        "definition": f"{name}-1",
    }
    return Metric(name=name, kind=kind, **{**defaults, **settings})  # type: ignore[arg-type]


def only(variant: str) -> Weighted:
    return Weighted(((variant, 1.0),))


def route(name: str, plan: Plan, **settings: Any) -> Route:
    variants = tuple(plan.shares)
    defaults: dict[str, Any] = {
        "path": f"/{name}",
        "policy": "single",
        "salt": name,
        "epoch": "e1",
        "period": 7,
        "revision": 3,
        "variants": variants,
        "baseline": variants[0],
        "by_unit": False,
    }
    return Route(name=name, plan=plan, **{**defaults, **settings})


def snapshot(*parts: Backend | Metric | Route | Gateway, revision: int = 3) -> Snapshot:
    return Snapshot(
        revision=revision,
        config="c1",
        gateway=next((p for p in parts if isinstance(p, Gateway)), Gateway()),
        backends={p.name: p for p in parts if isinstance(p, Backend)},
        metrics={p.name: p for p in parts if isinstance(p, Metric)},
        routes={p.name: p for p in parts if isinstance(p, Route)},
    )
