"""Which header fields cross the gateway, and what it adds to them.

Rule: fields that cross keep their order, count and bytes. Fields that belong to one connection stop here, and so do
those that speak in the gateway's own name. What the gateway says is set after the client's ``Connection`` options were
applied, so that no client can take it away by listing it there.
Source: RFC 9110, sections 7.6.1 (Connection) and 7.6.3 (Via).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from gateway.compiled import interpreted

if TYPE_CHECKING:
    from gateway.proxy.wire.peer import Peer

Header = tuple[bytes, bytes]

# What a field name means to us: a set of bits, because most names mean nothing and one test has to say so.
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
#: A name with an underscore. Servers behind CGI and WSGI names make of it the field with a hyphen instead.
UNDERSCORED: Final = 8_192
#: One that such a server takes for framing, or for what only a gateway says: it never passes.
IMITATION: Final = 16_384

_KNOWN: Final = {
    b"connection": HOP | CONNECTION,
    b"content-encoding": CODED,
    b"content-length": LENGTH,
    b"date": DATE,
    # The edge answers it, and asks for the body itself.
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
#: Spellings remembered; clients choose them, so there is an end to it.
_REMEMBERED: Final = 2_048


#: What most Connection fields say, which is nothing about other fields.
LISTING_NOTHING: Final = frozenset({b"keep-alive", b"Keep-Alive", b"close", b"Close"})


class _Meanings(dict[bytes, int]):
    """Field name as spelled → what it means. Each name is looked up thrice: lower-casing it each time costs more."""

    def __missing__(self, name: bytes) -> int:
        lower = name.lower()
        meaning = _meaning(lower)
        if b"_" in lower:
            meaning = IMITATION if _meaning(lower.replace(b"_", b"-")) & _INIMITABLE else UNDERSCORED
        if len(self) < _REMEMBERED:
            self[name] = meaning
        return meaning


def _meaning(lower: bytes) -> int:
    return OWN if lower.startswith(b"turnout-") else _KNOWN.get(lower, 0)


MEANING: Final = _Meanings()


@interpreted
class Fields(list[Header]):
    """Fields that may cross the gateway and hold no framing: a head is made of them as they are.

    ``meanings`` is what they mean, taken together; who adds a field that means something adds that as well.
    """

    __slots__ = ("meanings",)

    meanings: int


def fields(headers: Iterable[Header] = (), meanings: int = 0) -> Fields:
    """Return fields that are known to hold no framing."""
    made = Fields(headers)
    made.meanings = meanings
    return made


def end_to_end(headers: Iterable[Header], stopped: int = HOP | OWN | LENGTH) -> Fields:
    """Return the fields that may cross the gateway, in order.

    Gone are hop-by-hop fields, those ``Connection`` lists, every ``turnout-*``, as only we may set them, and
    Content-Length, which whoever writes the next head knows.
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
    return fields(kept, meanings) if listed is None else unlisted(kept, listed)


def without(headers: list[Header], dropped: int) -> list[Header]:
    """Return the fields whose name means none of ``dropped``."""
    return [header for header in headers if not MEANING[header[0]] & dropped]


def listing(connection: bytes) -> set[bytes]:
    """Return the names that a Connection field lists, in lower case."""
    return {option.strip(b" \t").lower() for option in connection.split(b",")}


def unlisted(headers: Iterable[Header], listed: set[bytes]) -> Fields:
    """Return the fields that are not listed. Without these a message would mean something else to its reader."""
    listed -= {b"host", b"content-length", b"close", b"keep-alive"}
    kept = fields(header for header in headers if header[0].lower() not in listed)
    for name, _ in kept:
        kept.meanings |= MEANING[name]
    return kept


def forwarded(headers: Sequence[Header], peer: Peer, *, http10: bool = False) -> Fields:
    """Return what a backend gets to see of a client's fields: those that cross, and the way they came.

    ``X-Forwarded-For``, ``-Proto`` and ``-Host`` say what this gateway saw itself, unless the peer is one of the
    operator's own proxies: then its address is added to those it names, and the rest is its word. ``Forwarded`` is gone
    in any case. ``Via`` grows by one line; ``http10`` is the version it names.
    """
    if peer.trusted:
        return _vouched(headers, peer, http10=http10)
    kept = end_to_end(headers, HOP | OWN | LENGTH | REPLACED)
    kept += peer.way_1_0 if http10 else peer.way
    for name, value in headers:
        if MEANING[name] & HOST:
            kept.append((b"x-forwarded-host", value))
            break
    return kept


def _vouched(headers: Sequence[Header], peer: Peer, *, http10: bool) -> Fields:
    crossing = end_to_end(headers)
    via, (_, address), (_, scheme) = peer.way_1_0 if http10 else peer.way
    named = [value for name, value in crossing if name.lower() == b"x-forwarded-for" and value.strip()]
    host = field(crossing, b"x-forwarded-host") or field(headers, b"host")
    kept = fields((header for header in crossing if not MEANING[header[0]] & REPLACED), crossing.meanings)
    kept += (
        via,
        (b"x-forwarded-for", b", ".join([*named, address])),
        (b"x-forwarded-proto", field(crossing, b"x-forwarded-proto") or scheme),
    )
    if host is not None:
        kept.append((b"x-forwarded-host", host))
    return kept


def field(headers: Sequence[Header], name: bytes) -> bytes | None:
    """Return the first value of a field, by its name in lower case, or None."""
    length = len(name)
    for key, value in headers:
        if len(key) == length and key.lower() == name:
            return value
    return None
