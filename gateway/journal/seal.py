"""The seal on a journal line: its number and its checksum, by which a reader knows what is whole and what is missing.

Rule: whether a line is whole is seen from the line alone. It begins with a byte that no JSON text can hold, so that a
torn or damaged line ends where the next begins, and no other line is lost.

A sealed line is ``RS``, one hexadecimal number, a space, the JSON text, ``LF``. The upper bits of the number count the
lines of a writer; its lower 32 are the CRC-32 of text and ``LF``, begun with the count, so that it covers that too. The
first line of a segment says its format and its writer; that one line is sealed like this in every format to come.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

import orjson

#: What this program writes, and the only one it reads.
FORMAT: Final = 1

#: RECORD SEPARATOR, as in RFC 7464: JSON escapes control characters, so it stands nowhere in a text.
MARK: Final = b"\x1e"

#: A segment's first line is shorter.
HEADER_BYTES: Final = 512


class SegmentRefused(Exception):
    """The segment has an unknown format, or another writer than its name says: nothing of it is read."""


def sealed(line: bytes, number: int) -> bytes:
    r"""Return a line, newline included, with its seal.

    >>> sealed(b'{"line":"beat"}\n', 3)
    b'\x1e3d0f7cd63 {"line":"beat"}\n'
    """
    # One number in hexadecimal, because every other way of writing two of them took twice the time.
    return b"\x1e%x %b" % (number << 32 | crc32(line, number), line)


def unsealed(line: bytes) -> tuple[int, bytes]:
    """Return the number and the text of a sealed line that was read without its newline.

    Raises ValueError if it is not whole.
    """
    head, text = line.split(b" ", 1)
    seal = int(head[1:], 16)
    number = seal >> 32
    if number << 32 | crc32(b"\n", crc32(text, number)) != seal:
        raise ValueError("the checksum is of another line")
    return number, text


def header(writer: str) -> bytes:
    """Return the first line of a segment, to be sealed."""
    content = {"line": "segment", "format": FORMAT, "writer": writer}
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def check_header(beginning: bytes, writer: str) -> None:
    """Raise SegmentRefused if a segment that begins like this must not be read as one of ``writer``'s.

    A segment whose first line is damaged or not written yet is read: its other lines carry seals of their own.
    """
    line, _, _ = beginning.partition(b"\n")
    try:
        said = orjson.loads(unsealed(line)[1])
        is_header = said["line"] == "segment"
    except (ValueError, TypeError, KeyError):
        return
    if is_header and said.get("format") != FORMAT:
        raise SegmentRefused(f"its format is {said.get('format')!r}, and this program reads {FORMAT}")
    if is_header and said.get("writer") != writer:
        raise SegmentRefused(f"it was written by {said.get('writer')!r}, and is named as if by {writer!r}")


def pieces(damaged: bytes) -> list[bytes]:
    """Cut a damaged line where others may begin in it: those may be whole."""
    first, *others = damaged.split(MARK)
    return ([first] if first else []) + [MARK + other for other in others]
