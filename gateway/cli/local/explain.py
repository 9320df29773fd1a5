"""``turnout explain``: which variant a unit meets on a route, why, and with what probability.

Rule: it decides with the same plan and the same function as workers do, and sends nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.cli.options import ConfigOption, JsonOption, RouteArgument, RouteOption, chosen, configuration, one_route
from gateway.cli.output import console, fail, print_json

if TYPE_CHECKING:
    from router.config.config import Config
    from router.snapshot import Route, Snapshot

#: Requests tried to see whether their variants differ. A share of 1 % occurs among so many 98 times in 100.
TRIED: Final = 400


def explain(
    context: typer.Context,
    unit: Annotated[str, typer.Option("--unit", metavar="U", help="The unit, as the route's requests carry it.")],
    route: RouteArgument = None,
    option: RouteOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which variant a unit meets, and why.

    By the published plan if it is of this configuration, else by the plan that the file makes without evidence.
    """
    route = one_route(context, route, option)
    if route is None:
        raise typer.BadParameter("name a route", context, param_hint="ROUTE")
    read = configuration(chosen(context, config))
    if route not in read.routes:
        from gateway.nearest import unknown

        raise fail(unknown("route", route, read.routes))
    snapshot, published = plans(read)
    found = explained(snapshot.routes[route], unit, assigned=published or is_assigned(read, snapshot)) | {
        "plan": {"source": "published" if published else "configuration", "revision": snapshot.routes[route].revision},
        "frozen": _frozen(Path(read.gateway.data_dir), route) if published else None,
    }
    if as_json:
        print_json(found)
        return
    out = console()
    if found["frozen"] is not None:
        out.print(f"{'frozen':<12}every request goes to {found['frozen']}, until `turnout unfreeze`; without that:")
    for name, text in _lines(found):
        out.print(f"{name:<12}{text}")


def plans(config: Config) -> tuple[Snapshot, bool]:
    """Return the published snapshot and True if it is of this configuration; else plans without evidence and False.

    Exits with 1 if units would be assigned by a key that cannot be read here.
    """
    from gateway.files.assignment_key import KeyUnusable, find
    from gateway.files.published import SNAPSHOT
    from gateway.files.regular import read_regular
    from policies.types import Evidence
    from router.compile import compile_snapshot
    from router.snapshot import decode

    data_dir, published = Path(config.gateway.data_dir), None
    try:
        published = decode(read_regular(data_dir / SNAPSHOT))
        if published.config == config.hash:
            return published, True
    except (FileNotFoundError, ValueError):
        pass
    except OSError as error:
        hint = "ask as the user that turnout serve runs as"
        raise fail(f"{data_dir} cannot be read: {error.strerror}", hint) from None
    try:
        key = find(config.gateway, data_dir, published)
    except KeyUnusable as error:
        raise fail(f"which variant a unit meets is decided with a key: {error}") from None
    made = compile_snapshot(config, previous=None, evidence=lambda *_: Evidence(), now_ms=0, revision=0, key=key)
    return made, False


def _frozen(data_dir: Path, route: str) -> str | None:
    """Return the variant that the route is frozen to on this node; None if it is not, or that cannot be read."""
    from gateway.files.overrides import frozen, read_overrides

    try:
        return frozen(read_overrides(data_dir)).get(route)
    except (OSError, ValueError):  # workers say what is wrong with the file
        return None


def is_assigned(config: Config, snapshot: Snapshot) -> bool:
    """Return whether the assignment of units is known: by a key, or without one in an older installation."""
    from gateway.files.assignment_key import is_older

    return bool(snapshot.assignment) or is_older(Path(config.gateway.data_dir))


def explained(route: Route, unit: str, *, assigned: bool = True) -> dict[str, Any]:
    """Return what the plan decides for a unit, as plain JSON values.

    ``mirrored`` are the variants that get a copy of each of its requests. ``variant`` is None if it differs from
    request to request: then ``shares`` are its probabilities. They are too, and ``assigned`` is False, if the variant
    depends on a key that is not made yet.
    """
    from policies.plans import Mirror
    from policies.types import Occasion
    from router.extract import identifier

    # The unit of such a request; with an empty header the request itself is the unit.
    carried = identifier(unit) if route.unit is not None and unit else None
    occasions = [
        Occasion(route.salt if assigned else f"unknown-{index}", carried, f"explained-{index}")
        for index in range(TRIED)
    ]
    decisions = [route.plan.decide(occasion) for occasion in occasions]
    first = decisions[0]
    certain = len({one.answering for one in decisions}) == 1 and first.reason != "request"
    unknown = not (certain or assigned or first.reason == "request")
    always = set(first.mirrored).intersection(*(one.mirrored for one in decisions))
    for mirror in route.mirrors:
        if all(Mirror(mirror.variant, mirror.share).takes(occasion) for occasion in occasions):
            always.add(mirror.variant)
    return {
        "route": route.name,
        "policy": route.policy,
        "unit": unit,
        "unit_from": route.unit,
        "per_request": not (certain or unknown),
        "assigned": not unknown,
        "variant": first.answering[0] if certain and len(first.answering) == 1 else None,
        "answering": list(first.answering) if certain else [],
        "reason": first.reason,
        "probability": first.propensity if certain else None,
        "mirrored": sorted(always - set(first.answering)) if certain else [],
        "shares": dict(route.plan.shares),
    }


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("route", f"{found['route']} ({found['policy']})"), ("unit", _unit(found))]
    if found["per_request"]:
        lines += [("variant", "differs from request to request"), ("probability", _shares(found))]
    elif not found["assigned"]:
        lines += [("variant", "not decided yet"), ("probability", _shares(found))]
    elif found["variant"] is None:
        lines += [("variants", " and ".join(found["answering"])), ("probability", "1: all of them, every time")]
    else:
        lines += [("variant", found["variant"]), ("probability", f"{found['probability']:.6g}")]
    lines.append(("why", _why(found)))
    if found["mirrored"]:
        lines.append(("copies to", ", ".join(found["mirrored"])))
    plan = found["plan"]
    published = f"published, of revision {plan['revision']}"
    unpublished = "of the file as it stands, without evidence: nothing published is of this configuration"
    return [*lines, ("plan", published if plan["source"] == "published" else unpublished)]


def _unit(found: dict[str, Any]) -> str:
    if found["unit_from"] is None:
        return f"{found['unit']}, which this route does not look at: it names no unit"
    return f"{found['unit']}, as {found['unit_from']} would carry it"


def _shares(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {share:.2%}" for name, share in found["shares"].items())


def _why(found: dict[str, Any]) -> str:
    if not found["assigned"]:
        return "the unit's hash falls to it under the assignment key, which turnout serve makes when it first starts"
    if found["per_request"]:
        return "each request is a fresh chance"
    words = {
        "unit": "the unit's hash falls to it, and stays there while the shares stay",
        "only": "no other variant answers on this route",
        "draft": "every ranker answers, and their lists are merged with fresh coins at each request",
    }
    return words.get(found["reason"], str(found["reason"]))
