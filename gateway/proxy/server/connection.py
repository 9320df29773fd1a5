"""One client's connection: when its requests are answered, how long it may take, and how it ends.

Rules:

1. One request at a time, in the order they came (``intake`` cuts them). While one is under way, or its answer not
   taken, HELD_BYTES are held of what follows, and one read more at most.
2. The handler begins with the head and whatever came with it, in a fiber of its own, and that is the last thing done
   with what came: the handler may answer at once. When the client is lost the fiber is cancelled; when it fails, the
   client is told if the head of the answer is not out yet, else the connection breaks.
3. A request that cannot be taken is answered once, by us, and the connection *leaves*: what still comes is thrown away
   and nothing of it is parsed. It goes on reading for a short while, because a close with unread bytes is a reset, and
   the client may lose the answer to it.
4. Every wait has a deadline: for a request keepalive_timeout_ms; for its head header_timeout_ms in all; for its body
   body_timeout_ms between bytes and min_body_bytes_per_second on the whole (``pace``), while we read, and from when a
   client that expects 100 Continue was told so; for a client that does not take its answer body_timeout_ms, in each of
   which min_read_bytes_per_second must be kept. The handler has none here: what it waits for has.
5. A client that ends its side (half-close) is still answered. One that has left altogether looks the same until
   something is sent: after a moment something is that means nothing (``Response.idle_word``), and the reset it provokes
   is the proof.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import TYPE_CHECKING, Final, cast

from gateway.proxy.server.accept import Refusal
from gateway.proxy.server.intake import BETWEEN, BODY, HEAD, WHOLE, Intake
from gateway.proxy.server.pace import Pace
from gateway.proxy.server.request import HELD_BYTES, Request
from gateway.proxy.server.response import Response
from gateway.proxy.wire.deadlines import NEVER
from gateway.proxy.wire.faults import BodyTimeout, BodyTooLarge, BodyUnheld, ClientGone
from gateway.proxy.wire.fiber import Bell, Fiber
from gateway.proxy.wire.headers import Header
from gateway.proxy.wire.problem_details import problem
from gateway.proxy.wire.wire import CONTINUE, answer_head

if TYPE_CHECKING:
    from gateway.proxy.server.edge import Edge
    from gateway.proxy.wire.buffers import Buffers
    from gateway.proxy.wire.peer import Peer

logger = logging.getLogger(__name__)

#: Seconds for which bytes are thrown away after the last answer.
_LINGER_SECONDS: Final = 2.0
#: Seconds after a half-close before we ask whether anybody is there, and between looks at the reply.
_PROBE_SECONDS: Final = 0.25
#: Bytes of an unwanted body that are read to keep a connection; with more to come it is closed.
_DISCARD_BYTES: Final = 65_536
# A close with unsent or unread bytes thrown away, told to the peer as a reset.
_RESET: Final = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_charged",
        "_delimits",
        "_drain",
        "_edge",
        "_eof",
        "_fiber",
        "_intake",
        "_keep_alive",
        "_last",
        "_leaving",
        "_loop",
        "_pace",
        "_paused",
        "_peer",
        "_probed",
        "_request",
        "_response",
        "_transport",
        "_unsent",
        "_way",
        "_write_paused",
        "buffers",
        "deadline",
    )

    def __init__(self, edge: Edge, loop: asyncio.AbstractEventLoop) -> None:
        self.deadline = NEVER
        self._edge = edge
        #: The worker's budget.
        self.buffers: Buffers = edge.buffers
        self._loop = loop
        self._transport = cast("asyncio.Transport", None)
        self._intake = Intake(self, edge)
        self._peer = cast("Peer", None)
        # The request whose answer is not out yet.
        self._request: Request | None = None
        self._response: Response | None = None
        # The handler at work on it. None while it has not begun.
        self._fiber: Fiber | None = None
        self._keep_alive = True  # as far as we are concerned
        self._last = False  # the answer under way says that the connection closes
        self._delimits = False  # closing is what ends that answer
        self._pace: Pace | None = None  # of the body that is still to come
        # The transport.
        self._leaving = False
        self._paused = False
        self._eof = False
        self._probed = False
        self._write_paused = False
        self._unsent = 0  # when it was last looked at
        self._charged = 0  # of that, what counts against the budget
        self._drain = Bell()

    # The transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = self._edge.peer(peer[0] if isinstance(peer, tuple) else "")
        self.deadline = self._loop.time() + self._edge.header_seconds
        excess = self._edge.arrived(self)
        if excess > self._edge.told:
            self.cut()
        elif excess > 0:
            self._refuse(Refusal(503, "too many connections", (b"retry-after", b"1")))

    def connection_lost(self, exc: Exception | None) -> None:
        self._leaving = True
        self._edge.departed(self)
        self._intake.end()
        self._settle()
        self._give_up()
        self._fiber = None  # it holds us as well: a cycle
        self._drain.ring()

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            return
        intake = self._intake
        before = intake.stage
        try:
            intake.feed(data)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        stage = intake.stage
        if stage == BODY:
            if not self._paused:
                self._set_deadline()
        elif intake.held >= HELD_BYTES:
            self._pause()
        elif stage != before and stage != WHOLE:
            self._set_deadline()
        self._run()

    def eof_received(self) -> bool:
        self._eof = True
        return not self._leaving and self._edge.scheme == "http" and self._half_closed()

    def pause_writing(self) -> None:
        self._write_paused = True
        self._charged = self._transport.get_write_buffer_size()
        self.buffers.charge(self._charged)
        self.buffers.waits(self)
        self._unsent = self._owed()
        self.deadline = self._loop.time() + self._edge.body_seconds

    def resume_writing(self) -> None:
        self._write_paused = False
        self._settle()
        if not self._leaving:
            self._set_deadline()
            self._proceed()
        self._drain.ring()

    # The intake says.

    def begin(
        self,
        method: str,
        target: bytes,
        headers: list[Header],
        meanings: int,
        http10: bool,
        length: int | None,
        chunked: bool,
        expects: bool,
    ) -> None:
        """A request has begun: its head is here."""
        has_body = chunked or bool(length)
        request = Request(self, method, target, headers, meanings, self._peer, http10, length, has_body, expects)
        self._request, self._response = request, Response(self, request)
        self._fiber = None
        self._pace = None
        self._last = False

    def body(self, data: bytes) -> None:
        """A piece of its body; of one that is answered already, for nobody."""
        request = self._request
        if request is not None and not request.receive(data):
            self._pause()

    def excess(self) -> None:
        """Its body is longer than is allowed."""
        if self._request is not None:
            self._request.fail(BodyTooLarge())
            self._keep_alive = False
            self._pause()

    def whole(self) -> None:
        """It is here to its end."""
        if self._request is not None:
            if not self._write_paused:
                self.deadline = NEVER
            self._request.end()
        else:
            self._rest()

    # The request asks.

    def take_more(self) -> None:
        """Read on, if reading was paused and not enough is held of what follows."""
        if self._paused and (self._leaving or self._intake.held < HELD_BYTES):
            self._paused = False
            if self._pace is not None:
                self._pace.resume(self._loop.time())
            if not self._transport.is_closing():
                self._transport.resume_reading()
            if not self._leaving:
                self._set_deadline()

    def send_continue(self) -> None:
        """Ask the client for its body."""
        request, response = self._request, self._response
        if request is not None and response is not None and not response.started:
            self.send(CONTINUE)
            self._set_deadline()

    # The response asks.

    def persistence(self) -> bytes:
        """Return what the answer's Connection field has to say, and hold to it."""
        request, intake = self._request, self._intake
        if request is None:
            return b"close"
        unread = intake.stage == BODY and (request.expects or not 0 < intake.remaining <= _DISCARD_BYTES)
        if unread or not intake.keep_alive or not self._keep_alive or self._edge.draining:
            self._last = True
            return b"close"
        return b"keep-alive" if request.http10 else b""

    def close_delimits(self) -> None:
        """The end of the connection is to be the end of the answer."""
        self._keep_alive = False
        self._delimits = True

    def send(self, data: bytes) -> None:
        """Write to the client, or nowhere when it is gone."""
        if not self._leaving:
            self._transport.write(data)

    async def drained(self) -> None:
        """Return when the client has taken enough of what was written. Raises ClientGone if it never will."""
        if self._write_paused and not self._leaving:
            await self._drain
        if self._leaving:
            raise ClientGone

    def answered(self) -> None:
        """The answer is out."""
        request = self._request
        if request is None:
            return
        self._request = self._response = None
        if request.charged:
            self._release(request)
        if self._intake.stage == WHOLE:
            if self._last:
                intake = self._intake  # of an ambiguous request the client does not know that it is the last
                self._leave(linger=self._paused or intake.held > 0 or intake.ambiguous)
            else:
                self._rest()
        else:
            request.fail(ClientGone("the request was answered before its body came"))
            if self._last:
                self._leave(linger=True)
            else:
                self.take_more()
            request.bell.ring()

    def abort(self) -> None:
        """Break the connection in the middle of an answer."""
        if self._request is not None:
            self._release(self._request)
        self._request = self._response = None
        if self._delimits and not self._leaving:
            # A plain close would look like the end of the answer.
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.cut()

    # The handler.

    def _run(self) -> None:
        """Let the handler see what came: begin it, or let it go on."""
        request, response = self._request, self._response
        if request is None or response is None:
            return
        if self._fiber is None:
            edge = self._edge
            self._fiber = fiber = Fiber(edge.handler(request, response), response.ended)
            fiber.run()
            if not fiber.done:
                edge.fibers.add(fiber)
        else:
            request.bell.ring()

    def handled(self, handler: Fiber, request: Request, response: Response, error: BaseException | None) -> None:
        """The handler of a request has ended."""
        self._edge.handled(handler)
        if error is None and (response.finished or request.client_gone):
            return
        what = f"{request.method} {request.path}"
        if error is None:
            logger.error("no answer was given to %s", what)
            refusal = Refusal(500, "the gateway gave no answer")
        elif isinstance(error, asyncio.CancelledError):
            refusal = Refusal(503, "the gateway is shutting down")
        elif isinstance(error, ClientGone):
            if not response.finished:
                response.abort()
            return
        elif isinstance(error, BodyTooLarge):
            refusal = Refusal(413, f"the body is longer than {self._edge.max_body_bytes} bytes")
        elif isinstance(error, BodyUnheld):
            self._edge.unheld += 1
            refusal = Refusal(503, "the worker holds as many bodies as it may", (b"retry-after", b"1"))
        elif isinstance(error, BodyTimeout):
            refusal = Refusal(408, "the body stopped coming, or came too slowly")
        else:
            logger.error("unhandled error at %s", what, exc_info=error)
            refusal = Refusal(500, "the gateway failed to handle the request")
        self._fail(request, response, refusal)

    def _fail(self, request: Request, response: Response, refusal: Refusal) -> None:
        if request.client_gone or response.finished:
            return
        if response.started:
            response.abort()
            return
        headers, body = problem(refusal.status, refusal.title, refusal.detail)
        response.send(refusal.status, [*headers, *refusal.headers], body)

    def _give_up(self) -> None:
        """Nobody waits for the answer under way any more."""
        request = self._request
        if request is None:
            return
        self._request = self._response = None
        self._release(request)
        request.client_gone = True
        request.fail(ClientGone())
        if self._fiber is not None:
            self._fiber.cancel()
        request.bell.ring()

    def evict(self) -> None:
        """Give back what is held for a client that is slow: others need the room."""
        request = self._request
        if self._intake.stage == BODY and request is not None and not self._write_paused:
            self.deadline = NEVER
            self._keep_alive = False
            request.fail(BodyTimeout())
            request.bell.ring()
            self._release(request)
        else:
            self._give_up()
            self._settle()
            self.cut()

    def _release(self, request: Request) -> None:
        """Its body is held no more on its client's account."""
        if request.charged:
            self.buffers.give(request.charged)
            self.buffers.waits_no_more(self)
            request.charged = 0

    def _settle(self) -> None:
        """What was written has been taken, or never will be."""
        self.buffers.give(self._charged)
        self.buffers.waits_no_more(self)
        self._charged = 0

    def _owed(self) -> int:
        """Return how much of what was written the client's side has not taken: ours, and what the kernel holds of it.

        The kernel takes hundreds of kilobytes at once from who reads slowly: without its share he would seem to stop.
        """
        unsent = self._transport.get_write_buffer_size()
        sock = self._transport.get_extra_info("socket")
        try:
            return unsent + int.from_bytes(ioctl(sock.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
        except (OSError, AttributeError):
            return unsent

    # From one request to the next.

    def _rest(self) -> None:
        intake, edge = self._intake, self._edge
        held = intake.held
        if not held and (self._eof or edge.closing):
            self._leave(linger=False)
            return
        intake.stage = BETWEEN
        self.deadline = self._loop.time() + (edge.body_seconds if self._write_paused else edge.keepalive_seconds)
        if held:
            self._loop.call_soon(self._proceed)

    def _proceed(self) -> None:
        """Go on with what was held while an answer was under way, once the client has taken that."""
        intake = self._intake
        if self._leaving or self._write_paused or intake.stage != BETWEEN or not intake.held:
            return
        try:
            intake.proceed()
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if intake.stage != WHOLE:
            self._set_deadline()
        self.take_more()
        if self._eof and not self._half_closed():
            self._leave(linger=False)
            return
        self._run()

    def _pause(self) -> None:
        if not self._paused and not self._eof:
            self._paused = True
            self._transport.pause_reading()
            if self._intake.stage == BODY:
                if not self._write_paused:
                    self.deadline = NEVER
                if self._pace is not None:
                    self._pace.pause(self._loop.time())

    def acquaint(self) -> None:
        """See anew who the peer is: the trusted proxies have changed."""
        self._peer = self._edge.peer(self._peer.address)

    # The end.

    def retire(self) -> None:
        """Leave, if no request is under way."""
        if self._intake.stage == BETWEEN and not self._intake.held and not self._leaving:
            self._leave(linger=False)

    def cut(self) -> None:
        """Close at once, with whatever is still to be sent."""
        self._leaving = True
        self._transport.abort()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer in our own name, for the last time; a handler at work on the request is stopped."""
        begun = self._intake.stage == BODY
        if begun and (self._response is None or self._response.started):
            self._give_up()
            self.cut()  # it has had its answer, or the head of one
            return
        self._give_up()
        headers, body = problem(refusal.status, refusal.title, refusal.detail)
        head = answer_head(refusal.status, [*headers, *refusal.headers], length=len(body), connection=b"close")
        self._transport.write(head if self._intake.head_only else head + body)
        self._leave(linger=True)

    def _leave(self, *, linger: bool) -> None:
        self._leaving = True
        self._unsent = sys.maxsize
        self.deadline = self._loop.time() + _LINGER_SECONDS
        if not linger or self._eof:
            self._transport.close()
        else:
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self.take_more()
        self._drain.ring()

    def _half_closed(self) -> bool:
        """The client's side has ended. True when there is still something to answer."""
        stage = self._intake.stage
        if stage == HEAD and self._intake.target:
            self._refuse(Refusal(400, "the request ended within its head"))
            return True
        if stage == WHOLE or self._intake.held:
            self.deadline = self._loop.time() + _PROBE_SECONDS
            return True
        return False

    def _probe(self, now: float) -> None:
        """Find out whether a half-closed client is there: rule 5."""
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.cut()
            return
        self.deadline = now + _PROBE_SECONDS
        request, response = self._request, self._response
        if request is not None and response is not None and not (self._probed or request.http10):
            self._probed = True
            self._transport.write(response.idle_word)

    # Deadlines.

    def _set_deadline(self) -> None:
        if self._write_paused:
            return  # what counts is that the client takes its answer, whatever it sends
        edge, stage = self._edge, self._intake.stage
        now = self._loop.time()
        if stage == BETWEEN:
            self.deadline = now + edge.keepalive_seconds
        elif stage == HEAD:
            self.deadline = now + edge.header_seconds
        elif stage == BODY:
            self.deadline = self._body_deadline(now)
        else:
            self.deadline = now + _PROBE_SECONDS if self._eof else NEVER

    def _body_deadline(self, now: float) -> float:
        request = self._request
        if self._paused or (request is not None and request.expects):
            return NEVER
        if self._pace is None:
            self._pace = Pace(now)
        return self._pace.deadline(now, self._intake.received, self._edge)

    def expire(self, now: float) -> None:
        """The deadline has passed: rule 4."""
        stage = self._intake.stage
        if self._leaving or self._write_paused:
            edge, owed = self._edge, self._owed()
            if 0 < owed < self._unsent and self._unsent - owed >= edge.min_read_rate * edge.body_seconds:
                self._unsent = owed
                self.deadline = now + edge.body_seconds
            else:
                edge.unread += not self._leaving
                self.cut()
        elif stage == HEAD and self._intake.target:
            self._refuse(Refusal(408, "the request head did not come in time"))
        elif stage == BODY and self._request is not None:
            self.deadline = NEVER
            self._keep_alive = False
            self._request.fail(BodyTimeout())
            self._request.bell.ring()
        elif stage == WHOLE:
            self._probe(now)
        else:
            self._leave(linger=False)
