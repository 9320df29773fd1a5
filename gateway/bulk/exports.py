"""Write what is exported into a file: JSON Lines, plain or compressed, or Parquet.

Rule: the file is there when it is whole. Lines come by the portion and are held by the row group at most.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import orjson

from gateway.bulk.rows import Unreadable, pyarrow_for

#: Rows of a Parquet file that are read together, and so are held together here.
ROW_GROUP: Final = 20_000

#: Endings of a file's name, and what stands in it.
FORMATS: Final = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet")


def write(chunks: Iterable[bytes], path: Path, moved: Callable[[int], None]) -> int:
    """Write lines that come in chunks of any size; return how many. ``moved`` hears of them meanwhile.

    Raises Unreadable if the name does not say a format or its extra is missing, and OSError.
    """
    name = path.name.lower()
    rows = 0
    if name.endswith(".parquet"):
        with _whole(path) as fresh:
            for count in _parquet(chunks, fresh):
                moved(rows := rows + count)
        return rows
    if not name.endswith(FORMATS):
        raise Unreadable(f"{path.name}: the name must end in {', '.join(FORMATS)}")
    with _whole(path) as fresh, _lines_file(fresh, name) as file:
        for chunk in chunks:
            file.write(chunk)
            moved(rows := rows + chunk.count(b"\n"))
    return rows


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give the path to write to, which takes the place of ``path`` if all goes well."""
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
            rows = [as_row(orjson.loads(line), schema.names) for line in group]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            yield len(rows)


def _groups(chunks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The lines of the chunks, a row group at a time."""
    rest, group = b"", list[bytes]()
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        group += lines
        while len(group) >= ROW_GROUP:
            yield group[:ROW_GROUP]
            del group[:ROW_GROUP]
    if group:
        yield group


def as_row(value: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return an exported call as Parquet has it: times as such, and what may be any JSON as its text."""
    row = {name: value.get(name) for name in names}
    row["at"] = value["at_ms"]
    row["prediction"] = orjson.dumps(value["prediction"]).decode() if value["predicted"] else None
    row["features"] = None if value["features"] is None else orjson.dumps(value["features"]).decode()
    return row


def schema_of(pyarrow: Any) -> Any:
    """Return the columns of a Parquet file, the same whatever is exported."""
    text, whole, number, flag = pyarrow.string(), pyarrow.int64(), pyarrow.float64(), pyarrow.bool_()
    outcome = pyarrow.struct([("metric", text), ("against", text), ("live", number), ("mature", number)])
    return pyarrow.schema(
        [
            ("id", text),
            ("at", pyarrow.timestamp("ms", "UTC")),
            *((name, text) for name in ("route", "epoch")),
            *((name, whole) for name in ("period", "revision")),
            *((name, text) for name in ("variant", "model", "version", "role", "reason")),
            ("propensity", number),
            *((name, flag) for name in ("by_unit", "forced")),
            ("method", text),
            ("status", whole),
            *((name, text) for name in ("fault", "served", "unit", "key")),
            *((name, number) for name in ("latency_ms", "overhead_ms")),
            ("predicted", flag),
            *((name, text) for name in ("prediction", "features", "reported_version")),
            ("items", pyarrow.list_(text)),
            *((name, text) for name in ("request_id", "traceparent")),
            ("retries", whole),
            ("wrong", pyarrow.list_(text)),
            ("outcomes", pyarrow.list_(outcome)),
        ]
    )
