"""What a request is worth under each metric, before and after a change; the difference moves the tallies.

Rule: values come from ``router.outcomes`` alone, and are asked for on both sides of a change. So it does not matter in
which order calls and events came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.store.counts.definitions import Definition, Definitions
from gateway.store.counts.deltas import Deltas
from gateway.store.rows.calls import StoredCall
from gateway.store.rows.feedback_events import Event
from router.exposure import exposed
from router.merge import placements
from router.outcomes import Value, changes, compared, counted, in_time, values
from router.records import EXPOSED, Feedback
from router.snapshot import Metric


class RequestState(NamedTuple):
    """What is known of a request: finished calls, joined events, whether the window has closed (None: look it up).

    ``exposed`` False: it does not count, because it was not exposed.
    """

    calls: Sequence[StoredCall]
    events: Sequence[Feedback]
    closed: bool | None = None
    exposed: bool = True


class Valuation:
    """Moves tallies by what requests were worth and are worth, under the definitions that apply to them."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def count(
        self,
        old: Sequence[StoredCall],
        new: Sequence[StoredCall],
        joined: Sequence[Event],
        closed: Sequence[Definition],
        deltas: Deltas,
    ) -> None:
        """Count what ``new`` calls add to a request's ``old`` ones, given what has closed and what joined."""
        both = (*old, *new)
        if len(both) > 1:
            known = {shadow.variant for shadow, _ in compared(old)} if old else ()
            for shadow, found in compared(both):
                if shadow.variant not in known:
                    deltas.compared(shadow, found)
            if "draft" in [call.shared.role for call in both]:
                _place(old, both, deltas)
        learned = feedback_of(joined)
        needed = self._definitions.exposure(new[0].route, new[0].at_ms)
        met = not needed or exposed(learned)
        for definition in closed:
            assert definition.metric is not None
            for call in new:
                if counted(call, definition.metric):
                    shown = met or definition.name == EXPOSED
                    deltas.closed(call, definition.metric, units=(call.bucketed_unit,), exposed=shown)
        by_metric: dict[str, list[Feedback]] = {definition.name: [] for definition in closed}
        for event in learned:
            by_metric.setdefault(event.metric, []).append(event)
        for metric, events in by_metric.items():
            before, after = (RequestState(calls, events, exposed=met) for calls in (old, both))
            self.move(metric, before, after, deltas)

    def move(self, metric: str, before: RequestState, after: RequestState, deltas: Deltas) -> None:
        """Move tallies by the difference between what a request is worth now and was before."""
        if not after.calls:
            return
        first = after.calls[0]
        shared, row = first
        definition = self._definitions.at(shared.route, metric, row.at_ms)
        if definition is None or definition.metric is None:
            return
        was = self._values(definition, definition.metric, row.at_ms, before)
        now = self._values(definition, definition.metric, row.at_ms, after)
        for value, live, mature in changes(was, now):
            deltas.outcome(first, definition.metric, value, live, mature)

    def expose(self, calls: Sequence[StoredCall], events: Sequence[Feedback], met: bool, deltas: Deltas) -> None:
        """Count a request from now on (``met``), or no longer; ``events`` are those of its metrics that count now."""
        if not calls:
            return
        first = calls[0]
        for name in self._definitions.names(first.route):
            definition = self._definitions.at(first.route, name, first.at_ms)
            if definition is None or definition.metric is None or name == EXPOSED:
                continue
            about = [event for event in events if event.metric == name]
            was, now = (RequestState(calls, about, exposed=counts) for counts in (not met, met))
            self.move(name, was, now, deltas)
            if definition.closed(first.at_ms):
                for call in calls:
                    if counted(call, definition.metric):
                        units = (call.bucketed_unit,)
                        deltas.closed(call, definition.metric, units=units, exposed=met)
                        deltas.closed(call, definition.metric, -1, units=units, exposed=not met)

    def _values(self, definition: Definition, metric: Metric, at_ms: int, state: RequestState) -> Sequence[Value]:
        calls, events, closed, met = state
        if closed is None:
            closed = definition.closed(at_ms)
        if not (events or closed) or not (met or metric.name == EXPOSED):
            return ()
        if self._definitions.sharing:  # an event that counts for one prediction may be outside the window of another
            events = [event for event in events if in_time(event.event_ms, at_ms, metric)]
        return values(calls, events, metric, closed=closed)


def _place(old: Sequence[StoredCall], both: Sequence[StoredCall], deltas: Deltas) -> None:
    """Count how the merged list treated the rankers, with all of its rows in place of the ``old`` ones."""
    for calls, sign in ((old, -1), (both, 1)):
        rankers = {call.variant: call for call in calls if call.role == "draft" and not (call.forced or call.uncounted)}
        shown = next((shown for call in rankers.values() if (shown := call.shown) is not None), None)
        if shown is not None:
            items = {name: credited for name, call in rankers.items() if (credited := call.items) is not None}
            for placement in placements(items, shown):
                deltas.placed(rankers[placement.ranker], placement, sign)


def feedback_of(events: Iterable[Event]) -> list[Feedback]:
    """Return what was learned by these events."""
    return [event.feedback for event in events]


def finished_of(stored: Iterable[StoredCall]) -> list[StoredCall]:
    """Return the calls that have ended."""
    return [call for call in stored if call[1].open_by is None]
