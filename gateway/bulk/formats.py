"""The rows of a file to import, in batches: CSV, JSON Lines or Parquet.

Rule: one batch at a time is in memory, and every row has the number of its line in the file. A row that cannot be read
is one problem and stops nothing else; a file that cannot be read raises OSError or ``UnreadableFile``.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.bulk.event_columns import Columns

#: Rows read, checked, written and made durable together: some megabytes.
BATCH_ROWS: Final = 10_000
#: The longest cell of a CSV: the longest label there may be, and room for its quotes.
_CELL_CHARACTERS: Final = 2**20

FORMATS: Final = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


class UnreadableFile(ValueError):
    """The file as a whole is not what it should be; the message says why."""


@dataclass(slots=True)
class ImportBatch:
    """Some rows in their order: ``entries`` as feedback's JSON has them, with their ``lines``; and the unreadable ones.

    ``rows`` counts both, ``done`` is the share of the file that was read so far.
    """

    lines: list[int] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    done: float = 0.0

    @property
    def rows(self) -> int:
        return len(self.entries) + len(self.problems)


@dataclass(frozen=True, slots=True)
class Source:
    """A file, its format, and what its columns mean. With ``text`` every value of a CSV is text, also a number."""

    path: Path
    format: str
    columns: Columns
    text: bool = False

    def batches(self, skip: int = 0) -> Iterator[ImportBatch]:
        """Yield the rows after the first ``skip``. Raises OSError, UnreadableFile or WrongColumns."""
        match self.format:
            case "csv" | "tsv":
                return _csv(self, skip)
            case "jsonl":
                return _jsonl(self, skip)
            case _:
                return _parquet(self, skip)


def format_of(path: Path, given: str | None) -> str:
    """Return a file's format: the one that is given, else by its name. Raises UnreadableFile."""
    found = given or FORMATS.get(path.suffix.lower())
    if found is None or found not in FORMATS.values():
        raise UnreadableFile(f"{path.name}: which format? Say --format {', '.join(sorted(set(FORMATS.values())))}")
    return found


def pyarrow_for(what: str) -> Any:
    """Return the module of the extra ``parquet``. Raises UnreadableFile if that is not installed."""
    try:
        import pyarrow
    except ImportError:
        raise UnreadableFile(f'{what} needs pyarrow, which is not installed: pip install "turnout[parquet]"') from None
    return pyarrow


