"""Labels from a file are checked, made durable and recorded like any feedback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.bulk import imports
from gateway.bulk.event_columns import Columns, WrongColumns
from gateway.bulk.formats import Source, UnreadableFile, format_of
from gateway.bulk.position import Busy, Position, PositionFile
from gateway.files.published import publish
from gateway.journal.appender import Appender
from gateway.journal.segments import FEEDBACK, JOURNAL, PREDICTIONS, segments
from gateway.proxy.feedback.validate import read_events
from router.records import Feedback
from router.snapshot import Gateway, Snapshot
from tests.gateway.control.builders import RUN, T0, Desk, at_desk, call, metric, snapshot, statuses, uuid
from tests.gateway.journals import texts

K = metric(window_ms=10**15)


class Watch:
    """Notes its calls; stops after so many batches."""

    def __init__(self, batches: int = 10**9) -> None:
        self.problems: dict[int, list[str]] = {}
        self.left = batches
        self.waited = 0

    def stopping(self) -> bool:
        return self.left <= 0

    def refused(self, line: int, details: list[str]) -> None:
        self.problems[line] = details

    def moved(self, position: Position, done: float) -> None:
        assert 0 <= done <= 1
        self.left -= 1

    def waiting(self) -> None:
        self.waited += 1


def served(data_dir: Path, gateway: Gateway | None = None) -> Snapshot:
    """Make a data directory as a gateway leaves it."""
    data_dir.mkdir(exist_ok=True)
    off = metric("label", "off", score="percentage_error")
    made = snapshot(K, metric("value", "spent", fold="sum"), off, prediction="/p", key="header:x-key")
    publish(data_dir / "snapshot.json", replace(made, gateway=gateway or Gateway()))
    return made


def source(path: Path, *, named: Mapping[str, str] | None = None, text: bool = False, **fixed: str) -> Source:
    return Source(path, format_of(path, None), Columns(named or {}, fixed), text)


def lines(data_dir: Path) -> Iterator[dict[str, object]]:
    yield from map(json.loads, texts(data_dir / JOURNAL / FEEDBACK))


def events(data_dir: Path) -> list[dict[str, object]]:
    return [line for line in lines(data_dir) if line["line"] == "feedback"]


def csv(path: Path, *rows: str, header: str = "prediction_id,value") -> Path:
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def test_each_row_becomes_an_event_of_the_journal(tmp_path: Path) -> None:
    served(tmp_path)
    file = csv(tmp_path / "l.csv", f"{uuid(1)},1", f'{uuid(2)},"spam, not ham"')
    result = imports.run(source(file, metric="k"), tmp_path, Watch())
    assert (result.position.rows, result.position.accepted, result.interrupted) == (2, 2, False)
    assert [(e["prediction_id"], e["metric"], e["value"]) for e in events(tmp_path)] == [
        (uuid(1), "k", 1),
        (uuid(2), "k", "spam, not ham"),
    ]


def test_columns_have_the_names_that_the_caller_says(tmp_path: Path) -> None:
    served(tmp_path)
    file = csv(tmp_path / "l.tsv", "77\tr\t2023-11-14T22:13:20Z\t1", header="loan\troute\tpaid_at\tvalue")
    named = {"key": "loan", "occurred_at": "paid_at"}
    imports.run(source(file, named=named, metric="k"), tmp_path, Watch())
    [event] = events(tmp_path)
    assert (event["key"], event["route"], event["occurred_ms"]) == ("77", "r", T0)


def test_json_lines_are_events_as_they_are_posted(tmp_path: Path) -> None:
    made = served(tmp_path)
    posted = {"prediction_id": uuid(1), "metric": "k", "value": {"a": [1]}, "event_id": "e", "revision": 3}
    (tmp_path / "l.jsonl").write_text(json.dumps(posted) + "\n\n")
    imports.run(source(tmp_path / "l.jsonl"), tmp_path, Watch())
    [event] = events(tmp_path)
    [expected], _, _ = read_events(json.dumps(posted).encode(), made, 0)
    event.pop("line")
    assert Feedback(**{**event, "received_ms": 0}) == expected  # type: ignore[arg-type]


def test_parquet_is_read_where_its_extra_is_installed(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    from datetime import UTC, datetime

    served(tmp_path)
    at = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    table = {"prediction_id": [uuid(1), uuid(2)], "value": [1.5, None], "occurred_at": [at, at], "other": [1, 2]}
    parquet.write_table(pyarrow.table(table), tmp_path / "l.parquet")
    watch = Watch()
    imports.run(source(tmp_path / "l.parquet", metric="k"), tmp_path, watch)
    [event] = events(tmp_path)
    assert (event["prediction_id"], event["value"], event["occurred_ms"]) == (uuid(1), 1.5, T0)
    assert watch.problems == {2: ["value is missing"]}


def test_a_value_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    served(tmp_path)
    rows = [f"{uuid(n)},{value},{n}" for n, value in enumerate(["1e15", "1e200", "-1e16", "NaN", "5"])]
    watch = Watch()
    imports.run(
        source(csv(tmp_path / "l.csv", *rows, header="prediction_id,value,event_id"), metric="spent"), tmp_path, watch
    )
    assert [event["value"] for event in events(tmp_path)] == [1e15, 5]
    assert list(watch.problems) == [3, 4, 5]


def test_a_label_that_its_score_cannot_take_is_refused(tmp_path: Path) -> None:
    served(tmp_path)
    watch = Watch()
    file = csv(tmp_path / "l.csv", *(f"{uuid(n)},{value}" for n, value in enumerate(["7", "seven", "0"])))
    imports.run(source(file, metric="off"), tmp_path, watch)
    assert [event["value"] for event in events(tmp_path)] == [7]
    assert watch.problems == {
        3: ['metric "off": value must be a finite number, got "seven"'],
        4: ['metric "off": value must not be 0, of which no error is a share, got 0'],
    }


def test_without_its_extra_parquet_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(tmp_path)
    (tmp_path / "l.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnreadableFile, match=r'pip install "turnout\[parquet\]"'):
        imports.run(source(tmp_path / "l.parquet", metric="k"), tmp_path, Watch())


def test_bad_rows_are_named_by_their_lines_and_kept_out(tmp_path: Path) -> None:
    """One bad label does not refuse a file of a million, and no row is imported in part."""
    served(tmp_path)
    file = tmp_path / "l.csv"
    rows = [
        b"prediction_id,value,metric",
        b"%b,1,k" % uuid(1).encode(),
        b"%b,1,nosuch" % uuid(2).encode(),
        b"%b" % uuid(3).encode(),
        b"%b,\xff,k" % uuid(4).encode(),
        b'%b,"two\nlines",k' % uuid(5).encode(),
        b"%b,2,spent" % uuid(6).encode(),
        b"%b,3,k" % uuid(7).encode(),
    ]
    file.write_bytes(b"\n".join(rows))
    watch = Watch()
    result = imports.run(source(file), tmp_path, watch)
    assert [event["value"] for event in events(tmp_path)] == [1, "two\nlines", 3]
    assert list(watch.problems) == [3, 4, 5, 8]
    assert "unknown metric" in watch.problems[3][0]
    assert watch.problems[4] == ["1 columns, where the first line names 3"]
    assert "UTF-8" in watch.problems[5][0]
    assert "event_id is required" in watch.problems[8][0]
    assert (result.position.accepted, result.position.refused) == (3, 4)
    assert sum(int(str(line["events"])) for line in lines(tmp_path) if line["line"] == "rejected") == 4


def test_numbers_can_be_labels_that_are_text(tmp_path: Path) -> None:
    served(tmp_path)
    file = csv(tmp_path / "l.csv", f"{uuid(1)},7", f"{uuid(2)},007")
    imports.run(source(file, text=True, metric="k"), tmp_path, Watch())
    assert [event["value"] for event in events(tmp_path)] == ["7", "007"]


@pytest.mark.parametrize(
    ("header", "named", "fixed", "said"),
    [
        ("prediction_id,value", {}, {}, "--column metric=COLUMN"),
        ("id,value", {}, {"metric": "k"}, "--column prediction_id=COLUMN"),
        ("prediction_id,value", {"value": "valu"}, {"metric": "k"}, 'did you mean "value"'),
        ("prediction_id,value", {"valeu": "value"}, {"metric": "k"}, 'did you mean "value"'),
        ("prediction_id,value,occured_at", {}, {"metric": "k"}, "--column occurred_at=occured_at"),
        ("prediction_id,value,metric", {"metric": "metric"}, {"metric": "k"}, "not both"),
        ("", {}, {"metric": "k"}, "no column is value"),
    ],
)
def test_columns_that_make_no_event_are_refused_before_anything_is_taken(
    tmp_path: Path, header: str, named: dict[str, str], fixed: dict[str, str], said: str
) -> None:
    served(tmp_path)
    file = csv(tmp_path / "l.csv", "x", header=header)
    with pytest.raises(WrongColumns, match=None) as caught:
        imports.run(Source(file, "csv", Columns(named, fixed)), tmp_path, Watch())
    assert said in str(caught.value)
    assert events(tmp_path) == []


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_interrupted_import_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr("gateway.bulk.formats.BATCH_ROWS", 3)
    served(tmp_path)
    file = tmp_path / f"l.{form}"
    if form == "csv":
        csv(file, *(f"{uuid(i)},{i}" if i != 4 else "broken" for i in range(10)))
    else:
        file.write_text(
            "".join(f'{{"prediction_id":"{uuid(i)}","value":{i}}}\n' if i != 4 else "{\n" for i in range(10))
        )
    first = imports.run(source(file, metric="k"), tmp_path, Watch(batches=2))
    assert (first.interrupted, first.position.rows) == (True, 6)
    second = imports.run(source(file, metric="k"), tmp_path, Watch())
    assert (second.interrupted, second.position.rows) == (False, 10)
    assert (second.position.accepted, second.position.refused) == (9, 1)
    assert [event["value"] for event in events(tmp_path)] == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_an_edited_file_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first rows may not be those that were imported."""
    monkeypatch.setattr("gateway.bulk.formats.BATCH_ROWS", 1)
    served(tmp_path)
    file = csv(tmp_path / "l.csv", f"{uuid(1)},1", f"{uuid(2)},2")
    imports.run(source(file, metric="k"), tmp_path, Watch(batches=1))
    csv(file, f"{uuid(3)},3", f"{uuid(4)},4", f"{uuid(5)},5")
    imports.run(source(file, metric="k"), tmp_path, Watch())
    assert [event["value"] for event in events(tmp_path)] == [1, 3, 4, 5]


