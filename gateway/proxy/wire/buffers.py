"""The memory that one worker has for what clients are slow to send or to take.

Rule: each connection has HELD_BYTES of its own, each way, and one read more. What it holds beyond that comes out of
this budget and is given back once, however the request ends. Where there is no room for a body, clients that were slow
for EVICT_SECONDS lose what is held for them, the slowest first: otherwise a few that send a byte at a time could keep
all of it for hours. If that is not enough, nothing is held: a body is refused, and a backend, with its place taken,
waits for the client.
"""

from __future__ import annotations

from time import monotonic
from typing import Final, Protocol

#: How long a client may take for 64 KiB, of its body or of the answer, while others need what is held for it.
EVICT_SECONDS: Final = 0.5


class SlowClient(Protocol):
    """What the budget asks of a client's connection."""

    def evict(self) -> None:
        """Give back what is held for this client, which was slow for too long."""


class Buffers:
    """The budget of one worker in bytes, over all its clients. ``limit`` may be set at any time."""

    __slots__ = ("_slow", "evicted", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        #: Clients that lost what was held for them, since the start.
        self.evicted = 0
        #: Clients that have to send or to take more, and since when their next 64 KiB is awaited; longest first.
        self._slow: dict[SlowClient, float] = {}

    def __repr__(self) -> str:
        return f"<Buffers {self.used} of {self.limit}>"

    @property
    def spent(self) -> bool:
        """True when all of it is taken."""
        return self.used >= self.limit

    def take(self, size: int) -> bool:
        """Take this many bytes; if there are not as many, take none and return False."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def reclaim(self, size: int, client: SlowClient) -> bool:
        """Take this many bytes for a client, if need be from other clients that are slow; or none, and return False."""
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

    def await_client(self, client: SlowClient) -> None:
        """From now on the next 64 KiB of a client is awaited for which something is held."""
        self._slow.pop(client, None)
        self._slow[client] = monotonic()

    def stop_awaiting(self, client: SlowClient) -> None:
        """Nothing is awaited of this client any more. Harmless when nothing was."""
        self._slow.pop(client, None)

    def charge(self, size: int) -> None:
        """Count this many bytes that are held already, even beyond the limit."""
        self.used += size

    def give(self, size: int) -> None:
        """Give this many bytes back."""
        self.used -= size
