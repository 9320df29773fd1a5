"""Which header fields cross the gateway, and what it adds to them.

Rule: fields that cross keep their order, count and bytes. Fields that belong to one connection stop here, and so do
those that speak in the gateway's own name. What the gateway says is set after the client's ``Connection`` options were
applied, so that no client can take it away by listing it there.
Source: RFC 9110, sections 7.6.1 (Connection) and 7.6.3 (Via).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.proxy.peer import Peer

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
#: Spellings remembered; clients choose them, so there is an end to it.
_REMEMBERED: Final = 2_048


#: What most Connection fields say, which is nothing about other fields.
_LISTING_NOTHING: Final = frozenset({b"keep-alive", b"Keep-Alive", b"close", b"Close"})


class _Meanings(dict[bytes, int]):
    """Field name as spelled → what it means. Each name is looked up thrice: lower-casing it each time costs more."""

    def __missing__(self, name: bytes) -> int:
        lower = name.lower()
        meaning = OWN if lower.startswith(b"turnout-") else _KNOWN.get(lower, 0)
        if len(self) < _REMEMBERED:
            self[name] = meaning
        return meaning


MEANING: Final = _Meanings()


def end_to_end(headers: list[Header], meanings: int) -> list[Header]:
    """Return the fields that may cross the gateway, in order. ``meanings`` is what the fields mean, taken together.

    Gone are hop-by-hop fields, those ``Connection`` lists, and every ``turnout-*``: only we may set them.
    Content-Length stays: whoever writes the next head replaces it where there is a body, and the answer to HEAD needs
    it.
    """
    return _without(headers, HOP | OWN) if meanings & (HOP | OWN) else headers


def forwarded(headers: Sequence[Header], meanings: int, peer: Peer, *, http10: bool = False) -> list[Header]:
    """Return what a backend gets to see of a client's fields: those that cross, and the way they came.

    ``meanings`` is what the fields mean, taken together. ``X-Forwarded-For``, ``-Proto`` and ``-Host`` say what this
    gateway saw itself, unless the peer is one of the operator's own proxies: then its address is added to those it
    names, and the rest is its word. ``Forwarded`` is gone in any case. ``Via`` grows by one line; ``http10`` is the
    version it names.
    """
    if peer.trusted:
        return _vouched(headers, peer, http10=http10)
    way = peer.way_1_0 if http10 else peer.way
    if meanings & (HOP | OWN | REPLACED):
        kept = _without(headers, HOP | OWN | REPLACED)
        kept += way
    else:
        kept = [*headers, *way]
    for name, value in headers:
        if MEANING[name] & HOST:
            kept.append((b"x-forwarded-host", value))
            break
    return kept


def _vouched(headers: Sequence[Header], peer: Peer, *, http10: bool) -> list[Header]:
    crossing = _without(headers, HOP | OWN)
    via, (_, address), (_, scheme) = peer.way_1_0 if http10 else peer.way
    named = [value for name, value in crossing if name.lower() == b"x-forwarded-for" and value.strip()]
    host = field(crossing, b"x-forwarded-host") or field(headers, b"host")
    kept = [header for header in crossing if not MEANING[header[0]] & REPLACED]
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


def _without(headers: Sequence[Header], meanings: int) -> list[Header]:
    kept: list[Header] = []
    listed: set[bytes] | None = None
    for header in headers:
        meaning = MEANING[header[0]]
        if meaning & meanings:
            if meaning & CONNECTION and header[1] not in _LISTING_NOTHING:
                listed = (listed or set()) | {option.strip(b" \t").lower() for option in header[1].split(b",")}
        else:
            kept.append(header)
    if listed is not None:
        # Without these a message would mean something else to its reader.
        listed -= {b"host", b"content-length", b"close", b"keep-alive"}
        return [header for header in kept if header[0].lower() not in listed]
    return kept
