"""How message heads are written, towards clients and towards backends.

Rule: framing (Content-Length, Transfer-Encoding) and connection fields are written here and nowhere else; those that a
caller passes are left out. No field can end a line: ``Fields`` are checked as they are made, any others here.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from gateway.proxy.wire.headers import DATE, FRAMING, HOST, MALFORMED, MEANING, Fields, Headers, breaks_line

#: Methods whose content means nothing, so that some servers do not read it and take it for the next request (RFC 9110,
#: sections 9.3.1, 9.3.2 and 9.3.5): no connection that carried one carries another request.
UNBODIED: Final = frozenset({"GET", "HEAD", "DELETE"})
#: The interim answer to a client that waits to be asked for its body.
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: More of a body than this is not copied if that can be helped: neither joined to its head, nor fed to a parser, which
#: has nothing to find in a body of known length.
LONG_BYTES: Final = 65_536
#: Pieces that are held are joined up to this size: for each piece at most this much is copied, and no memory is spent
#: on objects of two bytes.
_SHORT_BYTES: Final = 4_096

_BREAK: Final = b"\r\n"
_STATUS_LINES: Final = {s.value: f"HTTP/1.1 {s.value} {s.phrase}".encode() for s in HTTPStatus}
_date: tuple[int, bytes] = (0, b"")


def answer_head(
    status: int,
    headers: Headers,
    *,
    length: int | None = None,
    chunked: bool = False,
    connection: bytes = b"",
) -> bytes:
    """Return the head of an answer, the empty line included; ``Date`` is added where it is missing.

    ``length`` is the Content-Length to write, None for none.

    Raises ValueError if the status has not three digits or a field contains CR, LF or NUL.
    """
    lines = [_STATUS_LINES.get(status) or _status_line(status)]
    if not _write(lines, headers) & DATE:
        lines.append(_date_line())
    if length is not None:
        lines.append(b"content-length: %d" % length)
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    if connection:
        lines.append(b"connection: " + connection)
    lines.append(_BREAK)  # joined to the last line by another: the empty line
    return _BREAK.join(lines)


def request_head(
    method: str,
    target: bytes,
    headers: Headers,
    *,
    authority: bytes,
    length: int | None = None,
    chunked: bool = False,
) -> bytes:
    """Return the head of a request, the empty line included.

    ``Host`` is the one among ``headers``, else ``authority``. ``length`` is the Content-Length to write; None leaves
    it out.

    Raises ValueError if a field contains CR, LF or NUL.
    """
    lines = [b"%b %b HTTP/1.1" % (method.encode(), target)]
    if not _write(lines, headers) & HOST:
        lines.append(b"host: " + authority)
    if length is not None:
        lines.append(b"content-length: %d" % length)
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    lines.append(_BREAK)  # joined to the last line by another: the empty line
    return _BREAK.join(lines)


def chunk(data: bytes) -> bytes:
    """Return the data as one chunk of the chunked coding; nothing for empty data, whose chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def add_piece(pieces: list[bytes], piece: bytes) -> None:
    """Add a piece to those that are held: join it to the last of them if that is short.

    So millions of pieces of two bytes take hardly more memory than their bytes, and little is copied.
    """
    if pieces and len(pieces[-1]) < _SHORT_BYTES:
        pieces[-1] += piece
    else:
        pieces.append(piece)


def _write(lines: list[bytes], headers: Headers) -> int:
    """Add a line for each field that is not framing; return what they mean, taken together."""
    # Compiled, a format is one new object for each line, where a sum of three parts is two.
    if isinstance(headers, Fields):
        for name, value in headers:
            lines.append(b"%b: %b" % (name, value))
        return headers.meanings
    written = 0
    for name, value in headers:
        meaning = MEANING[name]
        if meaning:
            if meaning & FRAMING:
                continue
            if meaning & MALFORMED and breaks_line(name):
                raise ValueError(f"the name of the header field {name!r} contains a line break")
            written |= meaning
        # Fields come from parsed messages, files and code; one with a line break in it would be a second message.
        if breaks_line(value):
            raise ValueError(f"the header field {name!r} contains a line break")
        lines.append(b"%b: %b" % (name, value))
    return written


def _status_line(status: int) -> bytes:
    if not 100 <= status <= 999:
        raise ValueError(f"a status has three digits, got {status}")
    return b"HTTP/1.1 %d " % status


def _date_line() -> bytes:
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, b"date: " + formatdate(now, usegmt=True).encode())
    return _date[1]
