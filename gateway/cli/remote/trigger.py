"""``turnout trigger``: where triggers stand, when they would have fired, and a request to fire."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import console, print_json
from gateway.cli.remote.sink import show_rows
from gateway.moments import to_the_second

trigger = typer.Typer(help="List, test and fire triggers.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The trigger, as the file names it.")]


@trigger.command("list")
def list_(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the triggers: how often each fired, and what its conditions are."""
    found = _ask(context, config, "/api/v1/triggers")["triggers"]
    rows = [
        (
            one["name"],
            one["route"],
            one["variant"],
            str(one["fired"]),
            "–" if one["fired_ms"] is None else to_the_second(one["fired_ms"]),
            "; ".join(f"{each['kind']} {each['state']}" for each in one["conditions"]),
        )
        for one in found
    ]
    columns = ("trigger", "route", "variant", "fired", "last", "conditions")
    show_rows(found, columns, rows, "the file has no triggers", as_json=as_json)


@trigger.command()
def fire(
    context: typer.Context,
    name: NameArgument,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="What to say of it in the event and the log.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a trigger fire within seconds, whatever its conditions are."""
    from gateway.cli.remote.report import asking, value_of

    path = chosen(context, config)
    gateway = configuration(path).gateway
    where = f"/api/v1/triggers/{quote(name, safe='')}/fire"
    with asking(gateway, path, "POST", where, json={"why": why}) as answer:
        found = value_of(answer, gateway)
    if as_json:
        print_json(found)
    else:
        typer.echo(f"trigger {name} fires within seconds; turnout events shows it")


@trigger.command("test")
def on_history(
    context: typer.Context,
    name: NameArgument,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help='How far back, as in "30d".')] = "30d",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say when a trigger would have fired, by the hours and days that are kept."""
    from gateway.cli.output import fail
    from router.config.spellings import duration_ms

    try:
        since_ms = time.time_ns() // 1_000_000 - duration_ms(since)
    except ValueError as error:
        raise fail(f"--since {error}", code=2) from None
    where = f"/api/v1/triggers/{quote(name, safe='')}/test?since={max(since_ms, 0)}"
    found = _ask(context, config, where)
    if as_json:
        print_json(found)
        return
    out = console()
    if found["without_history"]:
        kinds = ", ".join(found["without_history"])
        out.print(f"nothing is kept of the past of: {kinds}; here they are never met")
    if found["unknown"]:
        out.print("so it cannot be said when the trigger would have fired")
        return
    rows = [(to_the_second(one["at_ms"]), one["version"], one["why"]) for one in found["fired"]]
    show_rows(rows, ("would have fired", "version", "why"), rows, "it would not have fired", as_json=False)


def _ask(context: typer.Context, config: Any, where: str) -> dict[str, Any]:
    from gateway.cli.remote.report import ask

    path = chosen(context, config)
    return ask(configuration(path).gateway, where, path)
