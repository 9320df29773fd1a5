"""``turnout backup`` and ``turnout restore``: one installation in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.options import ConfigOption, chosen, configuration
from gateway.cli.output import fail

if TYPE_CHECKING:
    from gateway.bulk.archive import BackupSummary
    from router.snapshot import Gateway


def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it: a tar file that only you can read.")],
    config: ConfigOption = None,
) -> None:
    """Write all of an installation into one file.

    Beside a running gateway, or without one. It holds the store as it is at one moment, what of this node's journal is
    not in it yet, the assignment key and the other keys in data_dir, the node's name, and the plans in force. The
    configuration, and files that it names elsewhere, are the operator's to keep. It needs room for the store beside
    FILE.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from gateway.bulk.archive import BackupError, back_up
    from gateway.store import StoreError, password_in

    gateway = configuration(chosen(context, config)).gateway
    try:
        password = password_in(gateway.store_password_file)
        held = back_up(gateway.store, password, Path(gateway.data_dir), file)
    except (BackupError, StoreError, OSError, SQLAlchemyError) as error:
        raise fail(f"no backup was made: {error}") from None
    except Exception as error:  # whatever a database driver raises
        raise fail(f"no backup was made: the store cannot be read: {error}") from None
    _say(f"{file}: {file.stat().st_size / 2**20:,.1f} MiB", held, gateway)


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What turnout backup wrote.")],
    config: ConfigOption = None,
) -> None:
    """Put a backup where there is nothing yet.

    Into an empty data directory and, with PostgreSQL, an empty database or schema: nothing is replaced, and the gateway
    must not run. `turnout serve` then goes on from the moment of the backup.
    """
    import asyncio

    from sqlalchemy.exc import SQLAlchemyError

    from gateway.bulk.archive import BackupError
    from gateway.bulk.archive import restore as restored
    from gateway.process.premises import Unavailable
    from gateway.store import StoreError, password_in

    gateway = configuration(chosen(context, config)).gateway
    try:
        password = password_in(gateway.store_password_file)
        held = asyncio.run(restored(gateway.store, password, Path(gateway.data_dir), file))
    except (BackupError, StoreError, Unavailable, OSError, SQLAlchemyError) as error:
        raise fail(f"nothing was restored: {error}") from None
    _say(f"{gateway.data_dir}: restored", held, gateway)


def _say(what: str, held: BackupSummary, gateway: Gateway) -> None:
    from gateway.moments import to_the_second

    keys = ", ".join(held.keys) or "no key"
    typer.echo(f"{what}, the store as of {to_the_second(held.made_ms)}, {held.segments:,} journal segments, {keys}")
    named = gateway.assignment_key_file
    if named is not None:
        typer.echo(f"assignment_key_file is {named}, which a backup does not hold: keep it too", err=True)
