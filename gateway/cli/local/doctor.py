"""``turnout doctor``: check whether machine, disk, clock and store are fit for the gateway."""

from __future__ import annotations

import typer

from gateway.cli.exits import PROBLEM
from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import console, print_json

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


def doctor(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look at the disk, the clock, the limits and the store.

    Changes nothing. Exits with 1 if something needs attention; what is only good to know is a note.
    """
    from rich.text import Text

    from gateway.process.environment import examine

    found = list(examine(configuration(chosen(context, config))))
    well = all(one.status != "problem" for one in found)
    if as_json:
        print_json({"ok": well, "findings": [one._asdict() for one in found]})
    else:
        out = console()
        for one in found:
            out.print(Text.assemble((f"{one.status:8}", _COLOURS[one.status]), f"{one.name:12}", one.said))
            if one.hint is not None:
                out.print(Text(f"{'':20}{one.hint}"))
    raise typer.Exit(0 if well else PROBLEM)
