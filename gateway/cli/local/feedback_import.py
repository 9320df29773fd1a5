"""``turnout feedback import``: import labels from a file, with a progress bar on a terminal, or a summary as JSON."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.cli.exits import INTERRUPTED, PROBLEM, USAGE
from gateway.cli.options import ConfigOption, JsonOption, chosen, configuration
from gateway.cli.output import console, fail, print_json

if TYPE_CHECKING:
    from rich.progress import Progress

    from gateway.bulk.formats import Source
    from gateway.bulk.position import Position

#: The number of refused rows that are shown; ``--refused`` writes all of them.
SHOWN: Final = 20


def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON Lines or Parquet.")],
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="FIELD=COLUMN", help="Where a field stands, unless its column is named so."),
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", metavar="NAME", help="The metric of every row.")] = None,
    route: Annotated[
        str | None, typer.Option("--route", metavar="NAME", help="The route of every row, where rows have a key.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="csv|tsv|jsonl|parquet", help="If the name does not tell.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Take values of a CSV for text: 7 is the label “7”.")] = False,
    refused: Annotated[
        Path | None,
        typer.Option("--refused", metavar="FILE", help="Write what is wrong with each line here."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import labels from a file.

    Fields are those of POST /-/feedback, and so are the rules; a row that breaks one is listed and left out, the others
    are taken. Runs where the gateway runs, on its data directory. Ctrl-C stops it, the same command goes on from there;
    importing a row twice counts once. Exits with 1 if rows were refused.
    """
    from gateway.bulk.event_columns import WrongColumns
    from gateway.bulk.formats import UnreadableFile

    data_dir = Path(configuration(chosen(context, config)).gateway.data_dir)
    try:
        source = _source(file, column or [], {"metric": metric, "route": route}, form, text)
        with _Watcher(file, as_json=as_json, refused=refused) as watcher:
            result = _run(source, data_dir, watcher)
    except (UnreadableFile, WrongColumns) as error:
        raise fail(str(error), code=USAGE) from None
    position = result.position
    if as_json:
        print_json({"interrupted": result.interrupted, **{k: v for k, v in asdict(position).items() if k != "writer"}})
    else:
        rows = f"{position.rows:,} row{'s' * (position.rows != 1)}"
        typer.echo(f"{rows}: {position.accepted:,} accepted, {position.refused:,} refused")
    if result.interrupted:
        typer.echo("interrupted: the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(PROBLEM if position.refused else 0)


def _source(file: Path, columns: list[str], fixed: dict[str, str | None], form: str | None, text: bool) -> Source:
    from gateway.bulk.event_columns import Columns, WrongColumns
    from gateway.bulk.formats import Source, format_of

    named: dict[str, str] = {}
    for one in columns:
        name, equals, its = one.partition("=")
        if not equals:
            raise WrongColumns(f"--column {one}: write it as FIELD=COLUMN, such as value=outcome")
        named[name] = its
    said = {name: value for name, value in fixed.items() if value is not None}
    return Source(file, format_of(file, form), Columns(named, said), text)


def _run(source: Source, data_dir: Path, watcher: _Watcher) -> Any:
    from gateway.bulk import imports
    from gateway.bulk.position import Busy
    from gateway.files.private import keep_private
    from gateway.files.published import SNAPSHOT

    keep_private()
    if not (data_dir / SNAPSHOT).exists():
        hint = "labels are imported where the gateway runs, and checked by the metrics it has in force"
        raise fail(f"{data_dir} is not the data directory of a gateway that ever ran", hint)
    try:
        return imports.run(source, data_dir, watcher)
    except Busy:
        raise fail(f"{source.path} is being imported by another process") from None
    except imports.Stuck:
        hint = "is turnout serve running? What was imported is kept, the same command goes on from there"
        raise fail("the journal is half full and nobody records it", hint) from None


class _Watcher:
    """Shows a progress bar on a terminal, and lists the first refused rows at the end."""

    def __init__(self, file: Path, *, as_json: bool, refused: Path | None) -> None:
        self._file = file
        self._all = None if refused is None else open(refused, "wb")  # noqa: SIM115 - held until the end
        self._shown: list[str] = []
        self._signals = 0
        self._before: Any = None
        self._bar: Progress | None = None
        self._task: Any = None
        self._quiet = as_json

    def __enter__(self) -> _Watcher:
        # The import stops between portions, never within one. A second Ctrl-C ends it at once.
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        err = console(err=True)
        if err.is_terminal and not self._quiet:
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=err)
            self._bar.start()
            self._task = self._bar.add_task(self._file.name, total=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)
        if self._bar is not None:
            self._bar.stop()
        if self._all is not None:
            self._all.close()
        for line in self._shown[:SHOWN]:
            typer.echo(line, err=True)
        if len(self._shown) > SHOWN:
            typer.echo("more rows were refused; --refused FILE lists all", err=True)

    def stopping(self) -> bool:
        return self._signals > 0

    def refused(self, line: int, details: list[str]) -> None:
        import orjson

        if len(self._shown) <= SHOWN:
            self._shown.append(f"{self._file}:{line}: {'; '.join(details)}")
        if self._all is not None:
            self._all.write(orjson.dumps({"line": line, "problems": details}, option=orjson.OPT_APPEND_NEWLINE))

    def moved(self, position: Position, done: float) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=f"{self._file.name}: {position.rows:,} rows")

    def waiting(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._file.name}: waits for the journal to be recorded")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            raise KeyboardInterrupt
