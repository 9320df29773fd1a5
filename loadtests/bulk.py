"""``python -m loadtests.bulk``: how fast labels are imported from files.

Rule: the real command on a real file, once per format, with the CPU time that the kernel reports for it; each import
ends with a check that every row is in the journal once.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import orjson

from gateway.files.published import SNAPSHOT, publish
from gateway.journal.seal import unsealed
from gateway.journal.segments import FEEDBACK, JOURNAL, read_lines, segments
from gateway.process.first_snapshot import ensure_snapshot
from gateway.proxy.exchange.ids import new_id
from router.config.config import load

CONFIG: Final = """
schema_version = 1
[gateway]
data_dir = "{data_dir}"

[backends.one]
url = "http://127.0.0.1:9"
version = "1"

[metrics.correct]
kind = "label"

[routes.infer]
path = "/infer"
prediction = "/outputs/0"
metrics = ["correct"]
policy = {{ kind = "single", variant = "one" }}
"""
FORMATS: Final = ("csv", "jsonl", "parquet")


@dataclass(frozen=True, slots=True)
class Import:
    """What one import took, in seconds."""

    form: str
    rows: int
    wall: float
    processor: float


def rows(number: int) -> Iterator[tuple[str, int, str]]:
    """Yield labels: prediction id, value and time."""
    began = time.time_ns() // 1_000_000 - 10**7
    for place in range(number):
        yield new_id(began + place), place % 10, "2026-01-01T12:00:00Z"


def written(folder: Path, form: str, number: int) -> Path:
    """Write a file of ``number`` labels."""
    path = folder / f"labels.{form}"
    names = ("prediction_id", "value", "occurred_at")
    if form == "csv":
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows(rows(number))
    elif form == "jsonl":
        with open(path, "wb") as lines:
            for row in rows(number):
                lines.write(orjson.dumps(dict(zip(names, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE))
    else:
        import pyarrow
        from pyarrow import parquet

        columns = zip(*rows(number), strict=True)
        parquet.write_table(pyarrow.table(dict(zip(names, map(list, columns), strict=True))), path)
    return path


def imported(form: str, number: int) -> Import:
    """Import a file into a data directory of its own. Raises AssertionError if a row is missing, or there twice."""
    with tempfile.TemporaryDirectory(prefix="turnout-bulk-") as name:
        folder = Path(name)
        config, data_dir = folder / "turnout.toml", folder / "data"
        config.write_text(CONFIG.format(data_dir=data_dir))
        data_dir.mkdir()
        publish(data_dir / SNAPSHOT, ensure_snapshot(data_dir / SNAPSHOT, load(config), time.time_ns() // 1_000_000))
        file = written(folder, form, number)
        command = [sys.executable, "-m", "gateway.cli", "feedback", "import", str(file), "--metric", "correct"]
        began, before = time.monotonic(), os.times()
        subprocess.run([*command, "-c", str(config)], check=True, stdout=subprocess.DEVNULL, timeout=3_600)
        wall, after = time.monotonic() - began, os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        found = journaled(data_dir)
        assert len(found) == number, f"{len(found):,} of {number:,} rows are in the journal"
        assert len(set(found)) == number, "a row is in the journal twice"
    return Import(form, number, wall, processor)


def journaled(data_dir: Path) -> list[str]:
    """Return the prediction ids of the labels in the journal."""
    found: list[str] = []
    for segment in segments(data_dir / JOURNAL / FEEDBACK):
        for line in read_lines(segment.path, 0, segment.size)[0]:
            value = orjson.loads(unsealed(line)[1])
            if value["line"] == "feedback":
                found.append(value["prediction_id"])
    return found


def main(arguments: list[str] | None = None) -> None:
    """Import each format, and print the time it took, the command's start included."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bulk", description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    given = parser.parse_args(arguments)
    print("| format | rows | rows/s | us of processor a row |\n|---|---|---|---|")
    for form in FORMATS:
        if form == "parquet" and find_spec("pyarrow") is None:
            print("| parquet | pyarrow is not installed | | |")
            continue
        took = imported(form, given.rows)
        cost = took.processor / took.rows * 1e6
        print(f"| {form} | {took.rows:,} | {took.rows / took.wall:,.0f} | {cost:.1f} |", flush=True)


if __name__ == "__main__":
    main()
