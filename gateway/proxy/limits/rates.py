"""How many feedback events a second are accepted: from one client, and in all.

Rule: a rate is in events, holds over ``BURST_SECONDS``, and is each worker's own. Memory is bounded: when more clients
are over their rate than are remembered, the rate of all bounds the others. A client is what ``new_units.client_of``
returns.
"""

from __future__ import annotations

from typing import Final

from router.snapshot import Gateway

#: The events of this many seconds may come at once.
BURST_SECONDS: Final = 10.0
#: Clients that are remembered: each takes about a hundred bytes.
REMEMBERED: Final = 8_192
#: It takes a millisecond to find the clients that can be forgotten, so it is not done more often than this.
_FORGET_SECONDS: Final = 1.0
#: The key for all clients together; no client's name is empty.
_ALL: Final = ""


class Rates:
    """How much each client sent lately. Times are in seconds on one clock."""

    def __init__(self, gateway: Gateway) -> None:
        # By client: the time at which its events would all have come, at exactly its rate. In the past: it sent less.
        self._reached: dict[str, float] = {}
        self._forgot = 0.0  # when room was made last
        self._each = self._all = 0  # events a second, of a client and of all; 0: no bound
        self.swap(gateway)

    def __len__(self) -> int:
        return len(self._reached)

    def swap(self, gateway: Gateway) -> None:
        """Apply these settings from now on. If the rates change, what was sent before is forgotten."""
        rates = gateway.max_feedback_per_second_per_client, gateway.max_feedback_per_second
        if rates != (self._each, self._all):
            self._each, self._all = rates
            self._reached.clear()

    def wait_seconds(self, client: str, now: float) -> float:
        """Return how many seconds this client has to wait before it may send again; 0 if it need not."""
        latest = max(self._reached.get(_ALL, 0.0), self._reached.get(client, 0.0))
        return max(0.0, latest - now - BURST_SECONDS)

    def sent(self, client: str, events: int, now: float) -> None:
        """Count events that a client has sent and that were read."""
        reached = self._reached
        if self._all:
            reached[_ALL] = max(reached.get(_ALL, 0.0), now) + events / self._all
        if not self._each:
            return
        if client not in reached and len(reached) >= REMEMBERED:
            if now - self._forgot < _FORGET_SECONDS:
                return
            self._forgot = now
            self._reached = reached = {name: at for name, at in reached.items() if at > now}
            if len(reached) >= REMEMBERED:
                return
        reached[client] = max(reached.get(client, 0.0), now) + events / self._each
