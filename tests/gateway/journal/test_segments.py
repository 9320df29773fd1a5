"""Appending and reading segments: whole lines or none."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.journal.segments import (
    FEEDBACK,
    PREDICTIONS,
    Appender,
    new_run,
    new_writer,
    next_run,
    next_writer,
    read_lines,
    roll_bytes,
    segments,
    size_bytes,
)
from tests.gateway.journals import by_segment, texts

RUN = new_run(1_700_000_000_000)
WRITER = new_writer(RUN, 3, 1_700_000_000_500)


def appender(directory: Path, roll: int = 2**20) -> Appender:
    return Appender(directory, WRITER, roll_bytes=roll)


def test_what_is_appended_is_read_back_line_by_line(tmp_path: Path) -> None:
    journal = appender(tmp_path)
    journal.append(b'{"a":1}\n')
    journal.append(b'{"b":2}\n{"c":3}\n')
    journal.close()
    assert texts(tmp_path) == [b'{"a":1}', b'{"b":2}', b'{"c":3}']


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


def test_a_segment_exists_before_anything_is_appended(tmp_path: Path) -> None:
    """A reader learns from it that an older life of the same worker is over."""
    journal = appender(tmp_path)
    assert len(segments(tmp_path)) == 1
    journal.close()


def test_a_segment_that_would_grow_too_large_is_followed_by_the_next(tmp_path: Path) -> None:
    journal = appender(tmp_path, roll=250)
    for line in (b"12345\n", b"123\n", b"1" * 150 + b"\n", b"a line longer than a segment" * 20 + b"\n", b"2\n"):
        journal.append(line)
    journal.close()
    assert [[len(text) for text in texts] for texts in by_segment(tmp_path)] == [[5, 3], [150], [560], [1]]


def test_a_segment_is_never_larger_than_an_eighth_of_the_bound() -> None:
    assert roll_bytes(10 * 2**30) == 16 * 2**20
    assert roll_bytes(80_000) == 10_000
    assert roll_bytes(1) == 1


def test_a_new_life_is_newer_than_every_other_though_the_clock_was_set_back(tmp_path: Path) -> None:
    """Else a reader would take it for dead, and delete under its hands what it writes."""
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_write_that_the_disk_refuses_is_an_error_and_leaves_no_trace(tmp_path: Path) -> None:
    journal = appender(tmp_path)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._fd)
    os.close(full)
    with pytest.raises(OSError, match="No space left") as refused:
        journal.append(b"lost\n")
    assert refused.value.errno == errno.ENOSPC
    journal.append(b"kept\n")  # /dev/full cannot be truncated, so this begins another segment
    journal.close()
    assert by_segment(tmp_path) == [[], [b"kept"]]


SHORT_WRITE = """
import resource, sys
from pathlib import Path
from gateway.journal import Appender
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Appender(Path(sys.argv[1]), "000000000001-00-000000000002", roll_bytes=2**20)
journal.append(b"first\\n")
most = journal.size + 20  # the seal of a short line and a byte or two
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
try:
    journal.append(b"the second\\n")
except OSError as error:
    print(error.strerror)
try:
    journal.append(b"the third\\n")  # still too much
except OSError as error:
    print(error.strerror)
journal.append(b"4\\n")
"""


def test_a_short_write_is_taken_back_and_the_next_line_is_whole(tmp_path: Path) -> None:
    """A real short write: the file may grow by twenty bytes only."""
    ran = subprocess.run([sys.executable, "-c", SHORT_WRITE, str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert [line.partition(" of ")[0] for line in ran.stdout.splitlines()] == ["only 20"] * 2
    assert texts(tmp_path) == [b"first", b"4"]


SHORT_WRITE_OF_TWO = """
import resource, signal, sys
from pathlib import Path
from gateway.journal import Appender
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Appender(Path(sys.argv[1]), "000000000001-00-000000000002", roll_bytes=2**20)
journal.append(b"first" * 40 + b"\\n")
most = journal.size + 30
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
try:
    journal.append(b"1\\n" + b"second" * 9 + b"\\n")
except OSError as error:
    print(error.strerror)
journal.append(b"third\\n")
"""


def test_after_a_short_write_that_held_a_whole_line_the_next_segment_begins(tmp_path: Path) -> None:
    """A reader may have seen that line: what is written in its place would be read from the middle."""
    ran = subprocess.run([sys.executable, "-c", SHORT_WRITE_OF_TWO, str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("only 30 of")
    assert by_segment(tmp_path) == [[b"first" * 40], [b"third"]]


def test_a_directory_that_comes_late_is_found_by_a_later_append(tmp_path: Path) -> None:
    journal = appender(tmp_path / "late")
    with pytest.raises(FileNotFoundError):
        journal.append(b"lost\n")
    (tmp_path / "late").mkdir()
    journal.append(b"kept\n")
    journal.close()
    assert texts(tmp_path / "late") == [b"kept"]


def test_a_line_is_in_the_file_the_moment_append_returns(tmp_path: Path) -> None:
    """It must survive kill -9 of the worker: the page cache has it."""
    code = (
        "import os, signal, sys; from pathlib import Path; from gateway.journal import Appender\n"
        f"Appender(Path(sys.argv[1]), {WRITER!r}, roll_bytes=2**20).append(b'kept\\n')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -signal.SIGKILL
    assert texts(tmp_path) == [b"kept"]


def test_sync_may_be_called_while_segments_roll(tmp_path: Path) -> None:
    journal = appender(tmp_path, roll=8)
    for _ in range(5):
        journal.append(b"12345\n")
        journal.sync()
        journal.append(b"12345\n")
    journal.close()
    journal.close()  # harmless
    assert len(texts(tmp_path)) == 10


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


def test_a_sync_without_descriptors_keeps_what_it_had_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was retired meanwhile was neither synced nor closed, ever."""
    journal = appender(tmp_path)
    journal.append(b'{"a":1}\n')
    journal.roll()
    [retired] = journal._retired

    def none_left(fd: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as without:
        without.setattr(os, "dup", none_left)
        with pytest.raises(OSError, match="Too many"):
            journal.sync()
    assert (journal._retired, journal._named) == ([retired], True)
    journal.sync()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(retired)
    journal.close()
