"""An exported file has its name only when it is complete, and other programs can read it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bulk.exports import FORMATS, schema_of, write
from gateway.bulk.formats import UnreadableFile
from gateway.cli import run
from gateway.cli.exits import USAGE
from gateway.cli.remote.export import _parted
from gateway.store.export_batches import ExportBatch
from gateway.store.rows import calls
from tests.gateway.admin.fake import Control, as_text, control, json_line
from tests.gateway.cli.running import admin_port, write_config
from tests.gateway.control.builders import T0, call, row, uuid


def exported(number: int, **more: Any) -> dict[str, Any]:
    made = call(number, prediction={"class": number}, unit=f"u{number}", features={"x": 1}, items=("a",), **more)
    outcome = {"metric": "k", "against": None, "live": 1.0, "mature": None}
    return {**calls.as_json(row(made)), "outcomes": [outcome]}


def filled() -> Control:
    fake = control()
    fake.stored = {"digits": [[exported(1), exported(2)], [exported(3)]], "shadowed": [[exported(4)]]}
    return fake


def asked(folder: Path, *arguments: str, fake: Control | None = None) -> int:
    with admin_port(fake or filled()) as address:
        return run(["export", *arguments, "-c", str(write_config(folder, admin=address))])


def read(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    if path.suffix == ".zst":
        pyarrow = pytest.importorskip("pyarrow")
        content = pyarrow.CompressedInputStream(str(path), "zstd").read()
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_lines_are_the_rows_as_they_are(tmp_path: Path, ending: str) -> None:
    assert asked(tmp_path, str(tmp_path / f"out{ending}")) == 0
    assert read(tmp_path / f"out{ending}") == [json.loads(json.dumps(exported(number))) for number in (1, 2, 3, 4)]


def test_json_is_the_rows_where_no_file_is_named_and_else_how_many_they_are(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert asked(tmp_path, "--json") == 0
    lines = capfdbinary.readouterr().out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [uuid(number) for number in (1, 2, 3, 4)]
    assert asked(tmp_path, str(tmp_path / "out.jsonl"), "--json") == 0
    assert json.loads(capfdbinary.readouterr().out) == {"file": str(tmp_path / "out.jsonl"), "rows": 4}
    assert asked(tmp_path) == USAGE


def test_parquet_has_the_same_columns_whatever_is_in_it(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert asked(tmp_path, str(tmp_path / "out.parquet"), "--route", "digits") == 0
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 3
    first = table.to_pylist()[0]
    assert (first["id"], first["propensity"], first["unit"]) == (uuid(1), 0.5, "u1")
    assert first["at"].timestamp() * 1000 == T0 + 1
    assert json.loads(first["prediction"]) == {"class": 1}
    assert first["outcomes"] == [{"metric": "k", "against": None, "live": 1.0, "mature": None}]
    assert asked(tmp_path, str(tmp_path / "none.parquet"), fake=control()) == 0
    assert parquet.read_table(tmp_path / "none.parquet").schema == table.schema


def test_no_field_of_a_row_is_missing_in_parquet() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    assert set(schema_of(pyarrow).names) == {*exported(1), "at"} - {"at_ms", "open"}


def test_routes_and_times_are_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    since, until = "2023-11-14T22:13:20.002Z", "2023-11-14T22:13:20.003+00:00"
    assert asked(tmp_path, str(out), "--route", "digits", "--since", since, "--until", until) == 0
    assert [one["id"] for one in read(out)] == [uuid(2)]
    assert asked(tmp_path, str(out), "--since", "7d") == 0
    assert read(out) == []


def test_an_unknown_route_is_named_and_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(tmp_path, str(tmp_path / "out.jsonl"), "--route", "digit") == 1
    assert 'did you mean "digits"?' in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("when", ["yesterday", "2023-11-14T22:13:20"])
def test_an_invalid_time_is_wrong_usage(tmp_path: Path, when: str) -> None:
    assert asked(tmp_path, str(tmp_path / "out.jsonl"), "--since", when) == 2


def test_an_answer_that_breaks_off_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part would be taken for the whole."""
    monkeypatch.setattr("gateway.cli.remote.export.ATTEMPTS", 1)

    class Breaking(Control):
        async def exported(self, route: str, since_ms: int, until_ms: int, *, texts: bool) -> Any:
            yield ExportBatch(json_line(exported(1)), T0 + 2)
            raise RuntimeError("the disk is gone")

    fake = filled()
    assert asked(tmp_path, str(tmp_path / "out.jsonl"), fake=Breaking(fake.snapshot)) == 1
    assert "broke off" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["turnout.toml"]


def test_a_name_that_says_no_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=", ".join(FORMATS)):
        write([], tmp_path / "out.xls", lambda rows: None)


def test_a_pipe_gets_lines(tmp_path: Path) -> None:
    with admin_port(filled()) as address:
        config = write_config(tmp_path, admin=address)
        command = [sys.executable, "-m", "gateway.cli", "export", "-", "-c", str(config)]
        piped = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (piped.returncode, piped.stderr) == (0, "")
    assert [json.loads(line)["id"] for line in piped.stdout.splitlines()] == [uuid(i) for i in (1, 2, 3, 4)]


def test_memory_does_not_grow_with_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("gateway.bulk.exports.ROW_GROUP", 10)
    line = json_line(as_text(exported(1)))
    ahead = [0]

    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            ahead[0] += 5
            yield line * 5

    written: list[int] = []

    def moved(rows: int) -> None:
        written.append(rows)
        assert ahead[0] - rows <= 10

    assert write(chunks(), tmp_path / "out.parquet", moved) == 200
    assert len(written) == 20


def test_an_answer_that_breaks_off_is_continued_where_it_did(tmp_path: Path) -> None:
    """A controller that restarts in the middle of months of predictions costs a pause and not the export."""

    class Breaking(Control):
        async def exported(self, route: str, since_ms: int, until_ms: int, *, texts: bool) -> Any:
            async for batch in super().exported(route, since_ms, until_ms, texts=texts):
                if batch.lines:
                    yield batch
                    raise RuntimeError("restarted")

    fake = filled()
    # What a row holds is not taken for a position.
    fake.stored["digits"][0][0]["prediction"] = {"position": {"routes": [], "from_ms": 1}}
    breaking = Breaking(fake.snapshot, stored=fake.stored)
    assert asked(tmp_path, str(tmp_path / "out.jsonl"), fake=breaking) == 0
    assert [one["id"] for one in read(tmp_path / "out.jsonl")] == [uuid(i) for i in (1, 2, 3, 4)]


@given(lines=st.lists(st.lists(st.sampled_from([b'{"id":1}\n', b"\n"])), max_size=5), cut=st.data())
def test_batches_are_told_apart_wherever_their_bytes_are_cut(lines: list[list[bytes]], cut: st.DataObject) -> None:
    batches = [b"".join(one) for one in lines]
    content = b"".join(part + b'{"position":%d}\n' % n for n, part in enumerate(batches))
    cuts = sorted(cut.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    chunks = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert list(_parted(chunks)) == [(part, n) for n, part in enumerate(batches)]
