"""Options that several commands share, and reading the configuration that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gateway.cli.output import fail, print_diagnostics

if TYPE_CHECKING:
    from router.config.config import Config

DEFAULT: Final = Path("turnout.toml")
CONFIG_HELP: Final = "The configuration, before or after the command (turnout.toml)."

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help=CONFIG_HELP, show_default=False)
]
RouteArgument = Annotated[str | None, typer.Argument(metavar="ROUTE", help="The route.", show_default=False)]
RouteOption = Annotated[str | None, typer.Option("--route", metavar="R", help="The same.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print plain JSON and nothing else.")]


def chosen(context: typer.Context, given: Path | None) -> Path:
    """Return the configuration file: the one named after the command, else the one before it, else turnout.toml."""
    before = context.find_root().obj
    return given or (before if isinstance(before, Path) else None) or DEFAULT


def one_route(context: typer.Context, argument: str | None, option: str | None) -> str | None:
    """Return the route that is named as an argument or with ``--route``; None if neither is given."""
    if argument is not None and option is not None and argument != option:
        raise typer.BadParameter(
            f'is "{option}", and the route "{argument}" is named too', context, param_hint="--route"
        )
    return argument if option is None else option


def configuration(path: Path) -> Config:
    """Read the file for a command that does not serve: the secrets that the file names need not exist.

    Exits with 1 and every problem if it is not valid.
    """
    from router.config.config import ConfigError, load

    try:
        return load(path, secrets=False)
    except ConfigError as error:
        print_diagnostics(error.diagnostics, err=True)
        hint = None if path.exists() else "name the configuration with -c FILE"
        raise fail(f"{path} cannot be used", hint) from None
