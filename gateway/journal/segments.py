"""The journal: append-only segments of sealed JSON lines, the one record that passes from workers to the controller.

Rule: a line is in a segment whole or not at all, as far as its writer can help it: one ``write`` per append, a short
write taken back, a segment that cannot be trusted left for the next. What a reader may rely on:

- A *writer* is one life of one worker, ``{run}-{slot}-{spawn}``; its segments are ``{writer}-{seq}.jsonl``. ``run`` and
  ``spawn`` are Unix milliseconds of the supervisor's and the worker's start as 12 hex digits, so names sort by age.
- Segments only grow, and are never written again once a higher ``seq`` of the same writer exists.
- The first line of a segment says its format. Every line is sealed (``gateway.journal.seal``), and those of a writer in
  one folder are numbered through all its segments, from 0.
- A last line without its newline is still being written; or torn, when the segment is finished: to be counted and left.

Standard library only: workers import this, and so does whoever reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.files.regular import open_regular, sync_directory
from gateway.journal.seal import HEADER_BYTES, check_header, header, sealed

#: The journal's place in the data directory, and in it that of each kind.
JOURNAL: Final = "journal"
PREDICTIONS: Final = "predictions"
FEEDBACK: Final = "feedback"
#: Begins the names of the folders in which a backup that is being made, or was killed, holds links to segments.
LINKS: Final = ".backup-"

#: A segment is small enough to be drained and deleted soon, and large enough that files are few.
SEGMENT_BYTES: Final = 16 * 2**20

_NAME: Final = re.compile(r"([0-9a-f]{12})-(\d{2,})-([0-9a-f]{12})-(\d{6,})\.jsonl")


class JournalFailed(Exception):
    """Feedback could not be made durable, and nothing may be acknowledged."""


def new_run(now_ms: int) -> str:
    """Return the name of a supervisor's run."""
    return f"{now_ms:012x}"


def new_writer(run: str, slot: int, now_ms: int) -> str:
    """Return the name of one life of the worker at ``slot``."""
    return f"{run}-{slot:02d}-{now_ms:012x}"


def next_run(journal: Path, now_ms: int) -> str:
    """Return the name of a run that is newer than every one in the journal, also when the clock was set back.

    A run that looked older than the last would be taken for dead, and what it writes for finished.
    """
    known = (int(segment.run, 16) + 1 for segment in _all_segments(journal))
    return new_run(max(now_ms, *known, 0))


def next_writer(journal: Path, run: str, slot: int, now_ms: int) -> str:
    """Return the name of a life that is newer than every other of this worker, also when the clock was set back."""
    lives = (int(s.spawn, 16) + 1 for s in _all_segments(journal) if (s.run, s.slot) == (run, slot))
    return new_writer(run, slot, max(now_ms, *lives, 0))


