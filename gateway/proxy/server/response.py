"""The answer to one request, as a handler gives it: whole, or piece by piece.

Rule: a client can always tell a whole answer from a broken one. What was announced is sent to the last byte, or the
connection breaks; what HEAD, 204 and 304 must not carry is not sent.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from gateway.proxy.server.failures import failure
from gateway.proxy.server.request import Request
from gateway.proxy.wire.faults import ClientGone
from gateway.proxy.wire.fiber import Fiber
from gateway.proxy.wire.headers import Headers
from gateway.proxy.wire.problem_details import problem
from gateway.proxy.wire.wire import CONTINUE, LONG_BYTES, answer_head, chunk

if TYPE_CHECKING:
    from gateway.proxy.server.connection import Connection


class Framing(Enum):
    """How the client finds the end of an answer's body."""

    BARE = "there is none"
    LENGTH = "by its announced length"
    CHUNKED = "by its last chunk"
    CLOSE = "by the end of the connection"


_BARE: Final[Framing] = Framing.BARE
_LENGTH: Final[Framing] = Framing.LENGTH
_CHUNKED: Final[Framing] = Framing.CHUNKED
_CLOSE: Final[Framing] = Framing.CLOSE


class Response:
    """One answer: ``send`` it whole, or ``start`` it, ``write`` and ``finish``.

    ``started`` says that its head is on the way, ``finished`` that nothing more is to be sent. What is given to a
    client that has gone is dropped, but ``write`` raises ClientGone.
    """

    __slots__ = ("_connection", "_framing", "_last", "_left", "_request", "finished", "started", "status")

    def __init__(self, connection: Connection, request: Request) -> None:
        self.started = False
        self.finished = False
        #: That of the answer, 0 while there is none.
        self.status = 0
        self._connection = connection
        self._request = request
        self._framing = _LENGTH
        self._left: int | None = None  # bytes of the announced length still to come
        self._last = False  # it says that the connection closes

    def send(self, status: int, headers: Headers, body: bytes, declared: int | None = None) -> None:
        """Answer at once with all there is; unless the body is long, in one write.

        ``declared`` is the length of the body that a HEAD or 304 does not bring with it.

        Raises ValueError for a status below 200 or above 999 or a field with a line break, RuntimeError if there is an
        answer.
        """
        self._begin(status)
        connection, rest = self._connection, b""
        field = self._connection_field()
        if status == 204:
            head = answer_head(status, headers, connection=field)
        elif self._request.method == "HEAD" or status == 304:
            head = answer_head(status, headers, length=len(body) if body else declared, connection=field)
        else:
            head = answer_head(status, headers, length=len(body), connection=field)
            if len(body) <= LONG_BYTES:
                head += body
            else:
                rest = body
        self.started = True
        connection.send(head)
        if rest:
            connection.send(rest)
        self._end()

    def start(self, status: int, headers: Headers, *, length: int | None) -> None:
        """Send the head; ``write`` and ``finish`` are to follow.

        ``length`` is that of the whole body. None: it is not known, and goes out chunked, or to an HTTP/1.0 client
        until close.

        Raises what ``send`` raises.
        """
        self._begin(status)
        if self._request.method == "HEAD" or status in (204, 304):
            self._framing = _BARE
            head = answer_head(
                status, headers, length=None if status == 204 else length, connection=self._connection_field()
            )
        elif length is not None:
            self._left = length
            head = answer_head(status, headers, length=length, connection=self._connection_field())
        elif self._request.http10:
            self._framing = _CLOSE
            head = answer_head(status, headers, connection=self._connection_field())
        else:
            self._framing = _CHUNKED
            head = answer_head(status, headers, chunked=True, connection=self._connection_field())
        self.started = True
        self._connection.send(head)

    async def write(self, data: bytes) -> None:
        """Send a piece of the body, and wait while the client reads slowly.

        Raises ClientGone if the client is lost, RuntimeError if it is more than was announced (the connection
        breaks).
        """
        self._put(data)
        await self._connection.drained()

    def finish(self, data: bytes = b"") -> None:
        """Send the last piece and end the body. A body shorter than announced breaks the connection.

        Raises RuntimeError for an answer that was not started, has ended, or is longer than announced.
        """
        if self._framing is _CHUNKED:
            self._put(data, b"0\r\n\r\n")
        else:
            self._put(data)
        if self._left:
            missing = self._left
            self.abort()
            raise RuntimeError(f"the body ended {missing} bytes short of its length")
        self._end()

    def abort(self) -> None:
        """Break the connection, so that the client sees that the answer is not whole."""
        self.started = True
        if not self.finished:
            self.finished = True
            self._connection.abort(reset=self._framing is _CLOSE)

    @property
    def idle_word(self) -> bytes:
        """Bytes that can be sent now and mean nothing, to find out whether the client is there; empty if none can.

        Before the head that is an interim answer, which clients ignore; between chunks a zero: the size of the next one
        may begin with it, and so may that of the last (RFC 9112, section 7.1).
        """
        if not self.started:
            return CONTINUE
        return b"0" if self._framing is _CHUNKED and not self.finished else b""

    def ended(self, handler: Fiber, error: BaseException | None) -> None:
        """The handler of the request has ended, with this exception or none."""
        service = self._connection.service
        service.handled(handler)
        request = self._request
        if error is None and (self.finished or request.client_gone):
            return
        if isinstance(error, ClientGone):
            self.abort()
            return
        refusal = failure(error, service, f"{request.method} {request.path}")
        if request.client_gone or self.finished:
            return
        if self.started:
            self.abort()
            return
        headers, body = problem(refusal.status, refusal.title, refusal.detail)
        self.send(refusal.status, [*headers, *refusal.headers], body)

    def _connection_field(self) -> bytes:
        """Return what its Connection field says, and hold to it."""
        self._last = self._framing is _CLOSE or not self._connection.persists()
        if self._last:
            return b"close"
        return b"keep-alive" if self._request.http10 else b""

    def _begin(self, status: int) -> None:
        if self.started:
            raise RuntimeError("the request has its answer already")
        if status < 200:
            raise ValueError(f"a final answer has a status from 200, got {status}")
        self.status = status

    def _put(self, data: bytes, last: bytes = b"") -> None:
        if not self.started or self.finished:
            raise RuntimeError("the answer is not under way")
        if self._framing is _BARE:
            return
        if self._left is not None:
            if len(data) > self._left:
                self.abort()
                raise RuntimeError(f"the body is longer than announced by {len(data) - self._left} bytes")
            self._left -= len(data)
        wire = chunk(data) + last if self._framing is _CHUNKED else data
        if wire:
            self._connection.send(wire)

    def _end(self) -> None:
        self.finished = True
        self._connection.answered(last=self._last)
