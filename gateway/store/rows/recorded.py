"""What one transaction records, for those who are told of it beside the store.

Rule: noted where it is written, so that whatever is recorded once is told once; nothing is kept here beyond the
transaction, and where nobody is to be told nothing of this is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.store.rows.bodies import Body
from gateway.store.rows.calls import StoredCall
from gateway.store.rows.feedback_events import Event
from router.outcomes import Value
from router.records import Outcome
from router.snapshot import Metric


class RecordedCall(NamedTuple):
    """A call as it is recorded. ``first`` is False for the end of a stream whose beginning was recorded before."""

    call: StoredCall
    first: bool


class ChangedValue(NamedTuple):
    """A value that changed; ``call`` is any call of its request."""

    call: StoredCall
    metric: Metric
    value: Value
    live: Outcome
    mature: Outcome


@dataclass(slots=True)
class Recorded:
    """Collects. ``stated`` are feedback events whose status is new, with what they are now."""

    calls: list[RecordedCall] = field(default_factory=list)
    stated: list[Event] = field(default_factory=list)
    outcomes: list[ChangedValue] = field(default_factory=list)
    bodies: Sequence[Body] = ()
