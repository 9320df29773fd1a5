"""A worker's log of predictions: it writes rows into the journal, and applies the policy when they cannot be written.

Rule: every row that is not logged is counted. If the journal is full or broken, rows are shed (answer, do not log,
count) or requests are refused (503, count), as ``journal_full`` says. It never blocks the loop: another thread calls
fsync. A heartbeat finds out once a second whether it can be written again; until then the disk space that is left is
kept for draining it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from gateway.journal.appender import Appender
from gateway.journal.feedback_appender import FeedbackAppender
from gateway.journal.reserve import is_spent
from gateway.journal.segments import FEEDBACK, PREDICTIONS, roll_bytes, size_bytes
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.worker_series import JOURNAL_FSYNC_FAILURES, JOURNAL_REFUSED, JOURNAL_SHED
from router.records import mark_line
from router.snapshot import Gateway

logger = logging.getLogger(__name__)


class Pending:
    """The times of arrival of requests that are not in the journal yet: the watermark must not pass them."""

    def __init__(self) -> None:
        self._arrivals: dict[int, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._arrivals)

    def begin(self, at_ms: int) -> int:
        """Register an arrival; return the ticket to pass to ``end``."""
        self._next += 1
        self._arrivals[self._next] = at_ms
        return self._next

    def end(self, ticket: int) -> None:
        """The rows of this request are in the journal, or will never be. Harmless when repeated."""
        self._arrivals.pop(ticket, None)

    def watermark_ms(self, now_ms: int) -> int:
        """Return the time before which every request that arrived is in the journal."""
        # The least, which need not be the first: the wall clock may have stepped back in between.
        return min(self._arrivals.values(), default=now_ms)


class Log:
    """Writes prediction rows and marks, and decides what happens to a request that cannot be logged.

    ``directory`` is the journal's. Its bytes are bounded over all workers, separately for each kind of segments.
    """

    def __init__(
        self, appender: Appender, feedback: FeedbackAppender, directory: Path, gateway: Gateway, counts: Counts
    ) -> None:
        self._appender = appender
        self._feedback = feedback
        self._directory = directory
        self._gateway = gateway
        self._counts = counts
        # Bytes of predictions and of feedback: as measured, and those this worker has added since.
        self._measured = self._since = 0
        self._fed = self._fed_since = 0
        self._broken = False
        self._reserved = False  # the disk is nearly full: what is left is reserved for the controller
        self.pending = Pending()
        self.measure()

    @property
    def journal_bytes(self) -> int:
        """Bytes in the journal, as last measured."""
        return self._measured + self._fed

    @property
    def full(self) -> bool:
        """True when ``max_journal_bytes`` is reached or the disk is full, until the journal is drained."""
        return self._reserved or self._measured + self._since >= self._gateway.max_journal_bytes

    @property
    def feedback_full(self) -> bool:
        """The same for feedback and ``max_feedback_journal_bytes``: a flood of feedback displaces no predictions."""
        return self._reserved or self._fed + self._fed_since >= self._gateway.max_feedback_journal_bytes

    @property
    def refusing(self) -> bool:
        """True when a request must be answered 503 before anything is called, because it could not be logged."""
        return self._gateway.journal_full == "refuse" and (self._broken or self.full)

    def swap(self, gateway: Gateway) -> None:
        """Go by these settings from now on."""
        self._gateway = gateway
        self._appender.roll_bytes = roll_bytes(gateway.max_journal_bytes)
        self._feedback.roll_bytes = roll_bytes(gateway.max_feedback_journal_bytes)

    def admit(self, rows: bytes) -> Literal["written", "shed", "refused"]:
        """Write the rows of an answer before it is sent; "refused" means that it must not be."""
        if self._write(rows):
            return "written"
        if self._gateway.journal_full == "refuse":
            self._counts.add(JOURNAL_REFUSED)
            return "refused"
        self._counts.add(JOURNAL_SHED, rows.count(b"\n"))
        return "shed"

    def note(self, rows: bytes, *, owed: bool = False) -> None:
        """Write rows that no answer waits for; ``owed`` ones even if the journal is full.

        Otherwise an ``open`` row whose ``close`` was shed would report a complete answer as incomplete.
        """
        if not self._write(rows, owed=owed):
            self._counts.add(JOURNAL_SHED, rows.count(b"\n"))

    def spare(self, line: bytes) -> bool:
        """Write a line that is no row, unless the journal is full, whatever the policy.

        Return whether it is written.
        """
        return not self.full and self._write(line)

    def beat(self, now_ms: int) -> None:
        """Write the watermark. This also finds out that a broken disk can be written again."""
        if not self.full:
            self._write(mark_line("beat", self.pending.watermark_ms(now_ms)), owed=True)

    def rejected(self, events: int, now_ms: int) -> None:
        """Write how many feedback events were refused."""
        self.note(mark_line("rejected", now_ms, events=events))

    def bye(self, now_ms: int) -> None:
        """Write that this writer has ended, even if the journal is full: only then can the rest of it be deleted."""
        try:
            self._appender.append(mark_line("bye", now_ms))
        except OSError as error:
            logger.warning("no clean end in the journal: %s", error)

    def unsynced(self) -> None:
        """Count that the present segment could not be made durable, and begin another one.

        After a failed fsync the kernel may mark lost pages clean, so that no later fsync would report them.
        """
        self._counts.add(JOURNAL_FSYNC_FAILURES)
        self._appender.retire()

    def grew(self, size: int) -> None:
        """Add to the bytes of feedback in the journal."""
        self._fed_since += size

    def measure(self) -> None:
        """Measure how large the journal is. Called once a second."""
        try:
            self._measured, self._since = size_bytes(self._directory, PREDICTIONS), 0
            self._fed, self._fed_since = size_bytes(self._directory, FEEDBACK), 0
            self._reserved = is_spent(self._directory)
        except OSError as error:
            logger.warning("the journal cannot be measured: %s", error)
            return
        if self.full or self.feedback_full:
            self.roll(empty=False)

    def roll(self, *, empty: bool = True) -> None:
        """Finish the present segments, ``empty`` ones too: a segment can be deleted once it is finished and drained."""
        if self._appender.size or empty:
            try:
                self._appender.roll()
            except OSError as error:
                self._break(error)
        if self._feedback.size or empty:
            self._feedback.roll()

    def _write(self, lines: bytes, *, owed: bool = False) -> bool:
        # With "refuse", the rows of requests that were admitted before the journal filled up are still written.
        if (self._broken or self.full) and self._gateway.journal_full == "shed" and not owed:
            return False
        try:
            self._appender.append(lines)
        except OSError as error:
            self._break(error)
            return False
        self._since += len(lines)
        if self._broken:
            self._broken = False
            logger.warning("the journal can be written again")
        return True

    def _break(self, error: OSError) -> None:
        if not self._broken:
            self._broken = True
            logger.error("the journal cannot be written (%s): journal_full = %s", error, self._gateway.journal_full)


def keep_synced(
    appender: Appender,
    every_seconds: Callable[[], float],
    stopped: threading.Event,
    failed: Callable[[], None] = lambda: None,
) -> None:
    """Sync predictions to the disk periodically until ``stopped``: the body of a thread that no request waits for.

    ``failed`` is called on this thread after each sync that fails.
    """
    failing = False
    while not stopped.wait(every_seconds()):
        try:
            appender.sync()
            failing = False
        except OSError as error:
            if not failing:
                logger.error("predictions may not survive a power loss: %s", error)
            failing = True
            failed()
