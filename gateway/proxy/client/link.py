"""One connection to a backend: a call at a time goes out on it, and one answer comes in.

Rules:

1. A connection goes back to its pool only when the answer is whole, the request was written whole, both sides want to
   go on, and not one byte came beyond the answer. Bytes that no call is waiting for drop the connection; they are never
   an answer.
2. The answer to HEAD has no body whatever its head says, and its connection is not used again: a backend that sends
   one all the same would answer the next call with it. So it is with content of a method that has none (``last``): a
   backend that does not read it takes it for the next request.
3. An interim answer (1xx) is dropped. 101 is a fault: no upgrade was asked for. So are transfer codings other than
   chunked.
4. A body without a length ends when the backend closes in good order; any other end is a fault.
5. What a connection may do, and for how long, depends on its phase: the tables are in ``phases``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.proxy.client.answer import Answer, UnreadableAnswer
from gateway.proxy.client.phases import (
    BLOCKED,
    BODY,
    CLOSED,
    EXCESS,
    FEEDING,
    FLUSHING,
    HEAD,
    IDLE,
    OPENING,
    STALLED,
    WHOLE,
    WRITTEN,
    Sending,
)
from gateway.proxy.wire.buffers import EVICT_SECONDS
from gateway.proxy.wire.deadlines import NEVER
from gateway.proxy.wire.faults import BodyTimeout, ClientGone, UpstreamFault
from gateway.proxy.wire.headers import Header
from gateway.proxy.wire.wire import LONG_BYTES, chunk

if TYPE_CHECKING:
    from gateway.proxy.client.replica import Replica

#: Bytes of an answer's heads, interim ones included; and of chunk framing beyond a fair share of the body.
_MAX_HEAD_BYTES: Final = 262_144
_CHUNK_OVERHEAD: Final = 16
#: How nearly every answer begins. To ask the parser for the version costs twenty times as much.
_COMMON: Final = b"HTTP/1.1 "


class Link(asyncio.Protocol):
    """One connection to one replica. ``answer`` is that of the call it carries, None while it carries none."""

    #: What ``connection_lost`` deletes; compiled classes want to know.
    __deletable__ = ("_parser",)
    __slots__ = (
        "_body_bytes", "_drained", "_framed_bytes", "_head_only", "_headers", "_http11", "_loop", "_parser",
        "_past_parser", "_reason", "_replica", "_reusable", "_transport", "_until_close", "_upload", "_uploaded",
        "_waits_since", "answer", "deadline", "made_at", "phase", "sending",
    )  # fmt: skip

    def __init__(self, replica: Replica, loop: asyncio.AbstractEventLoop) -> None:
        self.phase = OPENING
        self.sending = WRITTEN
        self.deadline = NEVER
        self.answer: Answer | None = None
        self.made_at = loop.time()
        self._replica = replica
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        # The request.
        self._head_only = False  # it is a HEAD
        self._upload: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None  # what the upload waits for while BLOCKED
        self._waits_since = 0.0  # for the present 64 KiB of the body, or for the client to take more
        self._uploaded = 0  # bytes since then
        # Its answer.
        self._http11 = False  # the head being read is that of an HTTP/1.1 answer
        self._reason = b""
        self._headers: list[Header] = []
        self._framed_bytes = 0  # received, and those of them that are the body's
        self._body_bytes = 0
        self._reusable = False  # as far as the request, and later the head of the answer, allow
        self._until_close = False  # only closing ends the body
        self._past_parser = 0  # bytes still to come of a long body, which the parser does not see

    def __repr__(self) -> str:
        return f"<Link {self.phase.name} {self.sending.name}>"

    @property
    def silent(self) -> bool:
        """True when not one byte came in answer to the last request."""
        return not self._framed_bytes

    def _set_deadline(self) -> None:
        """Set the deadline of the phase: the only place where one comes from. No call outlasts its ``latest``."""
        seconds = self._replica.phase_seconds[self.phase]
        if self.phase is HEAD and self.sending is FEEDING:
            seconds = NEVER
        deadline = self._loop.time() + seconds
        answer = self.answer
        self.deadline = deadline if answer is None or deadline < answer.latest else answer.latest

    # The call.

    def begin(self, answer: Answer, head: bytes, body: bytes, *, head_only: bool, last: bool) -> None:
        """Send a request whose ``body`` is here, or (empty) will be uploaded; what comes back goes to ``answer``.

        Its bell rings when the head of the answer is here, or a fault. Raises UpstreamFault if the connection broke in
        the meantime, RuntimeError if it carries a call.
        """
        transport = self._transport
        if transport is None:
            raise UpstreamFault("reset", "the connection broke before the answer's head")
        if self.phase is not IDLE:
            raise RuntimeError(f"no call can begin on {self!r}")
        self.phase = HEAD
        self.answer = answer
        self._head_only = head_only
        self._reusable = not (head_only or last)
        self._until_close = False
        self._framed_bytes = self._body_bytes = 0
        self._set_deadline()
        if len(body) > LONG_BYTES:
            transport.writelines((head, body))
        else:
            transport.write(head + body)

    def upload(self, body: AsyncIterator[bytes], length: int | None) -> None:
        """Go on sending the request's body: ``length`` bytes of it, or chunked when that is None."""
        self._send_on(BLOCKED if self.sending is FLUSHING else FEEDING)
        self._upload = self._loop.create_task(self._send(body, length))

    async def _send(self, body: AsyncIterator[bytes], length: int | None) -> None:
        sent = 0
        try:
            async for piece in body:
                sent += len(piece)
                self._uploaded += len(piece)
                if self._uploaded >= LONG_BYTES:
                    self._waits_since, self._uploaded = self._loop.time(), 0
                if length is not None and sent > length:
                    raise ValueError(f"the body is longer than its length, {length} bytes")
                self._write(piece if length is not None else chunk(piece))
                if self.sending is BLOCKED:
                    self._drained = self._loop.create_future()
                    await self._drained
            if length is None:
                self._write(b"0\r\n\r\n")
            elif sent < length:
                raise ValueError(f"the body is shorter than its length, {length} bytes")
        except Exception as error:
            self._upload = None
            self.drop(error)
        else:
            self._upload = None
            self._send_on(FLUSHING if self.sending is BLOCKED else WRITTEN)

    def _send_on(self, sending: Sending) -> None:
        """Go on with the upload: enter a phase of the request."""
        self.sending = sending
        if sending is FEEDING:
            self._waits_since, self._uploaded = self._loop.time(), 0
        if self.phase is HEAD:
            self._set_deadline()

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and self.answer is not None:
            self._transport.write(data)

    def take_more(self) -> None:
        """Read on, if reading was paused."""
        if self.phase is STALLED:
            self.phase = BODY
            self._set_deadline()
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def leave(self) -> None:
        """End the call because its caller does not want the rest of the answer. That is no failure of the replica."""
        self.drop(UpstreamFault("incomplete", "the answer was closed before its end"), failed=False)

    def drop(self, fault: Exception, *, failed: bool = True) -> None:
        """Close, and end the call if there is one. Without a head it keeps its place, since it may be sent again."""
        answer, self.answer = self.answer, None
        self._close()
        if answer is None:
            return
        if answer.status:
            if failed:
                self._replica.failed(fault)
            elif answer.status >= 500:
                self._replica.answered(answer.status)
            self._replica.leave()
        answer.fail(fault)

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        answer, replica = self.answer, self._replica
        if answer is None:
            self._close()
        elif answer.latest <= now:
            self.drop(UpstreamFault("timeout", f"no whole answer within {replica.total_seconds:g} s"))
        else:
            words = "no answer within" if self.phase is HEAD else "the answer stopped for"
            self.drop(UpstreamFault("timeout", f"{words} {replica.phase_seconds[self.phase]:g} s"))

    def evict(self, now: float) -> str | None:
        """End the call if its client has kept the backend waiting for too long: return for what, "answer" or "body"."""
        if self.answer is None or now - self._waits_since < EVICT_SECONDS:
            return None
        if self.phase is STALLED:
            self.drop(ClientGone("the answer was taken too slowly"))
            return "answer"
        if self.sending is FEEDING:
            self.drop(BodyTimeout())
            return "body"
        return None

    # The transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.phase is OPENING:
            self.phase = IDLE
            self._set_deadline()
        self._replica.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._replica.lost(self)
        del self._parser  # it holds our methods: a cycle
        answer = self.answer
        if answer is None:
            self._close()
        elif self.phase is HEAD:
            self.drop(UpstreamFault("reset", "the connection broke before the answer's head"))
        elif self._until_close and exc is None:
            self._finish(answer, at_once=False)
        else:
            self.drop(UpstreamFault("incomplete", "the connection broke within the answer's body"))

    def eof_received(self) -> None:
        if self.phase is IDLE:
            self._replica.retire(self)  # at once: no call may take it any more. The transport closes itself

    def pause_writing(self) -> None:
        if self.sending is FEEDING:
            self._send_on(BLOCKED)
        else:
            self.sending = FLUSHING

    def resume_writing(self) -> None:
        if self.sending is BLOCKED:
            self._send_on(FEEDING)
        else:
            self.sending = WRITTEN
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None:
            self._close()  # rule 1
            return
        heading = self.phase is HEAD
        if not self._framed_bytes:
            self._http11 = data.startswith(_COMMON)
        self._framed_bytes += len(data)
        trouble: str | None = None
        if self._past_parser:
            self._pass_on(data)
        else:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade:
                trouble = "an upgrade that nobody asked for"
            except HttpParserError as error:
                trouble = str(error.__context__ or error)
        phase = self.phase
        if phase is WHOLE or phase is EXCESS:
            if trouble is not None:
                self.phase = EXCESS
            self._finish(answer, at_once=heading)
        elif trouble is not None:
            self.drop(UpstreamFault("protocol", trouble))
        elif self._framed_bytes > _MAX_HEAD_BYTES + self._body_bytes * _CHUNK_OVERHEAD:
            self.drop(UpstreamFault("protocol", "the answer is mostly framing"))
        elif phase is not HEAD:
            if heading:
                answer.streams(self.take_more, self.leave)
                left = 0 if answer.length is None else answer.length - self._body_bytes
                if left > LONG_BYTES:
                    self._past_parser = left
            self._set_deadline()
            answer.bell.ring()

    def _pass_on(self, data: bytes) -> None:
        """Take a piece of a long body of known length as it is."""
        left = self._past_parser
        size = len(data)
        self.on_body(data if size <= left else data[:left])
        self._past_parser = max(0, left - size)
        if size >= left:
            self._parser = HttpResponseParser(self)  # the old one is in the middle of that body for good
            self.on_message_complete()
            if size > left:
                self.phase = EXCESS

    def _finish(self, answer: Answer, *, at_once: bool) -> None:
        """The answer is whole: rule 1."""
        self.answer = None
        written = self.sending is WRITTEN and self._transport is not None
        reusable = self._reusable and self.phase is WHOLE and written
        if self._replica.ended(self, answer.status, reusable=reusable):
            self.phase = IDLE
            self._set_deadline()
        else:
            self._close()
        answer.end(at_once=at_once)

    def _close(self) -> None:
        self.phase = CLOSED
        self._set_deadline()
        self._replica.retire(self)
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.cancel()
        if self._transport is not None:
            self._transport.abort()

    # The parser.

    def on_message_begin(self) -> None:
        if self.phase is WHOLE:
            self.phase = EXCESS
        self._reason = b""
        self._headers = []

    def on_status(self, reason: bytes) -> None:
        self._reason = self._reason + reason if self._reason else reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        answer = self.answer
        if answer is None or self.phase is not HEAD:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._http11 = False
            if status < 100 or status == 101:
                raise UnreadableAnswer(f"status {status}, which nobody asked for")
            return
        if not self._http11:
            version = self._parser.get_http_version()
            if version not in ("1.1", "1.0"):
                raise UnreadableAnswer(f"HTTP/{version}")
        headers, self._headers = self._headers, []  # trailers go to the new one, and no further
        chunked = answer.begin(status, self._reason, headers)
        if self._head_only:
            self.phase = WHOLE  # rule 2
            return
        self.phase = BODY
        if self._reusable:
            self._reusable = self._parser.should_keep_alive()
        if status == 204:
            answer.length = 0
        elif status != 304:
            self._until_close = answer.length is None and not chunked

    def on_body(self, data: bytes) -> None:
        answer = self.answer
        phase = self.phase
        if answer is None or not (phase is BODY or phase is STALLED):
            if phase is WHOLE:
                self.phase = EXCESS
            return
        self._body_bytes += len(data)
        if not answer.receive(data) and phase is BODY and self._transport is not None:
            self.phase = STALLED
            self._waits_since = self._loop.time()
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self.take_more()
        if self.phase is BODY:  # in HEAD it is an interim answer that ends
            self.phase = WHOLE
