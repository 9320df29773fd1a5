"""``turnout export``: predictions with their outcomes and propensities, into a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.cli.options import ConfigOption, chosen, configuration
from gateway.cli.output import console, fail, print_json

#: How long the next portion may take: the store may be busy.
CHUNK_SECONDS: Final = 120.0


def export(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Ends in .jsonl, .jsonl.zst, .jsonl.gz or .parquet; - for a pipe.",
            show_default=False,
        ),
    ] = None,
    route: Annotated[list[str] | None, typer.Option("--route", metavar="NAME", help="One route; may be again.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="2025-06-01T12:00:00Z, or 7d for seven days ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="The same; now, if left out.")] = None,
    config: ConfigOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Rows as JSON Lines without a FILE; of one, how many rows it has, as JSON.")
    ] = False,
) -> None:
    """Export predictions with their outcomes and propensities.

    One row per call: what was logged of it, and what it is worth under each metric, live and mature. Asks the running
    gateway, which goes on recording meanwhile.
    """
    if file is None:
        if not as_json:
            raise typer.BadParameter("name a file, - for a pipe, or --json", context, param_hint="FILE")
        file = Path("-")
    from gateway.bulk.exports import write
    from gateway.bulk.rows import Unreadable
    from gateway.cli.report import asking

    path = chosen(context, config)
    gateway = configuration(path).gateway
    asked: dict[str, Any] = {"route": route or []}
    for name, given in (("since_ms", since), ("until_ms", until)):
        if given is not None:
            asked[name] = _time_ms(given, f"--{name.partition('_')[0]}")
    try:
        with (
            asking(gateway, path, "GET", "/api/v1/export", seconds=CHUNK_SECONDS, params=asked) as answer,
            _progress(file) as moved,
        ):
            if str(file) == "-":
                _pipe(answer.iter_bytes())
                return
            rows = write(answer.iter_bytes(), file, moved)
    except Unreadable as error:
        raise fail(str(error), code=2) from None
    print_json({"file": str(file), "rows": rows}) if as_json else typer.echo(f"{rows:,} rows", err=True)


def _pipe(chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)


def _time_ms(text: str, option: str) -> int:
    """Return a time, or one that lies a duration back, in Unix milliseconds."""
    from router.spellings import duration_ms

    try:
        return time.time_ns() // 1_000_000 - duration_ms(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError("without a zone it could be anywhere")
    except ValueError:
        hint = "write it as 2025-06-01T12:00:00Z, or as 7d for seven days ago"
        raise typer.BadParameter(f'"{text}" is no time; {hint}', param_hint=option) from None
    return int(at.timestamp() * 1000)


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[int], None]]:
    """Count rows where there is a terminal: how many there will be, nobody knows."""
    err = console(err=True)
    if not err.is_terminal or str(file) == "-":
        yield lambda rows: None
        return
    with err.status(f"{file.name}: 0 rows") as status:
        yield lambda rows: status.update(f"{file.name}: {rows:,} rows")
