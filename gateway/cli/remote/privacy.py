"""``turnout privacy``: show or erase the data of a person, as they may ask the operator to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import print_json

if TYPE_CHECKING:
    import httpx

    from router.snapshot import Gateway

#: The journal is drained first, and SQLite's file is written anew: a large one takes minutes.
ERASE_SECONDS: Final = 3_600.0

privacy = typer.Typer(help="Erase or show what is kept of a unit.", no_args_is_help=True, rich_markup_mode=None)

UnitOption = Annotated[str, typer.Option("--unit", metavar="UNIT", help="The unit, as requests carry it.")]
UnitsOption = Annotated[
    list[str], typer.Option("--unit", metavar="UNIT", help="The unit, as requests carry it. May be given again.")
]


@privacy.command()
def erase(context: typer.Context, unit: UnitsOption, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Erase everything that is kept of a unit.

    Its predictions, feedback and bodies, in the journal and in the store, under its own name and under each key of
    unit_key_file. Numbers do not change: what it adds to them goes on without a name. Asks the running gateway, which
    writes its SQLite store anew; give --unit several times to do that once.
    """
    from gateway.cli.remote.report import value_of

    with _asked(context, config, "erase", unit) as (answer, gateway):
        erased = value_of(answer, gateway)
    if as_json:
        print_json(erased)
        return
    typer.echo(", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in erased.items()) + " erased")


@privacy.command()
def export(context: typer.Context, unit: UnitOption, config: ConfigOption = None) -> None:
    """Print everything that is stored of a unit, as JSON Lines.

    Its predictions with their feedback and outcomes, when it came first, and what it adds to each tally. What is not
    recorded yet is not shown.
    """
    with _asked(context, config, "export", [unit]) as (answer, _):
        for line in answer.iter_lines():
            sys.stdout.write(f"{line}\n")


@contextmanager
def _asked(
    context: typer.Context, config: Any, what: str, units: list[str]
) -> Iterator[tuple[httpx.Response, Gateway]]:
    """Send a request to the admin API; exits with a sentence if it is refused."""
    from gateway.cli.remote.report import asking

    path = chosen(context, config)
    gateway = configuration(path).gateway
    with asking(
        gateway, path, "POST", f"/api/v1/privacy/{what}", seconds=ERASE_SECONDS, json={"units": units}
    ) as answer:
        yield answer, gateway
