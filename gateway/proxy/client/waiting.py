"""Calls that wait for a place among those under way at a backend: first come, first served.

Rule: the line has a bound and every wait a deadline. A place that is free while somebody waits is handed to the first
in the line before anybody else can take it; whoever leaves the line, in whatever way, leaves no place taken.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.proxy.wire.deadlines import Deadlines
from gateway.proxy.wire.faults import UpstreamFault

#: How a wait ended.
_SERVED: Final = True
_LATE: Final = False


class Turn:
    """One call in the line."""

    __slots__ = ("_line", "deadline", "served")

    def __init__(self, line: Line, deadline: float, served: asyncio.Future[bool]) -> None:
        self._line = line
        self.deadline = deadline
        self.served = served

    def expire(self, now: float) -> None:
        """It waited too long."""
        if self in self._line.turns:
            del self._line.turns[self]
            self.served.set_result(_LATE)


class Line:
    """The line at one backend. Its truth is that of ``turns``: whether anybody waits."""

    __slots__ = ("_deadlines", "_give_back", "_most", "_seconds", "turns")

    def __init__(self, deadlines: Deadlines, most: int, seconds: float, give_back: Callable[[], None]) -> None:
        """``give_back`` is called for a place that was handed to somebody who does not want it any more."""
        #: In order. Not a deque: whoever gives up leaves from the middle.
        self.turns: OrderedDict[Turn, None] = OrderedDict()
        self._deadlines = deadlines
        self._most = most
        self._seconds = seconds
        self._give_back = give_back

    async def wait(self, latest: float, overloaded: str) -> None:
        """Return when a place is handed over: it is the caller's then. ``latest`` is when the call ends anyhow.

        Raises UpstreamFault: "overloaded" (``overloaded`` says what is), or "timeout" when ``latest`` comes first.
        """
        if len(self.turns) >= self._most:
            more = f", and {self._most} more wait" if self._most else ""
            raise UpstreamFault("overloaded", overloaded + more)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        turn = Turn(self, min(deadline, latest), loop.create_future())
        self.turns[turn] = None
        self._deadlines.watch(turn)
        try:
            served = await turn.served
        except BaseException:
            self.turns.pop(turn, None)
            if turn.served.done() and not turn.served.cancelled() and turn.served.result() is _SERVED:
                self._give_back()
            raise
        finally:
            self._deadlines.forget(turn)
        if served is _LATE:
            if latest < deadline:
                raise UpstreamFault("timeout", "the time of the call was over before it had a place")
            raise UpstreamFault("overloaded", f"{overloaded}, and none ended within {self._seconds:g} s")

    def serve(self) -> bool:
        """Hand a place to the first; return whether anybody took it."""
        while self.turns:
            turn, _ = self.turns.popitem(last=False)
            if not turn.served.done():  # else cancelled in this very moment: it has not left the line yet
                turn.served.set_result(_SERVED)
                return True
        return False
