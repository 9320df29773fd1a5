"""``turnout export``: predictions with their outcomes and propensities, into a file or a pipe."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.cli.exits import USAGE
from gateway.cli.options import ConfigOption, chosen, configuration
from gateway.cli.output import console, fail, print_json

if TYPE_CHECKING:
    from router.snapshot import Gateway

#: Seconds that the next portion may take: the store may be busy.
CHUNK_SECONDS: Final = 120.0
#: How often an export without progress is tried again: a controller that restarts is back within seconds.
ATTEMPTS: Final = 8
LONGEST_PAUSE_SECONDS: Final = 5.0

_POSITION: Final = b'\n{"position":'


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
    route: Annotated[
        list[str] | None, typer.Option("--route", metavar="NAME", help="One route; may be given again.")
    ] = None,
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
    from gateway.bulk.formats import UnreadableFile

    path = chosen(context, config)
    gateway = configuration(path).gateway
    asked: dict[str, Any] = {"route": route or [], "positions": 1, "until_ms": time.time_ns() // 1_000_000}
    if file.name.lower().endswith(".parquet"):
        asked["texts"] = 1
    for name, given in (("since_ms", since), ("until_ms", until)):
        if given is not None:
            asked[name] = _time_ms(given, f"--{name.partition('_')[0]}")
    try:
        with _progress(file) as moved:
            portions = _portions(gateway, path, asked)
            if str(file) == "-":
                _pipe(portions)
                return
            rows = write(portions, file, moved)
    except UnreadableFile as error:
        raise fail(str(error), code=USAGE) from None
    print_json({"file": str(file), "rows": rows}) if as_json else typer.echo(f"{rows:,} rows", err=True)


def _portions(gateway: Gateway, config: Path, asked: dict[str, Any]) -> Iterator[bytes]:
    """Yield whole portions of lines. If an answer breaks off, the rest is asked for, from the last portion's end."""
    import httpx

    from gateway.cli.remote.report import answering, asking

    left: Any = ...
    failures = 0
    # The first request is not repeated, so that an error in it, or of the port, is reported at once.
    ask: Callable[..., AbstractContextManager[httpx.Response]] = partial(asking, again=True)
    while left is not None:
        try:
            with ask(gateway, config, "GET", "/api/v1/export", seconds=CHUNK_SECONDS, params=asked) as answer:
                ask = answering
                answer.raise_for_status()
                for lines, reached in _parted(answer.iter_bytes()):
                    if reached != left:
                        failures = 0
                    left = reached
                    if left is not None:
                        asked = {**asked, "route": left["routes"], "from_ms": left["from_ms"]}
                    yield lines
            if left is not None:
                raise httpx.RemoteProtocolError("it ended before its end")
        except httpx.HTTPError as error:
            failures += 1
            if failures > ATTEMPTS:
                raise fail(f"the export broke off: {error}", "the log of the gateway says more") from None
            time.sleep(min(LONGEST_PAUSE_SECONDS, 0.1 * 2**failures))


def _parted(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, Any]]:
    """Yield the lines of each portion with the position to go on from; None at the end."""
    held, searched = bytearray(b"\n"), 0  # a line begins after a newline
    for chunk in chunks:
        held += chunk
        while (at := held.find(_POSITION, searched)) >= 0 and (end := held.find(b"\n", at + 1)) >= 0:
            yield bytes(held[1 : at + 1]), json.loads(held[at + 1 : end])["position"]
            del held[:end]
            searched = 0
        # The next position begins where one was found, or in the last bytes at the earliest.
        searched = at if at >= 0 else max(0, len(held) - len(_POSITION))


def _pipe(chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)


def _time_ms(text: str, option: str) -> int:
    """Return a time, or a duration before now, in Unix milliseconds."""
    from router.config.spellings import duration_ms

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
    """Show the number of rows so far on a terminal; how many there will be is not known."""
    err = console(err=True)
    if not err.is_terminal or str(file) == "-":
        yield lambda rows: None
        return
    with err.status(f"{file.name}: 0 rows") as status:
        yield lambda rows: status.update(f"{file.name}: {rows:,} rows")
