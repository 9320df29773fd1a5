"""The rows of a file, in portions: CSV, JSON Lines or Parquet.

Rule: a portion at a time, and every row with the line a person finds it at. A row that cannot be read is a problem of
its own and stops nothing; a file that cannot be read raises OSError or ``UnreadableFile``.
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

from gateway.bulk.columns import Columns

#: Rows read, checked, written and made durable together: some megabytes.
PORTION: Final = 10_000
#: The longest cell of a CSV, as the longest label there is (and room for its quotes).
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
    """Some rows in their order: ``entries`` as feedback has them, each at one of ``lines``; and the unreadable ones.

    ``rows`` counts both, ``done`` is the share of the file that is read by now.
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
    """A file, how it is read, and what its columns mean. ``text`` takes values of a CSV for text, numbers too."""

    path: Path
    format: str
    columns: Columns
    text: bool = False

    def portions(self, skip: int = 0) -> Iterator[ImportBatch]:
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
    # A byte that is no UTF-8 becomes half a character, which no event can hold: it is found where the row is written.
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
            portion = ImportBatch()
            for row in _careful(islice(rows, PORTION), portion, reader):
                if len(row) != width:
                    portion.problems.append(
                        (reader.line_num, f"{len(row)} columns, where the first line names {width}")
                    )
                    continue
                entry: dict[str, Any] = {name: read(row[at]) for name, at, read in cells if row[at]}
                entry.update(fixed)
                portion.entries.append(entry)
                portion.lines.append(reader.line_num)
            if not portion.rows:
                return
            portion.done = os.lseek(file.fileno(), 0, os.SEEK_CUR) / size
            yield portion


def _skipped(reader: Iterator[list[str]], skip: int) -> Iterator[list[str]]:
    """Leave out the first rows, those that cannot be read among them, and empty lines always."""
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


def _careful(rows: Iterator[list[str]], portion: ImportBatch, reader: Any) -> Iterator[list[str]]:
    for row in rows:
        if row[0] is _BROKEN:
            portion.problems.append((reader.line_num, row[1]))
        else:
            yield row


def _reading(name: str, source: Source) -> Callable[[str], Any]:
    """How a cell becomes what JSON would have said: only values and revisions are more than text."""
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
            portion = ImportBatch()
            for number, line in islice(rows, PORTION):
                entry = _entry(line, source.columns)
                if isinstance(entry, str):
                    portion.problems.append((number, entry))
                else:
                    portion.entries.append(entry)
                    portion.lines.append(number)
            if not portion.rows:
                return
            portion.done = file.tell() / size
            yield portion


def _entry(line: bytes, columns: Columns) -> dict[str, Any] | str:
    """The event of one line as far as it is one, or what is wrong with the line."""
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
        for batch in file.iter_batches(batch_size=PORTION, columns=list(dict.fromkeys(columns))):
            first, at = at, at + batch.num_rows
            if at <= skip:
                continue
            cells = [batch.column(column).to_pylist() for column in columns]
            portion = _portion(names, cells, source.columns, first, max(0, skip - first))
            portion.done = at / total
            yield portion
    except pyarrow.ArrowException as error:
        raise UnreadableFile(f"{source.path.name}: {error}") from error


def _portion(
    names: Sequence[str], cells: Sequence[Sequence[Any]], columns: Columns, first: int, skip: int
) -> ImportBatch:
    portion = ImportBatch()
    for number, row in enumerate(zip(*cells, strict=True)):
        if number < skip:
            continue
        entry = {name: _plain(name, cell) for name, cell in zip(names, row, strict=True) if cell is not None}
        portion.entries.append({**entry, **columns.fixed})
        portion.lines.append(first + number + 1)
    return portion


def _plain(name: str, cell: Any) -> Any:
    """A cell as JSON has it."""
    if type(cell) in _PLAIN:
        # Other fields than a value are text, whatever a data frame made of them.
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
