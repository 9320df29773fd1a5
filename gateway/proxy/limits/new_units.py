"""How many new units a client may bring within a minute. Those beyond are answered and logged, but never counted.

An experiment that counts users takes a client that invents units for many users. Invented units look like real ones; so
the number that one address may add to the evidence in a minute is bounded.

Rule: a unit that was counted once stays counted while it is remembered; one that was not is new again the next time. So
whether a request counts depends on when and from where it came, never on the variant that answered it, and variants
stay comparable. The memory is of a fixed size; it mistakes a new unit for a known one rarely.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from time import monotonic
from typing import Final, Protocol

from gateway.proxy.wire.peer import Peer, lies_within
from router.snapshot import Gateway

#: Units that each of two Bloom filters takes before they swap: between one and two times as many are remembered.
REMEMBERED: Final = 500_000
#: Bits of a filter: with 500,000 units in it, one new unit in 400 is mistaken for a known one.
_BITS: Final = 2**23
_PROBES: Final = 4
#: Counters in each of two rows, by two hashes of the client: two clients rarely share both of theirs.
_PLACES: Final = 2**16
_SECONDS: Final = 60
_PORTED: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9.]+):\d+")


class Caller(Protocol):
    """The part of a request that tells which client it is from."""

    @property
    def peer(self) -> Peer: ...
    def header(self, name: str) -> str | None: ...


class NewUnits:
    """The units that one worker remembers. ``bound`` new units of a client are counted in a minute; 0: all of them."""

    def __init__(self, gateway: Gateway, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._known, self._before = bytearray(), bytearray()
        self._added = 0
        self._minute = -1
        self._new = (array("I"), array("I"))
        self.swap(gateway)

    def swap(self, gateway: Gateway) -> None:
        """Apply these settings from now on."""
        self.bound = gateway.new_units_bound
        self._proxies = tuple(map(ip_network, gateway.trusted_proxies))
        if self.bound and not self._known:
            self._known, self._before = bytearray(_BITS // 8), bytearray(_BITS // 8)

    def counts(self, unit: str | None, request: Caller) -> bool:
        """Return whether a request with this unit counts. None: it carries no unit, and is one itself."""
        # Python's hash of a text is keyed per process, so no client can make a unit that collides with another.
        number = 0 if unit is None else hash(unit)
        if unit is not None and self._remembers(number):
            return True
        minute = int(self._clock()) // _SECONDS
        if minute != self._minute:
            self._minute = minute
            self._new = (array("I", bytes(4 * _PLACES)), array("I", bytes(4 * _PLACES)))
        client = hash(client_of(request, self._proxies))
        places = client % _PLACES, (client >> 20) % _PLACES
        brought = min(row[place] for row, place in zip(self._new, places, strict=True))
        if brought >= self.bound:
            return False
        for row, place in zip(self._new, places, strict=True):
            row[place] += 1
        if unit is not None:
            self._remember(number)
        return True

    def _remembers(self, number: int) -> bool:
        if _holds(self._known, number):
            return True
        if _holds(self._before, number):
            self._remember(number)
            return True
        return False

    def _remember(self, number: int) -> None:
        if self._added >= REMEMBERED:
            self._before, self._known, self._added = self._known, bytearray(_BITS // 8), 0
        self._added += 1
        for bit in _bits(number):
            self._known[bit >> 3] |= 1 << (bit & 7)


def client_of(request: Caller, proxies: tuple[IPv4Network | IPv6Network, ...]) -> str:
    """Return the network that a request came from: an IPv4 address, or 64 bits of an IPv6 one, as one customer has.

    Behind the operator's own proxies it is the last address in X-Forwarded-For that is none of theirs: the one that the
    outermost proxy saw. The addresses before it may be invented by the client.
    """
    address = request.peer.address
    if request.peer.trusted:
        named = [_bare(one.strip()) for one in (request.header("x-forwarded-for") or "").split(",")]
        address = next((one for one in reversed(named) if one and not lies_within(one, proxies)), address)
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))
    return str(found)


def _bare(address: str) -> str:
    """Return an address without the port that some proxies add: one client uses many ports."""
    found = _PORTED.fullmatch(address)
    return address if found is None else found[1] or found[2]


def _holds(filter_: bytearray, number: int) -> bool:
    return all(filter_[bit >> 3] & 1 << (bit & 7) for bit in _bits(number))


def _bits(number: int) -> Iterator[int]:
    step = (number >> 32) | 1
    for _ in range(_PROBES):
        yield number % _BITS
        number += step
