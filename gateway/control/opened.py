"""What exists once the store is open: the store, and what reads and writes it.

Rule: it is made as a whole or not at all. Until then every part that needs it has None in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.control.membership import Member
from gateway.control.record.recorder import Recorder
from gateway.sinks.sinks import Sinks
from gateway.store import Store


@dataclass(frozen=True, slots=True)
class Opened:
    """``member`` is this node's part in a fleet, None where the store is this node's alone."""

    store: Store
    recorder: Recorder
    sinks: Sinks
    member: Member | None = None

    @property
    def holds(self) -> bool:
        """Whether this node may join, plan and deliver: always, unless another node of the fleet holds the lease."""
        return self.member is None or self.member.holds

    @property
    def tenure(self) -> int | None:
        """What is another number once another node may have held the lease meanwhile; None while this one does not."""
        return 0 if self.member is None else self.member.fencing
