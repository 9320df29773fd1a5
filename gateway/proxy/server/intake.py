"""A client's bytes, cut into requests: one at a time, and nothing parsed beyond it.

Rules:

1. Every message ends at an empty line or at its length. The parser is fed to there and no further, and not with a long
   body of known length at all. What came beyond it (pipelining) is held, as the pieces it came in, until the request is
   answered and the next one may begin. What is held is not copied again, except for short pieces.
2. A head is judged once, when it is complete (``accept``), and frozen: trailers are dropped.
3. An upgrade is never taken. The parser skips the body of a request that asks for one, so a fresh parser reads it: the
   body is the body of that request and never a second request.
4. What cannot be taken raises Refusal, and nothing may be fed after it.
5. A request that two servers could read differently is the last on its connection: one with content and a method that
   has none. The body of a request for an upgrade is no such case: nginx and HAProxy read it as rule 3 does, and every
   POST of Java's own client is one.

No transport, no clock: it calls ``begin``, ``body``, ``excess`` and ``whole`` of the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from gateway.proxy.server.accept import Refusal, accept, too_long, unreadable
from gateway.proxy.wire.headers import IMITATION, UNDERSCORED, Header
from gateway.proxy.wire.wire import LONG_BYTES, UNBODIED, add_piece

if TYPE_CHECKING:
    from gateway.proxy.server.connection import Connection
    from gateway.proxy.server.service import Service

# Stages.
BETWEEN: Final = 0  # no byte of a request yet
IN_HEAD: Final = 1
IN_BODY: Final = 2  # begun, and not whole
WHOLE: Final = 3  # bytes are held until ``proceed``

_BLANK_LINE: Final = b"\r\n\r\n"
_LF: Final = ord("\n")
_CR: Final = ord("\r")
_VERSION: Final = b" HTTP/"
#: How nearly every request line ends. To ask the parser for the version costs three times as much as to look.
_COMMON: Final = b" HTTP/1.1"
#: No request line has fewer bytes than this.
_AROUND_VERSION: Final = 11
#: No request line has more bytes than this beside its target.
_AROUND_TARGET: Final = 32
#: Bytes of chunk sizes and extensions for each byte of a chunked body, beyond max_header_bytes.
_CHUNK_OVERHEAD: Final = 16


class Intake:
    """One client's byte stream. ``stage`` says where in a request it is, ``keep_alive`` whether another may follow.

    The connection sets the stage back to BETWEEN when the request is answered.
    """

    #: What ``end`` deletes: a compiled class has to declare it.
    __deletable__ = ("_connection", "_parser")
    __slots__ = (
        "_at",
        "_body_bytes",
        "_body_seen",
        "_chunked",
        "_common",
        "_connection",
        "_framed_bytes",
        "_head_bytes",
        "_headers",
        "_limits",
        "_lined",
        "_parser",
        "_pieces",
        "_tail",
        "_unbodied",
        "_unparsed",
        "_upgrade",
        "ambiguous",
        "held",
        "keep_alive",
        "length",
        "remaining",
        "stage",
        "target",
    )

    def __init__(self, connection: Connection, limits: Service) -> None:
        self.stage = BETWEEN
        self.keep_alive = True
        #: Whether the request under way is one that two servers read differently: rule 5.
        self.ambiguous = False
        #: Bytes of a body of known length, and those of them still to come.
        self.length = 0
        self.remaining = 0
        #: The target of the head under way, as far as it is here.
        self.target = b""
        self._connection = connection
        self._limits = limits
        self._parser = HttpRequestParser(self)
        self._headers: list[Header] = []  # after the head these are trailers, which are dropped
        self._head_bytes = 0
        self._common = False  # its request line names HTTP/1.1
        self._lined = False  # that line is here to its end
        self._upgrade = False
        self._chunked = False
        self._unparsed = False  # the body bypasses the parser, which is replaced at its end
        self._body_bytes = 0  # of a chunked body, without and with its framing
        self._framed_bytes = 0
        self._body_seen = 0  # body bytes when framing was last counted
        self._unbodied = 0  # bytes of framing since there was any of the body: trailers, or an extension without end
        #: Bytes that wait for ``proceed``: those of the pieces, the first of which begins at ``_at``.
        self.held = 0
        self._pieces: list[bytes] = []
        self._at = 0
        # The end of what was parsed, in which an empty line may begin.
        self._tail = b""

    @property
    def received(self) -> int:
        """Bytes of the body under way that are here, without framing."""
        return self._body_bytes if self._chunked else self.length - self.remaining

    @property
    def head_only(self) -> bool:
        """True when the request under way is a HEAD, whose answer has no body."""
        return bool(self.target) and self._parser.get_method() == b"HEAD"

    def feed(self, data: bytes) -> None:
        """Read what came. Raises Refusal."""
        if self.held:
            self.held += len(data)
            add_piece(self._pieces, data)
        elif self.stage == WHOLE:
            self._pieces.append(data)
            self.held = len(data)
        else:
            self._advance(data, 0)

    def proceed(self) -> None:
        """Begin the next request with what is held. Raises Refusal."""
        pieces = self._pieces
        while pieces and self.stage != WHOLE:
            data, at, self._at = pieces.pop(0), self._at, 0
            self.held -= len(data) - at
            self._advance(data, at)

    def end(self) -> None:
        """Nothing more will be fed. Parser and connection refer to this: only a collection would free the cycle."""
        self._pieces.clear()
        self._at = self.held = 0
        del self._parser, self._connection

    def _advance(self, data: bytes, at: int) -> None:
        size = len(data)
        while at < size:
            stage = self.stage
            if stage == IN_BODY and not self._chunked:
                end = at + self.remaining
                if end > size:
                    end = size
                if self._unparsed or self.remaining > LONG_BYTES:
                    self._pass_on(data if end - at == size else data[at:end])
                    at = end
                    continue
            elif stage == WHOLE:
                self._pieces.insert(0, data)
                self._at = at
                self.held += size - at
                return
            else:
                # Where the next empty line ends, or the data: no head or chunked body ends elsewhere.
                found = data.find(_BLANK_LINE, at)
                end = size if found < 0 else found + 4
                tail = self._tail
                if tail:
                    end = self._joined(data, end)
                if stage != IN_BODY:
                    self.stage = IN_HEAD
                    if not self._lined:
                        self._read_line(data, at, end, tail)
                    self._head_bytes += end - at
                    if self._head_bytes > self._limits.max_header_bytes:
                        raise self._too_long(data, at, end)
            piece = data if end - at == size else data[at:end]
            try:
                self._parser.feed_data(piece)
            except HttpParserUpgrade:
                self._splice()
            except HttpParserError as error:
                raise unreadable(error, piece) from None
            if self._chunked:
                self._count_framing(end - at)
            at = end
        if self.stage == IN_HEAD or (self.stage == IN_BODY and self._chunked):
            self._tail = data[-3:] if size >= 3 else (self._tail + data)[-3:]
            self._count_parts()

    def _pass_on(self, piece: bytes) -> None:
        """Take a piece of a long body of known length as it is."""
        self._unparsed = True
        self.on_body(piece)
        if not self.remaining:
            self._unparsed = False
            self._parser = HttpRequestParser(self)
            self.on_message_complete()

    def _joined(self, data: bytes, end: int) -> int:
        """Return where the empty line ends that begins in what came before this data; else ``end``."""
        tail = self._tail
        found = (tail + data[:3]).find(_BLANK_LINE)
        if found >= 0:
            end = found + 4 - len(tail)
        if end < len(data) or found >= 0:
            self._tail = b""
        return end

    def _read_line(self, data: bytes, at: int, end: int, tail: bytes) -> None:
        """Look at the request line, as far as it is here. The parser takes one without a version, and bare line feeds.

        Raises Refusal where other servers read HTTP/0.9, or another line.
        """
        feed = data.find(_LF, at, end)
        if feed < 0:
            return
        if not (data[feed - 1] == _CR if feed > at else tail.endswith(b"\r")):
            raise Refusal(400, "a line of the head ends with a bare line feed")
        line = feed - 1
        if line > at and not self._head_bytes:
            self._common = line - at > _AROUND_VERSION and data.startswith(_COMMON, line - len(_COMMON))
            if not self._common and data.find(_VERSION, at, line) < 0:
                raise Refusal(400, "the request line names no version")
        self._lined = line != at

    def _too_long(self, data: bytes, at: int, end: int) -> Refusal:
        before = self._head_bytes - (end - at)
        in_line = before < len(self.target) + _AROUND_TARGET
        return too_long(self.target + (data[at:end] if in_line else b""), self._limits.max_header_bytes)

    def _count_parts(self) -> None:
        """Check the parts of a head that are here; at its end they are checked again."""
        limits = self._limits
        if len(self.target) > limits.max_target_bytes:
            raise Refusal(414, f"the request target is longer than {limits.max_target_bytes} bytes")
        if len(self._headers) > limits.max_headers:
            raise Refusal(431, f"the request has more than {limits.max_headers} header fields")

    def _count_framing(self, size: int) -> None:
        limit = self._limits.max_header_bytes
        self._framed_bytes += size
        if self._framed_bytes > limit + self._body_bytes * _CHUNK_OVERHEAD:
            raise Refusal(400, "the chunked body is mostly framing")
        if self._headers:
            self._headers = []
        if self._body_bytes > self._body_seen:
            self._body_seen = self._body_bytes
            self._unbodied = 0
        else:
            self._unbodied += size
            if self._unbodied > limit:
                raise Refusal(431, f"the trailer section, or a chunk's extension, is longer than {limit} bytes")

    def _splice(self) -> None:
        """The parser stopped at an upgrade, behind the head. Read its body, if any, with a fresh one: rule 3."""
        self._upgrade = False
        self._parser = HttpRequestParser(self)
        if self.remaining:
            self._parser.feed_data(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % self.remaining)
        elif self._chunked:
            self._parser.feed_data(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
        else:
            self.on_message_complete()

    # Called by the parser.

    def on_url(self, url: bytes) -> None:
        self.target = self.target + url if self.target else url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.stage == IN_BODY:
            return  # the head that a fresh parser was given: rule 3
        parser = self._parser
        method = parser.get_method().decode()
        version = "1.1" if self._common else parser.get_http_version()
        limits, given = self._limits, self._headers
        if len(given) > limits.max_headers or len(self.target) > limits.max_target_bytes:
            self._count_parts()
        target, headers, meanings, length, chunked, expects = accept(method, self.target, version, given)
        if length is not None and length > limits.max_body_bytes:
            raise Refusal(413, f"the body is longer than {limits.max_body_bytes} bytes")
        if meanings & (IMITATION | UNDERSCORED):
            headers = self._limits.without_underscores(headers)
        self._headers = []
        self._upgrade = parser.should_upgrade()
        self._chunked = chunked
        if chunked:
            self._body_bytes = self._framed_bytes = self._body_seen = self._unbodied = 0
        self.length = self.remaining = length or 0
        self.keep_alive = parser.should_keep_alive()
        self.ambiguous = (chunked or bool(length)) and method in UNBODIED
        if self.ambiguous:
            self.keep_alive = False
        self.stage = IN_BODY
        self._connection.begin(method, target, headers, meanings, version == "1.0", length, chunked, expects)

    def on_body(self, data: bytes) -> None:
        if self._chunked:
            self._body_bytes += len(data)
            if self._body_bytes > self._limits.max_body_bytes:
                self._connection.excess()
                return
        else:
            self.remaining -= len(data)
        self._connection.body(data)

    def on_message_complete(self) -> None:
        if self._upgrade:
            return  # the body was skipped, not read
        self._headers = []
        self._chunked = self._lined = self._common = False
        self._head_bytes = 0
        self.target = self._tail = b""
        self.stage = WHOLE
        self._connection.whole()
