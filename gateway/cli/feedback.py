"""``turnout feedback``: what is done with labels by the file."""

from __future__ import annotations

import typer

from gateway.cli.feedback_import import import_

feedback = typer.Typer(help="Bring in labels by the file.", no_args_is_help=True, rich_markup_mode=None)
feedback.command("import")(import_)
