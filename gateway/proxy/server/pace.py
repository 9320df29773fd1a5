"""How long a body may take: the clock behind ``body_timeout_ms`` and ``min_body_bytes_per_second``.

Rule: with a limit between bytes alone, a client could send one byte at a time and hold its connection for ever. So on
the whole a body must come at the least rate as well, once it has had the time-out as its start. Time in which the
connection was not read is not counted.
"""

from __future__ import annotations


class Pace:
    """Of one body that did not come together with its head. Times are the loop's, in seconds."""

    __slots__ = ("_began", "_paused")

    def __init__(self, now: float) -> None:
        self._began = now
        self._paused: float | None = None

    def deadline(self, now: float, received: int, seconds: float, rate: int) -> float:
        """Return when more than the ``received`` bytes must be here: at this rate, and within so many seconds."""
        idle = now + seconds
        return min(idle, self._began + seconds + received / rate) if rate else idle

    def pause(self, now: float) -> None:
        """Stop the clock: the connection is not read."""
        self._paused = now

    def resume(self, now: float) -> None:
        """Let it go on: the connection is read again."""
        if self._paused is not None:
            self._began += now - self._paused
            self._paused = None