def roll_bytes(max_journal_bytes: int) -> int:
    """Return the size at which a segment is followed by the next: an eighth of the bound, 16 MiB at most.

    Only finished segments can be deleted, so a segment as large as the bound would keep the journal full for ever.
    """
    return max(1, min(SEGMENT_BYTES, max_journal_bytes // 8))


class Appender:
    """Seals lines and appends them to one writer's segments.

    ``append``, ``roll`` and ``retire`` belong to one thread, ``sync`` to any.
    """

    def __init__(self, directory: Path, writer: str, *, roll_bytes: int) -> None:
        self.writer = writer
        self._directory = directory
        self.roll_bytes = roll_bytes
        self._fd = -1
        self._size = 0
        self._seq = 0
        self._number = 0  # of the next line
        self._lock = threading.Lock()  # guards what sync shares with the rest: the descriptors
        self._retired: list[int] = []
        self._named = True
        # The first segment exists from the start, so that a new life of a worker is seen before it has anything to say;
        # if the disk refuses now, the first append tries again and reports.
        with contextlib.suppress(OSError):
            self.roll()

    def __repr__(self) -> str:
        return f"Appender({self.writer}-{self._seq:06d}, {self._size} bytes)"

    @property
    def size(self) -> int:
        """Bytes in the present segment."""
        return self._size

    def append(self, lines: bytes) -> None:
        """Append whole lines, several of them in one write. Raises OSError when they are not in the journal."""
        if self._fd < 0:
            self.roll()
        elif self._size and self._size + len(lines) > self.roll_bytes:
            # A full descriptor table must not stop a journal that still has an open segment.
            with contextlib.suppress(OSError):
                self.roll()
        number = self._number
        if self._size and lines.find(b"\n") == len(lines) - 1:  # as most are: one more
            content, number = sealed(lines, number), number + 1
        else:
            each = lines.splitlines(keepends=True)
            if not self._size:
                # With the first line and not before, so that a disk that takes neither leaves an empty segment.
                each.insert(0, header(self.writer))
            content = b"".join([sealed(line, number + place) for place, line in enumerate(each)])
            number += len(each)
        try:
            written = os.write(self._fd, content)
        except OSError:
            self._take_back()
            raise
        if written != len(content):
            self._take_back()
            if b"\n" in content[:written]:
                # Whoever read a whole line of it is further than the end is now: nothing may be written there.
                self.retire()
            raise OSError(errno.ENOSPC, f"only {written} of {len(content)} bytes were written")
        self._size += written
        self._number = number

    def roll(self) -> None:
        """Begin the next segment, which finishes the present one. Raises OSError, keeping the present one."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        while True:
            seq = self._seq
            try:
                fd = os.open(self._directory / f"{self.writer}-{seq:06d}.jsonl", flags, 0o600)
            except FileExistsError:
                self._seq += 1
                continue
            break
        with self._lock:
            if self._fd >= 0:
                self._retired.append(self._fd)
            self._fd, self._named = fd, True
        self._size = 0

    def retire(self) -> None:
        """Give up the present segment as it is: the next append begins another."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1
        self._size = 0

    def sync(self) -> None:
        """Return once everything appended before the call is on the disk. Raises OSError if it may not be."""
        with self._lock:
            # A copy, because the appending thread may close its own in the meantime. First, because it may fail.
            current = [os.dup(self._fd)] if self._fd >= 0 else []
            retired, self._retired = self._retired, []
            named, self._named = self._named, False
        failure: OSError | None = None
        for fd in (*retired, *current):
            try:
                os.fdatasync(fd)
            except OSError as error:
                failure = error
            finally:
                os.close(fd)
        if named:
            try:
                sync_directory(self._directory)
            except OSError:
                self._named = True
                raise
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Make everything durable and let go of the files. Raises OSError if it may not be durable."""
        try:
            self.sync()
        finally:
            self.retire()

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            # A torn line in mid-segment would swallow the next one: let it be the last line of this segment.
            self.retire()


class FeedbackAppender:
    """Appends lines and returns only when they are durable: one thread writes and syncs for everything that waits.

    All who wait are of one loop.

    What waits is bounded by ``waiting_bytes``, and nobody waits longer than ``deadline_seconds``. ``commits`` counts
    how often the disk was asked to confirm.
    """

    def __init__(
        self,
        directory: Path,
        writer: str,
        *,
        roll_bytes: int,
        waiting_bytes: int = 32 * 2**20,
        deadline_seconds: float = 10.0,
        sync: Callable[[Appender], None] = Appender.sync,
    ) -> None:
        self._appender = Appender(directory, writer, roll_bytes=roll_bytes)
        self._sync = sync
        self._waiting_bytes = waiting_bytes
        self._deadline_seconds = deadline_seconds
        self._turn = threading.Condition()
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._bytes = 0
        self._rolling = False
        self._closing = False
        self.commits = 0
        self._syncing = threading.Thread(target=self._run, name="feedback-journal", daemon=True)
        self._syncing.start()

    @property
    def size(self) -> int:
        """Bytes in the present segment."""
        return self._appender.size

    @property
    def roll_bytes(self) -> int:
        """The size at which a segment is followed by the next."""
        return self._appender.roll_bytes

    @roll_bytes.setter
    def roll_bytes(self, size: int) -> None:
        self._appender.roll_bytes = size

    async def append(self, lines: bytes) -> None:
        """Append whole lines and return once they are on the disk.

        Raises JournalFailed if they are not known to be: then nothing may be acknowledged, though they may be stored.
        """
        future = asyncio.get_running_loop().create_future()
        with self._turn:
            if self._closing:
                raise JournalFailed("the journal is closing")
            if self._bytes + len(lines) > self._waiting_bytes:
                raise JournalFailed("too much feedback is waiting for the disk")
            self._waiting.append((lines, future))
            self._bytes += len(lines)
            self._turn.notify()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await future
        except TimeoutError:
            raise JournalFailed(f"the disk did not confirm within {self._deadline_seconds:g} s") from None

    def roll(self) -> None:
        """Finish the present segment soon, so that it can be deleted once it is drained."""
        with self._turn:
            self._rolling = True
            self._turn.notify()

    async def close(self) -> None:
        """Finish what waits, then stop the thread."""
        with self._turn:
            self._closing = True
            self._turn.notify()
        await asyncio.get_running_loop().run_in_executor(None, self._syncing.join, self._deadline_seconds)

    def _run(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._waiting or self._rolling or self._closing)
                group, self._waiting = self._waiting, []
                rolling, self._rolling = self._rolling, False
                self._bytes = 0
            if rolling:
                with contextlib.suppress(OSError):
                    self._appender.roll()
            if not group:
                if self._closing:
                    break
                continue
            failure = self._commit([lines for lines, _ in group])
            _wake([future for _, future in group], failure)
        with contextlib.suppress(OSError):
            self._appender.close()

    def _commit(self, group: Iterable[bytes]) -> JournalFailed | None:
        self.commits += 1
        try:
            self._appender.append(b"".join(group))
            self._sync(self._appender)
        except OSError as error:
            # After a failed fsync the kernel may call lost pages clean: what this segment holds is no longer known.
            self._appender.retire()
            return JournalFailed(f"the journal could not be written: {error.strerror or error}")
        return None


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of the journal, as it was when listed. ``size`` is in bytes."""

    path: Path
    run: str
    slot: int
    spawn: str
    seq: int
    size: int

    @property
    def writer(self) -> str:
        return f"{self.run}-{self.slot:02d}-{self.spawn}"


def segments(directory: Path, odd: dict[str, str] | None = None) -> list[Segment]:
    """Return the segments in ``directory``, oldest first: by run, slot, spawn, seq. A missing directory holds none.

    What is named like a segment and is no file that can be read is none; ``odd`` takes its name, and what it is.
    """
    found: list[Segment] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if name := _NAME.fullmatch(entry.name):
                    run, slot, spawn, seq = name.groups()
                    try:
                        status = entry.stat()
                    except FileNotFoundError:  # drained and deleted just now
                        continue
                    except OSError as error:  # a loop of links
                        if odd is not None:
                            odd[entry.name] = error.strerror or str(error)
                        continue
                    if stat.S_ISREG(status.st_mode):
                        found.append(Segment(Path(entry.path), run, int(slot), spawn, int(seq), status.st_size))
                    elif odd is not None:
                        odd[entry.name] = "no regular file"
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda s: (s.run, s.slot, s.spawn, s.seq))


def read_lines(path: Path, offset: int, max_bytes: int) -> tuple[list[bytes], int]:
    """Return the whole lines from ``offset`` on, newlines left out, and the offset after the last of them.

    They are as they stand there, sealed. Reads about ``max_bytes``, more only when a single line is longer. Raises
    OSError, and SegmentRefused if the segment is not to be read at all.
    """
    with open(open_regular(path), "rb", buffering=0) as segment:
        check_header(segment.read(HEADER_BYTES), path.name.rpartition("-")[0])
        segment.seek(offset)
        content = segment.read(max_bytes) or b""
        while b"\n" not in content and (more := segment.read(max_bytes)):
            content += more
    whole = content[: content.rfind(b"\n") + 1]
    return whole.split(b"\n")[:-1], offset + len(whole)


def size_bytes(directory: Path, *kinds: str) -> int:
    """Return how many bytes the journal under ``directory`` holds: what is not drained, and what is not yet deleted.

    Of some ``kinds`` of segments, or of all.
    """
    return sum(segment.size for kind in kinds or (PREDICTIONS, FEEDBACK) for segment in segments(directory / kind))


def _all_segments(journal: Path) -> list[Segment]:
    return [segment for kind in (PREDICTIONS, FEEDBACK) for segment in segments(journal / kind)]


def _wake(futures: Sequence[asyncio.Future[None]], failure: JournalFailed | None) -> None:
    """Tell all of them, on the loop that they are of: to wake it costs more than the rest."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        futures[0].get_loop().call_soon_threadsafe(_resolve, futures, failure)


def _resolve(futures: Iterable[asyncio.Future[None]], failure: JournalFailed | None) -> None:
    for future in futures:
        if future.done():  # its caller stopped waiting
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(JournalFailed(*failure.args))
