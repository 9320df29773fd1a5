"""What the connections of one listening server share: the handler, the limits in force, the budget, the counters.

Rule: a connection knows its server by this and nothing else. Limits can be replaced at any time, and hold from then on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal

from gateway.process.descriptors import MOST_REFUSED
from gateway.proxy.server.serving_phases import BODY, HEAD, IDLE, deadlines
from gateway.proxy.wire.buffers import Buffers
from gateway.proxy.wire.deadlines import Deadlines
from gateway.proxy.wire.fiber import Bell, Fiber
from gateway.proxy.wire.headers import IMITATION, UNDERSCORED, Header, without
from gateway.proxy.wire.peer import Peer, lies_within
from router.snapshot import Gateway


class Service:
    """The limits are those of ``gateway``; ``buffers`` is the worker's budget, whose limit follows them from now on."""

    def __init__(
        self,
        handler: Callable[..., Coroutine[Any, Any, None]],
        gateway: Gateway,
        scheme: Literal["http", "https"],
        buffers: Buffers,
    ) -> None:
        self.handler = handler
        self.scheme: Literal["http", "https"] = scheme
        self.buffers = buffers
        #: Every answer says that its connection closes; and: connections without a request are closed.
        self.draining = False
        self.closing = False
        #: Since the start: connections beyond max_connections, bodies for which there was no room, clients that were
        #: cut because they took their answer too slowly, header fields dropped for an underscore in their name.
        self.turned_away = self.unheld = self.unread = self.dropped_fields = 0
        #: Connections that there are descriptors for, and those beyond the limit that get a 503.
        self.room = sys.maxsize
        self.most_refused = MOST_REFUSED
        #: The handlers that wait for something.
        self.fibers: set[Fiber] = set()
        #: Rung when a connection is closed, and when a handler ends.
        self.departure = Bell()
        self.deadlines = Deadlines(1.0)
        self.trusted: tuple[IPv4Network | IPv6Network, ...] = ()
        self.limit(gateway)

    def limit(self, gateway: Gateway) -> None:
        """Put limits in force."""
        self.max_connections = min(gateway.max_connections, self.room)
        self.max_header_bytes = gateway.max_header_bytes
        self.max_headers = gateway.max_headers
        self.max_target_bytes = gateway.max_target_bytes
        self.max_body_bytes = gateway.max_body_bytes
        #: Until the deadline of each phase.
        self.seconds = seconds = deadlines(gateway)
        self.header_seconds = seconds[HEAD]
        self.body_seconds = seconds[BODY]
        self.min_body_rate = gateway.min_body_bytes_per_second
        self.min_read_rate = gateway.min_read_bytes_per_second
        self.buffers.limit = gateway.max_buffer_bytes
        self.deadlines.expect(min(seconds[HEAD], seconds[BODY], seconds[IDLE]))
        self._dropped = IMITATION if gateway.underscores_in_headers else IMITATION | UNDERSCORED
        self.trusted = tuple(map(ip_network, gateway.trusted_proxies))

    def peer(self, address: str) -> Peer:
        """Return the peer at this address."""
        return Peer(address, self.scheme, trusted=bool(self.trusted) and lies_within(address, self.trusted))

    def without_underscores(self, headers: list[Header]) -> list[Header]:
        """Return the fields that may pass, of a head that has names with an underscore; the others are counted."""
        kept = without(headers, self._dropped)
        self.dropped_fields += len(headers) - len(kept)
        return kept

    def handled(self, fiber: Fiber) -> None:
        """A handler has ended."""
        self.fibers.discard(fiber)
        self.departure.ring()
