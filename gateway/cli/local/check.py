"""``turnout check`` and ``turnout schema``: the problems of a configuration file, and the schema of all files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.exits import PROBLEM
from gateway.cli.options import ConfigOption, JsonOption, chosen
from gateway.cli.output import print_diagnostics, print_json

if TYPE_CHECKING:
    from router.config.config import Config
    from router.config.diagnostics import Diagnostic


def check(
    context: typer.Context,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    no_secrets: Annotated[
        bool, typer.Option("--no-secrets", help="Do not read the files and variables it refers to, as in CI.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings as well, as in CI.")] = False,
) -> None:
    """List every problem of the configuration.

    Each comes with its line and, where there is one, a remedy. Exits with 1 if there is a problem, with 0 if there are
    only warnings, unless --strict counts those as well. What the file refers to must be there, unless --no-secrets says
    to check the file alone.
    """
    from gateway.process.configuration import load
    from router.config.config import ConfigError
    from router.config.diagnostics import as_json as diagnostics_json

    path, valid = chosen(context, config), None
    try:
        valid = load(path, secrets=not no_secrets)
        found: Sequence[Diagnostic] = valid.warnings
    except ConfigError as error:
        found = error.diagnostics
    if as_json:
        print_json({"file": str(path), "ok": valid is not None, "diagnostics": diagnostics_json(found)})
    else:
        print_diagnostics(found)
        typer.echo(_counted(found) if valid is None else f"{path}: valid, {_holds(valid)}{_and_warnings(found)}")
    raise typer.Exit(PROBLEM if valid is None or (strict and found) else 0)


def schema() -> None:
    """Print the configuration's JSON Schema."""
    from router.config.schema import json_schema

    print_json(json_schema())


def _counted(found: Iterable[Diagnostic]) -> str:
    """ "2 problems and 1 warning"."""
    severities = [one.severity for one in found]
    problems = severities.count("error")
    return _number(problems, "problem") + _and_warnings_of(len(severities) - problems, " and ")


def _and_warnings(found: Sequence[Diagnostic]) -> str:
    return _and_warnings_of(len(found), "; ")


def _and_warnings_of(count: int, joint: str) -> str:
    return f"{joint}{_number(count, 'warning')}" if count else ""


def _holds(config: Config) -> str:
    counts = ((config.routes, "route"), (config.backends, "backend"), (config.metrics, "metric"))
    return ", ".join(_number(len(items), noun) for items, noun in counts)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
