"""How long a body may take: the clock behind ``body_timeout_ms`` and ``min_body_bytes_per_second``.

Rule: a limit between bytes alone lets a body drip, and hold its connection for ever. So on the whole it must come at
the least rate as well, once it has had the time-out as its start. Time in which we did not read is not the client's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.proxy.server.edge import Edge


class Pace:
    """Of one body that did not come together with its head. Times are the loop's."""

    __slots__ = ("_began", "_paused")

    def __init__(self, now: float) -> None:
        self._began = now
        self._paused: float | None = None

    def deadline(self, now: float, received: int, limits: Edge) -> float:
        """Return when more than these bytes must be here."""
        idle = now + limits.body_seconds
        rate = limits.min_body_rate
        return min(idle, self._began + limits.body_seconds + received / rate) if rate else idle

    def pause(self, now: float) -> None:
        """We read no more."""
        self._paused = now

    def resume(self, now: float) -> None:
        """We read again."""
        if self._paused is not None:
            self._began += now - self._paused
            self._paused = None
