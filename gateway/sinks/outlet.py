"""What a sink's events go out by.

Rule: an outlet says how many of some events were refused for what they are, or raises Trouble: then nothing is known of
them, and all will be sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Trouble(Exception):
    """Events cannot be delivered at present. ``after_seconds`` is when the other side asks to be tried again."""

    def __init__(self, reason: str, after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.after_seconds = after_seconds


class Outlet(Protocol):
    """Sends events, each one line of JSON."""

    def take(self, lines: Sequence[bytes]) -> int:
        """Return how many of the first lines, one or more, are sent together."""
        ...

    async def send(self, lines: Sequence[bytes]) -> int:
        """Send what ``take`` said; return how many were refused. Raises Trouble."""
        ...

    async def close(self) -> None:
        """Let go of whatever is open."""
        ...
