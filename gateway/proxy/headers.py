"""Which header fields cross the gateway, and what it adds to them.

Rule: fields that cross keep their order, count and bytes. Fields that belong to one connection stop here, and so do
those that speak in the gateway's own name. What the gateway says is set after the client's ``Connection`` options were
applied, so that no client can take it away by listing it there.
Source: RFC 9110, sections 7.6.1 (Connection) and 7.6.3 (Via).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

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
#: An id by which the caller follows its request.
CALLERS_ID: Final = 512
CODED: Final = 1_024

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
    b"proxy-authenticate": HOP,
    b"proxy-authentication-info": HOP,
    b"proxy-authorization": HOP,
    b"proxy-connection": HOP,
    b"te": HOP,
    b"traceparent": CALLERS_ID,
    b"trailer": HOP,
    b"transfer-encoding": HOP | CODING,
    b"upgrade": HOP,
    b"x-forwarded-for": REPLACED,
    b"x-forwarded-host": REPLACED,
    b"x-forwarded-proto": REPLACED,
    b"x-request-id": CALLERS_ID,
}
_VIA: Final = (b"via", b"1.1 turnout")
#: Spellings remembered; clients choose them, so there is an end to it.
_REMEMBERED: Final = 2_048


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


def way(client: str, scheme: str) -> tuple[Header, ...]:
    """Return the fields that tell a backend by which way a request came: the same for all of one connection.

    ``client`` is the peer's address, ``scheme`` what it spoke.
    """
    return _VIA, (b"x-forwarded-for", client.encode()), (b"x-forwarded-proto", scheme.encode())


def forwarded(headers: Sequence[Header], meanings: int, came: tuple[Header, ...]) -> list[Header]:
    """Return what a backend gets to see of a client's fields: those that cross, and the way they came.

    ``meanings`` is what the fields mean, taken together. The peer is not trusted: ``X-Forwarded-For``, ``-Host`` and
    ``-Proto`` say what this gateway saw itself, ``Forwarded`` is gone. ``Via`` grows by one line.
    """
    if meanings & (HOP | OWN | REPLACED):
        kept = _without(headers, HOP | OWN | REPLACED)
        kept += came
    else:
        kept = [*headers, *came]
    for name, value in headers:
        if MEANING[name] & HOST:
            kept.append((b"x-forwarded-host", value))
            break
    return kept


def field(headers: Sequence[Header], name: bytes) -> bytes | None:
    """Return the first value of a field, by its name in lower case, or None."""
    length = len(name)
    for key, value in headers:
        if len(key) == length and key.lower() == name:
            return value
    return None


def _without(headers: Sequence[Header], meanings: int) -> list[Header]:
    kept = [header for header in headers if not MEANING[header[0]] & meanings]
    if len(kept) == len(headers):
        return kept
    listed: set[bytes] = set()
    for name, value in headers:
        if MEANING[name] & CONNECTION:
            listed.update(option.strip(b" \t").lower() for option in value.split(b","))
    # Without these a message would mean something else to its reader.
    listed -= {b"host", b"content-length", b"close", b"keep-alive"}
    if listed:
        return [header for header in kept if header[0].lower() not in listed]
    return kept
