"""Import a file of labels into the journal, as feedback from clients is written there.

Rule: the command is a writer of its own in the journal, beside the workers. What it reports as accepted is durable
(each batch is appended and synced, as feedback is before its 202), the recorder handles it as any feedback, and the
request path takes no part in it. Sent through ``POST /-/feedback`` instead, a million rows would be parsed and
checked by the processes that answer requests, at a third of the rate.

The journal stays bounded: above half of ``max_feedback_journal_bytes`` the import waits for the recorder, so that
feedback that comes by HTTP keeps the other half.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from gateway.bulk.formats import ImportBatch, Source
from gateway.bulk.position import Position, PositionFile
from gateway.files.published import SNAPSHOT, SnapshotFile
from gateway.journal.appender import Appender
from gateway.journal.rolling import WORKER_SLOTS
from gateway.journal.segments import FEEDBACK, JOURNAL, PREDICTIONS, new_run, next_writer, roll_bytes, segments
from gateway.journal.segments import size_bytes as journal_bytes
from gateway.proxy.feedback.validate import read_fields
from router.records import fields_line, mark_line
from router.snapshot import Snapshot

#: The import's share of the journal.
_SHARE: Final = 0.5
#: How long the journal may stay above that before the import gives up: no recorder drains it.
PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.2


class Stuck(Exception):
    """The journal holds its share and is not drained."""


class Watcher(Protocol):
    """The caller, which is informed of the progress; ``stopping`` is called after each batch."""

    def stopping(self) -> bool: ...
    def refused(self, line: int, details: list[str]) -> None: ...
    def moved(self, position: Position, done: float) -> None: ...
    def waiting(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Result:
    """How an import ended: at the file's end, or ``interrupted`` where it can go on."""

    position: Position
    interrupted: bool


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def run(source: Source, data_dir: Path, watcher: Watcher, *, patience_seconds: float = PATIENCE_SECONDS) -> Result:
    """Import a file, from where an earlier import of it was interrupted.

    Raises Busy, Stuck, UnreadableFile, WrongColumns, and OSError for what cannot be read or written: then what was
    imported stays imported, and the next run goes on.
    """
    file = PositionFile(data_dir, source)
    published = SnapshotFile(data_dir / SNAPSHOT)
    snapshot = published.read()
    assert snapshot is not None
    with file.held():
        before = file.read()
        if before is not None:
            _finish(data_dir, before.writer)
        batches = source.batches(0 if before is None else before.rows)
        writer = _writer(data_dir, snapshot)
        try:
            position, interrupted = Position(writer.writer), False
            if before is not None:
                position = Position(writer.writer, before.rows, before.accepted, before.refused)
            file.write(position)
            for batch in batches:
                _wait(data_dir, snapshot, watcher, patience_seconds)
                snapshot = published.read() or snapshot
                position = _take(batch, snapshot, writer, watcher, position)
                file.write(position)
                watcher.moved(position, batch.done)
                if watcher.stopping():
                    interrupted = True
                    break
        finally:
            writer.append(mark_line("bye", now_ms()))
            writer.close()
        if not interrupted:
            file.forget()
    return Result(position, interrupted)


def _take(batch: ImportBatch, snapshot: Snapshot, writer: Appender, watcher: Watcher, position: Position) -> Position:
    """Write the valid entries of a batch durably, and the number of those refused."""
    at_ms = now_ms()
    lines, problems = _checked(batch, snapshot, at_ms)
    for line, detail in batch.problems:
        problems.setdefault(line, []).append(detail)
    if problems:
        lines.append(mark_line("rejected", at_ms, events=len(problems)))
    writer.append(b"".join(lines))
    writer.sync()
    for line in sorted(problems):
        watcher.refused(line, problems[line])
    return position.after(batch.rows - len(problems), len(problems))


def _checked(batch: ImportBatch, snapshot: Snapshot, at_ms: int) -> tuple[list[bytes], dict[int, list[str]]]:
    """Return the journal lines of the valid entries, and the problems of the others by line."""
    problems: dict[int, list[str]] = {}
    try:
        events, found = read_fields(batch.entries, snapshot, at_ms)
        lines = [fields_line(event) for event in events]
    except (TypeError, ValueError):  # a lone surrogate somewhere: no journal line can hold it
        return _one_by_one(batch, snapshot, at_ms)
    for problem in found:
        problems.setdefault(batch.lines[problem.index], []).append(problem.detail)
    return lines, problems


def _one_by_one(batch: ImportBatch, snapshot: Snapshot, at_ms: int) -> tuple[list[bytes], dict[int, list[str]]]:
    lines: list[bytes] = []
    problems: dict[int, list[str]] = {}
    for number, entry in zip(batch.lines, batch.entries, strict=True):
        try:
            events, found = read_fields([entry], snapshot, at_ms)
            lines += [fields_line(event) for event in events]
        except (TypeError, ValueError):
            problems[number] = ["holds what is no UTF-8 text, or no value of JSON"]
        else:
            if found:
                problems[number] = [problem.detail for problem in found]
    return lines, problems


def _writer(data_dir: Path, snapshot: Snapshot) -> Appender:
    """Begin a writer of the present run: with a later run the recorder would take the workers' run for dead."""
    journal = data_dir / JOURNAL
    folder = journal / FEEDBACK
    folder.mkdir(parents=True, exist_ok=True)
    run = max((segment.run for segment in segments(journal / PREDICTIONS)), default=new_run(now_ms()))
    # A slot per process, so that two imports never write one segment.
    name = next_writer(journal, run, WORKER_SLOTS + os.getpid(), now_ms())
    return Appender(folder, name, roll_bytes=roll_bytes(snapshot.gateway.max_feedback_journal_bytes))


def _finish(data_dir: Path, writer: str) -> None:
    """Write the end of an import that was killed, so that its segments are deleted once they are drained."""
    folder = data_dir / JOURNAL / FEEDBACK
    if any(segment.writer == writer for segment in segments(folder)):
        last = Appender(folder, writer, roll_bytes=1)
        last.append(mark_line("bye", now_ms()))
        last.close()


def _wait(data_dir: Path, snapshot: Snapshot, watcher: Watcher, patience_seconds: float) -> None:
    """Wait until the journal has room for the import. Raises Stuck."""
    least = size = journal_bytes(data_dir / JOURNAL, FEEDBACK)
    most = _SHARE * snapshot.gateway.max_feedback_journal_bytes
    deadline = time.monotonic() + patience_seconds
    while size > most:
        if watcher.stopping():
            return
        if time.monotonic() > deadline:
            raise Stuck
        watcher.waiting()
        time.sleep(_PAUSE_SECONDS)
        size = journal_bytes(data_dir / JOURNAL, FEEDBACK)
        if size < least:  # a recorder drains it
            least, deadline = size, time.monotonic() + patience_seconds
