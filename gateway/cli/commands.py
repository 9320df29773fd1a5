"""The ``turnout`` command: its commands, and the options before them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.access.audit import audit
from gateway.cli.access.tokens import token
from gateway.cli.local.assignment import assignment
from gateway.cli.local.backup import backup, restore
from gateway.cli.local.check import check, schema
from gateway.cli.local.dashboards import dashboards
from gateway.cli.local.db import db
from gateway.cli.local.doctor import doctor
from gateway.cli.local.explain import explain
from gateway.cli.local.feedback import feedback
from gateway.cli.local.freeze import freeze, unfreeze
from gateway.cli.local.journal import journal
from gateway.cli.local.serve import demo, serve
from gateway.cli.options import CONFIG_HELP
from gateway.cli.remote import acts
from gateway.cli.remote.config import config as config_commands
from gateway.cli.remote.events import events
from gateway.cli.remote.export import export
from gateway.cli.remote.power import power
from gateway.cli.remote.privacy import privacy
from gateway.cli.remote.report import report
from gateway.cli.remote.sink import sink
from gateway.cli.remote.trigger import trigger

HELP = """A gateway in front of model servers that learns which version is better.

Each request goes where a policy says: shadow, canary, A/B, interleaving, bandit. Feedback is joined when it comes."""

EXIT_CODES = (
    "Exit codes: 0 all is well · 1 a problem was found, or what was asked for is not there · 2 wrong usage · "
    "69 serve: address or data directory is taken · 78 serve: the configuration cannot be used · 130 interrupted"
)

app = typer.Typer(
    help=HELP,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"turnout {version('turnout')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help=CONFIG_HELP, show_default=False)
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before a command. ``-c`` may stand after it too, and then counts."""
    context.obj = config


COMMANDS = (serve, check, doctor, demo, report, power, events, explain, export, backup, restore, schema)
for command in (*COMMANDS, freeze, unfreeze):
    app.command()(command)
for act in acts.COMMANDS:
    app.command()(act)
app.add_typer(dashboards, name="dashboards")
app.add_typer(feedback, name="feedback")
app.add_typer(journal, name="journal")
app.add_typer(db, name="db")
app.add_typer(privacy, name="privacy")
app.add_typer(assignment, name="assignment")
app.add_typer(audit, name="audit")
app.add_typer(config_commands, name="config")
app.add_typer(sink, name="sink")
app.add_typer(token, name="token")
app.add_typer(trigger, name="trigger")