def test_one_import_of_a_file_at_a_time(tmp_path: Path) -> None:
    served(tmp_path)
    file = csv(tmp_path / "l.csv", f"{uuid(1)},1")
    its = source(file, metric="k")
    with PositionFile(tmp_path, its).held(), pytest.raises(Busy):
        imports.run(its, tmp_path, Watch())


def test_above_half_of_the_journal_it_waits_for_the_recorder(tmp_path: Path) -> None:
    """The other half is for feedback by HTTP. Without a recorder it gives up, and can continue later."""
    served(tmp_path, Gateway(max_feedback_journal_bytes=2**20))
    folder = tmp_path / JOURNAL / FEEDBACK
    folder.mkdir(parents=True)
    (folder / f"{RUN}-00-{RUN}-000000.jsonl").write_bytes(b"x" * 2**19 + b"x\n")
    file = csv(tmp_path / "l.csv", f"{uuid(1)},1")
    watch = Watch()
    with pytest.raises(imports.Stuck):
        imports.run(source(file, metric="k"), tmp_path, watch, patience_seconds=0.3)
    assert watch.waited
    assert not any(b"prediction_id" in segment.path.read_bytes() for segment in segments(folder))


def test_its_writer_is_of_the_workers_run(tmp_path: Path) -> None:
    """A run of its own would be newer than the workers', and the recorder would take them for dead."""
    served(tmp_path)
    folder = tmp_path / JOURNAL / PREDICTIONS
    folder.mkdir(parents=True)
    Appender(folder, f"{RUN}-00-{RUN}", roll_bytes=2**20)
    file = csv(tmp_path / "l.csv", f"{uuid(1)},1")
    imports.run(source(file, metric="k"), tmp_path, Watch())
    assert {segment.run for segment in segments(tmp_path / JOURNAL / FEEDBACK)} == {RUN}


