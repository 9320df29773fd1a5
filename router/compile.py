"""Config + evidence → snapshot.

Rule: an identity is a hash of meaning. An *epoch* is named by the hash of what makes numbers comparable, so going back
to an old config resumes its epoch. Which variants and versions there are is inside it: each version has tallies of its
own. A *period* begins when the epoch, the policy's own settings, the assignment key, the set of variants, the version
of one or the step of a rollout change, and is kept only in the previous snapshot; a new plan that an adaptive policy
makes from new evidence begins none. A route's *revision* is the snapshot revision at which its plan, epoch or period
last changed.

An epoch hashes the salt as written in the file, so a new assignment key changes no epoch. It assigns every unit anew,
independently of the old assignment: each period on its own is a fair experiment, and comparisons never cross periods
unadjusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from math import log
from typing import Final, NamedTuple

from policies.plans import held
from policies.rollouts.standing import START, Standing
from policies.types import Evidence, Plan, Policy
from router.assignment import AssignmentKey
from router.config.config import Config, RouteConfig, digest
from router.settings.backend import Backend
from router.settings.route import RouteSettings, settings_of
from router.snapshot import Route, Snapshot

#: A plan that follows from evidence is new when a share moves by more than this in log odds: 0.5 to 0.525, or 0.05 to
#: 0.055. Each plan is a stretch, and what is learned in each stretch is kept for itself: there must not be too many.
#: (A step of 0.2 costs 3 % more regret than 0.1: the best variant stays short of its last share.)
STEP: Final = 0.1

#: The step doubles with every so many stretches. Log odds of shares span 13.8 (``SMALLEST``), which eight doublings
#: exceed: so a route that learns for ever has less than 1,600 stretches.
DOUBLES_AFTER: Final = 200

#: Shares below this, and those as near to 1, are alike: nothing follows from a move among them.
SMALLEST: Final = 1e-3


def compile_snapshot(
    config: Config,
    *,
    previous: Snapshot | None,
    evidence: Callable[[str, str], Evidence],
    now_ms: int,
    revision: int,
    key: AssignmentKey | None = None,
    standings: Mapping[str, Standing] | None = None,
) -> Snapshot:
    """Return the snapshot of a config. ``evidence`` is asked for the evidence of each (route, epoch).

    ``standings`` are those that are stored, by route; None where the store is not known: then those of ``previous``.

    ``previous`` is the snapshot in force, whose periods and revisions continue where nothing changed. ``now_ms`` is the
    period of routes that begin a new one, ``revision`` this snapshot's number, higher than any before. Without a
    ``key`` the salts are used as written in the file.
    """
    epochs = epochs_of(config, previous=previous, key=key)
    if standings is None:
        standings = {} if previous is None else {name: route.standing for name, route in previous.routes.items()}
    routes = {
        name: _route(
            config,
            route,
            previous,
            epochs[name],
            evidence(name, epochs[name].name),
            standings.get(name, START),
            now_ms,
            revision,
        )
        for name, route in config.routes.items()
    }
    return Snapshot(
        revision=revision,
        config=config.hash,
        gateway=config.gateway,
        backends=config.backends,
        metrics=config.metrics,
        routes=routes,
        sinks=config.sinks,
        assignment="" if key is None else key.name,
        tokens=() if previous is None else previous.tokens,
        slots=config.slots,
    )


def replan(
    snapshot: Snapshot,
    config: Config,
    route: str,
    evidence: Evidence,
    revision: int,
    standing: Standing | None = None,
    now_ms: int = 0,
) -> Snapshot:
    """Return the snapshot with one route's plan made again from ``evidence``, that of the route's epoch.

    ``standing`` is the route's new one, if it moved: what that changes of the shares begins a period, at ``now_ms``,
    and so does a step. If nothing is new, or shares moved by less than a step (``is_step``), the same snapshot object
    is returned: there is nothing to publish.
    """
    present, of = snapshot.routes[route], config.routes[route]
    standing = present.standing if standing is None else standing
    plan = _plan(of, versions_of(config.backends, of.policy.variants), evidence, standing, present)
    if (plan, standing) == (present.plan, present.standing):
        return snapshot
    period = present.period
    if _begins_period(of.policy, present, plan, standing):
        period = max(now_ms, standing.since_ms, period + 1)
    new = revision if plan != present.plan or period != present.period else present.revision
    moved = replace(present, plan=plan, standing=standing, period=period, revision=new)
    return replace(snapshot, revision=revision, routes={**snapshot.routes, route: moved})


def with_periods(snapshot: Snapshot, since: Mapping[str, int], now_ms: int, revision: int) -> Snapshot:
    """Return the snapshot in which each of these routes has a period that began no earlier than this.

    A person's freeze begins a period, and so does its end. If all have one, the same snapshot object is returned.
    """
    routes = {
        name: replace(route, period=max(now_ms, since[name], route.period + 1), revision=revision)
        for name, route in snapshot.routes.items()
        if since.get(name, 0) > route.period
    }
    return replace(snapshot, revision=revision, routes={**snapshot.routes, **routes}) if routes else snapshot


def is_step(before: Mapping[str, float], after: Mapping[str, float], stretches: int) -> bool:
    """Return whether some variant's share moved by more than the step, with so many stretches behind.

    >>> is_step({"a": 0.5, "b": 0.5}, {"a": 0.52, "b": 0.48}, 0)
    False
    >>> [is_step({"a": 0.5, "b": 0.5}, {"a": 0.53, "b": 0.47}, stretches) for stretches in (0, 200)]
    [True, False]
    """
    if before.keys() != after.keys():
        return True
    step = STEP * 2 ** min(stretches / DOUBLES_AFTER, 60)
    return any(abs(_log_odds(after[name]) - _log_odds(share)) > step for name, share in before.items())


def with_plans_of(previous: Snapshot, fresh: Snapshot) -> Snapshot:
    """Return ``fresh`` with the former plans of routes whose policy and versions are unchanged.

    ``fresh`` has no evidence. Of a new version there is none, so that it does not get what the one before deserved.
    """
    routes = dict(fresh.routes)
    for name, route in fresh.routes.items():
        before = previous.routes.get(name)
        if before is None or any(_version(previous, one) != _version(fresh, one) for one in route.variants):
            continue
        if (before.epoch, before.settings) == (route.epoch, route.settings):
            revision = before.revision if before.period == route.period else route.revision
            routes[name] = replace(route, plan=before.plan, standing=before.standing, revision=revision)
    return replace(fresh, routes=routes)


def _version(snapshot: Snapshot, variant: str) -> str | None:
    backend = snapshot.backends.get(variant)
    return None if backend is None else backend.version


class EpochName(NamedTuple):
    """A route's epoch, what ``Route.carried`` is from now on, and the salts that units are hashed with."""

    name: str
    carried: tuple[str, str] | None
    salt: str
    holdout_salt: str = ""


