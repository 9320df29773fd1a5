"""The places among the calls under way at one backend, and the calls that wait for one: first come, first served.

Rule: the number of waiting calls has a bound and every wait a deadline. A place that is given back while calls wait is
handed to the first of them before any other call can take it; a call that stops waiting, for whatever reason, leaves no
place taken.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from gateway.proxy.wire.deadlines import NEVER, Deadlines
from gateway.proxy.wire.faults import UpstreamFault
from router.snapshot import Backend

#: How a wait ended.
_SERVED: Final = True
_LATE: Final = False


class Turn:
    """One waiting call."""

    __slots__ = ("_places", "deadline", "served")

    def __init__(self, places: Places, deadline: float, served: asyncio.Future[bool]) -> None:
        self._places = places
        self.deadline = deadline
        self.served = served

    def expire(self, now: float) -> None:
        """End the wait: it took too long."""
        if self in self._places.waiting:
            del self._places.waiting[self]
            self.served.set_result(_LATE)


class Places:
    """Counts the calls under way at one backend: ``in_flight``, at most ``limit``. Further calls are ``waiting``."""

    __slots__ = ("_deadlines", "_most_waiting", "_seconds", "in_flight", "limit", "waiting")

    def __init__(self, backend: Backend, *, waits: bool) -> None:
        """Unless it ``waits``, a call over the limit fails at once."""
        self.limit = backend.max_concurrency
        #: From the beginning of a call until its answer is whole, closed or failed.
        self.in_flight = 0
        #: In order. Not a deque: a call that stops waiting leaves from the middle.
        self.waiting: OrderedDict[Turn, None] = OrderedDict()
        self._most_waiting = backend.max_waiting if waits else 0
        self._seconds = backend.wait_timeout_ms / 1000
        total = NEVER if backend.total_timeout_ms is None else backend.total_timeout_ms / 1000
        self._deadlines = Deadlines(min(self._seconds, total))

    async def wait(self, latest: float) -> None:
        """Return when the caller has been handed a place. ``latest`` is when its call ends in any case.

        Raises UpstreamFault: "overloaded", or "timeout" when ``latest`` comes first.
        """
        overloaded = f"{self.limit} calls are under way"
        if len(self.waiting) >= self._most_waiting:
            more = f", and {self._most_waiting} more wait" if self._most_waiting else ""
            raise UpstreamFault("overloaded", overloaded + more)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        turn = Turn(self, min(deadline, latest), loop.create_future())
        self.waiting[turn] = None
        self._deadlines.watch(turn)
        try:
            served = await turn.served
        except BaseException:
            self.waiting.pop(turn, None)
            if turn.served.done() and not turn.served.cancelled() and turn.served.result() is _SERVED:
                self.in_flight -= 1
                self.hand_on()
            raise
        finally:
            self._deadlines.forget(turn)
        if served is _LATE:
            if latest < deadline:
                raise UpstreamFault("timeout", "the time of the call was over before it had a place")
            raise UpstreamFault("overloaded", f"{overloaded}, and none ended within {self._seconds:g} s")

    def hand_on(self) -> None:
        """Hand a place that was given back to the first waiting call, if there is one."""
        while self.waiting and self.in_flight < self.limit:
            turn, _ = self.waiting.popitem(last=False)
            if not turn.served.done():  # else it was cancelled a moment ago, and has not removed itself yet
                turn.served.set_result(_SERVED)
                self.in_flight += 1
                return
