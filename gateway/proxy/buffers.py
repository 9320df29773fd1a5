"""The memory that one worker has for what clients are slow to send or to take.

Rule: each connection has HELD_BYTES of its own, each way, and one read more; what goes beyond comes out of this budget
and is given back once, on whichever path. What cannot be had there is not held: a body is refused, and a backend waits
for the client, with its place taken.
"""

from __future__ import annotations


class Buffers:
    """The budget of one worker in bytes, over all its clients. ``limit`` may be set at any time."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def __repr__(self) -> str:
        return f"<Buffers {self.used} of {self.limit}>"

    @property
    def spent(self) -> bool:
        """True when nothing more is to be had."""
        return self.used >= self.limit

    def take(self, size: int) -> bool:
        """Take so many bytes, or none and return False."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def charge(self, size: int) -> None:
        """Count so many bytes that are held already, whatever the limit."""
        self.used += size

    def give(self, size: int) -> None:
        """Give so many back."""
        self.used -= size
