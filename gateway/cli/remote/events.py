"""``turnout events``: the changes that people made and the events of the running gateway."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.cli.options import ConfigOption, JsonOption, RouteArgument, RouteOption, chosen, configuration, one_route
from gateway.cli.output import console, fail, print_json
from gateway.cli.remote.report import ask
from gateway.moments import to_the_second


def events(
    context: typer.Context,
    route: RouteArgument = None,
    option: RouteOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most this many, the newest first.")] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List who changed what, and what happened by itself.

    An edit is shown with its author, the file's SHA-256 and what it changed; a bandit's plans are one line for each
    route.
    """
    wanted, path = one_route(context, route, option), chosen(context, config)
    read = configuration(path)
    found = ask(read.gateway, "/api/v1/events", path)["events"]
    shown = [one for one in found if wanted in (None, one["route"])][:limit]
    if wanted is not None and not shown and wanted not in read.routes:
        from gateway.nearest import unknown

        raise fail(unknown("route", wanted, read.routes))
    if as_json:
        print_json(shown)
        return
    out = console()
    if not shown:
        out.print("nothing happened yet")
        return
    from rich.padding import Padding
    from rich.text import Text

    for one in shown:
        out.print(Text(to_the_second(one["at_ms"]), style="dim"), Text(one["kind"], style="bold"), Text(_detail(one)))
        for line in one.get("diff", ()):
            out.print(Padding(Text(line), (0, 0, 0, 4), expand=False))


def _detail(one: dict[str, Any]) -> str:
    said = f"{one['route']}: {one['detail']}" if one["route"] else str(one["detail"])
    if one.get("times", 1) > 1:
        said += f" ({one['times']:,} times since {to_the_second(one['since_ms'])})"
    if "author" in one or "via" in one:
        said += f", by {one.get('author', 'somebody')} ({one.get('via', '-')})"
    if "file_sha256" in one:
        said += f", file {one['file_sha256'][:12]}"
    return said
