"""One connection to a backend: a call at a time goes out on it, and one answer comes in.

Rules:

1. A connection goes back to its pool only when the answer is whole, the request was written whole, both sides want to
   go on, and not one byte came beyond the answer. Bytes that nobody asked for drop the connection; they are never an
   answer.
2. The answer to HEAD has no body whatever its head says, and its connection is not used again: a backend that sends
   one all the same would answer the next call with it. So it is with content of a method that has none (``last``): a
   backend that does not read it takes it for the next request.
3. An interim answer (1xx) is dropped. 101 is a fault: no upgrade was asked for. So are transfer codings other than
   chunked.
4. A body without a length ends when the backend closes in good order; any other end is a fault.
5. Deadlines: ``timeout_ms`` until the head, counted from the last byte of the request that was handed over;
   ``idle_timeout_ms`` between bytes of the body, while we read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.proxy.client.answer import Answer
from gateway.proxy.wire.buffers import EVICT_SECONDS
from gateway.proxy.wire.deadlines import NEVER
from gateway.proxy.wire.faults import BodyTimeout, ClientGone, UpstreamFault
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
from gateway.proxy.wire.wire import LONG_BYTES, chunk

if TYPE_CHECKING:
    from gateway.proxy.client.replica import Replica

#: Bytes of an answer's heads, interim ones included; and of chunk framing beyond a fair share of the body.
_MAX_HEAD_BYTES: Final = 262_144
_CHUNK_OVERHEAD: Final = 16
#: How nearly every answer begins. To ask the parser for the version costs twenty times as much.
_COMMON: Final = b"HTTP/1.1 "
#: Below the five seconds after which common servers close an idle connection.
IDLE_SECONDS: Final = 4.0


class Link(asyncio.Protocol):
    """One connection to one replica. ``answer`` is that of the call it carries, None while it is idle."""

    #: What ``connection_lost`` deletes; compiled classes want to know.
    __deletable__ = ("_parser",)
    __slots__ = (
        "_body_bytes",
        "_bodyless",
        "_common",
        "_drain",
        "_extra",
        "_framed_bytes",
        "_headers",
        "_heading",
        "_interim",
        "_keep_alive",
        "_last",
        "_loop",
        "_parser",
        "_paused",
        "_reason",
        "_replica",
        "_transport",
        "_unended",
        "_unparsed",
        "_upload",
        "_uploaded",
        "_waits_since",
        "_whole",
        "_write_paused",
        "answer",
        "closed_early",
        "deadline",
        "made_at",
    )

    def __init__(self, replica: Replica, loop: asyncio.AbstractEventLoop) -> None:
        self.deadline = NEVER
        self.answer: Answer | None = None
        #: True when the other side closed before any byte of an answer: it may never have seen the request.
        self.closed_early = False
        self.made_at = loop.time()
        self._replica = replica
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        # The call.
        self._bodyless = False  # HEAD
        self._last = False  # there is to be none after it
        self._upload: asyncio.Task[None] | None = None
        self._write_paused = False
        self._drain: asyncio.Future[None] | None = None
        self._waits_since = 0.0  # for the present 64 KiB of the body, or for the client to take more
        self._uploaded = 0  # bytes since then
        # Its answer.
        self._heading = False  # the final head is still to come
        self._common = False  # the head being read is that of an HTTP/1.1 answer
        self._interim = False  # the head being read is not the final one
        self._reason = b""
        self._headers: list[Header] = []
        self._framed_bytes = 0  # received, and those of them that are the body's
        self._body_bytes = 0
        self._keep_alive = False
        self._unended = False  # only closing ends the body
        self._unparsed = False  # the body goes by the parser, which is in the middle of it for good
        self._whole = False
        self._extra = False  # something came after it
        self._paused = False

    @property
    def silent(self) -> bool:
        """True when not one byte came in answer to the last request."""
        return not self._framed_bytes

    # The call.

    def begin(self, answer: Answer, head: bytes, body: bytes, *, bodyless: bool, last: bool = False) -> None:
        """Send a request whose ``body`` is here, or (empty) will be uploaded; what comes back goes to ``answer``.

        Its bell rings when the head of the answer is here, or a fault.
        """
        transport = self._transport
        if transport is None:
            raise RuntimeError("not connected")
        self.answer = answer
        answer.expect(self)
        self._bodyless = bodyless
        self._last = last
        self._heading = True
        self._unended = self._whole = False
        self._framed_bytes = self._body_bytes = 0
        self.deadline = self._loop.time() + self._replica.timeout_seconds
        if len(body) > LONG_BYTES:
            transport.writelines((head, body))
        else:
            transport.write(head + body)

    def upload(self, body: AsyncIterator[bytes], length: int | None) -> None:
        """Go on sending the request's body: ``length`` bytes of it, or chunked when that is None."""
        self._upload = self._loop.create_task(self._send(body, length))

    async def _send(self, body: AsyncIterator[bytes], length: int | None) -> None:
        sent = 0
        self._waits_since, self._uploaded = self._loop.time(), 0
        try:
            self._await_head(False)  # it is the client we wait for
            async for piece in body:
                sent += len(piece)
                self._uploaded += len(piece)
                if self._uploaded >= LONG_BYTES:
                    self._waits_since, self._uploaded = self._loop.time(), 0
                if length is not None and sent > length:
                    raise ValueError(f"the body is longer than its length, {length} bytes")
                self._write(piece if length is not None else chunk(piece))
                if self._write_paused:
                    self._await_head(True)
                    await self._drained()
                    self._await_head(False)
                    self._waits_since, self._uploaded = self._loop.time(), 0
            if length is None:
                self._write(b"0\r\n\r\n")
            elif sent < length:
                raise ValueError(f"the body is shorter than its length, {length} bytes")
            self._await_head(True)
        except Exception as error:
            self._upload = None
            self.drop(error)
        else:
            self._upload = None

    def _await_head(self, waiting: bool) -> None:
        if self._heading:
            self.deadline = self._loop.time() + self._replica.timeout_seconds if waiting else NEVER

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and self.answer is not None:
            self._transport.write(data)

    async def _drained(self) -> None:
        self._drain = self._loop.create_future()
        try:
            await self._drain
        finally:
            self._drain = None

    def drop(self, fault: Exception) -> None:
        """End the call, if there is one, and the connection with it."""
        answer, self.answer = self.answer, None
        self._close()
        if answer is not None:
            answer.fail(fault)

    def kept_waiting(self, now: float) -> bool:
        """Return whether the client has kept the backend waiting for too long, should others want the place."""
        if self.answer is None or now - self._waits_since < EVICT_SECONDS:
            return False
        return self._paused or (self._upload is not None and not self._write_paused)

    def evict(self) -> None:
        """End the call for its client's sake."""
        self._replica.slow("answer" if self._paused else "body")
        self.drop(ClientGone("the answer was taken too slowly") if self._paused else BodyTimeout())

    def take_more(self) -> None:
        """Read on, if reading was paused."""
        if self._paused:
            self._paused = False
            self.deadline = self._loop.time() + self._replica.idle_seconds
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    # The transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._replica.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._replica.lost(self)
        del self._parser  # it holds our methods: a cycle
        if self.answer is None:
            self._close()
        elif self._heading:
            self.closed_early = not self._framed_bytes
            self.drop(UpstreamFault("reset", "the connection broke before the answer's head"))
        elif self._unended and exc is None:
            self._finish(at_once=False)
        else:
            self.drop(UpstreamFault("incomplete", "the connection broke within the answer's body"))

    def eof_received(self) -> None:
        if self.answer is None:
            self._replica.retire(self)  # at once: nobody may take it any more

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None:
            self._close()  # rule 1
            return
        heading = self._heading
        if not self._framed_bytes:
            self._common = data.startswith(_COMMON)
        self._framed_bytes += len(data)
        trouble: str | None = None
        if self._unparsed:
            self._pass_on(answer, data)
        else:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade:
                trouble = "an upgrade that nobody asked for"
            except HttpParserError as error:
                trouble = str(error.__context__ or error)
        if self._whole:
            self._extra = self._extra or trouble is not None
            self._finish(at_once=heading)
        elif trouble is not None:
            self.drop(UpstreamFault("protocol", trouble))
        elif self._framed_bytes > _MAX_HEAD_BYTES + self._body_bytes * _CHUNK_OVERHEAD:
            self.drop(UpstreamFault("protocol", "the answer is mostly framing"))
        elif not self._heading:
            if answer.length is not None and answer.length - self._body_bytes > LONG_BYTES:
                self._unparsed = True
            self.deadline = NEVER if self._paused else self._loop.time() + self._replica.idle_seconds
            answer.bell.ring()

    def _pass_on(self, answer: Answer, data: bytes) -> None:
        """Take a piece of a long body of known length as it is."""
        left = (answer.length or 0) - self._body_bytes
        self._extra = len(data) > left
        self.on_body(data[:left] if self._extra else data)
        if len(data) >= left:
            self._unparsed = False
            self._parser = HttpResponseParser(self)
            self._whole = True

    def expire(self, now: float) -> None:
        """The deadline has passed: rule 5."""
        replica = self._replica
        if self.answer is None:
            self._close()
        elif self._heading:
            self.drop(UpstreamFault("timeout", f"no answer within {replica.timeout_seconds:g} s"))
        else:
            self.drop(UpstreamFault("timeout", f"the answer stopped for {replica.idle_seconds:g} s"))

    def _finish(self, *, at_once: bool) -> None:
        """The answer is whole."""
        answer, self.answer = self.answer, None
        transport = self._transport
        if (
            self._keep_alive
            and not self._extra
            and self._upload is None
            and transport is not None
            and not self._write_paused
            and self._replica.keep(self)
        ):
            self.deadline = self._loop.time() + IDLE_SECONDS
            if self._paused:
                self._paused = False
                if not transport.is_closing():
                    transport.resume_reading()
        else:
            self._close()
        if answer is not None:
            answer.end(at_once=at_once)

    def _close(self) -> None:
        self._replica.retire(self)
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.cancel()
        if self._transport is not None:
            self._transport.abort()

    # The parser.

    def on_message_begin(self) -> None:
        if self._whole:
            self._extra = True
        self._reason = b""
        self._headers = []

    def on_status(self, reason: bytes) -> None:
        self._reason = self._reason + reason if self._reason else reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        answer = self.answer
        if self._whole or answer is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._common = False
            if status < 100 or status == 101:
                raise _Unreadable(f"status {status}, which nobody asked for")
            self._interim = True
            return
        if not self._common:
            version = self._parser.get_http_version()
            if version not in ("1.1", "1.0"):
                raise _Unreadable(f"HTTP/{version}")
        headers, self._headers = self._headers, []  # trailers go to the new one, for nobody
        crossing, own, length, chunked = _crossing(headers)
        if own:
            answer.own = own
        self._heading = False
        self._keep_alive = self._parser.should_keep_alive() and not self._last
        if self._bodyless:
            self._keep_alive = False  # rule 2
            self._whole = True
        elif status == 204:
            length = 0
        elif status != 304:
            self._unended = length is None and not chunked
        answer.begin(status, self._reason, crossing, length)

    def on_body(self, data: bytes) -> None:
        answer = self.answer
        if self._whole or answer is None:
            self._extra = True
            return
        self._body_bytes += len(data)
        if not answer.receive(data) and not self._paused and self._transport is not None:
            self._paused = True
            self._waits_since = self._loop.time()
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self._whole = True


class _Unreadable(Exception):
    """An answer that is HTTP, and not one we can pass on."""


def _crossing(headers: list[Header]) -> tuple[Fields, tuple[Header, ...], int | None, bool]:
    """Return the fields that cross, those that speak in a gateway's name, the body's length and whether it is chunked.

    All in one pass. The length is None when none is declared.
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
                        raise _Unreadable("a transfer coding other than chunked")
                    chunked = True
                elif meaning & CONNECTION and header[1] not in LISTING_NOTHING:
                    listed = (listed or set()) | listing(header[1])
                elif meaning & OWN:
                    own += (header,)
                continue
            meanings |= meaning
        kept.append(header)
    return Fields(kept, meanings) if listed is None else unlisted(kept, listed), own, length, chunked
