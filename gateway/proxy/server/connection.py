"""One client's connection: when its requests are answered, how long it may take, and how it ends.

Rules:

1. One request at a time, in the order they came (``intake`` cuts them). While one is under way, or its answer not
   taken, HELD_BYTES are held of what follows, and one read more at most.
2. The handler begins with the head and whatever came with it, in a fiber of its own, and that is the last thing done
   with what came: the handler may answer at once. When the client is lost the fiber is cancelled; when it fails, the
   client gets an error if the head of the answer is not out yet, else the connection breaks.
3. A request that cannot be taken is answered once, by the server itself, and the connection *leaves*: what still comes
   is discarded, and nothing of it is parsed.
4. Every wait has a deadline, or its row in ``serving_phases`` says why not. ``_follow`` enters the phase that fits how
   far the request is: after every event that can have changed that.
5. A client that ends its side (half-close) is still answered. One that has left altogether looks the same until
   something is sent: after a moment something is that means nothing (``Response.idle_word``), and the reset that it
   provokes is the proof.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from gateway.proxy.server.accept import Refusal
from gateway.proxy.server.channel import GONE, Channel
from gateway.proxy.server.intake import BETWEEN, IN_BODY, IN_HEAD, WHOLE, Intake
from gateway.proxy.server.kernel import reset_at_close, was_reset
from gateway.proxy.server.request import HELD_BYTES, Request
from gateway.proxy.server.response import Response
from gateway.proxy.server.service import Service
from gateway.proxy.server.serving_phases import (
    ANSWERING,
    BLOCKED,
    BODY,
    BYTES,
    CLOSED,
    END,
    EVICT,
    HALF_CLOSED,
    HEAD,
    IDLE,
    LEAVING,
    OPENED,
    PROBED,
    WITHHELD,
    ServingPhase,
    taking,
)
from gateway.proxy.wire.faults import BodyTimeout, BodyTooLarge, ClientGone
from gateway.proxy.wire.fiber import Fiber
from gateway.proxy.wire.headers import Header
from gateway.proxy.wire.problem_details import problem
from gateway.proxy.wire.wire import CONTINUE, answer_head

if TYPE_CHECKING:
    from gateway.proxy.wire.peer import Peer

#: Bytes of an unwanted body that are read to keep a connection; with more to come it is closed.
_DISCARD_BYTES: Final = 65_536

_PARSING: Final[frozenset[ServingPhase]] = taking(BYTES)
_ENDING: Final[frozenset[ServingPhase]] = taking(END)
_EVICTED: Final[frozenset[ServingPhase]] = taking(EVICT)


class Connection(Channel):
    """One client's connection. ``arrived`` and ``departed`` count it in and out; the first returns by how many
    connections there are too many.
    """

    __slots__ = ("_arrived", "_departed", "_fiber", "_intake", "_peer", "_request", "_response")

    #: From ``connection_made`` on. Compiled attributes hold nothing but their type, so there is no None before that.
    _peer: Peer

    def __init__(
        self,
        service: Service,
        loop: asyncio.AbstractEventLoop,
        arrived: Callable[[Connection], int],
        departed: Callable[[Connection], None],
    ) -> None:
        super().__init__(service, loop)
        self._arrived = arrived
        self._departed = departed
        self._intake = Intake(self, service)
        # The request whose answer is not out yet.
        self._request: Request | None = None
        self._response: Response | None = None
        # The handler at work on it. None while it has not begun.
        self._fiber: Fiber | None = None

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = self.service.peer(peer[0] if isinstance(peer, tuple) else "")
        self._enter(OPENED)
        excess = self._arrived(self)
        if excess > self.service.most_refused:
            self.cut()
        elif excess > 0:
            self._refuse(Refusal(503, "too many connections", (b"retry-after", b"1")))

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter(CLOSED)
        self._departed(self)
        self._intake.end()
        self._refund()
        self._give_up()
        self._fiber = None  # it refers to this connection: a cycle
        self._drained.ring()

    def data_received(self, data: bytes) -> None:
        if self.phase not in _PARSING:
            return
        intake = self._intake
        try:
            intake.feed(data)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if intake.held >= HELD_BYTES:
            self._pause()
        self._follow()
        self._run()

    def eof_received(self) -> bool:
        self._ended = True
        return self.phase in _ENDING and self.service.scheme == "http" and self._half_closed()

    def resume_writing(self) -> None:
        self._refund()
        if self.phase is BLOCKED:
            self._enter(self._reached(), self._intake.received)
            self._proceed()
        self._drained.ring()

    # Called by the intake.

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

    def body(self, data: bytes) -> None:
        """Take a piece of its body. What comes of a request that is answered already is discarded."""
        request = self._request
        if request is not None and not request.receive(data):
            self._pause()

    def excess(self) -> None:
        """Its body is longer than is allowed."""
        if self._request is not None:
            self._request.fail(BodyTooLarge())
            self._intake.keep_alive = False
            self._pause()

    def whole(self) -> None:
        """It is here to its end."""
        if self._request is not None:
            self._request.end()
        else:
            self._rest()

    # Called by the request.

    def take_more(self) -> None:
        """Read on, if reading was paused and not enough is held of what follows."""
        if self._paused and (self.phase in GONE or self._intake.held < HELD_BYTES):
            self._resume()
            self._follow()

    def send_continue(self) -> None:
        """Ask the client for its body, which it may send anyway once its answer has begun."""
        if self._response is not None:
            if not self._response.started:
                self.send(CONTINUE)
            self._follow()

    # Called by the response.

    def persists(self) -> bool:
        """Return whether another request may follow the one that is answered now."""
        request, intake = self._request, self._intake
        if request is None or not intake.keep_alive or self.service.draining:
            return False
        return intake.stage != IN_BODY or not (request.expects or not 0 < intake.remaining <= _DISCARD_BYTES)

    def answered(self, *, last: bool) -> None:
        """The answer is out; ``last`` if it said that the connection closes."""
        request = self._request
        if request is None:
            return
        self._request = self._response = None
        request.release()
        intake = self._intake
        if intake.stage == WHOLE:
            if last:  # of an ambiguous request the client does not know that it is the last
                self._leave(linger=self._paused or intake.held > 0 or intake.ambiguous)
            else:
                self._rest()
        else:
            request.fail(ClientGone("the request was answered before its body came"))
            if last:
                self._leave(linger=True)
            else:
                self.take_more()
                self._follow()
            request.bell.ring()

    def abort(self, *, reset: bool) -> None:
        """Break the connection in the middle of an answer; with a ``reset`` where a close would look like its end."""
        if self._request is not None:
            self._request.release()
        self._request = self._response = None
        if reset and self.phase not in GONE:
            reset_at_close(self._transport)
        self.cut()

    # The handler.

    def _run(self) -> None:
        """Let the handler see what came: begin it, or let it go on."""
        request, response = self._request, self._response
        if request is None or response is None or self.phase is LEAVING:
            return
        if self._fiber is None:
            service = self.service
            self._fiber = fiber = Fiber(service.handler(request, response), response.ended)
            fiber.run()
            if not fiber.done:
                service.fibers.add(fiber)
        else:
            request.bell.ring()

    def _give_up(self) -> None:
        """Cancel the handler at work: there is no client for its answer."""
        request = self._request
        if request is None:
            return
        self._request = self._response = None
        request.release()
        request.client_gone = True
        request.fail(ClientGone())
        if self._fiber is not None:
            self._fiber.cancel()
        request.bell.ring()

    # From one request to the next.

    def _rest(self) -> None:
        """A request is answered, and here to its end: another may follow."""
        intake = self._intake
        if not intake.held and (self._ended or self.service.closing):
            self._leave(linger=False)
            return
        intake.stage = BETWEEN
        if self._paused:
            self.take_more()  # of a long body that came at once, nothing was taken piece by piece
        self._follow()
        if intake.held:
            self._loop.call_soon(self._proceed)

    def _proceed(self) -> None:
        """Go on with what was held while an answer was under way, once the client has taken that."""
        if self.phase is not IDLE or not self._intake.held:
            return
        try:
            self._intake.proceed()
        except Refusal as refusal:
            self._refuse(refusal)
            return
        self._follow()
        self.take_more()
        if self._ended and not self._half_closed():
            self._leave(linger=False)
            return
        self._run()

    def renew_peer(self) -> None:
        """Decide again whether the peer is trusted: the trusted proxies have changed."""
        self._peer = self.service.peer(self._peer.address)

    # The end.

    def close_if_idle(self) -> None:
        """Leave, if no request is under way."""
        if self._intake.stage == BETWEEN and not self._intake.held:
            self._leave(linger=False)

    def evict(self) -> None:
        """Give back what is held for a client that is slow: others need the room."""
        if self.phase not in _EVICTED:
            return
        request = self._request
        if self._intake.stage == IN_BODY and request is not None and self.phase is not BLOCKED:
            request.release()
            self._time_out(request)
        else:
            self._give_up()
            super().evict()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer in the server's own name, for the last time; a handler at work on the request is stopped."""
        if self.phase in GONE:
            return
        answered = self._intake.stage == IN_BODY and (self._response is None or self._response.started)
        self._give_up()
        if answered:
            self.cut()
            return
        headers, body = problem(refusal.status, refusal.title, refusal.detail)
        head = answer_head(refusal.status, [*headers, *refusal.headers], length=len(body), connection=b"close")
        self._transport.write(head if self._intake.head_only else head + body)
        self._leave(linger=True)

    def _half_closed(self) -> bool:
        """The client's side has ended. True when there is still something to answer."""
        intake = self._intake
        if intake.stage == IN_HEAD and intake.target:
            self._refuse(Refusal(400, "the request ended within its head"))
            return True
        if intake.stage == WHOLE:
            self._follow()
            return True
        return intake.held > 0

    # Phases and their deadlines.

    def _follow(self) -> None:
        """Enter the phase that fits how far the request is, unless the client has to take its answer first."""
        phase = self.phase
        if phase is BLOCKED or phase in GONE:
            return
        reached = self._reached()
        if reached is not phase or reached is BODY:
            self._enter(reached, self._intake.received)

    def _reached(self) -> ServingPhase:
        """Return the phase that fits how far the request is."""
        stage = self._intake.stage
        if stage == WHOLE:
            if self._ended:
                return PROBED if self.phase is PROBED else HALF_CLOSED
            return ANSWERING
        if stage == IN_BODY:
            request = self._request
            return WITHHELD if self._paused or (request is not None and request.expects) else BODY
        if stage == IN_HEAD:
            return HEAD
        return OPENED if self.phase is OPENED else IDLE

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        phase, request = self.phase, self._request
        if phase is HEAD and self._intake.target:
            self._refuse(Refusal(408, "the request head did not come in time"))
        elif phase is BODY and request is not None:
            self._time_out(request)
        elif phase is HALF_CLOSED or phase is PROBED:
            self._probe(phase)
        else:
            super().expire(now)

    def _time_out(self, request: Request) -> None:
        """The rest of its body comes too late. What the handler then answers is the last on this connection."""
        self._intake.keep_alive = False
        request.fail(BodyTimeout())
        if self.phase is BODY:
            self._enter(WITHHELD)
        request.bell.ring()

    def _probe(self, phase: ServingPhase) -> None:
        """Find out whether a half-closed client is there: rule 5."""
        if was_reset(self._transport):
            self.cut()
            return
        self._enter(PROBED)
        request, response = self._request, self._response
        if phase is HALF_CLOSED and request is not None and response is not None and not request.http10:
            self._transport.write(response.idle_word)
