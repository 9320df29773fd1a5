"""The interface of what sends a sink's events.

Rule: an outlet returns how many of the events the receiver refused for their content, or raises Trouble: then it is
unknown which of them arrived, and all are sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Trouble(Exception):
    """Events cannot be delivered at present. The receiver asks for ``after_seconds`` of pause before the next try.

    ``status`` is that of its answer, if it answered; ``gone`` says that it wants no events any more.
    """

    def __init__(
        self, reason: str, after_seconds: float = 0.0, *, status: int | None = None, gone: bool = False
    ) -> None:
        super().__init__(reason)
        self.after_seconds = after_seconds
        self.status = status
        self.gone = gone


class Outlet(Protocol):
    """Sends events, each one line of JSON."""

    def take(self, lines: Sequence[bytes]) -> int:
        """Return how many of the first lines, one or more, are sent together."""
        ...

    async def send(self, lines: Sequence[bytes]) -> int:
        """Send as many lines as ``take`` returned; return how many were refused. Raises Trouble."""
        ...

    async def close(self) -> None:
        """Close connections and threads."""
        ...
