"""The other end of a client's connection, and the fields that tell backends the way its requests came.

Rule: a peer is made once for a connection, and again when the trusted proxies change. A request only picks from it.
Source: RFC 9110, section 7.6.3 (Via).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Literal

from gateway.proxy.wire.headers import (
    HOP,
    HOST,
    LENGTH,
    MEANING,
    OWN,
    REPLACED,
    Fields,
    Header,
    checked,
    end_to_end,
    field,
)

#: A gateway names the version in which it *received* the message (RFC 9110, section 7.6.3).
_VIA: Final = b"1.1 turnout"
_VIA_1_0: Final = b"1.0 turnout"


class Peer:
    """One client, or the proxy in front of it, by its address and whether it speaks TLS.

    ``trusted`` says that it is one of the operator's own proxies. ``way`` and ``way_1_0`` are the fields that tell a
    backend how a request came, by the HTTP version of the request: the same for every request, so made once.
    """

    __slots__ = ("address", "scheme", "trusted", "way", "way_1_0")

    def __init__(self, address: str, scheme: Literal["http", "https"], *, trusted: bool = False) -> None:
        self.address = address
        self.scheme = scheme
        self.trusted = trusted
        self.way = _way(_VIA, address.encode(), scheme.encode())
        self.way_1_0 = _way(_VIA_1_0, address.encode(), scheme.encode())

    def __repr__(self) -> str:
        return f"<Peer {self.address} {self.scheme}{' trusted' if self.trusted else ''}>"


def forwarded(headers: Sequence[Header], peer: Peer, *, http10: bool = False) -> Fields:
    """Return the fields that a backend gets of a client's request: those that cross, and the way they came.

    ``X-Forwarded-For``, ``-Proto`` and ``-Host`` say what this gateway saw itself, unless the peer is one of the
    operator's own proxies: then its address is added to those it names, and its proto and host are passed on.
    ``Forwarded`` is left out in any case. ``Via`` grows by one line, which names HTTP/1.0 if ``http10``.
    """
    if peer.trusted:
        return _vouched(headers, peer, http10=http10)
    kept = end_to_end(headers, HOP | OWN | LENGTH | REPLACED)
    kept.extend(peer.way_1_0 if http10 else peer.way)
    for name, value in headers:
        if MEANING[name] & HOST:
            kept.add(b"x-forwarded-host", value)
            break
    return kept


def _vouched(headers: Sequence[Header], peer: Peer, *, http10: bool) -> Fields:
    crossing = end_to_end(headers)
    named = [value for name, value in crossing if name.lower() == b"x-forwarded-for" and value.strip()]
    host = field(crossing, b"x-forwarded-host") or field(headers, b"host")
    kept = Fields([header for header in crossing if not MEANING[header[0]] & REPLACED], crossing.meanings)
    scheme = field(crossing, b"x-forwarded-proto") or peer.scheme.encode()
    kept.extend(_way(_VIA_1_0 if http10 else _VIA, b", ".join([*named, peer.address.encode()]), scheme))
    if host is not None:
        kept.add(b"x-forwarded-host", host)
    return kept


def _way(via: bytes, addresses: bytes, scheme: bytes) -> Fields:
    return checked((b"via", via), (b"x-forwarded-for", addresses), (b"x-forwarded-proto", scheme))


def lies_within(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Return whether an address belongs to one of the networks; what is no address belongs to none.

    >>> from ipaddress import ip_network
    >>> lies_within("::ffff:10.0.0.7", [ip_network("10.0.0.0/8")])
    True
    """
    try:
        found = ip_address(address)
    except ValueError:
        return False
    # A socket that listens on "::" shows IPv4 clients like this.
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in network for network in networks)
