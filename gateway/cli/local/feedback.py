"""``turnout feedback``: import feedback from files, and list the feedback that was not joined."""

from __future__ import annotations

import typer

from gateway.cli.local.feedback_import import import_
from gateway.cli.remote.orphans import orphans
from gateway.cli.remote.set_aside import set_aside

feedback = typer.Typer(
    help="Import labels from files; list orphans and what was set aside.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
feedback.command("import")(import_)
feedback.command()(orphans)
feedback.command("set-aside")(set_aside)
