"""To which addresses webhooks may be sent.

Rule: a name is resolved for each request, and the request goes to the address that was examined: a name whose address
changes in between (DNS rebinding) reaches nothing else. Of several addresses only public ones are used.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv6Network, ip_address
from typing import Final

from gateway.sinks.outlet import Trouble

#: How many of a name's addresses are tried.
MOST: Final = 3

#: IPv6 addresses that stand for the IPv4 address in their last 32 bits. Source: RFC 6052, RFC 4291 section 2.5.5.
_EMBEDDING: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("::ffff:0:0/96"), IPv6Network("::/96"))


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet.

    >>> is_public("93.184.215.14"), is_public("10.0.0.1"), is_public("169.254.169.254"), is_public("::ffff:127.0.0.1")
    (True, False, False, False)
    """
    found = ip_address(address.partition("%")[0])
    if found.version == 6:
        if any(found in network for network in _EMBEDDING):
            return is_public(str(ip_address(int(found) & 0xFFFF_FFFF)))
        if found.sixtofour is not None:
            return is_public(str(found.sixtofour))
    return found.is_global and not found.is_multicast


async def public_addresses(host: str, port: int) -> list[str]:
    """Return a host's public addresses, at most ``MOST``. Raises Trouble if it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Trouble(f"{host} cannot be resolved: {getattr(error, 'strerror', None) or error}") from None
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    public = [address for address in addresses if is_public(address)]
    if not public:
        which = addresses[0] if addresses else "no address"
        raise Trouble(f"{host} is {which}, which is no public address; allow_private = true permits it")
    return public[:MOST]