def epochs_of(config: Config, *, previous: Snapshot | None, key: AssignmentKey | None) -> Mapping[str, EpochName]:
    """Return the epoch of each route of a config, ``previous`` being the snapshot in force.

    An epoch is named by ``_identity``. Earlier programs hashed the variants and their versions too: the epoch that was
    in force at the upgrade goes on under its name, and ``Route.carried`` remembers of which identity.
    """
    found = {}
    for name, route in config.routes.items():
        before = None if previous is None else previous.routes.get(name)
        salt = route.salt if key is None else key.salt(route.salt)
        identity, carried = _identity(route.policy.kind, route.salt, route), None if before is None else before.carried
        if carried is None and before is not None and before.salt == salt:  # only then is its salt in the file known
            was = _identity(before.policy, route.salt, before)
            carried = None if before.epoch == was else (was, before.epoch)
        epoch = carried[1] if carried is not None and carried[0] == identity else identity
        held = "" if route.holdout is None else f"holdout/{route.holdout}"  # no salt in a file has this of a name
        found[name] = EpochName(epoch, carried, salt, key.salt(held) if held and key is not None else held)
    return found


#: Settings of a route that make numbers comparable, beside the policy's kind and the salt. One that is added here must
#: leave the hash as it is at its default.
_IDENTITY: Final = ("unit", "prediction", "key_rule", "require_exposure")


def _identity(kind: str, salt: str, route: RouteSettings) -> str:
    """Return the hash within which a route's statistics may be added up; ``salt`` is the file's.

    It covers the policy's kind, the unit, the salt, the prediction pointer, which of several predictions feedback by
    key is about and whether predictions count only once they were exposed. Variants and their versions, shares,
    metrics, mirrors and where a backend runs do not change it.
    """
    return digest({"kind": kind, "salt": salt} | {name: getattr(route, name) for name in _IDENTITY})


