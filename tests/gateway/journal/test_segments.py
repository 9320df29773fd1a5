"""Naming, listing and reading segments: whole lines or none."""

from __future__ import annotations

from pathlib import Path

from gateway.journal.appender import Appender
from gateway.journal.segments import (
    FEEDBACK,
    PREDICTIONS,
    new_run,
    new_writer,
    next_run,
    next_writer,
    read_lines,
    roll_bytes,
    segments,
    size_bytes,
)

RUN = new_run(1_700_000_000_000)
WRITER = new_writer(RUN, 3, 1_700_000_000_500)


def appender(directory: Path, roll: int = 2**20) -> Appender:
    return Appender(directory, WRITER, roll_bytes=roll)


def test_a_name_says_run_slot_spawn_and_sequence(tmp_path: Path) -> None:
    appender(tmp_path).close()
    (segment,) = segments(tmp_path)
    assert segment.path.name == "018bcfe56800-03-018bcfe569f4-000000.jsonl"
    assert (segment.run, segment.slot, segment.spawn, segment.seq, segment.writer, segment.size) == (
        RUN,
        3,
        "018bcfe569f4",
        0,
        WRITER,
        0,
    )


def test_a_segment_is_never_larger_than_an_eighth_of_the_bound() -> None:
    assert roll_bytes(10 * 2**30) == 16 * 2**20
    assert roll_bytes(80_000) == 10_000
    assert roll_bytes(1) == 1


def test_a_new_life_is_newer_than_every_other_though_the_clock_was_set_back(tmp_path: Path) -> None:
    """Else a reader would take it for dead, and delete the segment that it is writing."""
    (tmp_path / FEEDBACK).mkdir()
    (tmp_path / FEEDBACK / f"{new_writer(new_run(500), 1, 700)}-000000.jsonl").touch()
    assert next_run(tmp_path, 900) == new_run(900)
    assert next_run(tmp_path, 400) == new_run(501)
    assert next_writer(tmp_path, new_run(500), 1, 600) == new_writer(new_run(500), 1, 701)
    assert next_writer(tmp_path, new_run(500), 2, 600) == new_writer(new_run(500), 2, 600)
    assert next_run(tmp_path / "nowhere", 5) == new_run(5)


def test_segments_are_listed_by_age_and_strangers_left_out(tmp_path: Path) -> None:
    names = [
        f"{new_writer(new_run(2), 0, 9)}-000000.jsonl",
        f"{new_writer(new_run(1), 1, 3)}-000001.jsonl",
        f"{new_writer(new_run(1), 1, 3)}-000000.jsonl",
        f"{new_writer(new_run(1), 0, 8)}-000000.jsonl",
        f"{new_writer(new_run(1), 0, 5)}-000000.jsonl",
        "notes.txt",
        ".hidden.jsonl",
    ]
    for name in names:
        (tmp_path / name).touch()
    assert [s.path.name for s in segments(tmp_path)] == [names[4], names[3], names[2], names[1], names[0]]


def test_a_missing_directory_holds_no_segments(tmp_path: Path) -> None:
    assert segments(tmp_path / "nowhere") == []


def test_the_journal_is_as_large_as_its_segments_of_both_kinds(tmp_path: Path) -> None:
    for name, content in ((PREDICTIONS, b"12345\n"), (FEEDBACK, b"123\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{WRITER}-000000.jsonl").write_bytes(content)
    assert size_bytes(tmp_path) == 10


def test_reading_goes_on_where_it_stopped_and_returns_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    path.write_bytes(b"one\ntwo\nthr")
    assert read_lines(path, 0, 100) == ([b"one", b"two"], 8)
    assert read_lines(path, 8, 100) == ([], 8)
    path.write_bytes(b"one\ntwo\nthree\n")
    assert read_lines(path, 8, 100) == ([b"three"], 14)
    assert read_lines(path, 14, 100) == ([], 14)


def test_reading_takes_about_as_much_as_asked_but_never_less_than_a_line(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    path.write_bytes(b"1\n2\n" + b"x" * 100 + b"\n3\n")
    assert read_lines(path, 0, 5) == ([b"1", b"2"], 4)
    assert read_lines(path, 4, 5)[0][0] == b"x" * 100
