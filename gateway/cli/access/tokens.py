"""``turnout token``: make, list and revoke named tokens."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import console, fail, print_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from router.snapshot import Gateway

token = typer.Typer(
    help="Named tokens: make, list and revoke them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NameOption = Annotated[str, typer.Option("--name", metavar="N", help="Whose it is: what the audit log shows.")]


@token.command()
def create(
    context: typer.Context,
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            metavar="S",
            help="feedback: on the data port alone. read: see everything. operate: act on routes. admin: everything.",
        ),
    ],
    name: NameOption,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="D", help="After how long it is refused, as in 90d.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, this once: only its hash is kept.

    In force at every node within two seconds. Works on the store; a SQLite store that a running gateway has open is
    changed through its admin port.
    """
    from gateway.store import tokens
    from router.config.spellings import duration_ms

    path = chosen(context, config)
    gateway = configuration(path).gateway
    now_ms = time.time_ns() // 1_000_000
    try:
        expires_ms = None if expires is None else now_ms + duration_ms(expires)
    except ValueError as error:
        raise typer.BadParameter(str(error), context, param_hint="--expires") from None

    async def make(connection: AsyncConnection) -> dict[str, Any]:
        made = await tokens.create(
            connection, name=name, scope=scope, expires_ms=expires_ms, who=_who(), via="cli", now_ms=now_ms
        )
        return {"token": made.token, **made.row.shown(now_ms)}

    given = {"name": name, "scope": scope} | ({} if expires is None else {"expires": expires})
    made = _changed(gateway, path, make, "POST", "/api/v1/tokens", json=given)
    if as_json:
        print_json(made)
        return
    typer.echo(made["token"])
    until = "until it is revoked" if made["expires_ms"] is None else f"until {_moment(made['expires_ms'])}"
    typer.echo(f'"{name}" may {_MAY[made["scope"]]} {until}. The token is not shown again.', err=True)
    if not _asked_for(gateway, made["scope"]):
        key = "feedback_token_required" if made["scope"] == "feedback" else "admin_token_required"
        typer.echo(f"Without {key} = true in [gateway] no token is asked for.", err=True)


@token.command("list")
def list_tokens(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the tokens: how each begins, its scope, its state, and the minute of its last use.

    Read from the store, beside a running gateway or without one.
    """
    from gateway.store import StoreError, password_in, tokens
    from gateway.store.beside import reading

    gateway = configuration(chosen(context, config)).gateway
    now_ms = time.time_ns() // 1_000_000

    async def run() -> list[dict[str, Any]]:
        password = password_in(gateway.store_password_file)
        async with reading(gateway.store, Path(gateway.data_dir), password) as connection:
            return [one.shown(now_ms) for one in await tokens.listed(connection)]

    try:
        found = asyncio.run(run())
    except StoreError as error:
        raise fail(str(error)) from None
    if as_json:
        print_json(found)
        return
    out = console()
    if not found:
        out.print("there are no named tokens")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "scope", "state", "begins with", "made", "by", "expires", "last used"):
        table.add_column(title, no_wrap=True)
    for one in found:
        moments = [_moment(one[key]) if one[key] is not None else "never" for key in ("expires_ms", "used_ms")]
        made, (expires, used) = _moment(one["made_ms"]), moments
        table.add_row(one["name"], one["scope"], one["state"], f"{one['prefix']}…", made, one["made_by"], expires, used)
    out.print(table)


@token.command()
def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The token's name.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a token: within two seconds every node refuses it."""
    from gateway.store import tokens

    path = chosen(context, config)
    gateway = configuration(path).gateway
    now_ms = time.time_ns() // 1_000_000

    async def run(connection: AsyncConnection) -> dict[str, Any]:
        return (await tokens.revoke(connection, name, who=_who(), via="cli", now_ms=now_ms)).shown(now_ms)

    revoked = _changed(gateway, path, run, "DELETE", f"/api/v1/tokens/{quote(name, safe='')}")
    if as_json:
        print_json(revoked)
    else:
        typer.echo(f'"{name}" ({revoked["prefix"]}…) is revoked')


def _changed(
    gateway: Gateway,
    path: Path,
    change: Callable[[AsyncConnection], Awaitable[dict[str, Any]]],
    method: str,
    where: str,
    **more: Any,
) -> dict[str, Any]:
    """Change the store, or have the running gateway do it that has it open; exits with 1 and a sentence."""
    from gateway.cli.remote.report import asking, value_of
    from gateway.files.private import keep_private
    from gateway.store import StoreError, password_in
    from gateway.store.beside import Locked, changing
    from gateway.store.tokens import TokenRefused

    keep_private()

    async def run() -> dict[str, Any]:
        password = password_in(gateway.store_password_file)
        async with changing(gateway.store, Path(gateway.data_dir), password) as connection:
            return await change(connection)

    try:
        return asyncio.run(run())
    except Locked:
        with asking(gateway, path, method, where, **more) as answer:
            return value_of(answer, gateway)
    except (StoreError, TokenRefused) as error:
        raise fail(str(error)) from None


def _who() -> str:
    from gateway.cli.remote.report import user

    return user() or "unknown"


def _moment(at_ms: int) -> str:
    from gateway.moments import to_the_second

    return to_the_second(at_ms)


def _asked_for(gateway: Gateway, scope: str) -> bool:
    if scope == "feedback":
        return gateway.feedback_token_file is not None or gateway.feedback_token_required
    return bool(gateway.admin_token_file or gateway.admin_token_required or gateway.trusted_user_header)


_MAY = {
    "feedback": "send feedback",
    "read": "read on the admin port",
    "operate": "read and act on routes",
    "admin": "do everything on the admin port",
}
