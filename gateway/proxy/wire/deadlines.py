"""One coarse timer for many waits for the network.

Rule: a waiter moves its own ``deadline`` by plain assignment, which costs nothing; one sweep over all waiters finds
those that are late. A timer of its own for each request would cost more than parsing it.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

NEVER: Final = float("inf")
#: Seconds between sweeps: a tenth of the shortest wait, within these bounds.
_RAREST: Final = 0.25
_BUSIEST: Final = 0.005


class Waiter(Protocol):
    """Something with a deadline on the loop's clock, in seconds; NEVER while it waits for nothing."""

    deadline: float

    def expire(self, now: float) -> None:
        """Called with the time when the deadline has passed, again at each sweep until it is moved."""


class Deadlines:
    """Sweeps its waiters as long as there are any. ``shortest`` is their shortest wait in seconds."""

    __slots__ = ("_loop", "_timer", "_waiters", "interval", "now")

    def __init__(self, shortest: float) -> None:
        self._waiters: set[Waiter] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The loop's time at the last sweep: for what need not be exact, without asking the loop.
        self.now = 0.0
        self.expect(shortest)

    def expect(self, shortest: float) -> None:
        """Sweep often enough for waits as short as this."""
        self.interval = min(_RAREST, max(_BUSIEST, shortest / 10))

    def watch(self, waiter: Waiter) -> None:
        """Sweep this waiter from now on."""
        self._waiters.add(waiter)
        if self._timer is None:
            self._loop = asyncio.get_running_loop()
            self.now = self._loop.time()
            self._timer = self._loop.call_later(self.interval, self._sweep)

    def forget(self, waiter: Waiter) -> None:
        """Sweep it no more. Harmless when it is not swept."""
        self._waiters.discard(waiter)

    def _sweep(self) -> None:
        if not self._waiters or self._loop is None:
            self._timer = None
            return
        self.now = now = self._loop.time()
        for late in [waiter for waiter in self._waiters if waiter.deadline <= now]:
            if late.deadline <= now:  # expiring one can move the deadline of another
                late.expire(now)
        self._timer = self._loop.call_later(self.interval, self._sweep)
