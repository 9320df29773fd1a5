"""Write exported rows into a file: JSON Lines, plain or compressed, or Parquet.

Rule: the file has its name only when it is complete. At most one row group is held in memory.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from gateway.bulk.formats import UnreadableFile, pyarrow_for
from router.records import CALL_FIELDS, Kind

#: Rows, and bytes of lines, of a Parquet file's row group, which is held in memory until it is written.
ROW_GROUP: Final = 20_000
GROUP_BYTES: Final = 2**26

#: The endings of a file's name, each with its format.
FORMATS: Final = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet")


def write(chunks: Iterable[bytes], path: Path, moved: Callable[[int], None]) -> int:
    """Write chunks of whole lines; return the number of lines. ``moved`` is called with the number so far.

    For Parquet, ``prediction`` and ``features`` must be text.

    Raises UnreadableFile if the name does not say a format or its extra is missing, and OSError.
    """
    name = path.name.lower()
    rows = 0
    if name.endswith(".parquet"):
        with _whole(path) as fresh:
            for count in _parquet(chunks, fresh):
                moved(rows := rows + count)
        return rows
    if not name.endswith(FORMATS):
        raise UnreadableFile(f"{path.name}: the name must end in {', '.join(FORMATS)}")
    with _whole(path) as fresh, _lines_file(fresh, name) as file:
        for chunk in chunks:
            file.write(chunk)
            moved(rows := rows + chunk.count(b"\n"))
    return rows


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield the path to write to, which replaces ``path`` unless an exception is raised."""
    fresh = path.with_name(f".{path.name}.part")
    try:
        yield fresh
        os.replace(fresh, path)
    except BaseException:
        with suppress(FileNotFoundError):
            fresh.unlink()
        raise


@contextmanager
def _lines_file(path: Path, name: str) -> Iterator[IO[bytes]]:
    if name.endswith(".zst"):
        pyarrow = pyarrow_for("zstd")
        with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
            yield file
    elif name.endswith(".gz"):
        with gzip.open(path, "wb", compresslevel=6) as packed:
            yield packed  # type: ignore[misc]
    else:
        with open(path, "wb") as plain:
            yield plain


def _parquet(chunks: Iterable[bytes], path: Path) -> Iterator[int]:
    pyarrow = pyarrow_for("Parquet")
    from pyarrow import parquet

    schema = schema_of(pyarrow)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(chunks):
            table = _table(pyarrow, schema, group)
            writer.write_table(table)
            yield table.num_rows


def _groups(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks' lines, a row group at a time."""
    group, rows, size = list[bytes](), 0, 0
    for chunk in chunks:
        group.append(chunk)
        rows, size = rows + chunk.count(b"\n"), size + len(chunk)
        if rows >= ROW_GROUP or size >= GROUP_BYTES:
            yield b"".join(group)
            group, rows, size = [], 0, 0
    if rows:
        yield b"".join(group)


def _table(pyarrow: Any, schema: Any, lines: bytes) -> Any:
    """Return exported calls as a table: times as timestamps, and fields that may be any JSON as text."""
    from pyarrow import json

    read = pyarrow.schema([("at_ms", pyarrow.int64()) if one.name == "at" else one for one in schema])
    table = json.read_json(
        pyarrow.BufferReader(lines),
        read_options=json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=json.ParseOptions(explicit_schema=read, unexpected_field_behavior="ignore"),
    )
    return table.rename_columns(schema.names).cast(schema)


def schema_of(pyarrow: Any) -> Any:
    """Return the columns of a Parquet file, the same whatever is exported: the fields of a call, and its outcomes."""
    text, whole, number = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    types: dict[Kind, Any] = {
        "text": text,
        "whole": whole,
        "number": number,
        "flag": pyarrow.bool_(),
        "json": text,
        "object": text,
        "texts": pyarrow.list_(text),
    }
    columns = {one.name: types[one.kind] for one in CALL_FIELDS}
    outcome = pyarrow.struct([("metric", text), ("against", text), ("live", number), ("mature", number)])
    moment = ("at", pyarrow.timestamp("ms", "UTC"))
    named = (moment if name == "at_ms" else (name, kind) for name, kind in columns.items())
    return pyarrow.schema([*named, ("outcomes", pyarrow.list_(outcome))])