def versions_of(backends: Mapping[str, Backend], variants: Iterable[str]) -> dict[str, str]:
    """Return the declared version of each variant."""
    return {name: backends[name].version for name in variants}


def policy_settings(policy: Policy) -> str:
    """Return the hash of a policy's own settings."""
    return digest({f.name: getattr(policy, f.name) for f in fields(policy)})  # type: ignore[arg-type]


def identity_of(snapshot: Snapshot) -> str:
    """Return the hash of everything, without plans, in which nodes must agree to serve the same.

    Keys that are marked ``own`` may differ (where a node listens, its data, its workers), and the paths of files. So
    may the name of an epoch, which follows from the rest unless a node carried one on: the fleet publishes it.
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


def _plan(
    route: RouteConfig, versions: Mapping[str, str], evidence: Evidence, standing: Standing, present: Route | None
) -> Plan:
    """Return a route's plan, and what is held; ``present`` is the route that goes on, None if it begins anew.

    A standing that is of another policy, candidate or version is taken as the edit leaves it: what was done to one
    version is not done to another, and another candidate begins at the first step. The plan stays while evidence has
    not moved the shares by a step, and while a policy that learns is paused.
    """
    policy, baseline = route.policy, route.baseline
    if standing != START:
        edited = policy.reconciled(standing, versions, baseline, standing.changed_ms)
        standing = standing if edited is None else edited.standing
    new = held(policy.plan(evidence, standing), standing.held, baseline, policy.floor)
    if present is None or not policy.adaptive or standing.held != present.standing.held:
        return new
    if standing.state == "paused" or not is_step(present.plan.shares, new.shares, len(evidence.stretches)):
        return present.plan
    return new


def _begins_period(policy: Policy, before: Route, plan: Plan, standing: Standing) -> bool:
    """Return whether a new step, or a standing and not what was learned, moves the shares: that begins a period."""
    if policy.adaptive:
        return plan != before.plan and standing.held != before.standing.held
    return plan != before.plan or standing.since_ms != before.standing.since_ms


def _log_odds(share: float) -> float:
    clipped = min(max(share, SMALLEST), 1 - SMALLEST)
    return log(clipped / (1 - clipped))


_PLANNED: Final = frozenset({"plan", "period", "revision", "epoch", "carried", "assigned", "standing"})


def _route(
    config: Config,
    route: RouteConfig,
    previous: Snapshot | None,
    epoch: EpochName,
    evidence: Evidence,
    standing: Standing,
    now_ms: int,
    revision: int,
) -> Route:
    policy, before = route.policy, None if previous is None else previous.routes.get(route.name)
    settings = policy_settings(policy)
    goes_on = (
        previous is not None
        and before is not None
        and (before.epoch, before.salt) == (epoch.name, epoch.salt)
        # What steps say of the present plan is in the plan: an edit of later ones begins no period.
        and (before.settings == settings or policy.stepped)
        and (before.holdout_salt, before.holdout_share) == (epoch.holdout_salt, route.holdout_share)
        and versions_of(previous.backends, before.variants) == versions_of(config.backends, policy.variants)
    )
    versions = versions_of(config.backends, policy.variants)
    plan = _plan(route, versions, evidence, standing, before if goes_on else None)
    goes_on = goes_on and not (before is not None and _begins_period(policy, before, plan, standing))
    # Never a former period: the clock may have been set back, and two edits may fall into one millisecond.
    begins = max(now_ms, standing.since_ms) if before is None else max(now_ms, standing.since_ms, before.period + 1)
    period = before.period if before is not None and goes_on else begins
    same = before is not None and goes_on and before.plan == plan
    return Route(
        **settings_of(route),
        policy=policy.kind,
        salt=epoch.salt,
        epoch=epoch.name,
        carried=epoch.carried,
        assigned=0 if before is None else before.assigned if before.salt == epoch.salt else period,
        period=period,
        revision=before.revision if before is not None and same else revision,
        settings=settings,
        plan=plan,
        standing=standing,
        variants=policy.variants,
        by_unit=policy.by_unit and route.unit is not None,
        holdout_salt=epoch.holdout_salt,
    )
