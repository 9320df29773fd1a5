"""Printing: to people with colours where there is a terminal, to programs as plain text or JSON.

Rule: results go to stdout, errors to stderr. Colours depend on the terminal, ``NO_COLOR`` and ``FORCE_COLOR``, as rich
reads them. Names from files and answers are printed as text, never as markup.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import typer

from gateway.cli.exits import PROBLEM

if TYPE_CHECKING:
    from rich.console import Console

    from router.config.diagnostics import Diagnostic

#: A file or a pipe has no width of its own. Wide enough that no row of a table is ever broken in two.
PLAIN_WIDTH: Final = 200


def console(*, err: bool = False) -> Console:
    """Return the console to print to: stdout, or stderr for errors."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=width is not None)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode())


def print_diagnostics(diagnostics: Iterable[Diagnostic], *, err: bool = False) -> None:
    """Print each problem with its line and caret, the severity and the caret in colour."""
    from rich.text import Text

    out = console(err=err)
    for one in diagnostics:
        colour = "red" if one.severity == "error" else "yellow"
        headline, *lines = str(one).split("\n")
        text = Text(headline, style="bold")
        text.highlight_words([f"{one.severity}:"], style=colour)
        out.print(text)
        for line in lines:
            marked = line.lstrip().startswith("|")
            out.print(Text(line, style=colour if marked else ""))


def fail(message: str, hint: str | None = None, *, code: int = PROBLEM) -> typer.Exit:
    """Print the error and a hint to stderr, and return the exception that ends the command: ``raise fail(…)``."""
    typer.echo(f"turnout: error: {message}", err=True)
    if hint is not None:
        typer.echo(f"  {hint}", err=True)
    return typer.Exit(code)
