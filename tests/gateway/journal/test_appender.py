"""Appending to segments: whole lines or none."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.journal.appender import Appender
from gateway.journal.segments import (
    new_run,
    new_writer,
    segments,
)
from tests.gateway.journals import by_segment, texts

RUN = new_run(1_700_000_000_000)
WRITER = new_writer(RUN, 3, 1_700_000_000_500)


SHORT_WRITE = """
import resource, sys
from pathlib import Path
from gateway.journal.appender import Appender
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


SHORT_WRITE_OF_TWO = """
import resource, signal, sys
from pathlib import Path
from gateway.journal.appender import Appender
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


def appender(directory: Path, roll: int = 2**20) -> Appender:
    return Appender(directory, WRITER, roll_bytes=roll)


def test_what_is_appended_is_read_back_line_by_line(tmp_path: Path) -> None:
    journal = appender(tmp_path)
    journal.append(b'{"a":1}\n')
    journal.append(b'{"b":2}\n{"c":3}\n')
    journal.close()
    assert texts(tmp_path) == [b'{"a":1}', b'{"b":2}', b'{"c":3}']


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


def test_a_short_write_is_taken_back_and_the_next_line_is_whole(tmp_path: Path) -> None:
    """A real short write: the file may grow by twenty bytes only."""
    ran = subprocess.run([sys.executable, "-c", SHORT_WRITE, str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert [line.partition(" of ")[0] for line in ran.stdout.splitlines()] == ["only 20"] * 2
    assert texts(tmp_path) == [b"first", b"4"]


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
        "import os, signal, sys; from pathlib import Path; from gateway.journal.appender import Appender\n"
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
