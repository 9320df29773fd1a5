"""A client's transport with a phase and a deadline: what is read, what was written and not taken, and how it ends.

Rule: only ``_enter`` changes the phase, and the deadline follows from the phase. Nothing here knows a request: what is
sent, and when to leave, is decided by ``Connection``, which is built on this.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from gateway.proxy.server.kernel import untaken
from gateway.proxy.server.pace import Pace
from gateway.proxy.server.service import Service
from gateway.proxy.server.serving_phases import (
    BLOCKED,
    BODY,
    CLOSED,
    FLUSHING,
    FULL,
    LEAVING,
    OPENED,
    SEND,
    ServingPhase,
    taking,
)
from gateway.proxy.wire.deadlines import NEVER
from gateway.proxy.wire.faults import ClientGone
from gateway.proxy.wire.fiber import Bell

if TYPE_CHECKING:
    from gateway.proxy.wire.buffers import Buffers

_SENDING: Final[frozenset[ServingPhase]] = taking(SEND)
_FILLING: Final[frozenset[ServingPhase]] = taking(FULL)
#: The client has its last answer, or is lost: nothing is parsed, and nothing written.
GONE: Final[frozenset[ServingPhase]] = frozenset({LEAVING, FLUSHING, CLOSED})


class Channel(asyncio.Protocol):
    """One client's transport. ``buffers`` is the budget of the worker, ``service`` what it shares with the others."""

    __slots__ = (
        "_charged",
        "_drained",
        "_ended",
        "_loop",
        "_pace",
        "_paused",
        "_transport",
        "_untaken",
        "buffers",
        "deadline",
        "phase",
        "service",
    )

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self.phase: ServingPhase = OPENED
        self.deadline = NEVER
        self.buffers: Buffers = service.buffers
        self.service = service
        self._loop = loop
        self._transport = cast("asyncio.Transport", None)
        self._pace: Pace | None = None  # of the body that is still to come
        self._paused = False  # nothing is read for now
        self._ended = False  # the client has ended its side
        self._untaken = 0  # bytes that the client had not taken when that was last looked at
        self._charged = 0  # bytes of what was written that count against the budget
        self._drained = Bell()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.phase.name}>"

    def _enter(self, phase: ServingPhase, received: int = 0) -> None:
        """Be in this phase from now on, until the deadline of its row; ``received`` is what is here of a body."""
        self.phase = phase
        seconds = self.service.seconds[phase]
        if seconds == NEVER:
            self.deadline = NEVER
            return
        now = self._loop.time()
        if phase is BODY:
            pace = self._pace
            if pace is None:
                self._pace = pace = Pace(now)
            self.deadline = pace.deadline(now, received, seconds, self.service.min_body_rate)
        else:
            self.deadline = now + seconds

    def _pause(self) -> None:
        """Read nothing for now. A client that has ended its side sends nothing."""
        if not self._paused and not self._ended:
            self._paused = True
            self._transport.pause_reading()
            if self._pace is not None:
                self._pace.pause(self._loop.time())

    def _resume(self) -> None:
        """Read on."""
        self._paused = False
        if self._pace is not None:
            self._pace.resume(self._loop.time())
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Write to the client, or nowhere when it is gone."""
        if self.phase in _SENDING:
            self._transport.write(data)

    async def drained(self) -> None:
        """Return when the client has taken enough of what was written. Raises ClientGone if it never will."""
        if self.phase is BLOCKED:
            await self._drained
        if self.phase in GONE:
            raise ClientGone

    def pause_writing(self) -> None:
        self._charged = self._transport.get_write_buffer_size()
        self.buffers.charge(self._charged)
        self.buffers.await_client(self)
        if self.phase in _FILLING:
            self._untaken = untaken(self._transport)
            self._enter(BLOCKED)

    def _refund(self) -> None:
        """Give back what was taken out of the budget for answers: they were taken, or never will be."""
        self.buffers.give(self._charged)
        self.buffers.stop_awaiting(self)
        self._charged = 0

    # The end.

    def cut(self) -> None:
        """Close at once, and discard what is still to be sent."""
        if self.phase not in GONE:
            self._enter(LEAVING)
        self._transport.abort()

    def _leave(self, *, linger: bool) -> None:
        """Close once everything is sent; with ``linger`` only when the client has had time to close first."""
        if self.phase in GONE:
            return
        self._enter(LEAVING)
        if not linger or self._ended:
            self._transport.close()
        else:
            if self._transport.can_write_eof():
                self._transport.write_eof()
            if self._paused:
                self._resume()  # what comes is discarded
        self._drained.ring()

    def evict(self) -> None:
        """Give back what is held for a client that is slow: others need the room."""
        self._refund()
        self.cut()

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        phase = self.phase
        if phase is LEAVING:
            self._untaken = untaken(self._transport)
            if self._untaken:
                self._enter(FLUSHING)
            else:
                self.cut()
        elif phase is BLOCKED or phase is FLUSHING:
            self._look_at_taken()
        else:
            self._leave(linger=False)

    def _look_at_taken(self) -> None:
        """Go on waiting for a client that took enough of its answer since the last look."""
        service, left = self.service, untaken(self._transport)
        taken = self._untaken - left
        if left > 0 and taken > 0 and taken >= service.min_read_rate * service.body_seconds:
            self._untaken = left
            self._enter(self.phase)
        else:
            service.unread += self.phase is BLOCKED
            self.cut()
