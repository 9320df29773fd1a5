"""route(request) → Routing: where a request enters the experiment, and the one reference that is swapped.

Rule: reads the snapshot once per request; no I/O, no clock. A route that a person froze to a variant (``freeze``) gets
that one, whatever its plan, its holdout and the client say. The result is complete: the caller needs nothing else from
the snapshot. There are two calls per request: ``match`` returns its route; then, with the body if ``needs_body`` asks
for it, ``route`` decides. The route carries everything, so a swap in between does not affect the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from policies.chance import chance
from policies.decision import Decision, Occasion
from policies.plans import TeamDraft, is_copied
from router.extract import MISSING, writable
from router.match import Facts, RouteTable
from router.records import FROZEN, Role
from router.snapshot import Backend, Metric, Route, Snapshot
from router.unit import reference

#: The reason of a decision for a unit that the route never treats, and the role of its calls.
HOLDOUT: Final = "holdout"


class Routing:
    """What to do with one request.

    ``mirrored`` is the decision's mirrors and the route's together, answering variants left out. ``missing`` are words
    (``records.WRONG``) for what the route names and the request does not carry, or where its body could not be read:
    without a unit the request itself is randomised. ``forced`` says that the client chose the variant, or a person who
    froze the route: the propensity then means nothing and is logged as null.
    """

    __slots__ = ("decision", "forced", "key", "mirrored", "missing", "occasion", "route")

    def __init__(
        self,
        route: Route,
        occasion: Occasion,
        decision: Decision,
        mirrored: tuple[str, ...],
        key: str | None,
        missing: tuple[str, ...],
        forced: bool,
    ) -> None:
        self.route: Final = route
        self.occasion: Final = occasion
        self.decision: Final = decision
        self.mirrored: Final = mirrored
        self.key: Final = key
        self.missing: Final = missing
        self.forced: Final = forced

    @property
    def unit_missing(self) -> bool:
        """Whether the route names a unit and the request carries none."""
        return "no_unit" in self.missing

    @property
    def role(self) -> Role:
        """The role of the one call that answers."""
        return "holdout" if self.decision.reason == HOLDOUT else "primary"

    @property
    def fallback(self) -> str | None:
        """The variant that is asked if the chosen one fails: none of those that a person froze the route away from."""
        fallback = self.route.fallback
        if fallback is not None and self.decision.reason == FROZEN and fallback in self.route.variants:
            return None
        return fallback

    @property
    def draft(self) -> TeamDraft | None:
        """The plan that merges the answers, when several variants answer; else None."""
        plan = self.route.plan
        return plan if isinstance(plan, TeamDraft) and len(self.decision.answering) > 1 else None


class Router:
    """Holds the snapshot in force. ``swap`` replaces it whole; requests in flight keep the one they began with."""

    __slots__ = ("_frozen", "_reading_bodies", "_table", "overrides", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.overrides: Mapping[str, str] = {}
        self.swap(snapshot)

    def swap(self, snapshot: Snapshot) -> None:
        """Route by ``snapshot`` from the next request on."""
        table = RouteTable(snapshot.routes.values())
        self._reading_bodies = frozenset(name for name, route in snapshot.routes.items() if needs_body(route))
        self.snapshot, self._table = snapshot, table
        self._frozen = _decisions(snapshot, self.overrides)

    def freeze(self, overrides: Mapping[str, str]) -> list[str]:
        """Give each of these routes, by name, its one variant from the next request on, and the others their plans.

        What names no route, or no variant of it, changes nothing until a snapshot has it: these are returned.
        """
        self.overrides = overrides
        self._frozen = _decisions(self.snapshot, overrides)
        return [name for name in overrides if name not in self._frozen]

    def needs_body(self, route: Route) -> bool:
        """Return whether the body must be read before deciding; the route is one that ``match`` has just returned."""
        return route.name in self._reading_bodies

    def match(self, facts: Facts) -> Route | None:
        """Return the route that takes this request, or None; ``needs_body`` says whether to read its body first."""
        return self._table.find(facts)

    def route(
        self, route: Route, facts: Facts, request_id: str, body: object = MISSING, force: str | None = None
    ) -> Routing:
        """Decide for a request that matched ``route``.

        ``body`` is the JSON body as ``extract.decode_json`` returns it (UNREADABLE if it is not JSON), ignored unless
        ``needs_body(route)``. ``force`` is the variant a client asked for and was allowed to ask for: it
        answers alone and nothing is mirrored. Raises ValueError if it is not one of the route's variants; the message
        names those only if the route's answers name their variant.
        """
        unit = None if route.unit is None else reference(route.unit).identity(facts, body)
        key = None if route.key is None else reference(route.key).identity(facts, body)
        missing: tuple[str, ...] = ()
        if unit is None and route.unit is not None:
            missing = ("no_unit",)
        if key is None and route.key is not None:
            missing += ("no_key",)
        if route.features:
            features = _features(route, facts, body)
            if len(features) < len(route.features):
                missing += tuple(f"no_feature:{name}" for name, _ in route.features if name not in features)
            occasion = Occasion(route.salt, unit, request_id, features)
        else:
            occasion = Occasion(route.salt, unit, request_id)
        mirrored: tuple[str, ...] = ()
        forced = force is not None
        if self._frozen and (frozen := self._frozen_for(route)) is not None:
            decision, forced = frozen, True
        elif force is not None:
            decision = _forced(route, force)
        elif route.holdout_salt and unit is not None and _is_held_out(route, unit):
            decision = Decision((route.baseline,), (), 1.0, HOLDOUT)
        else:
            decision = route.plan.decide(occasion)
            mirrored = decision.mirrored
            if route.mirrors:
                mirrored += _mirrors(route, facts, occasion, decision)
        return Routing(route, occasion, decision, mirrored, key, missing, forced)

    def _frozen_for(self, route: Route) -> Decision | None:
        frozen = self._frozen.get(route.name)
        # A route that was matched in the snapshot before may not have the variant.
        return frozen if frozen is not None and frozen.answering[0] in route.variants else None


def needs_body(route: Route) -> bool:
    """Return whether unit, key or a feature is read from the body, so that it must be buffered before deciding."""
    return (
        _in_body(route.unit)
        or _in_body(route.key)
        or (bool(route.features) and any(_in_body(text) for _, text in route.features))
    )


def _in_body(text: str | None) -> bool:
    return text is not None and text.startswith("body:")


def _features(route: Route, facts: Facts, body: object) -> dict[str, object]:
    found = ((name, reference(text).read(facts, body)) for name, text in route.features)
    return {
        name: value
        for name, value in found
        if value is not MISSING and (type(value) not in (dict, list) or writable(value))
    }


def _mirrors(route: Route, facts: Facts, occasion: Occasion, decision: Decision) -> tuple[str, ...]:
    """Return the variants that the route's own mirrors add to those that the decision mirrors."""
    added: tuple[str, ...] = ()
    for mirror in route.mirrors:
        variant = mirror.variant
        if (
            variant not in decision.answering
            and variant not in decision.mirrored
            and (not mirror.methods or facts.method in mirror.methods)
            and is_copied(variant, mirror.share, occasion)
        ):
            added += (variant,)
    return added


def _is_held_out(route: Route, unit: str) -> bool:
    return chance(route.holdout_salt, unit, HOLDOUT) < route.holdout_share


def _decisions(snapshot: Snapshot, overrides: Mapping[str, str]) -> dict[str, Decision]:
    return {
        name: Decision((variant,), (), 1.0, FROZEN)
        for name, variant in overrides.items()
        if (route := snapshot.routes.get(name)) is not None and variant in route.variants
    }


def _forced(route: Route, variant: str) -> Decision:
    if variant not in route.variants:
        if not route.expose_variant:
            raise ValueError("the route has no such variant")
        names = ", ".join(f'"{name}"' for name in route.variants)
        raise ValueError(f"route {route.name} has the variants {names}")
    return Decision((variant,), (), 1.0, "forced")


__all__ = ["Backend", "Facts", "Metric", "Router", "Routing", "needs_body"]
