"""``turnout power``: what a route's own traffic can decide, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import console, print_json
from gateway.cli.remote.report import ask

if TYPE_CHECKING:
    from rich.console import RenderableType


def power(
    context: typer.Context,
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="The route.", show_default=False)],
    effects: Annotated[
        str | None,
        typer.Option("--effects", metavar="LIST", help="Differences, absolute, as in 0.01,0.02. Default: 1 to 20 %."),
    ] = None,
    days: Annotated[
        str | None, typer.Option("--days", metavar="LIST", help="Days, as in 7,14. Default: 1,7,14,30,90.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plan a comparison from the traffic of a route.

    How many days it takes until a difference is decided, with a probability of 80 %, and which difference is decided
    within so many days: at the present shares, with the units, rates and delays that the route has had, and by the
    method that will decide. What is out of reach is said with the reason.
    """
    path = chosen(context, config)
    query = {name: given.replace(" ", "") for name, given in (("effects", effects), ("days", days)) if given}
    where = f"/api/v1/routes/{quote(route, safe='')}/power" + (f"?{urlencode(query)}" if query else "")
    answer = ask(configuration(path).gateway, where, path)
    if as_json:
        print_json(answer)
        return
    out = console()
    for part in _parts(answer, boxed=out.is_terminal):
        out.print(part)


def _parts(answer: Mapping[str, Any], *, boxed: bool) -> list[RenderableType]:
    from rich.text import Text

    metric, supposed = answer["metric"], answer["supposed"]
    if metric is None:
        return ["the route lists no metric, so there is nothing to decide"]
    if supposed is None:
        return [f"nothing to compare: {answer['baseline']} is the only variant"]
    parts: list[RenderableType] = []
    for one in answer["variants"]:
        said = f"{one['variant']} against {answer['baseline']} by {metric}"
        if one["withheld"] is not None:
            parts.append(Text(f"{said}: the verdict is withheld, because {one['withheld']}"))
            continue
        per_day = f"{one['units_per_day']:,.0f} {answer['counted_in']} a day"
        parts += [
            Text(f"{said}, by {one['method'].replace('_', ' ')}: {per_day}", style="bold"),
            _table(one, answer["counted_in"], boxed),
        ]
        if one["maximum"] is not None:
            parts.append(Text(f"by the declared end: {_difference(one['maximum'], answer['counted_in'])}"))
    delay = f", each value {supposed['delay_days']:.3g} days after its request" if supposed["delay_days"] else ""
    since = (
        "nothing that is mature yet" if supposed["since"] is None else f"{supposed['days']:.3g} days of mature values"
    )
    parts.append(Text(f"from {since}{delay}; decided with a probability of {answer['power']:.0%}", style="dim"))
    return parts


def _table(one: Mapping[str, Any], counted_in: str, boxed: bool) -> RenderableType:
    from rich import box
    from rich.padding import Padding
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if boxed else None, pad_edge=False, header_style="dim", show_edge=False)
    for name in ("difference", "relative", "days", counted_in):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in one["effects"]:
        days = "never" if row["days"] is None else f"{row['days']:,.3g}" if row["days"] < 100 else f"{row['days']:,.0f}"
        units = "" if row["units"] is None else f"{row['units']:,}"
        table.add_row(f"{row['effect']:.4g}", _percent(row["relative"]), days, units, row["why"] or "")
    for row in one["within"]:
        effect = "none" if row["effect"] is None else f"{row['effect']:.4g}"
        table.add_row(effect, _percent(row["relative"]), f"within {row['days']:g}", "", row["why"] or "")
    return Padding(table, (0, 0, 0, 2))


def _difference(row: Mapping[str, Any], counted_in: str) -> str:
    if row["effect"] is None:
        return f"nothing, as {row['why']}"
    relative = f" ({_percent(row['relative'])})" if row["relative"] is not None else ""
    return f"a difference of {row['effect']:.4g}{relative}, with {row['units']:,} {counted_in}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2g}%" if share < 0.1 else f"{share:.0%}"
