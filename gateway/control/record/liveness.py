"""Whether recording goes on: how much of the journal is left, since when, and whether it is stalled and why.

Rule: a step that succeeds while lines wait, or a watermark that moves, is a sign of life; that the recorder runs is
none.
"""

from __future__ import annotations

from pathlib import Path
from time import monotonic, time_ns

from gateway.control.progress import FLEET_WATERMARK_SECONDS, STEP_SECONDS, WATERMARK_SECONDS, Progress
from gateway.control.record.drain import Segments
from gateway.store import reason
from gateway.store.counts.watermark import Writers


class Liveness:
    """Notes each step that succeeds, and says from that how recording goes. ``fleet``: there are several nodes."""

    def __init__(self, journal: Path, *, fleet: bool) -> None:
        self._journal = journal
        self._watermark_seconds = FLEET_WATERMARK_SECONDS if fleet else WATERMARK_SECONDS
        self._offsets: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self._waiting_bytes = 0
        self._caught_up = monotonic()
        #: When a step last succeeded; when the watermark last moved, or no writer was waited for.
        self._succeeded = self._moved = monotonic()
        self._committed = False
        self._watermark_ms: int | None = None

    def step_succeeded(self, segments: Segments, writers: Writers | None) -> None:
        """Note that a step succeeded; ``writers`` is None on a node that does not move the watermark."""
        self._offsets = dict(segments.offsets)
        now = self._succeeded = monotonic()
        self._committed = True
        if writers is None or writers.watermark_ms != self._watermark_ms or not writers.living():
            self._moved = now
        self._watermark_ms = None if writers is None else writers.watermark_ms
        if not segments.undrained_bytes():
            self._caught_up = now

    def lag(self) -> tuple[float, int]:
        """Return for how many seconds there was always something to record, and how many bytes of it."""
        found = Segments(self._journal, self._offsets)
        found.refuse(self.refused)
        try:
            found.look(())
        except OSError:  # no descriptors, or a journal that cannot be listed: the last answer stands
            waiting = self._waiting_bytes
        else:
            waiting = self._waiting_bytes = found.undrained_bytes()
        return (monotonic() - self._caught_up if waiting else 0.0), waiting

    def progress(self, error: Exception | None) -> Progress:
        """Return how far recording is, and whether and why it is stalled; ``error`` is why the last step failed."""
        now, (oldest, waiting) = monotonic(), self.lag()
        trouble, detail, since = "", "", now
        if error is not None:
            cause = getattr(error, "orig", None) or error
            trouble, detail, since = f"recording fails ({type(cause).__name__})", reason(error), self._succeeded
        elif waiting and now - self._succeeded > STEP_SECONDS:
            trouble, since = "recording does not go on, though lines wait", self._succeeded
        elif now - self._moved > self._watermark_seconds:
            trouble, since = "the watermark stands still, so that no window closes", self._moved
        age = None if self._watermark_ms is None else max(0.0, time_ns() / 1e9 - self._watermark_ms / 1e3)
        return Progress(now - since, trouble, detail, age, oldest, now - self._succeeded if self._committed else None)
