"""``turnout config show``: the policies of the file, or with --effective those in force, with what was done by hand.

Rule: it prints TOML that can be put into the file. What a person did, or a guardrail, and what therefore differs from
the file stands in comments above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import typer

from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import print_json

config = typer.Typer(help="What the file says, and what is in force.", no_args_is_help=True, rich_markup_mode=None)

#: A share that is nearer to 1 than this is everything.
_NEARLY: Final = 1e-9


@config.callback()
def _group() -> None:
    """Keep ``show`` a command of its own."""


@config.command()
def show(
    context: typer.Context,
    effective: Annotated[
        bool, typer.Option("--effective", help="As the running gateway has it, with what was done by hand.")
    ] = False,
    file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print each route's policy, as it can be put into the file.

    With --effective it asks the running gateway: a route that was frozen, rolled back, promoted or has a variant taken
    out is printed with the policy that does the same by itself, and above it who did what and why.
    """
    import tomllib

    from gateway.cli.remote.report import ask

    path = chosen(context, file)
    read = configuration(path)
    routes: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))["routes"]
    policies = {name: route["policy"] for name, route in routes.items()}
    found = ask(read.gateway, "/api/v1/config", path) if effective else None
    shown = {name: in_line(name, policy, found) for name, policy in policies.items()}
    if as_json:
        print_json({name: {"policy": policy, "by_hand": said} for name, (policy, said) in shown.items()})
        return
    for name, (policy, said) in shown.items():
        for sentence in said:
            typer.echo(f"# {sentence}")
        typer.echo(f"[routes.{_key(name)}.policy]")
        for key, value in policy.items():
            typer.echo(f"{_key(key)} = {_toml(value)}")
        typer.echo()
    for line in filled(found):
        typer.echo(line)


def filled(found: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the lines of the versions in slots: as they would stand in the backends' tables."""
    if found is None:
        return
    for name, slot in found["slots"].items():
        yield f"# {slot['who'] or 'somebody'} filled the slot; these two in the file do the same"
        yield f"[backends.{_key(name)}]"
        yield f"url = {_toml(found['backends'][name]['urls'][0])}"
        yield f"version = {_toml(slot['version'])}"
        yield ""


def in_line(
    name: str, policy: Mapping[str, Any], found: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], list[str]]:
    """Return a route's policy as it is in force, and what was done to it, in sentences; ``found`` is the API's answer.

    >>> in_line("r", {"kind": "ab"}, {"routes": {}, "overrides": {"r": {"to": "v1", "who": "ann", "why": ""}}})[0]
    {'kind': 'single', 'variant': 'v1'}
    """
    if found is None:
        return policy, []
    said = list[str]()
    override, route = found["overrides"].get(name), found["routes"].get(name)
    if route is not None and (standing := route["standing"]):
        said += _standing(standing)
        if standing.get("state") in ("rolled_back", "done") or standing.get("held"):
            policy = _as_shares(route, policy, said)
    elif route is None and override is None:
        said.append("the running gateway has no such route")
    if override is not None and override["to"] is not None:
        why = f": {override['why']}" if override["why"] else ""
        said.append(f"frozen to {override['to']} by {override['who'] or 'somebody'}{why}; `turnout unfreeze` ends that")
        policy = {"kind": "single", "variant": override["to"]}
    return policy, said


def _standing(standing: Mapping[str, Any]) -> Iterator[str]:
    state, hand = standing.get("state", "running"), standing.get("detail", {}).get("by_hand")
    if hand:
        yield f"{hand['who']} did by hand: {hand['verb']}"
    if state != "running":
        yield f"it is {state.replace('_', ' ')}; `turnout resume` or `turnout restart` goes on"
    elif standing.get("step"):
        yield f"it is at step {standing['step'] + 1} of its own"
    for variant, how in standing.get("held", {}).items():
        yield f"{variant} gets {'nothing' if how == 'out' else 'the least share'}"


def _as_shares(route: Mapping[str, Any], policy: Mapping[str, Any], said: list[str]) -> Mapping[str, Any]:
    """Return the policy that gives each variant the share that it has; the file's own if none can."""
    shares: Mapping[str, float] = route["shares"]
    [(most, share)] = sorted(shares.items(), key=lambda one: -one[1])[:1]
    if abs(share - 1) <= _NEARLY:
        return {"kind": "single", "variant": most}
    if abs(sum(shares.values()) - 1) > _NEARLY or route["plan"]["plan"] != "weighted":
        said.append("no other policy does the same: this is what the file says")
        return policy
    said.append(f'it needs baseline = "{route["baseline"]}" in the route')
    kept = {name: share for name, share in shares.items() if share > 0}
    return {"kind": "ab", "shares": kept, **({} if route["plan"]["sticky"] else {"sticky": False})}


def _key(name: str) -> str:
    return name if name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name) else _toml(name)


def _toml(value: Any) -> str:
    """Return a value as TOML writes it, on one line."""
    import orjson

    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(content)}" for key, content in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool | int | float):
        return orjson.dumps(value).decode()
    return orjson.dumps(str(value)).decode()  # a basic string of TOML, but for DEL, which no setting holds
