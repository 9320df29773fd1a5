"""``turnout db``: show the version of the store's tables, and bring them up to this program's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gateway.cli.exits import PROBLEM
from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import fail, print_json

if TYPE_CHECKING:
    from router.snapshot import Gateway

db = typer.Typer(help="The tables of the store and their version.", no_args_is_help=True)


@db.command()
def status(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say which version the tables have, and which one this program uses.

    Looks beside a running gateway and changes nothing. Exits with 1 unless the tables are up to date.
    """
    from gateway.store import StoreError, password_in
    from gateway.store.inspect import inspect_store
    from gateway.store.schema import migrations

    gateway = configuration(chosen(context, config)).gateway
    try:
        password = password_in(gateway.store_password_file)
        found = asyncio.run(inspect_store(gateway.store, Path(gateway.data_dir), password=password))
    except StoreError as error:
        raise fail(str(error)) from None
    steps = migrations.due(found.version)
    if as_json:
        print_json(
            {
                "store": gateway.store,
                "state": found.state,
                "version": found.version,
                "program": migrations.VERSION,
                "size_bytes": found.size_bytes,
                "partitions": list(found.partitions),
                "steps": [{"version": version, "what": what} for version, what in steps],
            }
        )
    else:
        typer.echo(f"store     {_where(gateway)}, {found.size_bytes / 2**20:.1f} MiB")
        typer.echo(f"schema    {_SAID[found.state].format(found=found.version, known=migrations.VERSION)}")
        for version, what in steps:
            typer.echo(f"step {version:4} {what}")
        if found.partitions:
            typer.echo(f"days      {len(found.partitions)}: {found.partitions[0]} to {found.partitions[-1]}")
    raise typer.Exit(0 if found.state == "current" else PROBLEM)


@db.command()
def migrate(context: typer.Context, config: ConfigOption = None) -> None:
    """Make the tables, or bring them up to date.

    `turnout serve` does the same when it opens the store; this does it beforehand. A SQLite store must not be open in
    a running gateway. On PostgreSQL, programs that do it at the same moment wait for each other.
    """
    from gateway.files.private import keep_private
    from gateway.process.premises import running_supervisor
    from gateway.store import Store, StoreError, password_in

    keep_private()
    gateway = configuration(chosen(context, config)).gateway

    async def run() -> None:
        password = password_in(gateway.store_password_file)
        store = await Store.open(gateway.store, Path(gateway.data_dir), password=password)
        await store.close()
        before, after = store.migrated
        done = "made" if before is None else f"brought from {before} up" if before < after else "up to date"
        typer.echo(f"{_where(gateway)}: schema version {after}, {done}")

    try:
        asyncio.run(run())
    except StoreError as error:
        running = running_supervisor(Path(gateway.data_dir)) is not None
        raise fail(str(error), "turnout serve brings the tables up to date itself" if running else None) from None


_SAID = {
    "empty": "none yet; this program makes version {known}: turnout db migrate",
    "behind": "version {found}, this program speaks {known}: turnout db migrate",
    "current": "version {found}, up to date",
    "newer": "version {found}, but this program speaks {known}: run the newer program",
}


def _where(gateway: Gateway) -> str:
    return f"{Path(gateway.data_dir) / 'turnout.db'}" if gateway.store == "sqlite" else gateway.store
