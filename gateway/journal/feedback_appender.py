"""Append feedback durably: a line is on the disk before its caller goes on.

Rule: one thread writes and syncs for every caller that waits, so that one ``fdatasync`` serves all of them. The futures
of the callers belong to the event loop, and only the event loop resolves them.

Standard library only: workers import this.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gateway.journal.appender import Appender


class JournalFailed(Exception):
    """Feedback could not be made durable, and may not be acknowledged."""


class FeedbackAppender:
    """Appends lines and returns only when they are durable: one thread writes and syncs for all callers that wait.

    All callers run on one event loop. At most ``waiting_bytes`` wait for the disk, and no caller waits longer than
    ``deadline_seconds``. ``commits`` counts how often the disk was asked to confirm.
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

        Raises JournalFailed if that is not known: then the caller may not acknowledge them, though they may be stored.
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
            # After a failed fsync the kernel may mark lost pages as clean: what this segment holds is no longer known.
            self._appender.retire()
            return JournalFailed(f"the journal could not be written: {error.strerror or error}")
        return None


def _wake(futures: Sequence[asyncio.Future[None]], failure: JournalFailed | None) -> None:
    """Resolve all futures in one call on their event loop: waking the loop costs more than the rest."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: no caller waits any more
        futures[0].get_loop().call_soon_threadsafe(_resolve, futures, failure)


def _resolve(futures: Iterable[asyncio.Future[None]], failure: JournalFailed | None) -> None:
    for future in futures:
        if future.done():  # its caller stopped waiting
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(JournalFailed(*failure.args))
