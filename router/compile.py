"""Config + evidence → snapshot.

Rule: an identity is a hash of meaning. An *epoch* is the hash of everything that makes numbers comparable, so going
back to an old config resumes its epoch. A *period* begins when the epoch, the policy's own settings or the assignment
key change, and is kept only in the previous snapshot; a new plan that an adaptive policy makes from new evidence begins
none. A route's *revision* is the snapshot revision at which its plan, epoch or period last changed.

An epoch hashes the salt as written in the file, so a new assignment key changes no epoch. It assigns every unit anew,
independently of the old assignment: each period on its own is a fair experiment, and comparisons never cross periods
unadjusted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Final

from policies.types import Evidence, Policy
from router.assignment import AssignmentKey
from router.config.config import Config, RouteConfig, digest
from router.settings.route import settings_of
from router.snapshot import Route, Snapshot


def compile_snapshot(
    config: Config,
    *,
    previous: Snapshot | None,
    evidence: Callable[[str, str], Evidence],
    now_ms: int,
    revision: int,
    key: AssignmentKey | None = None,
) -> Snapshot:
    """Return the snapshot of a config. ``evidence`` is asked for the evidence of each (route, epoch).

    ``previous`` is the snapshot in force, whose periods and revisions continue where nothing changed. ``now_ms`` is the
    period of routes that begin a new one, ``revision`` this snapshot's number, higher than any before. Without a
    ``key`` the salts are used as written in the file.
    """
    before = {} if previous is None else previous.routes
    routes: dict[str, Route] = {}
    for name, route in config.routes.items():
        seen = evidence(name, epoch_of(config, route))
        salt = route.salt if key is None else key.salt(route.salt)
        routes[name] = _route(config, route, salt, before.get(name), seen, now_ms, revision)
    return Snapshot(
        revision=revision,
        config=config.hash,
        gateway=config.gateway,
        backends=config.backends,
        metrics=config.metrics,
        routes=routes,
        sinks=config.sinks,
        assignment="" if key is None else key.name,
    )


def replan(snapshot: Snapshot, config: Config, route: str, evidence: Evidence, revision: int) -> Snapshot:
    """Return the snapshot with one route's plan made again from ``evidence``, that of the route's epoch.

    If the plan is the same, the same snapshot object is returned: there is nothing to publish.
    """
    present = snapshot.routes[route]
    plan = config.routes[route].policy.plan(evidence)
    if plan == present.plan:
        return snapshot
    moved = replace(present, plan=plan, revision=revision)
    return replace(snapshot, revision=revision, routes={**snapshot.routes, route: moved})


def with_plans_of(previous: Snapshot, fresh: Snapshot) -> Snapshot:
    """Return ``fresh`` with the former plans of routes whose policy is unchanged: ``fresh`` has no evidence."""
    routes = dict(fresh.routes)
    for name, route in fresh.routes.items():
        before = previous.routes.get(name)
        if before is not None and (before.epoch, before.settings) == (route.epoch, route.settings):
            revision = before.revision if before.salt == route.salt else route.revision
            routes[name] = replace(route, plan=before.plan, revision=revision)
    return replace(fresh, routes=routes)


def epoch_of(config: Config, route: RouteConfig) -> str:
    """Return the hash within which a route's statistics may be added up.

    It covers the policy's kind, the variants with their versions, the unit, the salt, the prediction pointer, which of
    several predictions feedback by key is about and whether predictions count only once they were exposed. The order of
    variants, shares, metrics, mirrors and where a backend runs do not change it.
    """
    identity: dict[str, object] = {
        "kind": route.policy.kind,
        "variants": {name: config.backends[name].version for name in route.policy.variants},
        "unit": route.unit,
        "salt": route.salt,
        "prediction": route.prediction,
    }
    if route.key_rule != "latest":  # at its default it must not change the epochs from before there was this key
        identity["key_rule"] = route.key_rule
    if route.require_exposure:
        identity["require_exposure"] = True
    return digest(identity)


def policy_settings(policy: Policy) -> str:
    """Return the hash of a policy's own settings."""
    return digest({f.name: getattr(policy, f.name) for f in fields(policy)})  # type: ignore[arg-type]


def identity_of(snapshot: Snapshot) -> str:
    """Return the hash of everything, without plans, in which nodes must agree to serve the same.

    Keys that are marked ``own`` may differ (where a node listens, its data, its workers), and the paths of files.
    """
    shared = {
        f.name: getattr(snapshot.gateway, f.name)
        for f in fields(snapshot.gateway)
        if not f.metadata.get("own") and not f.name.endswith("_file")
    }
    routes = {
        name: {f.name: getattr(route, f.name) for f in fields(route) if f.name not in _PLANNED}
        for name, route in snapshot.routes.items()
    }
    whole = {"gateway": shared, "backends": snapshot.backends, "metrics": snapshot.metrics, "routes": routes}
    return digest(whole | {"sinks": snapshot.sinks} if snapshot.sinks else whole)


_PLANNED: Final = frozenset({"plan", "period", "revision"})


def _route(
    config: Config, route: RouteConfig, salt: str, before: Route | None, evidence: Evidence, now_ms: int, revision: int
) -> Route:
    policy = route.policy
    epoch, settings, plan = epoch_of(config, route), policy_settings(policy), policy.plan(evidence)
    goes_on = before is not None and (before.epoch, before.settings, before.salt) == (epoch, settings, salt)
    # Never a former period: the clock may have been set back, and two edits may fall into one millisecond.
    begins = now_ms if before is None else max(now_ms, before.period + 1)
    period = before.period if before is not None and goes_on else begins
    same = before is not None and goes_on and before.plan == plan
    return Route(
        **settings_of(route),
        policy=policy.kind,
        salt=salt,
        epoch=epoch,
        period=period,
        revision=before.revision if before is not None and same else revision,
        settings=settings,
        plan=plan,
        variants=policy.variants,
        by_unit=policy.by_unit and route.unit is not None,
    )
