"""``turnout journal``: look at the journal, which workers write and the controller records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.exits import PROBLEM
from gateway.cli.options import JsonOption
from gateway.cli.output import console, fail, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.control.record.verify import Verified

journal = typer.Typer(help="The journal that workers write and the controller records.", no_args_is_help=True)


@journal.callback()
def _family() -> None:
    """Without a callback, typer would make the only command the family itself."""


@journal.command()
def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The data directory, or the journal in it.")],
    as_json: JsonOption = False,
) -> None:
    """Say what each segment holds, and what of it is torn, corrupt or missing.

    Exits with 1 if anything is. Lines that are recorded already are deleted, and none of them counts as missing.
    """
    from dataclasses import asdict

    from gateway.control.record.verify import verify as verified
    from gateway.journal.segments import JOURNAL

    folder = directory / JOURNAL if (directory / JOURNAL).is_dir() else directory
    if not folder.is_dir():
        raise fail(f"{directory}: no such directory")
    try:
        found = list(verified(folder))
    except OSError as error:
        raise fail(f"{error.filename or folder}: {error.strerror or error}") from None
    ok = all(one.ok for one in found)
    if as_json:
        print_json({"journal": str(folder), "ok": ok, "segments": [{**asdict(one), "ok": one.ok} for one in found]})
    else:
        _show(folder, found)
    raise typer.Exit(0 if ok else PROBLEM)


def _show(folder: Path, found: Sequence[Verified]) -> None:
    from rich.table import Table

    out = console()
    if found:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("segment")
        for name in ("bytes", "lines", "torn", "corrupt", "lost"):
            table.add_column(name, justify="right")
        for one in found:
            counts = (one.bytes, one.lines, one.torn, one.corrupt, one.lost)
            table.add_row(one.segment, *(f"{count:,}" for count in counts), style=None if one.ok else "red")
        out.print(table)
    for one in found:
        if one.refused is not None:
            out.print(f"{one.segment} is not read: {one.refused}", style="red")
    wrong = sum(not one.ok for one in found)
    state = "nothing is wrong" if not wrong else f"{wrong} of them with something wrong"
    out.print(f"{folder}: {len(found):,} segments, {sum(one.lines for one in found):,} lines; {state}")
