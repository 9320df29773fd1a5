"""``turnout feedback orphans``: the labels of the running gateway whose prediction never came."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import console, print_json
from gateway.cli.remote.report import ask
from gateway.moments import to_the_second


def orphans(
    context: typer.Context,
    route: Annotated[
        str | None, typer.Option("--route", metavar="R", help='Of this route only; "unknown": of none that is known.')
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most this many, the newest first.")] = 100,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List feedback whose prediction never came.

    An event is joined all the same if its prediction still comes. The usual causes are a wrong id, a wrong key, and
    calls that were not logged because the journal was full.
    """
    path = chosen(context, config)
    query = {"limit": str(limit)} | ({} if route is None else {"route": route})
    found = ask(configuration(path).gateway, f"/api/v1/feedback/orphans?{urlencode(query)}", path)["orphans"]
    if as_json:
        print_json(found)
        return
    out = console()
    if not found:
        out.print("no orphans: every event found its prediction, or still waits for it")
        return
    out.print(_table(found, boxed=out.is_terminal))


def _table(found: list[dict[str, Any]], *, boxed: bool) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if boxed else None, pad_edge=False, header_style="dim", show_edge=False)
    for name in ("received", "prediction or key", "route", "metric", "value", "given up"):
        table.add_column(name, overflow="fold")
    for one in found:
        table.add_row(
            to_the_second(one["received_ms"]),
            one["prediction_id"] or one["key"],
            one["route"] or "–",
            one["metric"],
            str(one["value"])[:40],
            to_the_second(one["given_up_ms"]),
        )
    return table
