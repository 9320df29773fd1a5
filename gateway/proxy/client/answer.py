"""A backend's answer to one call.

Rule: an answer is whole, or it raises. What is held of it is bounded: HELD_BYTES, then what the worker's budget has
(``buffers``), then the backend waits while nobody takes the body. However it ends, the connection and the place it took
among the backend's calls are given back once, as soon as the backend has said everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from gateway.proxy.wire.deadlines import NEVER
from gateway.proxy.wire.faults import UpstreamFault
from gateway.proxy.wire.fiber import Bell
from gateway.proxy.wire.headers import Fields, Header
from gateway.proxy.wire.wire import add_piece

if TYPE_CHECKING:
    from gateway.proxy.client.link import Link
    from gateway.proxy.client.replica import Replica

#: Bytes of an answer held for a reader that does not take them, then the backend has to wait. One read may exceed it.
HELD_BYTES: Final = 65_536


#: The fields of an answer that is not here yet.
_NONE: Final = Fields([], 0)


class Answer:
    """An answer whose head is here. ``headers`` are those of its fields that cross the gateway, in order.

    ``length`` is the declared length of the body (of a HEAD's absent one too), None when only its end will tell.
    ``complete`` is the whole body if it came together with the head: then the connection is given back already.
    ``retries`` is how often the call was sent again, and ``latest`` when it must have ended, on the loop's clock.
    """

    __slots__ = (
        "_buffered",
        "_buffers",
        "_charged",
        "_chunks",
        "_ended",
        "_fault",
        "_link",
        "_replica",
        "bell",
        "complete",
        "headers",
        "latest",
        "length",
        "own",
        "reason",
        "retries",
        "status",
    )

    def __init__(self, replica: Replica) -> None:
        self.status = 0
        self.reason = b""
        self.headers = _NONE
        #: Fields that speak in a gateway's name (``turnout-*``): for whoever asked a gateway, and never passed on.
        self.own: tuple[Header, ...] = ()
        self.length: int | None = None
        self.complete: bytes | None = None
        self.retries = 0
        self.latest = NEVER
        self._replica: Replica | None = replica
        self._link: Link | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._buffers = replica.buffers
        self._charged = 0  # bytes of it that were taken out of the worker's budget
        self._ended = False
        self._fault: Exception | None = None
        #: Rung when the head is here, when more of the body is, and at the end.
        self.bell = Bell()
        replica.enter()

    def __repr__(self) -> str:
        return f"<Answer {self.status}{'' if self._link is None else ' open'}>"

    async def read(self, limit: int) -> bytes:
        """Return the whole body.

        Raises UpstreamFault: "protocol" if it is longer than ``limit`` bytes, "timeout" if the backend falls silent,
        "incomplete" if it breaks off. After a fault the connection is dropped.
        """
        if self.complete is not None and len(self.complete) <= limit:
            return self.complete
        pieces: list[bytes] = []
        size = 0
        async for piece in self.chunks():
            size += len(piece)
            if size > limit:
                self.close()
                raise UpstreamFault("protocol", f"the answer is longer than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, never an empty piece; the backend waits while nobody takes one.

        Raises UpstreamFault as ``read`` does, after the bytes that did come.
        """
        return _Chunks(self)

    async def next_chunk(self) -> bytes:
        """Return what came since the last one, once there is any. Raises StopAsyncIteration at the end."""
        while not self._chunks:
            if self._fault is not None:
                raise self._fault
            if self._ended:
                raise StopAsyncIteration
            await self.bell
        return self._take()

    def close(self) -> None:
        """End the call. A connection on which something is still to come is dropped. Harmless when repeated."""
        link, replica = self._link, self._replica
        if self._charged:
            self._give(self._charged)
        if replica is not None and self.status >= 500:
            replica.answered(self.status)
        self._leave()  # first: that nobody wants the rest is no failure of the replica
        if link is not None:
            link.drop(UpstreamFault("incomplete", "the answer was closed before its end"))

    # What the call and its connection say.

    def confirm(self) -> None:
        """Raise what went wrong before the head was here, if anything: an UpstreamFault, or what the body raised.

        It is raised once and not kept: a traceback holds frames, those hold this, and a cycle is garbage that only a
        collection finds.
        """
        fault, self._fault = self._fault, None
        if fault is not None:
            try:
                raise fault
            finally:
                del fault

    def expect(self, link: Link) -> None:
        """This connection will bring it."""
        self._link = link

    def begin(self, status: int, reason: bytes, headers: Fields, length: int | None) -> None:
        """The head is here."""
        self.status = status
        self.reason = reason
        self.headers = headers
        self.length = length

    def receive(self, data: bytes) -> bool:
        """Add a piece of the body; False when the backend should wait."""
        size = len(data)
        self._buffered += size
        if self._buffered < HELD_BYTES:
            self._chunks.append(data)
            return True
        add_piece(self._chunks, data)
        if not self._buffers.take(size):
            return False
        self._charged += size
        return True

    def end(self, *, at_once: bool) -> None:
        """The body is whole; ``at_once`` when it came together with the head."""
        if at_once:
            chunks, self._chunks = self._chunks, []
            if self._charged:
                self._give(self._charged)
            self.complete = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._link = None
        self._ended = True
        replica = self._replica
        if replica is not None and (replica.suspect or self.status >= 500):
            replica.answered(self.status)
        self._leave()
        self.bell.ring()

    def fail(self, fault: Exception) -> None:
        """Nothing more will come. Without a head the place stays the call's, which may try again or closes this."""
        self._link = None
        self._fault = fault
        if self.status and self._replica is not None:
            self._replica.failed(fault)
            self._leave()
        self.bell.ring()

    def _give(self, size: int) -> None:
        size = min(size, self._charged)
        self._charged -= size
        self._buffers.give(size)

    def _take(self) -> bytes:
        if self._charged:
            # A piece at a time: what the client's transport gets at once is not in the budget any more.
            piece = self._chunks.pop(0)
            self._buffered -= len(piece)
            self._give(len(piece))
            if self._link is not None and self._buffered < HELD_BYTES:
                self._link.take_more()
            return piece
        chunks, self._chunks, self._buffered = self._chunks, [], 0
        if self._link is not None:
            self._link.take_more()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _leave(self) -> None:
        replica, self._replica = self._replica, None
        if replica is not None:
            replica.leave()


class _Chunks:
    """The body of an answer, piece by piece. A class: an async generator could not be compiled."""

    __slots__ = ("_answer", "_complete")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._complete = answer.complete

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        complete = self._complete
        if not complete:
            return await self._answer.next_chunk()
        self._complete = None
        return complete
