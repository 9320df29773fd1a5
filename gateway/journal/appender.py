"""Append sealed lines to the segments of one writer.

Rule: a line is in a segment whole or not at all, as far as its writer can help it: one ``write`` per append, a short
write taken back, and a segment that cannot be trusted is left for the next one.

Standard library only: workers import this.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

from gateway.files.regular import sync_directory
from gateway.journal.seal import header, sealed


class Appender:
    """Seals lines and appends them to one writer's segments.

    One thread calls ``append``, ``roll`` and ``retire``; any thread may call ``sync``.
    """

    def __init__(self, directory: Path, writer: str, *, roll_bytes: int) -> None:
        self.writer = writer
        self._directory = directory
        self.roll_bytes = roll_bytes
        self._fd = -1
        self._size = 0
        self._seq = 0
        self._number = 0  # of the next line
        self._lock = threading.Lock()  # guards the descriptors, which ``sync`` uses from another thread
        self._retired: list[int] = []
        self._named = True
        # The first segment exists from the start, so that a reader sees a new life of a worker before its first line.
        # If the disk refuses now, the first append tries again and reports it.
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
        if self._size and lines.find(b"\n") == len(lines) - 1:  # the usual case: one line
            content, number = sealed(lines, number), number + 1
        else:
            each = lines.splitlines(keepends=True)
            if not self._size:
                # Written with the first line and not before, so that a full disk leaves an empty segment.
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
                # A reader may have read the whole line, and be beyond the present end: nothing may be written there.
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
        """Close the present segment as it is: the next append begins another."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1
        self._size = 0

    def sync(self) -> None:
        """Return once everything appended before the call is on the disk. Raises OSError if it may not be."""
        with self._lock:
            # A duplicate, because the appending thread may close the descriptor in the meantime; first, since it may
            # fail.
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
        """Make everything durable and close the files. Raises OSError if it may not be durable."""
        try:
            self.sync()
        finally:
            self.retire()

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            # A torn line in mid-segment would swallow the next one, so it becomes the last line of this segment.
            self.retire()
