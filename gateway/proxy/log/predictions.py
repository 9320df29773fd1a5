"""A worker's log of predictions: the journal, what is pending for it, and the policy for when it cannot be written.

Rule: what is not logged is counted. A journal that is full or broken sheds (answer, do not log, count) or refuses (503,
count), as ``journal_full`` says, and never blocks the loop: fsync is another thread's work. Whether it can be written
again is found out once a second, by a heartbeat; until then the room that is left is for draining it.
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
from gateway.proxy.log.counts import Counts
from router.records import mark_line
from router.snapshot import Gateway

logger = logging.getLogger(__name__)


class Pending:
    """The requests that are not in the journal yet, by their time of arrival: what holds the watermark back."""

    def __init__(self) -> None:
        self._arrivals: dict[int, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._arrivals)

    def begin(self, at_ms: int) -> int:
        """Register an arrival; the ticket is for ``end``."""
        self._next += 1
        self._arrivals[self._next] = at_ms
        return self._next

    def end(self, ticket: int) -> None:
        """Its rows are in the journal, or will never be. Harmless when repeated."""
        self._arrivals.pop(ticket, None)

    def watermark_ms(self, now_ms: int) -> int:
        """Return the time before which every request that arrived is in the journal."""
        # Not the first one, but the least: the wall clock may have stepped back in between.
        return min(self._arrivals.values(), default=now_ms)


class Log:
    """Writes prediction rows and marks, and says what becomes of a request that cannot be logged.

    ``directory`` is the journal's, whose bytes are bounded over all workers, those of each kind of segments apart.
    """

    def __init__(
        self, appender: Appender, feedback: FeedbackAppender, directory: Path, gateway: Gateway, counts: Counts
    ) -> None:
        self._appender = appender
        self._feedback = feedback
        self._directory = directory
        self._gateway = gateway
        self._counts = counts
        # Bytes of predictions and of feedback: as measured, and our own since then.
        self._measured = self._since = 0
        self._fed = self._fed_since = 0
        self._broken = False
        self._reserved = False  # what the disk has left is the controller's
        self.pending = Pending()
        self.measure()

    @property
    def journal_bytes(self) -> int:
        """Bytes in the journal, as last measured."""
        return self._measured + self._fed

    @property
    def full(self) -> bool:
        """True when ``max_journal_bytes`` is reached or the disk is full: it has to be drained first."""
        return self._reserved or self._measured + self._since >= self._gateway.max_journal_bytes

    @property
    def feedback_full(self) -> bool:
        """The same of feedback and ``max_feedback_journal_bytes``: a flood of it costs no prediction its row."""
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
            self._counts.add("journal_refused")
            return "refused"
        self._counts.add("journal_shed", rows.count(b"\n"))
        return "shed"

    def note(self, rows: bytes, *, owed: bool = False) -> None:
        """Write rows that no answer waits for. ``owed`` ones are written even if the journal is full.

        An ``open`` row whose ``close`` was shed would call a variant incomplete that was not.
        """
        if not self._write(rows, owed=owed):
            self._counts.add("journal_shed", rows.count(b"\n"))

    def spare(self, line: bytes) -> bool:
        """Write what is no row, and return whether it is written: not if the journal is full, whatever the policy."""
        return not self.full and self._write(line)

    def beat(self, now_ms: int) -> None:
        """Write the watermark; also what finds out that a broken disk is well again."""
        if not self.full:
            self._write(mark_line("beat", self.pending.watermark_ms(now_ms)), owed=True)

    def rejected(self, events: int, now_ms: int) -> None:
        """Write that so many feedback events were refused."""
        self.note(mark_line("rejected", now_ms, events=events))

    def bye(self, now_ms: int) -> None:
        """Write that this writer is done. Full or not: it is what lets the rest be deleted."""
        try:
            self._appender.append(mark_line("bye", now_ms))
        except OSError as error:
            logger.warning("no clean end in the journal: %s", error)

    def unsynced(self) -> None:
        """The present segment could not be made durable: count that, and leave the segment.

        After a failed fsync the kernel may call lost pages clean: no later one would say what became of them.
        """
        self._counts.add("journal_fsync_failures")
        self._appender.retire()

    def grew(self, size: int) -> None:
        """So many bytes of feedback were added."""
        self._fed_since += size

    def measure(self) -> None:
        """Look how large the journal is. Once a second."""
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
        """Let go of the present segments, ``empty`` ones too: what is drained can be deleted once it is finished."""
        if self._appender.size or empty:
            try:
                self._appender.roll()
            except OSError as error:
                self._break(error)
        if self._feedback.size or empty:
            self._feedback.roll()

    def _write(self, lines: bytes, *, owed: bool = False) -> bool:
        # Those in flight when the journal fills up were admitted: where unlogged answers are refused, they are written.
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
    """Make predictions durable again and again until ``stopped``: the body of a thread that no request waits for.

    ``failed`` is called on this thread each time they may not be.
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
