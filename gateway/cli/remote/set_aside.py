"""``turnout feedback set-aside``: what the running gateway could not record or join."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import console, print_json
from gateway.cli.remote.report import ask
from gateway.moments import to_the_second


def set_aside(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most this many, the newest first.")] = 100,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what could not be recorded or joined, and was set aside so that everything else could be.

    A line of the journal, a stored event by the number of its row, or a prediction whose windows cannot close.
    """
    path = chosen(context, config)
    found = ask(configuration(path).gateway, f"/api/v1/feedback/set-aside?limit={limit}", path)["set_aside"]
    if as_json:
        print_json(found)
        return
    out = console()
    if not found:
        out.print("nothing was set aside")
    for one in found:
        about = "" if one["prediction"] in (None, one["identity"]) else f" about {one['prediction']}"
        line = f"{to_the_second(one['at_ms'])}  {one['kind']} {one['identity']}{about}: {one['why']}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)
