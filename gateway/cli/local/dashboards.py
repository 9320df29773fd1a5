"""``turnout dashboards``: write the files by which Grafana and Prometheus show this program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.output import fail

dashboards = typer.Typer(help="Grafana dashboard and Prometheus alerts.", no_args_is_help=True)


@dashboards.callback()
def _family() -> None:
    """Without a callback, typer would make the only command the family itself."""


@dashboards.command()
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is missing; files there are replaced.")],
) -> None:
    """Write them into a folder, with an example configuration of Prometheus."""
    from gateway.dashboards import export as write

    try:
        for path in write(directory):
            typer.echo(str(path))
    except OSError as error:
        raise fail(f"{error.filename or directory}: {error.strerror or error}") from None
