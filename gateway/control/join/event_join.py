"""Join feedback events: what each ends as (``event_status``), and which values change because of it.

Rule: an event is judged together with all events that share its identity and with the predictions they are about, so
that what comes of it does not depend on the order in which they came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.join.event_limit import EventLimit
from gateway.control.join.event_status import PredictionFacts, Restated, new_facts, restate
from gateway.control.join.valuation import RequestState, Valuation, feedback_of, finished_of
from gateway.store.counts.definitions import Definitions
from gateway.store.counts.deltas import Deltas, new_status_delta
from gateway.store.rows import calls, feedback_events
from gateway.store.rows.calls import StoredCall
from gateway.store.rows.feedback_events import Event, new_event
from gateway.store.rows.feedback_status import UNKNOWN
from router.exposure import exposed
from router.outcomes import answered, in_time, inapplicable, values
from router.records import EXPOSED, Feedback, new_outcome

#: Stored events that are looked at together: some tens of megabytes.
MOST_AT_ONCE: Final = 50_000


class _Related(NamedTuple):
    """Events, and what is stored that decides what they end as.

    ``over`` are events that there is no room for, ``stored`` the events that share an identity with the others,
    ``requests`` the calls of the predictions that any of them is about, and ``about`` the events about these, by
    prediction; ``joined`` are those of ``about`` that count, and ``unmet`` the predictions that do not count, because
    they were not exposed.
    """

    events: Sequence[Event]
    over: Sequence[Event]
    stored: Sequence[Event]
    requests: Mapping[str, Sequence[StoredCall]]
    about: Mapping[str, Sequence[Event]]
    joined: Mapping[str, Sequence[Event]]
    unmet: Collection[str]


class EventJoin:
    """Joins events and writes them. ``farthest`` is the greatest id of a prediction that any stored event is about."""

    def __init__(self, definitions: Definitions, valuation: Valuation, farthest: str) -> None:
        self._definitions = definitions
        self._valuation = valuation
        self._event_limit = EventLimit()
        self.farthest = farthest

    async def restate(
        self, connection: AsyncConnection, touched: Sequence[Event], watermark_ms: int | None, deltas: Deltas
    ) -> None:
        """Find out anew what these events, and those that share their identities, end as; write what that changes.

        ``touched`` are events not yet stored, or stored ones whose targets changed. Exposures come first: what all the
        others about their predictions end as depends on them.
        """
        if self._definitions.exposing:
            exposures = [event for event in touched if event.feedback.metric == EXPOSED]
            flipped = await self._restate_these(connection, exposures, watermark_ms, deltas)
            about = await feedback_events.about(connection, flipped, sharing=self._definitions.sharing)
            others = {event.seq: event for events in about.values() for event in events}
            rest = [event for event in touched if event.feedback.metric != EXPOSED]
            again = others.keys() - {event.seq for event in rest}
            touched = [*rest, *(others[seq] for seq in again)]
        await self._restate_these(connection, touched, watermark_ms, deltas)

    async def _restate_these(
        self, connection: AsyncConnection, touched: Sequence[Event], watermark_ms: int | None, deltas: Deltas
    ) -> set[str]:
        """Restate events, and return the predictions that were exposed by them, or are not any more."""
        touched, over = self._event_limit.admit(touched)
        await self._remove_over(connection, over, {}, await calls.of(connection, _targets(over)), deltas)
        if not touched:
            return set()
        sharing = self._definitions.sharing
        targets = _targets(touched)
        about = await feedback_events.at_most_about(connection, targets, MOST_AT_ONCE, sharing=sharing)
        if about is None:
            low, high = _halves(touched)
            if low:  # about several predictions: in parts, as if they had come one after the other
                flipped = await self._restate_these(connection, low, watermark_ms, deltas)
                return flipped | await self._restate_these(connection, high, watermark_ms, deltas)
            about = await feedback_events.about(connection, targets, sharing=sharing)
        old, related = await self._related(connection, touched, targets, about)
        requests, unmet = related.requests, related.unmet
        single, others = self._join_single(related.events, requests, related.about, deltas)
        found = restate(related.stored, others, lambda event: self._facts(event, requests, unmet), watermark_ms)
        for event in await self._remove_over(connection, related.over, old, requests, deltas):
            for target in event.targets:
                found.leaving[target, event.feedback.metric].append(event)
        for event in found.changed:
            if event.seq in old:
                self._event_limit.free(old[event.seq], event)
        flipped = self._move_values(found, related, deltas)
        await self._write(connection, single, found, deltas)
        return flipped

    async def _related(
        self,
        connection: AsyncConnection,
        touched: Sequence[Event],
        targets: set[str],
        about: dict[str, list[Event]],
    ) -> tuple[Mapping[int | None, Event], _Related]:
        """Return what is stored that decides what these events end as, after the stored events by their numbers.

        ``targets`` are the predictions that the events are about, and ``about`` the stored events about those.
        """
        sharing = self._definitions.sharing
        touched, over = self._event_limit.bound(touched, about)
        named = {event.identity for event in (*touched, *over) if event.named}
        stored = await feedback_events.with_identities(connection, named, sharing=sharing)
        touched, more = self._event_limit.bound_identities(touched, stored)
        over += more
        if unknown := _targets((*stored, *touched)) - targets:
            about |= await feedback_events.about(connection, unknown, sharing=sharing)
            targets |= unknown
        if about:
            rest = {event.identity for event in (*touched, *over)} - named
            stored += [event for events in about.values() for event in events if event.identity in rest]
        old = {event.seq: event for event in stored}
        if over:
            lost = {event.seq for event in over}
            stored = [event for event in stored if event.seq not in lost]
        requests = await calls.of(connection, targets)
        joined = {one: [event for event in events if event.status == "joined"] for one, events in about.items()}
        return old, _Related(touched, over, stored, requests, about, joined, self._unmet(requests, joined))

    def _move_values(self, found: Restated, related: _Related, deltas: Deltas) -> set[str]:
        """Move what predictions are worth by the events that count now; return those whose exposure changed."""
        joined, requests, unmet = related.joined, related.requests, related.unmet
        move, flipped = self._valuation.move, set()
        for target, metric in found.shifted():
            before = [event for event in joined[target] if event.feedback.metric == metric] if target in joined else []
            gone = {event.seq for event in found.leaving.get((target, metric), ())} if before else ()
            after = [*(event for event in before if event.seq not in gone), *found.coming.get((target, metric), ())]
            # Of a prediction whose retention has passed there is nothing to move.
            finished, met = finished_of(requests.get(target, ())), target not in unmet
            was = RequestState(finished, feedback_of(before) if before else (), None, met)
            now = RequestState(finished, feedback_of(after), None, met)
            move(metric, was, now, deltas)
            if metric == EXPOSED and exposed(was.events) != exposed(now.events):
                flipped.add(target)
                self._valuation.expose(finished, feedback_of(joined.get(target, ())), exposed(now.events), deltas)
        return flipped

    async def _write(self, connection: AsyncConnection, single: list[Event], found: Restated, deltas: Deltas) -> None:
        """Write the events that are new or changed, and count their statuses."""
        deltas.statuses += found.status_deltas
        for event, why in found.troubled:
            deltas.trouble(event.counted, event.status, event.feedback.metric, event.feedback.received_ms, why)
        if deltas.recorded is not None:
            deltas.recorded.events += found.stated
        fresh = single + found.fresh
        self.farthest = max([self.farthest, *_targets(fresh), *_targets(found.changed)])
        await feedback_events.insert(connection, fresh)
        await feedback_events.restate(connection, found.changed)
        if self._definitions.sharing:
            await feedback_events.relate(connection, found.changed)

    async def _remove_over(
        self,
        connection: AsyncConnection,
        over: Sequence[Event],
        old: Mapping[int | None, Event],
        requests: Mapping[str, Sequence[StoredCall]],
        deltas: Deltas,
    ) -> list[Event]:
        """Count events that there is no room for, and remove them; return those that counted until now, as they were.

        ``old`` are stored events by number, ``requests`` what is known of the predictions that they are about.
        """
        left = []
        for event in {
            event.seq if event.seq is not None else -index: event for index, event in enumerate(over, 1)
        }.values():
            was = old.get(event.seq, event)
            stored = next((requests[one] for one in event.targets if one in requests), None)
            route = stored[0].route if stored is not None else event.feedback.route or UNKNOWN
            metric = event.feedback.metric
            if event.seq is not None:
                deltas.status(was.counted, metric, was.status, -1)
                if was.status == "joined":
                    left.append(was)
            deltas.status(route, metric, "over_limit")
        await feedback_events.remove(connection, [event for event in over if event.seq is not None])
        return left

    def _join_single(
        self,
        touched: Sequence[Event],
        requests: Mapping[str, Sequence[StoredCall]],
        about: Collection[str],
        deltas: Deltas,
    ) -> tuple[list[Event], Sequence[Event]]:
        """Join each new event that is the only one about a prediction of one call, by its id and in an open window.

        Most events are such. Each joins whatever else is known: there is no event to compare it with or to change.
        Return these events, and the others.
        """
        if self._definitions.exposing or self._definitions.sharing:
            return [], touched
        times = Counter(map(_TARGET, touched))
        single, others = list[Event](), list[Event]()
        for event in touched:
            learned, identity, target, _, _, due_ms, seq, _ = event
            calls = requests.get(target) if target is not None else None
            if calls is None or len(calls) > 1 or times[target] > 1 or target in about or seq is not None:
                others.append(event)
                continue
            [call] = calls
            shared, row = call
            metric, value, received_ms, prediction_id, _, _, item, event_id, _, _ = learned
            definition = self._definitions.at(shared.route, metric, row.at_ms)
            if (
                definition is None
                or definition.metric is None
                or value is None
                or event_id is not None
                or prediction_id is None
                or row.open_by is not None
                or shared.role == "draft"
                or shared.uncounted
                or not answered(call, definition.metric)
                or row.at_ms < definition.closed_until
                or not in_time(learned.event_ms, row.at_ms, definition.metric)
            ):
                others.append(event)
                continue
            for worth in values(calls, (learned,), definition.metric, closed=False):
                live, mature = new_outcome((None, worth.live)), new_outcome((None, worth.mature))
                deltas.outcome(call, definition.metric, worth, live, mature)
            single.append(new_event((learned, identity, target, "joined", shared.route, due_ms, None, ())))
            delay = max(0, received_ms - row.at_ms) / 1000
            deltas.statuses.append(new_status_delta((shared.route, metric, "joined", 1, delay, _variant(calls, item))))
        if deltas.recorded is not None:
            deltas.recorded.events += single
        single.sort(key=_TARGET)  # neighbours in the index that they are found by
        return single, others

    def _unmet(self, requests: Mapping[str, Sequence[StoredCall]], joined: Mapping[str, Sequence[Event]]) -> set[str]:
        """Return which of these predictions do not count because they were not exposed."""
        if not self._definitions.exposing:
            return set()
        asked = {one for one, (call, *_) in requests.items() if self._definitions.exposure(call.route, call.at_ms)}
        return {one for one in asked if not exposed(feedback_of(joined.get(one, ())))}

    def _facts(
        self, event: Event, requests: Mapping[str, Sequence[StoredCall]], unmet: Collection[str]
    ) -> Sequence[PredictionFacts]:
        """Return what is known of the predictions that an event is about."""
        learned, _, target, _, _, _, _, also = event
        if not also:  # as of most: it is about one, if any
            stored = None if target is None else requests.get(target)
            return () if stored is None else (self._facts_of(stored, learned, unmet),)
        about = (requests[target] for target in event.targets if target in requests)
        return [self._facts_of(stored, learned, unmet) for stored in about]

    def _facts_of(self, stored: Sequence[StoredCall], event: Feedback, unmet: Collection[str]) -> PredictionFacts:
        """Return what is known of one prediction for an event about it."""
        shared, row = stored[0]
        definition = self._definitions.at(shared.route, event.metric, row.at_ms)
        metric = None if definition is None else definition.metric
        met = not unmet or event.metric == EXPOSED or row.id not in unmet
        why = inapplicable(stored, event, metric)
        return new_facts((shared.route, row.at_ms, metric, met, _variant(stored, event.item), why))


def _variant(stored: Sequence[StoredCall], item: str | None) -> str | None:
    """Return whose answer an event is about."""
    for call in stored:
        shared = call[0]
        if shared.role in ("primary", "holdout") or (shared.role == "draft" and item in (call.items or ())):
            return shared.variant
    return None


def _halves(events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """Halve events by the predictions they are about; where that is one, into nothing and all."""
    targets = sorted({event.target or "" for event in events})
    middle = targets[len(targets) // 2]
    return [e for e in events if (e.target or "") < middle], [e for e in events if (e.target or "") >= middle]


def _targets(events: Iterable[Event]) -> set[str]:
    """Return every prediction that these events are about."""
    found = {event.target for event in events if event.target is not None}
    return found.union(*(event.also for event in events if event.also))


_TARGET: Final = itemgetter(Event._fields.index("target"))
