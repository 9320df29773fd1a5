"""Config and plans as one immutable value, which the controller publishes and every worker routes by.

Rule: plain frozen values, no behaviour beyond encoding. Secrets never enter: ``request_headers`` keeps its
references unresolved (``router.settings.placeholders``) and tokens stay in the files that ``Gateway`` names; a worker
resolves both when it swaps. Of the assignment key there are only its name and the salts that were hashed with it
(``router.assignment``). A route is one flat JSON object; what older releases wrote is still read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import orjson

from policies.plans import decode_plan, encode_plan
from policies.rollouts.standing import START, Standing, decode_standing, encode_standing
from policies.types import Plan
from router.settings.backend import Backend, ClientErrors
from router.settings.declared import DeclaredTest, Guardrail
from router.settings.gateway import NEW_UNITS, Gateway
from router.settings.metric import Metric
from router.settings.route import Capture, KeyRule, RouteMirror, RouteSettings
from router.settings.sink import EventType, Sink
from router.settings.slots import Filled, VersionSlot
from router.settings.tokens import NamedToken

__all__ = [
    "NEW_UNITS",
    "Backend",
    "Capture",
    "ClientErrors",
    "DeclaredTest",
    "EventType",
    "Gateway",
    "Guardrail",
    "KeyRule",
    "Metric",
    "NamedToken",
    "Route",
    "RouteMirror",
    "Sink",
    "Snapshot",
    "decode",
    "encode",
]

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(RouteSettings):
    """What a path serves, with the plan in force.

    ``variants`` are the policy's, mirrors of the route's own not included. ``epoch`` is the hash within which
    statistics may be added up, ``period`` the Unix time in milliseconds at which the present shares were set,
    ``revision`` the snapshot revision at which ``plan`` last changed. ``by_unit`` says that units, not requests,
    are what is counted. ``settings`` is the hash of the policy's own settings: when it changes, the period ends.
    ``salt`` is hashed with the unit to choose: the file's salt hashed with the assignment key, or itself without a key.
    ``carried`` is an identity (``router.compile``) and the name under which the program before had its epoch: that of
    the upgrade goes on under its name, and is resumed under it. ``assigned`` is the period since which the salt is this
    one; 0: from the beginning. ``holdout_salt`` is hashed with the unit for the holdout; "": the route has none.
    ``standing`` is where the route stands that moves by itself or by hand.
    """

    policy: str
    salt: str
    epoch: str
    period: int
    revision: int
    plan: Plan
    variants: tuple[str, ...]
    by_unit: bool
    settings: str = ""
    carried: tuple[str, str] | None = None
    assigned: int = 0
    holdout_salt: str = ""
    standing: Standing = START


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One revision of everything a worker needs, with which the controller continues too while the file is invalid.

    ``config`` is the hash of the operator's file, as parsed, with the filled ``slots`` laid over it, and ``assignment``
    the name of the assignment key ("": none). The two determine everything but the plans and ``tokens``, those that are
    valid beside those in files.
    """

    revision: int
    config: str
    gateway: Gateway = field(default_factory=Gateway)
    backends: Mapping[str, Backend] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    sinks: Mapping[str, Sink] = field(default_factory=dict)
    assignment: str = ""
    tokens: tuple[NamedToken, ...] = ()
    slots: Mapping[str, Filled] = field(default_factory=dict)

    @property
    def source(self) -> tuple[str, str]:
        """What the snapshot was made of: two with the same source differ in their plans alone."""
        return self.config, self.assignment


def encode(snapshot: Snapshot) -> bytes:
    """Return the snapshot as JSON; ``decode`` is the inverse."""
    return orjson.dumps(
        {
            "format": FORMAT,
            "revision": snapshot.revision,
            "config": snapshot.config,
            "assignment": snapshot.assignment,
            "gateway": snapshot.gateway,
            "backends": list(snapshot.backends.values()),
            "metrics": list(snapshot.metrics.values()),
            "routes": [_encode_route(route) for route in snapshot.routes.values()],
            "sinks": list(snapshot.sinks.values()),
            "tokens": snapshot.tokens,
            "slots": dict(snapshot.slots),
        },
        option=orjson.OPT_INDENT_2,
    )


#: For each route the JSON in the last snapshot, and the route that was made of it.
KnownRoutes = dict[str, tuple[dict[str, Any], Route]]


def decode(data: bytes, known: KnownRoutes | None = None) -> Snapshot:
    """Return the snapshot that ``encode`` wrote.

    ``known`` has the routes of the snapshot before, and is updated to those of this one: a route whose JSON is the same
    is not made again. A bandit changes one plan of perhaps hundreds every second, and the worker that decodes it
    answers requests meanwhile.

    Raises ValueError if the bytes are not JSON, or were written by another format of this program.
    """
    try:
        value = orjson.loads(data)
        if value["format"] != FORMAT:
            raise ValueError(f"snapshot format {value['format']} is not {FORMAT}")
        return Snapshot(
            revision=value["revision"],
            config=value["config"],
            gateway=Gateway(**_tuples(value["gateway"])),
            backends={b["name"]: _backend(b) for b in value["backends"]},
            metrics={m["name"]: Metric(**_tuples(m)) for m in value["metrics"]},
            routes=_decode_routes(value["routes"], {} if known is None else known),
            sinks={s["name"]: Sink(**_tuples(s)) for s in value.get("sinks", ())},
            assignment=value.get("assignment", ""),
            slots={name: Filled(**filled) for name, filled in value.get("slots", {}).items()},
            tokens=tuple(NamedToken(**token) for token in value.get("tokens", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a snapshot: {error!r}") from error


def _encode_route(route: Route) -> dict[str, Any]:
    planned = {"plan": encode_plan(route.plan), "standing": encode_standing(route.standing)}
    return {f.name: getattr(route, f.name) for f in fields(route)} | planned


def _decode_routes(said: list[dict[str, Any]], known: KnownRoutes) -> dict[str, Route]:
    fresh: KnownRoutes = {}
    for value in said:
        before = known.get(value["name"])
        fresh[value["name"]] = before if before is not None and before[0] == value else (value, _decode_route(value))
    known.clear()
    known.update(fresh)
    return {name: route for name, (_, route) in fresh.items()}


def _decode_route(said: Mapping[str, Any]) -> Route:
    value = dict(said)
    plan, standing = decode_plan(value.pop("plan")), decode_standing(value.pop("standing", {}))
    mirrors = tuple(RouteMirror(**_tuples(mirror)) for mirror in value.pop("mirrors"))
    captured = value.pop("capture", None)
    capture = None if captured is None else Capture(**_tuples(captured))
    declared = value.pop("test", None)
    test = None if declared is None else DeclaredTest(**declared)
    guardrails = tuple(Guardrail(**one) for one in value.pop("guardrails", ()))
    return Route(
        **_tuples(value),
        plan=plan,
        standing=standing,
        mirrors=mirrors,
        capture=capture,
        test=test,
        guardrails=guardrails,
    )


def _backend(said: Mapping[str, Any]) -> Backend:
    slot = said.get("slot")
    return Backend(**_tuples(said) | {"slot": None if slot is None else VersionSlot(**_tuples(slot))})


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with JSON arrays as tuples, and arrays in them too."""
    return {name: _tuple(content) if isinstance(content, list) else content for name, content in value.items()}


def _tuple(items: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(item) if isinstance(item, list) else item for item in items)
