"""A backend's answer to one call, and which of its fields go on to the client.

Rule: an answer is whole, or it raises. What is held of it is bounded: HELD_BYTES, then what the worker's budget has
(``buffers``), then the backend waits until the caller takes more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

from gateway.proxy.wire.buffers import Buffers
from gateway.proxy.wire.deadlines import NEVER
from gateway.proxy.wire.faults import UpstreamFault
from gateway.proxy.wire.fiber import Bell
from gateway.proxy.wire.headers import (
    CODING,
    CONNECTION,
    HOP,
    LENGTH,
    LISTING_NOTHING,
    MEANING,
    OWN,
    Fields,
    Header,
    listing,
    unlisted,
)
from gateway.proxy.wire.wire import add_piece

#: Bytes of an answer held for a reader that does not take them, then the backend has to wait. One read may exceed it.
HELD_BYTES: Final = 65_536

#: The fields of an answer that is not here yet.
_NONE: Final = Fields([], 0)


class UnreadableAnswer(Exception):
    """An answer that is HTTP, and not one we can pass on."""


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
        "_leave",
        "_take_more",
        "bell",
        "complete",
        "fault",
        "headers",
        "latest",
        "length",
        "own",
        "reason",
        "retries",
        "status",
    )

    def __init__(self, buffers: Buffers, latest: float = NEVER) -> None:
        #: 0 until the head is here.
        self.status = 0
        self.reason = b""
        self.headers = _NONE
        #: Fields that speak in a gateway's name (``turnout-*``): for a client that asked a gateway, never passed on.
        self.own: tuple[Header, ...] = ()
        self.length: int | None = None
        self.complete: bytes | None = None
        self.retries = 0
        self.latest = latest
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._buffers = buffers
        self._charged = 0  # bytes of it that were taken out of the worker's budget
        self._ended = False
        #: Why nothing more will come.
        self.fault: Exception | None = None
        # What to ask of the connection while more of the body is to come over it.
        self._take_more: Callable[[], None] | None = None
        self._leave: Callable[[], None] | None = None
        #: Rung when the head is here, when more of the body is, and at the end.
        self.bell = Bell()

    def __repr__(self) -> str:
        return f"<Answer {self.status}{'' if self._leave is None else ' open'}>"

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
        """Yield the body as it arrives, never an empty piece; the backend waits until the caller takes more.

        Raises UpstreamFault as ``read`` does, after the bytes that did come.
        """
        return _Chunks(self)

    async def next_chunk(self) -> bytes:
        """Return what came since the last one, once there is any. Raises StopAsyncIteration at the end."""
        while not self._chunks:
            if self.fault is not None:
                raise self.fault
            if self._ended:
                raise StopAsyncIteration
            await self.bell
        return self._take()

    def close(self) -> None:
        """End the call. A connection on which something is still to come is dropped. Harmless when repeated."""
        if self._charged:
            self._give(self._charged)
        leave = self._leave
        if leave is not None:
            leave()

    def raise_fault(self) -> None:
        """Raise the ``fault`` there is before the head: an UpstreamFault, or what the body raised.

        It is raised once and not kept: a traceback holds frames, those hold this, and a cycle is garbage that only a
        collection finds.
        """
        fault, self.fault = self.fault, None
        if fault is not None:
            try:
                raise fault
            finally:
                del fault

    # The connection calls these.

    def begin(self, status: int, reason: bytes, headers: list[Header]) -> bool:
        """Take the head in; return whether the body is chunked.

        Raises UnreadableAnswer if it has another transfer coding.
        """
        kept: list[Header] = []
        meanings = 0
        own: tuple[Header, ...] = ()
        listed: set[bytes] | None = None
        length: int | None = None
        chunked = False
        for header in headers:
            meaning = MEANING[header[0]]
            if meaning:
                if meaning & LENGTH:
                    length = int(header[1])
                    continue
                if meaning & (HOP | OWN):
                    if meaning & CODING:
                        if chunked or header[1].strip(b" \t").lower() != b"chunked":
                            raise UnreadableAnswer("a transfer coding other than chunked")
                        chunked = True
                    elif meaning & CONNECTION and header[1] not in LISTING_NOTHING:
                        listed = (listed or set()) | listing(header[1])
                    elif meaning & OWN:
                        own += (header,)
                    continue
                meanings |= meaning
            kept.append(header)
        self.status = status
        self.reason = reason
        self.headers = Fields(kept, meanings) if listed is None else unlisted(kept, listed)
        if own:
            self.own = own
        self.length = length
        return chunked

    def streams(self, take_more: Callable[[], None], leave: Callable[[], None]) -> None:
        """Learn that more of the body is to come: ``take_more`` lets the backend go on, ``leave`` ends the call."""
        self._take_more = take_more
        self._leave = leave

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
        """Learn that the body is whole; ``at_once`` when it came together with the head."""
        if at_once:
            chunks, self._chunks = self._chunks, []
            if self._charged:
                self._give(self._charged)
            self.complete = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._take_more = self._leave = None
        self._ended = True
        self.bell.ring()

    def fail(self, fault: Exception) -> None:
        """Learn that nothing more will come, and why."""
        self._take_more = self._leave = None
        self.fault = fault
        self.bell.ring()

    def _give(self, size: int) -> None:
        size = min(size, self._charged)
        self._charged -= size
        self._buffers.give(size)

    def _take(self) -> bytes:
        take_more = self._take_more
        if self._charged:
            # A piece at a time: what the client's transport gets at once is not in the budget any more.
            piece = self._chunks.pop(0)
            self._buffered -= len(piece)
            self._give(len(piece))
            if take_more is not None and self._buffered < HELD_BYTES:
                take_more()
            return piece
        chunks, self._chunks, self._buffered = self._chunks, [], 0
        if take_more is not None:
            take_more()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


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