def _csv(source: Source, skip: int) -> Iterator[ImportBatch]:
    # A byte that is no UTF-8 becomes a lone surrogate, which no event can hold: the row is refused when it is written.
    with open(source.path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        size = max(1, os.fstat(file.fileno()).st_size)
        csv.field_size_limit(_CELL_CHARACTERS)
        reader = csv.reader(file, delimiter="\t" if source.format == "tsv" else ",")
        header = next(reader, None)
        if header is None:
            raise UnreadableFile(f"{source.path.name} is empty; its first line must name the columns")
        cells = [(name, at, _reading(name, source)) for name, at in source.columns.of(header).items()]
        fixed, width = source.columns.fixed, len(header)
        rows = _skipped(reader, skip)
        while True:
            batch = ImportBatch()
            for row in _careful(islice(rows, BATCH_ROWS), batch, reader):
                if len(row) != width:
                    batch.problems.append((reader.line_num, f"{len(row)} columns, where the first line names {width}"))
                    continue
                entry: dict[str, Any] = {name: read(row[at]) for name, at, read in cells if row[at]}
                entry.update(fixed)
                batch.entries.append(entry)
                batch.lines.append(reader.line_num)
            if not batch.rows:
                return
            batch.done = os.lseek(file.fileno(), 0, os.SEEK_CUR) / size
            yield batch


def _skipped(reader: Iterator[list[str]], skip: int) -> Iterator[list[str]]:
    """Yield the rows after the first ``skip``, counting unreadable ones; empty lines are ignored."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row = [_BROKEN, str(error)]
        if not row:
            continue
        if skip:
            skip -= 1
            continue
        yield row


_BROKEN: Final = "\0"


def _careful(rows: Iterator[list[str]], batch: ImportBatch, reader: Any) -> Iterator[list[str]]:
    for row in rows:
        if row[0] is _BROKEN:
            batch.problems.append((reader.line_num, row[1]))
        else:
            yield row


def _reading(name: str, source: Source) -> Callable[[str], Any]:
    """Return what turns a cell into a JSON value: only values and revisions are more than text."""
    if name == "revision" or (name == "value" and not source.text):
        return _json_or_text
    return str


def _json_or_text(cell: str) -> Any:
    try:
        return orjson.loads(cell)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return cell


def _jsonl(source: Source, skip: int) -> Iterator[ImportBatch]:
    with open(source.path, "rb") as file:
        size = max(1, os.fstat(file.fileno()).st_size)
        numbered = ((number, line) for number, line in enumerate(file, 1) if line.strip())
        rows = islice(numbered, skip, None)
        while True:
            batch = ImportBatch()
            for number, line in islice(rows, BATCH_ROWS):
                entry = _entry(line, source.columns)
                if isinstance(entry, str):
                    batch.problems.append((number, entry))
                else:
                    batch.entries.append(entry)
                    batch.lines.append(number)
            if not batch.rows:
                return
            batch.done = file.tell() / size
            yield batch


def _entry(line: bytes, columns: Columns) -> dict[str, Any] | str:
    """Return the fields of one line, not checked yet, or what is wrong with the line."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error}"
    if not isinstance(value, dict):
        return "a line must be an object"
    if columns.named:
        found = {name: value[column] for name, column in columns.named.items() if column in value}
        taken = {*columns.named, *columns.named.values()}
        value = {name: content for name, content in value.items() if name not in taken} | found
    return {**value, **columns.fixed}


def _parquet(source: Source, skip: int) -> Iterator[ImportBatch]:
    pyarrow = pyarrow_for("Parquet")
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(source.path)
        places = source.columns.of(file.schema_arrow.names)
        names = list(places)
        columns = [file.schema_arrow.names[at] for at in places.values()]
        total, at = max(1, file.metadata.num_rows), 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(dict.fromkeys(columns))):
            first, at = at, at + batch.num_rows
            if at <= skip:
                continue
            cells = [batch.column(column).to_pylist() for column in columns]
            batch = _batch(names, cells, source.columns, first, max(0, skip - first))
            batch.done = at / total
            yield batch
    except pyarrow.ArrowException as error:
        raise UnreadableFile(f"{source.path.name}: {error}") from error


def _batch(
    names: Sequence[str], cells: Sequence[Sequence[Any]], columns: Columns, first: int, skip: int
) -> ImportBatch:
    batch = ImportBatch()
    for number, row in enumerate(zip(*cells, strict=True)):
        if number < skip:
            continue
        entry = {name: _plain(name, cell) for name, cell in zip(names, row, strict=True) if cell is not None}
        batch.entries.append({**entry, **columns.fixed})
        batch.lines.append(first + number + 1)
    return batch


def _plain(name: str, cell: Any) -> Any:
    """Return a cell as a JSON value."""
    if type(cell) in _PLAIN:
        # Fields other than value and revision are text, also where a data frame has turned them into numbers.
        return cell if name in _AS_IT_IS or type(cell) is str else str(cell)
    if isinstance(cell, datetime.datetime):
        return cell.isoformat()
    if isinstance(cell, decimal.Decimal):
        return float(cell)
    if isinstance(cell, list):
        return [_plain("value", one) for one in cell]
    if isinstance(cell, dict):
        return {str(key): _plain("value", one) for key, one in cell.items()}
    return str(cell)


_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_AS_IT_IS: Final = frozenset({"value", "revision"})
