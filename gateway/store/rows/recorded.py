"""What one transaction records, collected for the sinks.

Rule: the function that writes a row also adds it here, so that what is recorded once is sent once. Nothing is kept here
beyond the transaction, and without sinks nothing is collected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

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


class ChangedVerdict(NamedTuple):
    """A variant whose comparison on the route's primary metric has another status than was last reported."""

    at_ms: int
    route: str
    epoch: str
    variant: str
    metric: str
    before: str
    after: str
    sentence: str


class Announced(NamedTuple):
    """That a rollout moved, somebody acted, or a trigger fired; ``data`` is plain JSON.

    ``id`` is the event's, the same if it is announced again. The sinks in ``named`` get it whatever kinds they ask for.
    """

    kind: Literal["rollout", "act", "trigger"]
    at_ms: int
    id: str
    route: str | None
    data: Mapping[str, Any]
    named: frozenset[str] = frozenset()


@dataclass(slots=True)
class Recorded:
    """What a transaction has recorded so far; ``events`` are feedback events whose status has changed."""

    calls: list[RecordedCall] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    outcomes: list[ChangedValue] = field(default_factory=list)
    bodies: Sequence[Body] = ()
    verdicts: Sequence[ChangedVerdict] = ()
    announced: Sequence[Announced] = ()
