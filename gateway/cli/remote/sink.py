"""``turnout sink``: how webhooks were delivered, and what could not be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import console, print_json
from gateway.moments import to_the_second

if TYPE_CHECKING:
    from rich.table import Table

sink = typer.Typer(
    help="Show how webhooks were delivered, and what was given up.", no_args_is_help=True, rich_markup_mode=None
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The sink, as the file names it.")]


@sink.command("log")
def log_(context: typer.Context, name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the last tries to deliver a webhook's events, the newest first."""
    found = _get(context, config, name, "deliveries")["deliveries"]
    rows = [
        (
            to_the_second(one["at_ms"]),
            one["event"],
            "–" if one["status"] is None else str(one["status"]),
            f"{one['took_ms']} ms",
            one["why"] or "",
        )
        for one in found
    ]
    show_rows(found, ("at", "event", "status", "took", "what failed"), rows, "nothing was sent yet", as_json=as_json)


@sink.command()
def dead(context: typer.Context, name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the events of a webhook that were given up after a day, the oldest first."""
    found = _get(context, config, name, "dead")["dead"]
    rows = [
        (to_the_second(one["made_ms"]), one["event"], one["content"]["type"], str(one["tries"]), one["why"])
        for one in found
    ]
    show_rows(found, ("made", "event", "type", "tries", "the last one"), rows, "none was given up", as_json=as_json)


@sink.command()
def replay(
    context: typer.Context,
    name: NameArgument,
    event: Annotated[
        list[str] | None, typer.Option("--event", metavar="ID", help="Only this event. May be given again.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send events again that were given up, each with its id as before."""
    answer = _post(context, config, name, "replay", {"json": {"events": event}} if event else {})
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"{answer['replayed']} events are sent again")


@sink.command()
def enable(
    context: typer.Context, name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Send to a webhook again whose receiver answered 410, which disabled it."""
    answer = _post(context, config, name, "enable", {})
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"sinks.{name} is sent to again" if answer["was_disabled"] else f"sinks.{name} was not disabled")


def _get(context: typer.Context, config: Any, name: str, what: str) -> dict[str, Any]:
    from gateway.cli.remote.report import ask

    path = chosen(context, config)
    return ask(configuration(path).gateway, f"/api/v1/sinks/{quote(name, safe='')}/{what}", path)


def _post(context: typer.Context, config: Any, name: str, what: str, more: dict[str, Any]) -> dict[str, Any]:
    from gateway.cli.remote.report import asking, value_of

    path = chosen(context, config)
    gateway = configuration(path).gateway
    with asking(gateway, path, "POST", f"/api/v1/sinks/{quote(name, safe='')}/{what}", **more) as answer:
        return value_of(answer, gateway)


def show_rows(
    found: list[Any], columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], nothing: str, *, as_json: bool
) -> None:
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(_table(columns, rows, boxed=out.is_terminal) if rows else nothing)


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, boxed: bool) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if boxed else None, pad_edge=False, header_style="dim", show_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
