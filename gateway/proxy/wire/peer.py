"""The other end of a client's connection, and what backends are told of the way its requests came.

Rule: made once for a connection, and anew when the trusted proxies change. A request only picks from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Literal

from gateway.proxy.wire.headers import Header

#: A gateway names the version in which it *received* the message (RFC 9110, section 7.6.3).
_VIA: Final = (b"via", b"1.1 turnout")
_VIA_1_0: Final = (b"via", b"1.0 turnout")


class Peer:
    """One client, or the proxy in front of it, by its address and what it speaks.

    ``trusted`` says that it is one of the operator's own proxies. ``way`` and ``way_1_0`` are the fields that tell a
    backend how a request came, by the version it came in: ready to be added, as they are the same for every one.
    """

    __slots__ = ("address", "scheme", "trusted", "way", "way_1_0")

    def __init__(self, address: str, scheme: Literal["http", "https"], *, trusted: bool = False) -> None:
        self.address = address
        self.scheme = scheme
        self.trusted = trusted
        came: tuple[Header, ...] = (
            (b"x-forwarded-for", address.encode()),
            (b"x-forwarded-proto", scheme.encode()),
        )
        self.way: tuple[Header, ...] = (_VIA, *came)
        self.way_1_0: tuple[Header, ...] = (_VIA_1_0, *came)

    def __repr__(self) -> str:
        return f"<Peer {self.address} {self.scheme}{' trusted' if self.trusted else ''}>"


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
