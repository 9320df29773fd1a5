"""The memory that one worker has for what clients are slow to send or to take.

Rule: each connection has HELD_BYTES of its own, each way, and one read more; what goes beyond comes out of this budget
and is given back once, on whichever path. Where a body finds no room, those lose theirs whose clients were slow for
EVICT_SECONDS, the slowest first: else a few who drip could have all of it for hours. What cannot be had even so is not
held: a body is refused, and a backend waits for the client, with its place taken.
"""

from __future__ import annotations

from time import monotonic
from typing import Final, Protocol

#: How long a client may take for 64 KiB, of its body or of the answer, while others need what is held for it.
EVICT_SECONDS: Final = 0.5


class SlowClient(Protocol):
    """A client's connection, as far as the budget knows it."""

    def evict(self) -> None:
        """Give back what is held for this client, whose time is up."""


class Buffers:
    """The budget of one worker in bytes, over all its clients. ``limit`` may be set at any time."""

    __slots__ = ("_slow", "evicted", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        #: Clients that lost what was held for them to others.
        self.evicted = 0
        #: Those that more has to come from, or be taken by, and since when for the present 64 KiB; the longest first.
        self._slow: dict[SlowClient, float] = {}

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

    def reclaim(self, size: int, client: SlowClient) -> bool:
        """Take so many bytes for this client, if need be from those that are slow; or none and return False."""
        while not self.take(size):
            for slow in self._slow:
                if slow is not client:
                    break
            else:
                return False
            if monotonic() - self._slow[slow] < EVICT_SECONDS:
                return False
            del self._slow[slow]
            self.evicted += 1
            slow.evict()
        return True

    def waits(self, client: SlowClient) -> None:
        """From now on we wait for the next 64 KiB of a client that something is held for."""
        self._slow.pop(client, None)
        self._slow[client] = monotonic()

    def waits_no_more(self, client: SlowClient) -> None:
        """It owes nothing."""
        self._slow.pop(client, None)

    def charge(self, size: int) -> None:
        """Count so many bytes that are held already, whatever the limit."""
        self.used += size

    def give(self, size: int) -> None:
        """Give so many back."""
        self.used -= size
