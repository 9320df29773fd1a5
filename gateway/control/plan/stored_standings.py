"""Where routes stand, as it is stored: read once by the node that holds the lease, and written by its moves.

Rule: what is here is what the store has. Where it may not be (another node held the lease, a transaction failed and may
have been committed all the same) it is read again.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.control.event_log import now_ms
from gateway.control.opened import Opened
from gateway.control.plan.planner import standings_of
from gateway.control.steer.moves import store_moves
from gateway.store import LoggedEvent, Store
from policies.rollouts.standing import Moved, Standing
from router.snapshot import Sink


class StoredStandings:
    """Standings by route, as they were read last; ``known`` says whether they are still what the store has."""

    def __init__(self) -> None:
        self.by_route: Mapping[str, Standing] = {}
        self.known = False
        self._tenure: int | None = None

    def forget(self) -> None:
        """Read them again before anything is planned by them."""
        self.known = False

    async def read(self, opened: Opened) -> bool:
        """Read them if they are not known; return whether this node has just become the one that may change them.

        Raises what the store raises.
        """
        began = self._tenure != opened.tenure
        if began:
            self.forget()
            self._tenure = opened.tenure
        if not self.known:
            self.by_route, self.known = await standings_of(opened.store), True
        return began

    async def move(
        self, store: Store, moves: Mapping[str, Moved], sinks: Mapping[str, Sink], via: str
    ) -> list[LoggedEvent]:
        """Store moves with all that belongs to them; return the events that are to be shown.

        Raises what ``store_moves`` raises.
        """
        try:
            logged = await store_moves(store, moves, sinks, now_ms(), via)
        except BaseException:
            self.forget()
            raise
        self.by_route = {**self.by_route, **{name: one.standing for name, one in moves.items()}}
        return logged