def test_imported_labels_are_joined_once_however_often_they_are_imported(tmp_path: Path) -> None:
    file = csv(tmp_path / "l.csv", *(f"{uuid(i)},{i % 2}" for i in range(20)), f"{uuid(999)},1")

    async def story(desk: Desk) -> None:
        served(desk.path)
        desk.journal.calls(*(call(i, prediction=1) for i in range(20)))
        imports.run(source(file, metric="k"), desk.path, Watch())
        assert statuses(await desk.record())["joined"] == 20
        imports.run(source(file, metric="k"), desk.path, Watch())
        found = statuses(await desk.record())
        assert (found["joined"], found["repeated"]) == (20, 20)
        await desk.recorder.drain(5)
        assert segments(desk.journal.path / FEEDBACK) == []  # what is recorded is deleted, though its writer is gone

    at_desk(Desk(tmp_path / "data", K), story)


def test_an_import_that_is_killed_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at its first sync: rows may be written again, and count once; its segment is deleted."""
    rows = 2_000
    file = csv(tmp_path / "l.csv", *(f"{uuid(i)},{i % 2}" for i in range(rows)))
    served(tmp_path / "data")
    code = (
        "import os, signal; from gateway.journal.appender import Appender; sync = Appender.sync\n"
        "def die(self): sync(self); os.kill(os.getpid(), signal.SIGKILL)\n"
        "Appender.sync = die\n"
        "from pathlib import Path; from gateway.bulk import imports; from tests.gateway.bulk.test_imports import *\n"
        f"imports.run(source(Path({str(file)!r}), metric='k'), Path({str(tmp_path / 'data')!r}), Watch())\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL

    async def story(desk: Desk) -> None:
        desk.journal.calls(*(call(i, prediction=1) for i in range(rows)))
        result = imports.run(source(file, metric="k"), desk.path, Watch())
        assert result.position.rows == rows
        found = statuses(await desk.record())
        assert (found["joined"], found.get("repeated", 0) <= rows) == (rows, True)
        await desk.recorder.drain(5)
        assert segments(desk.journal.path / FEEDBACK) == []

    at_desk(Desk(tmp_path / "data", K), story)


def test_ctrl_c_ends_it_between_batches_and_says_how_to_go_on(tmp_path: Path) -> None:
    from tests.gateway.cli.running import write_config

    write_config(tmp_path)
    served(tmp_path / "data")
    file = csv(tmp_path / "l.csv", *(f"{uuid(i)},{i % 2}" for i in range(300_000)))
    command = [sys.executable, "-m", "gateway.cli", "feedback", "import", str(file), "--metric", "k"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not list((tmp_path / "data/imports").glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "the same command goes on from here" in err
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (again.returncode, again.stdout) == (0, "300,000 rows: 300,000 accepted, 0 refused\n")
    assert len(events(tmp_path / "data")) == 300_000


def test_the_command_leaves_with_1_and_the_lines_where_rows_are_refused(tmp_path: Path) -> None:
    from tests.gateway.cli.running import turnout, write_config

    write_config(tmp_path)
    served(tmp_path / "data")
    file = csv(tmp_path / "l.csv", f"{uuid(1)},1", f"{uuid(2)},", f"{uuid(3)},0")
    ran = turnout("feedback", "import", str(file), "--metric", "k", "--refused", "bad.jsonl", "--json", cwd=tmp_path)
    assert ran.returncode == 1
    assert json.loads(ran.stdout) == {"interrupted": False, "rows": 3, "accepted": 2, "refused": 1}
    assert ran.stderr == f"{file}:3: value is missing\n"
    assert json.loads((tmp_path / "bad.jsonl").read_text()) == {"line": 3, "problems": ["value is missing"]}


def test_where_no_gateway_ever_ran_it_says_so(tmp_path: Path) -> None:
    from tests.gateway.cli.running import turnout, write_config

    write_config(tmp_path)
    ran = turnout("feedback", "import", str(csv(tmp_path / "l.csv")), "--metric", "k", cwd=tmp_path)
    assert ran.returncode == 1
    assert "is not the data directory of a gateway that ever ran" in ran.stderr
