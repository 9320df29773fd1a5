"""journal verify: what each segment holds, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from gateway.cli import run
from gateway.journal.seal import header, sealed
from gateway.journal.segments import FEEDBACK, PREDICTIONS
from tests.gateway.control.builders import OTHER, WRITER, Journal, call, event


def verify(capsys: pytest.CaptureFixture[str], directory: Path) -> tuple[int, dict[str, object]]:
    code = run(["journal", "verify", str(directory), "--json"])
    return code, orjson.loads(capsys.readouterr().out)


def whole(directory: Path) -> Journal:
    journal = Journal(directory / "journal")
    journal.calls(call(1), call(2))
    journal.roll()
    journal.calls(call(3))
    journal.events(event(1, 1, at=5))
    return journal


def test_of_a_whole_journal_it_says_so_and_leaves_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole(tmp_path)
    for directory in (tmp_path, tmp_path / "journal"):
        assert run(["journal", "verify", str(directory)]) == 0
        out = capsys.readouterr().out
        assert f"{tmp_path / 'journal'}: 3 segments, 7 lines; nothing is wrong" in out


def test_what_is_wrong_is_said_of_each_segment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = whole(tmp_path)
    journal.put(PREDICTIONS, b"nonsense\n")
    journal.sealed(PREDICTIONS, [b"never written\n"])
    journal.calls(call(4))
    journal.put(FEEDBACK, b"\x1e12 {")
    journal.put(PREDICTIONS, sealed(header(OTHER).replace(b'"format":1', b'"format":7'), 0), writer=OTHER)
    code, said = verify(capsys, tmp_path)
    segments = said["segments"]
    assert isinstance(segments, list)
    found = {one["segment"]: one for one in segments}
    first, second, strange, feedback = found.values()
    assert (code, said["ok"]) == (1, False)
    assert first == {
        "segment": f"predictions/{WRITER}-000000.jsonl",
        "bytes": journal.file().with_name(f"{WRITER}-000000.jsonl").stat().st_size,
        "lines": 3,
        "torn": 0,
        "corrupt": 0,
        "lost": 0,
        "refused": None,
        "ok": True,
    }
    assert (second["lines"], second["torn"], second["corrupt"], second["lost"]) == (4, 0, 1, 1)
    assert (feedback["torn"], feedback["ok"]) == (1, False)
    assert strange["refused"] == "its format is 7, and this program reads 1"
    assert run(["journal", "verify", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "3 of them with something wrong" in out
    assert "is not read: its format is 7" in out


def test_what_is_recorded_and_deleted_is_not_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = whole(tmp_path)
    journal.file().with_name(f"{WRITER}-000000.jsonl").unlink()
    assert verify(capsys, tmp_path)[0] == 0


def test_a_segment_that_is_gone_between_two_others_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = whole(tmp_path)
    journal.roll()
    journal.calls(call(4))
    journal.file().with_name(f"{WRITER}-000001.jsonl").unlink()
    code, said = verify(capsys, tmp_path)
    assert code == 1
    assert isinstance(said["segments"], list)
    assert [one["lost"] for one in said["segments"]] == [0, 2, 0]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["journal", "verify", str(tmp_path / "nowhere")]) == 1
    assert "no such directory" in capsys.readouterr().err
