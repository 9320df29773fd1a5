"""Header fields: what their names mean to the gateway, and which of them cross it.

Rules:

1. Fields that cross keep their order, count and bytes. Fields that belong to one connection stop here, and so do those
   in the gateway's own name. The gateway's own fields are added after the sender's ``Connection`` options were applied,
   so that no sender can remove one of them by listing it there.
2. ``Fields`` are written into a head without another look. So they begin as fields that the parser accepted, and the
   only way to put in more is ``Fields.add``, which checks them.

Source: RFC 9110, sections 5.1, 5.5 and 7.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias, final

Header = tuple[bytes, bytes]

# What a field name means to the gateway: a set of bits, because most names mean nothing, and one test must find that.
CONNECTION: Final = 1
CODING: Final = 2
LENGTH: Final = 4
HOST: Final = 8
EXPECT: Final = 16
DATE: Final = 32
HOP: Final = 64
REPLACED: Final = 128
OWN: Final = 256
VIA: Final = 512
HOPS: Final = 1_024
#: An id by which the caller follows its request.
CALLERS_ID: Final = 2_048
CODED: Final = 4_096
#: A name with an underscore. Servers that use names of CGI and WSGI take it for the same name with a hyphen.
UNDERSCORED: Final = 8_192
#: One that such a server takes for framing, or for a field that only a gateway may set: it never passes.
IMITATION: Final = 16_384
#: No field name at all: a message with it would be malformed.
MALFORMED: Final = 32_768
#: What only `wire.py` may write.
FRAMING: Final = HOP | LENGTH

_KNOWN: Final = {
    b"connection": HOP | CONNECTION,
    b"content-encoding": CODED,
    b"content-length": LENGTH,
    b"date": DATE,
    # The edge answers it, and asks for the body.
    b"expect": EXPECT | REPLACED,
    b"forwarded": REPLACED,
    b"host": HOST,
    b"http2-settings": HOP,
    b"keep-alive": HOP,
    b"max-forwards": HOPS,
    b"proxy-authenticate": HOP,
    b"proxy-authentication-info": HOP,
    b"proxy-authorization": HOP,
    b"proxy-connection": HOP,
    b"te": HOP,
    b"traceparent": CALLERS_ID,
    b"trailer": HOP,
    b"transfer-encoding": HOP | CODING,
    b"upgrade": HOP,
    b"via": VIA,
    b"x-forwarded-for": REPLACED,
    b"x-forwarded-host": REPLACED,
    b"x-forwarded-proto": REPLACED,
    b"x-request-id": CALLERS_ID,
}
#: What a field means that may not be imitated with an underscore.
_INIMITABLE: Final = HOP | OWN | LENGTH | HOST | REPLACED
#: Spellings remembered. Clients choose them, so their number has to be bounded.
_REMEMBERED: Final = 2_048


#: What most Connection fields say, which is nothing about other fields.
LISTING_NOTHING: Final = frozenset({b"keep-alive", b"Keep-Alive", b"close", b"Close"})

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Numbers: to look for bytes in bytes, Python first fails to read them as one.
_NUL: Final = ord("\0")
_LF: Final = ord("\n")
_CR: Final = ord("\r")


class _Meanings(dict[bytes, int]):
    """Field name as spelled → what it means. Each name is looked up thrice: lower-casing it each time costs more."""

    def __missing__(self, name: bytes) -> int:
        lower = name.lower()
        meaning = _meaning(lower)
        if b"_" in lower:
            meaning = IMITATION if _meaning(lower.replace(b"_", b"-")) & _INIMITABLE else UNDERSCORED
        if not _TOKEN.fullmatch(name):
            meaning |= MALFORMED
        if len(self) < _REMEMBERED:
            self[name] = meaning
        return meaning


def _meaning(lower: bytes) -> int:
    return OWN if lower.startswith(b"turnout-") else _KNOWN.get(lower, 0)


MEANING: Final = _Meanings()


@final
class Fields:
    """Fields that may cross the gateway and hold no framing: a head is made of them as they are.

    ``meanings`` is what they mean, taken together. They begin as ``read``, a list that is theirs from now on: fields
    that the parser accepted, in whose names and values there is no byte that could end a line.
    """

    __slots__ = ("_kept", "meanings")

    def __init__(self, read: list[Header], meanings: int) -> None:
        self._kept = read
        self.meanings = meanings

    def __iter__(self) -> Iterator[Header]:
        return iter(self._kept)

    def __repr__(self) -> str:
        return f"<Fields {self._kept}>"

    def add(self, name: bytes, value: bytes) -> None:
        """Add a field behind the others.

        Raises ValueError for a name that is none, for one of framing, and for a value with CR, LF or NUL.
        """
        meaning = MEANING[name]
        if meaning & (MALFORMED | FRAMING):
            raise ValueError(f"a field may not be added by the name {name!r}")
        if breaks_line(value):
            raise ValueError(f"the header field {name.decode()} contains a line break")
        self._kept.append((name, value))
        self.meanings |= meaning

    def extend(self, checked: Fields) -> None:
        """Add other fields behind these; each was checked when it was added to those."""
        self._kept += checked._kept
        self.meanings |= checked.meanings


#: Fields as a head is written of them: any others than ``Fields`` are checked then.
Headers: TypeAlias = Fields | Sequence[Header]


def checked(*headers: Header) -> Fields:
    """Return these as ``Fields``. Raises what ``add`` raises."""
    made = Fields([], 0)
    for name, value in headers:
        made.add(name, value)
    return made


def joined(headers: Headers, added: Fields) -> Headers:
    """Return fields with others behind them, and change neither."""
    if isinstance(headers, Fields):
        made = Fields([*headers], headers.meanings)
        made.extend(added)
        return made
    return [*headers, *added]


def breaks_line(value: bytes) -> bool:
    """Return whether a field with this value could be read as more than one line, or as less than itself."""
    return _LF in value or _CR in value or _NUL in value


def end_to_end(headers: Iterable[Header], stopped: int = HOP | OWN | LENGTH) -> Fields:
    """Return those of the fields that a parser read that may cross the gateway, in order.

    Left out are hop-by-hop fields, those that ``Connection`` lists, every ``turnout-*``, as only the gateway may set
    them, and Content-Length, which is written with the next head.
    """
    kept: list[Header] = []
    listed: set[bytes] | None = None
    meanings = 0
    for header in headers:
        meaning = MEANING[header[0]]
        if meaning:
            if meaning & stopped:
                if meaning & CONNECTION and header[1] not in LISTING_NOTHING:
                    listed = (listed or set()) | listing(header[1])
                continue
            meanings |= meaning
        kept.append(header)
    return Fields(kept, meanings) if listed is None else unlisted(kept, listed)


def without(headers: list[Header], dropped: int) -> list[Header]:
    """Return the fields whose name means none of ``dropped``."""
    return [header for header in headers if not MEANING[header[0]] & dropped]


def listing(connection: bytes) -> set[bytes]:
    """Return the names that a Connection field lists, in lower case."""
    return {option.strip(b" \t").lower() for option in connection.split(b",")}


def unlisted(headers: list[Header], listed: set[bytes]) -> Fields:
    """Return the fields that are not listed. Without these a message would mean something else to its reader."""
    listed -= {b"host", b"content-length", b"close", b"keep-alive"}
    kept = [header for header in headers if header[0].lower() not in listed]
    meanings = 0
    for name, _ in kept:
        meanings |= MEANING[name]
    return Fields(kept, meanings)


def field(headers: Iterable[Header], name: bytes) -> bytes | None:
    """Return the first value of a field, by its name in lower case, or None."""
    length = len(name)
    for key, value in headers:
        if len(key) == length and key.lower() == name:
            return value
    return None
