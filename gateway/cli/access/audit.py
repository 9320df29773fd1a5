"""``turnout audit``: show the log of who did what, and check that nobody has altered it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway.cli.exits import PROBLEM
from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import console, fail, print_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from router.snapshot import Gateway

T = TypeVar("T")

audit = typer.Typer(help="The log of who did what: acts, edits, tokens.", no_args_is_help=True)


@audit.command("list")
def list_entries(
    context: typer.Context,
    route: Annotated[str | None, typer.Option("--route", metavar="R", help="Only entries of this route.")] = None,
    act: Annotated[str | None, typer.Option("--act", metavar="A", help="Only entries of this act.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most this many, the newest first.")] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the entries: who, when, how it was asked for, what changed and why.

    Read from the store, beside a running gateway or without one.
    """
    from gateway.store import audit as log

    gateway = configuration(chosen(context, config)).gateway
    found = _read(gateway, lambda connection: log.listed(connection, limit, route=route, act=act))
    if as_json:
        print_json([one.shown for one in found])
        return
    out = console()
    if not found:
        out.print("nothing was done yet")
        return
    for one in found:
        _print(out, one.shown)


@audit.command()
def verify(
    context: typer.Context,
    heads: Annotated[
        list[str] | None,
        typer.Option("--head", metavar="NUMBER:HASH", help="An entry that was known: the log must contain it."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check each entry against the one before, and the last against what this node knows of the log.

    Names the first entry that does not fit, and exits with 1. Whoever can write the store and data_dir can write the
    whole log anew: keep the head that this prints somewhere else, and give it with --head. A sink that gets act events
    keeps what was done.
    """
    from gateway.store import audit as log

    gateway = configuration(chosen(context, config)).gateway
    known = [log.read_head(Path(gateway.data_dir) / log.HEAD_FILE)]
    for one in heads or ():
        try:
            known.append(log.head_of(one))
        except ValueError as error:
            raise typer.BadParameter(str(error), context, param_hint="--head") from None
    found = _read(gateway, lambda connection: log.verify(connection, known))
    if as_json:
        print_json({"ok": found.wrong is None, **found._asdict(), "head": str(found.head)})
    elif found.wrong is None:
        typer.echo(f"{found.entries:,} entries, each fits the one before; the last is {found.head}")
    else:
        typer.echo(f"turnout: error: {found.wrong}", err=True)
        typer.echo(f"  {found.entries:,} entries before it fit", err=True)
    raise typer.Exit(0 if found.wrong is None else PROBLEM)


def _read(gateway: Gateway, ask: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Return an answer of the store; exits with 1 and a sentence if there is none."""
    from gateway.store import StoreError, password_in
    from gateway.store.beside import reading

    async def run() -> T:
        password = password_in(gateway.store_password_file)
        async with reading(gateway.store, Path(gateway.data_dir), password) as connection:
            return await ask(connection)

    try:
        return asyncio.run(run())
    except StoreError as error:
        raise fail(str(error)) from None


def _print(out: Any, one: dict[str, Any]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from gateway.moments import to_the_second

    about = f"{one['route']}: " if one["route"] else ""
    why = f" ({one['why']})" if one["why"] else ""
    said = f"{about}{one['changed']}{why}, by {one['who']} ({one['via']})"
    number = Text(f"{one['number']:>6}")
    out.print(number, Text(to_the_second(one["at_ms"]), style="dim"), Text(one["act"], style="bold"), Text(said))
    diff = one["body"].get("diff") if isinstance(one["body"], dict) else None
    for line in diff or ():
        out.print(Padding(Text(str(line)), (0, 0, 0, 4), expand=False))
