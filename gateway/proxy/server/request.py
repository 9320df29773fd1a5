"""A client's request, as a handler sees it: a frozen head, and a body that arrives.

Rule: what is held of a body is bounded. ``chunks`` stops reading from the client while the handler takes none; ``body``
holds at most ``max_body_bytes``, of which what exceeds HELD_BYTES comes out of the worker's budget (``buffers``). One
reader at a time, and only by one of the two.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from gateway.proxy.wire.faults import BodyUnheld
from gateway.proxy.wire.fiber import Bell
from gateway.proxy.wire.headers import Header
from gateway.proxy.wire.wire import add_piece

if TYPE_CHECKING:
    from gateway.proxy.server.connection import Connection
    from gateway.proxy.wire.peer import Peer

#: Bytes of a body that are held for a handler that takes none; then the client has to wait. One read may exceed it.
HELD_BYTES: Final = 65_536


class Request:
    """One request, which is also the facts that routing looks at.

    ``headers`` are as received, in order, but for the Host of an absolute-form target and Max-Forwards, and
    ``meanings`` is what they mean, taken together. ``target`` is in origin-form (or ``*``) with its bytes unchanged;
    ``path`` and ``query`` are what lies before and after its first question mark, byte by byte. ``peer`` sent
    it. ``client_gone`` turns true when there is no client to answer any more.
    """

    __slots__ = (
        "_all",
        "_buffered",
        "_chunks",
        "_collecting",
        "_connection",
        "_fault",
        "bell",
        "charged",
        "client_gone",
        "complete",
        "content_length",
        "expects",
        "has_body",
        "headers",
        "http10",
        "meanings",
        "method",
        "path",
        "peer",
        "query",
        "target",
    )

    def __init__(
        self,
        connection: Connection,
        method: str,
        target: bytes,
        headers: list[Header],
        meanings: int,
        peer: Peer,
        http10: bool,
        content_length: int | None,
        has_body: bool,
        expects: bool,
    ) -> None:
        self.method = method
        self.target = target
        self.path, _, self.query = target.decode("latin-1").partition("?")
        self.headers = headers
        self.meanings = meanings
        self.http10 = http10
        self.peer = peer
        self.content_length = content_length
        self.has_body = has_body
        self.client_gone = False
        #: True once the last byte of the body has arrived.
        self.complete = False
        #: True while the client waits for 100 Continue.
        self.expects = expects
        self._connection = connection
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._collecting = False
        self._all: bytes | None = None
        self._fault: Exception | None = None
        #: Bytes of its body that were taken out of the worker's budget.
        self.charged = 0
        #: Rung when there is more of the body, and when there will be no more.
        self.bell = Bell()

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target!r}>"

    def header(self, name: str) -> str | None:
        lines = self.lines(name)
        return lines[0] if len(lines) == 1 else ", ".join(lines) if lines else None

    def lines(self, name: str) -> list[str]:
        wanted, length = name.encode(), len(name)
        return [_text(value) for key, value in self.headers if len(key) == length and key.lower() == wanted]

    async def body(self) -> bytes:
        """Return the whole body, as often as asked.

        Raises BodyTooLarge, BodyTimeout or ClientGone if it does not come whole, BodyUnheld if there is no room for it.
        """
        if self._all is None:
            self._collecting = True
            self._connection.take_more()
            while not self.complete:
                self._ask()
                await self.bell
        return self.whole()

    async def begun(self) -> None:
        """Return once the whole body is here, or as much of it as is held. Raises what ``body`` raises."""
        while not self.complete and self._buffered < HELD_BYTES:
            self._ask()
            await self.bell

    def whole(self) -> bytes:
        """Return the whole body, which must be ``complete``, as often as asked."""
        if self._all is None:
            chunks, self._chunks = self._chunks, []
            self._all = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return self._all

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, never an empty piece; the client has to wait while none is taken.

        Raises what ``body`` raises, after the bytes that did come.
        """
        return _Chunks(self, self._all)

    async def next_chunk(self) -> bytes:
        """Return what came since the last one, once there is any. Raises StopAsyncIteration at the end."""
        while not self._chunks:
            if self.complete:
                raise StopAsyncIteration
            self._ask()
            await self.bell
        chunks, self._chunks, self._buffered = self._chunks, [], 0
        self._connection.take_more()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _ask(self) -> None:
        if self._fault is not None:
            raise self._fault
        if self.expects:
            self.expects = False
            self._connection.send_continue()

    # Called by the connection, which rings the bell afterwards.

    def receive(self, data: bytes) -> bool:
        """Add a piece of the body; False when the client should wait."""
        self.expects = False
        add_piece(self._chunks, data)
        self._buffered += len(data)
        if self._buffered < HELD_BYTES:
            return True
        return self._collecting and self._hold(len(data))

    def _hold(self, size: int) -> bool:
        """Hold this much more of a body that has to be whole, out of the worker's budget."""
        connection, charged = self._connection, self.charged
        if self._fault is not None or not connection.buffers.reclaim(size, connection):
            self.fail(BodyUnheld())
            return False
        self.charged += size
        if not charged or self.charged // HELD_BYTES > charged // HELD_BYTES:
            connection.buffers.await_client(connection)
        return True

    def release(self) -> None:
        """Give back what was taken out of the worker's budget for the body."""
        if self.charged:
            connection = self._connection
            connection.buffers.give(self.charged)
            connection.buffers.stop_awaiting(connection)
            self.charged = 0

    def end(self) -> None:
        """The last byte has come. After a fault the body is not whole all the same."""
        if self._fault is None:
            self.complete = True
            if self.charged:
                self._connection.buffers.stop_awaiting(self._connection)

    def fail(self, fault: Exception) -> None:
        """The rest of the body will never come. The first fault stands."""
        if self._fault is None and not self.complete:
            self._fault = fault


class _Chunks:
    """The body of a request, piece by piece. A class: an async generator could not be compiled."""

    __slots__ = ("_complete", "_request")

    def __init__(self, request: Request, complete: bytes | None) -> None:
        self._request = request
        self._complete = complete

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        complete = self._complete
        if not complete:
            return await self._request.next_chunk()
        self._complete = None
        return complete


def _text(value: bytes) -> str:
    """Header values are bytes; text in them is UTF-8 today, and was Latin-1 in older software."""
    try:
        return value.decode().strip(" \t")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(" \t")
