"""The join: calls and events, whenever either comes, become values; what changed moves the tallies.

Rule: every step asks what a request is worth before and after, by ``router.outcomes``, and writes the difference. A
step therefore never cares what came first, and steps may be cut anywhere.

Each method works inside the caller's transaction and adds to ``Deltas``, which the caller writes. After a transaction
that failed, the joiner is loaded anew.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.join.event_limit import EventLimit
from gateway.control.join.event_status import PredictionFacts, arrived, new_facts, patience_ends_ms, restate
from gateway.store.counts import plans
from gateway.store.counts.definitions import Definition, DefinitionKey, Definitions
from gateway.store.counts.deltas import Deltas, new_status_delta
from gateway.store.counts.ledger import UNKNOWN
from gateway.store.rows import calls, feedback_events, key_lookup
from gateway.store.rows.calls import StoredCall
from gateway.store.rows.feedback_events import Event, new_event
from gateway.store.rows.key_lookup import Key
from gateway.store.rows.recorded import RecordedCall
from router.exposure import exposed
from router.outcomes import Value, agreements, changes, counted, in_time, inapplicable, values
from router.records import EXPOSED, Feedback, new_outcome
from router.snapshot import Metric

#: Stored events that are looked at together: some tens of megabytes.
MOST_AT_ONCE: Final = 50_000


class _State(NamedTuple):
    """What is known of a request: finished calls, joined events, whether the window has closed (None: look it up).

    ``exposed`` False: it does not count, because nobody met it.
    """

    calls: Sequence[StoredCall]
    events: Sequence[Feedback]
    closed: bool | None = None
    exposed: bool = True


class Joiner:
    """Joins calls and events. ``watermark_ms`` is the event time before which everything is known.

    ``newest`` is the greatest id that a call is stored under, and ``farthest`` the greatest that any event is about.
    Ids grow with time: beyond these nothing need be looked up, and nearly every call is beyond.

    A definition costs something when the window of a call closes under it, and nothing else: of each that has calls
    with open windows it is known where the first of them may be (``look``, once the definitions are known).
    """

    def __init__(
        self,
        definitions: Definitions,
        watermark_ms: int | None,
        *,
        newest: str = "",
        farthest: str = "",
        set_aside: Collection[str] = (),
    ) -> None:
        self.definitions = definitions
        self.watermark_ms = watermark_ms
        #: True when the watermark allows more than was done, or may: ``apply_watermark`` is due though it did not move.
        self.work_due = True
        #: Route, key and since when: events by key that were looked up before a prediction came which they may mean.
        self._missed: set[tuple[str, str, int]] = set()
        #: Predictions whose windows are left open, because they cannot be closed.
        self.set_aside = set(set_aside)
        self._event_limit = EventLimit()
        self._newest = newest
        self._farthest = farthest
        #: No call with an open window is earlier than this, by definition; of those that are missing there is none.
        self._open: dict[DefinitionKey, int] = {}
        self._stored_shared: set[int] = set()
        self._days: set[int] = set()

    async def look(self, connection: AsyncConnection) -> None:
        """Find out which definitions have calls whose windows are open."""
        await self._look_at(connection, list(self.definitions))

    async def record(self, connection: AsyncConnection, lines: Sequence[StoredCall], deltas: Deltas) -> None:
        """Store calls, count those that are finished, and join what already waits for them."""
        known = await calls.of(connection, {row.id for _, row in lines if row.id <= self._newest})
        there = {_name(call): call for group in known.values() for call in group}
        if there or len({(row.id, shared.role, shared.variant) for shared, row in lines}) < len(lines):
            lines = _without_repeats(lines, there, deltas)
        ended = [there[name] for call in lines if (name := _name(call)) in there] if there else ()
        await self._finish(connection, known, lines, ended, deltas)

    async def abandon(self, connection: AsyncConnection, writer: str, deltas: Deltas) -> None:
        """Count the streams whose writer died as what they are: incomplete."""
        stored = await calls.open_of(connection, writer)
        known = await calls.of(connection, {call.row.id for call in stored})
        incomplete = [call._replace(row=call.row._replace(open_by=None)) for call in stored]
        await self._finish(connection, known, incomplete, stored, deltas)

    async def learn(self, connection: AsyncConnection, events: Sequence[Feedback], deltas: Deltas) -> None:
        """Store events and join those whose predictions are known."""
        reached = 0 if self.watermark_ms is None else self.watermark_ms
        fresh = [arrived(event) for event in events]
        by_key = [event for event in events if event.prediction_id is None and event.event_ms < reached]
        if by_key and self.definitions.sharing:
            self.work_due = True  # an event that may be about several predictions is looked up once it is stored
        elif by_key:
            found = await key_lookup.targets(connection, [self._key(event) for event in by_key])
            led = {id(event): self._led(event, found) for event in by_key}
            fresh = [e._replace(**led[id(e.feedback)]) if id(e.feedback) in led else e for e in fresh]
        await self._restate(connection, fresh, deltas)

    async def apply_watermark(self, connection: AsyncConnection, deltas: Deltas, limit: int) -> bool:
        """Do what the watermark allows: look up keys, give up on orphans, close windows. True: there is more.

        Each is done for about ``limit`` predictions or events, that a transaction may not last. With 0 nothing is done
        but what cannot be done later: to look up what a prediction that came late may be meant by.
        """
        if self.watermark_ms is None:
            self.work_due = False
            return False
        waiting = await self._look_up(connection, self.watermark_ms, deltas, limit)
        closing, closed = False, []
        for key, first_ms in self._open.items():
            definition = self.definitions.with_key(key)
            until = definition.closes_until(self.watermark_ms)
            if until > first_ms:
                if not limit:
                    closing = True
                    break
                reached = await self._close(connection, definition, until, deltas, limit)
                closing |= reached < until
                closed.append(key)
        if closed:
            await self._look_at(connection, [self.definitions.with_key(key) for key in closed])
        self.work_due = waiting or closing
        return self.work_due

    def due_pieces(self) -> list[Definition | None]:
        """Return what is to be settled, piece by piece: what waits (None), and windows under each definition."""
        if self.watermark_ms is None:
            return []
        found = [(self.definitions.with_key(key), first_ms) for key, first_ms in self._open.items()]
        return [None, *(one for one, first_ms in found if one.closes_until(self.watermark_ms) > first_ms)]

    async def apply_watermark_to_first(
        self, connection: AsyncConnection, deltas: Deltas, piece: Definition | None, hand: list[int | str]
    ) -> None:
        """Settle the first event of a piece, or its first predictions, which are put into ``hand`` before.

        An event is known by its number, a prediction by its id.
        """
        assert self.watermark_ms is not None
        if piece is None:
            seq = await feedback_events.next_due(connection, self.watermark_ms)
            if seq is not None:
                hand.append(seq)
                await self._look_up(connection, self.watermark_ms, deltas, 1)
            return
        hand += await self.first_closing(connection, piece)
        await self._close(connection, piece, piece.closes_until(self.watermark_ms), deltas, 1)
        await self._look_at(connection, [self.definitions.with_key(piece.key)])

    async def first_closing(self, connection: AsyncConnection, piece: Definition) -> list[str]:
        """Return the predictions whose windows close first: those of one millisecond."""
        assert self.watermark_ms is not None
        since, until = max(piece.closed_until, piece.since_ms), piece.closes_until(self.watermark_ms)
        reached = await calls.reach(connection, piece.route, since, until, 1)
        found = await calls.ids_in(connection, calls.Span(piece.route, since, reached))
        return [one for one in found if one not in self.set_aside]

    async def _look_at(self, connection: AsyncConnection, definitions: Sequence[Definition]) -> None:
        """Find out of each of these definitions where the first call is whose window is open."""
        spans = {
            definition.key: calls.Span(
                definition.route, since_ms, _ALWAYS_MS if definition.until_ms is None else definition.until_ms
            )
            for definition in definitions
            if (since_ms := definition.first_open_ms(0)) is not None
        }
        found = dict(zip(spans, await calls.first_in(connection, list(spans.values())), strict=True))
        for definition in definitions:
            first = found.get(definition.key)
            if first is None:
                self._open.pop(definition.key, None)
            else:
                self._open[definition.key] = first

    def _note_open(self, oldest: Mapping[str, int]) -> None:
        """Calls came, the oldest of each route at this time: windows are open under the route's definitions."""
        for route, at_ms in oldest.items():
            for definition in self.definitions.of(route):
                first = definition.first_open_ms(at_ms)
                if first is None or first >= self._open.get(definition.key, _ALWAYS_MS):
                    continue
                self._open[definition.key] = first
                if self.watermark_ms is not None and first < definition.closes_until(self.watermark_ms):
                    self.work_due = True

    async def _look_up(self, connection: AsyncConnection, watermark_ms: int, deltas: Deltas, limit: int) -> bool:
        found = await feedback_events.affected(connection, self._missed, watermark_ms, sharing=self.definitions.sharing)
        self._missed.clear()
        due = await feedback_events.due(connection, watermark_ms, limit)
        touched = {event.seq: event for event in (*due, *found)}
        by_key = [event for event in touched.values() if event.feedback.prediction_id is None]
        led = await key_lookup.targets(connection, [self._key(event.feedback) for event in by_key])
        for event in by_key:
            touched[event.seq] = event._replace(**self._led(event.feedback, led))
        await self._restate(connection, list(touched.values()), deltas)
        return len(due) == limit

    async def _finish(
        self,
        connection: AsyncConnection,
        known: Mapping[str, Sequence[StoredCall]],
        written: Sequence[StoredCall],
        ended: Sequence[StoredCall],
        deltas: Deltas,
    ) -> None:
        """Write calls, in place of those that ended, and count those that are no longer open."""
        await calls.write(connection, written, ended=ended, stored=self._stored_shared, days=self._days)
        if deltas.recorded is not None:
            begun = {_name(call) for call in ended}
            deltas.recorded.calls += [RecordedCall(call, _name(call) not in begun) for call in written]
        deltas.touched.update({shared.route for shared, _ in written})
        ids = [row.id for _, row in written]
        near = {one for one in ids if one <= self._farthest}
        about = await feedback_events.about(connection, near, sharing=self.definitions.sharing)
        finished = [call for call in written if call[1].open_by is None]
        deltas.calls(finished)
        self._note_open(deltas.oldest)
        for prediction_id, new in self._in_company(finished, known.keys() | about.keys()).items():
            closed = self.definitions.closed_at(new[0].route, new[0].at_ms)
            joined = [event for event in about.get(prediction_id, ()) if event.status == "joined"]
            self._count(_finished(known.get(prediction_id, ())), new, joined, closed, deltas)
        for call in written:
            if call[1].key is not None:
                self._note_key(call)
        self._newest = max([self._newest, *ids])
        # Of a merged answer each ranker's row may show the item that an event names.
        merged = {row.id for shared, row in finished if shared.role == "draft"}
        awaited = (events for one, events in about.items() if one not in known or one in merged)
        await self._restate(connection, [event for events in awaited for event in events], deltas)

    def _in_company(self, finished: Sequence[StoredCall], expected: Collection[str]) -> Mapping[str, list[StoredCall]]:
        """Return the calls that say more than themselves, by request.

        Those are calls of a request of which more is known or several came, or whose window has closed.
        """
        number = Counter([row.id for _, row in finished])
        closed = {route: self.definitions.closed_until(route) for route in {shared.route for shared, _ in finished}}
        found: defaultdict[str, list[StoredCall]] = defaultdict(list)
        for call in finished:
            row = call[1]
            if number[row.id] > 1 or row.id in expected or row.at_ms < closed[row.route]:
                found[row.id].append(call)
        return found

    def _count(
        self,
        old: Sequence[StoredCall],
        new: Sequence[StoredCall],
        joined: Sequence[Event],
        closed: Sequence[Definition],
        deltas: Deltas,
    ) -> None:
        """Count what ``new`` calls add to a request's ``old`` ones, given what has closed and what joined."""
        both = (*old, *new)
        agreed = {shadow.variant for shadow, _ in agreements(old)}
        for shadow, agrees in agreements(both):
            if shadow.variant not in agreed:
                deltas.agreement(shadow, agrees)
        learned = _learned(joined)
        needed = self.definitions.exposure(new[0].route, new[0].at_ms)
        met = not needed or exposed(learned)
        for definition in closed:
            assert definition.metric is not None
            for call in new:
                if counted(call, definition.metric):
                    deltas.closed(call, definition.metric, exposed=met or definition.name == EXPOSED)
        by_metric: dict[str, list[Feedback]] = {definition.name: [] for definition in closed}
        for event in learned:
            by_metric.setdefault(event.metric, []).append(event)
        for metric, events in by_metric.items():
            before, after = (_State(calls, events, exposed=met) for calls in (old, both))
            self._move(metric, before, after, deltas)

    def _move(self, metric: str, before: _State, after: _State, deltas: Deltas) -> None:
        """Move tallies by what a request is worth now and was before."""
        if not after.calls:
            return
        first = after.calls[0]
        shared, row = first
        definition = self.definitions.at(shared.route, metric, row.at_ms)
        if definition is None or definition.metric is None:
            return
        was = self._values(definition, definition.metric, row.at_ms, before)
        now = self._values(definition, definition.metric, row.at_ms, after)
        for value, live, mature in changes(was, now):
            deltas.outcome(first, definition.metric, value, live, mature)

    def _values(self, definition: Definition, metric: Metric, at_ms: int, state: _State) -> Sequence[Value]:
        calls, events, closed, met = state
        if closed is None:
            closed = definition.closed(at_ms)
        if not (events or closed) or not (met or metric.name == EXPOSED):
            return ()
        if self.definitions.sharing:  # an event that counts for one prediction may be outside the window of another
            events = [event for event in events if in_time(event.event_ms, at_ms, metric)]
        return values(calls, events, metric, closed=closed)

    async def _restate(self, connection: AsyncConnection, touched: Sequence[Event], deltas: Deltas) -> None:
        """Find out anew what these events, and those that share their identities, end as; write what that changes.

        ``touched`` are events not yet stored, or stored ones whose targets changed. Exposures come first: what all the
        others about their predictions end as depends on them.
        """
        if self.definitions.exposing:
            exposures = [event for event in touched if event.feedback.metric == EXPOSED]
            flipped = await self._restate_these(connection, exposures, deltas)
            about = await feedback_events.about(connection, flipped, sharing=self.definitions.sharing)
            others = {event.seq: event for events in about.values() for event in events}
            rest = [event for event in touched if event.feedback.metric != EXPOSED]
            again = others.keys() - {event.seq for event in rest}
            touched = [*rest, *(others[seq] for seq in again)]
        await self._restate_these(connection, touched, deltas)

    async def _restate_these(self, connection: AsyncConnection, touched: Sequence[Event], deltas: Deltas) -> set[str]:
        """Restate events, and return the predictions that were exposed by them, or are not any more."""
        touched, over = self._event_limit.admit(touched)
        await self._give_up(connection, over, {}, await calls.of(connection, _targets(over)), deltas)
        if not touched:
            return set()
        sharing = self.definitions.sharing
        targets = _targets(touched)
        about = await feedback_events.at_most_about(connection, targets, MOST_AT_ONCE, sharing=sharing)
        if about is None:
            low, high = _parted(touched)
            if low:  # about several predictions: in parts, as if they had come one after the other
                flipped = await self._restate_these(connection, low, deltas)
                return flipped | await self._restate_these(connection, high, deltas)
            about = await feedback_events.about(connection, targets, sharing=sharing)
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
        unmet = self._unmet(requests, joined)
        first, touched = self._first(touched, requests, about, deltas)
        found = restate(stored, touched, lambda event: self._known(event, requests, unmet), self.watermark_ms)
        for event in await self._give_up(connection, over, old, requests, deltas):
            for target in event.targets:
                found.leaving[target, event.feedback.metric].append(event)
        for event in found.changed:
            if event.seq in old:
                self._event_limit.leave(old[event.seq], event)
        flipped = set()
        for target, metric in found.shifted():
            before = [event for event in joined[target] if event.feedback.metric == metric] if target in joined else []
            gone = {event.seq for event in found.leaving.get((target, metric), ())} if before else ()
            after = [*(event for event in before if event.seq not in gone), *found.coming.get((target, metric), ())]
            # Of a prediction whose retention has passed there is nothing to move.
            finished, met = _finished(requests.get(target, ())), target not in unmet
            was = _State(finished, _learned(before) if before else (), None, met)
            now = _State(finished, _learned(after), None, met)
            self._move(metric, was, now, deltas)
            if metric == EXPOSED and exposed(was.events) != exposed(now.events):
                flipped.add(target)
                self._expose(finished, _learned(joined.get(target, ())), exposed(now.events), deltas)
        deltas.statuses += found.status_deltas
        for event, why in found.troubled:
            deltas.trouble(event.counted, event.status, event.feedback.metric, event.feedback.received_ms, why)
        if deltas.recorded is not None:
            deltas.recorded.stated += found.stated
        fresh = first + found.fresh
        self._farthest = max([self._farthest, *_targets(fresh), *_targets(found.changed)])
        await feedback_events.insert(connection, fresh)
        await feedback_events.restate(connection, found.changed)
        if sharing:
            await feedback_events.relate(connection, found.changed)
        return flipped

    async def _give_up(
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

    def _first(
        self,
        touched: Sequence[Event],
        requests: Mapping[str, Sequence[StoredCall]],
        about: Collection[str],
        deltas: Deltas,
    ) -> tuple[list[Event], Sequence[Event]]:
        """Join each new event that is the only one about a prediction of one call, by its id and in an open window.

        As most are. It joins whatever else is known, and there is nothing that it could be compared with or change.
        Return these events, and the others.
        """
        if self.definitions.exposing or self.definitions.sharing:
            return [], touched
        times = Counter(map(_TARGET, touched))
        first, others = list[Event](), list[Event]()
        for event in touched:
            learned, identity, target, _, _, due_ms, seq, _ = event
            calls = requests.get(target) if target is not None else None
            if calls is None or len(calls) > 1 or times[target] > 1 or target in about or seq is not None:
                others.append(event)
                continue
            [call] = calls
            shared, row = call
            metric, value, received_ms, prediction_id, _, _, item, event_id, _, _ = learned
            definition = self.definitions.at(shared.route, metric, row.at_ms)
            if (
                definition is None
                or definition.metric is None
                or value is None
                or event_id is not None
                or prediction_id is None
                or row.open_by is not None
                or shared.role == "draft"
                or shared.uncounted
                or row.at_ms < definition.closed_until
                or not in_time(learned.event_ms, row.at_ms, definition.metric)
            ):
                others.append(event)
                continue
            for worth in values(calls, (learned,), definition.metric, closed=False):
                live, mature = new_outcome((None, worth.live)), new_outcome((None, worth.mature))
                deltas.outcome(call, definition.metric, worth, live, mature)
            first.append(new_event((learned, identity, target, "joined", shared.route, due_ms, None, ())))
            delay = max(0, received_ms - row.at_ms) / 1000
            deltas.statuses.append(new_status_delta((shared.route, metric, "joined", 1, delay, _variant(calls, item))))
        if deltas.recorded is not None:
            deltas.recorded.stated += first
        first.sort(key=_TARGET)  # neighbours in the index that they are found by
        return first, others

    def _unmet(self, requests: Mapping[str, Sequence[StoredCall]], joined: Mapping[str, Sequence[Event]]) -> set[str]:
        """Return which of these predictions do not count because nobody met them."""
        if not self.definitions.exposing:
            return set()
        asked = {one for one, (call, *_) in requests.items() if self.definitions.exposure(call.route, call.at_ms)}
        return {one for one in asked if not exposed(_learned(joined.get(one, ())))}

    def _expose(self, calls: Sequence[StoredCall], events: Sequence[Feedback], met: bool, deltas: Deltas) -> None:
        """Let a request count from now on, or no more; ``events`` are those of its metrics that count now."""
        if not calls:
            return
        first = calls[0]
        for name in self.definitions.names(first.route):
            definition = self.definitions.at(first.route, name, first.at_ms)
            if definition is None or definition.metric is None or name == EXPOSED:
                continue
            about = [event for event in events if event.metric == name]
            was, now = (_State(calls, about, exposed=counts) for counts in (not met, met))
            self._move(name, was, now, deltas)
            if definition.closed(first.at_ms):
                for call in calls:
                    if counted(call, definition.metric):
                        deltas.closed(call, definition.metric, exposed=met)
                        deltas.closed(call, definition.metric, -1, exposed=not met)

    async def _close(
        self, connection: AsyncConnection, definition: Definition, until: int, deltas: Deltas, limit: int
    ) -> int:
        """Close the windows of predictions before ``until``, or of the first ``limit``; return until where."""
        metric = definition.metric
        assert metric is not None
        deltas.touched.add(definition.route)
        since = max(definition.closed_until, definition.since_ms)
        reached = await calls.reach(connection, definition.route, since, until, limit)
        span = calls.Span(definition.route, since, reached)
        asked = definition.name != EXPOSED and EXPOSED in self.definitions.names(definition.route)
        if not asked:
            for shared, n in await calls.counted_in(connection, span, metric):
                deltas.closed(shared, metric, n)
        if metric.missing is not None or asked or self.definitions.sharing:
            ids = await calls.ids_in(connection, span)
        elif metric.mature == "window":
            ids = await feedback_events.joined_in(connection, span, definition.name)
        else:
            ids = []  # what had a value is mature, and what had none has none now
        if self.set_aside:
            ids = [one for one in ids if one not in self.set_aside]
        requests = await calls.of(connection, ids)
        joined = await feedback_events.joined(connection, ids, sharing=self.definitions.sharing)
        for prediction_id, stored in requests.items():
            learned, finished = _learned(joined.get(prediction_id, ())), _finished(stored)
            events = [event for event in learned if event.metric == definition.name]
            met = not self.definitions.exposure(definition.route, stored[0].at_ms) or exposed(learned)
            open_, closed = (_State(finished, events, closed, exposed=met) for closed in (False, True))
            self._move(definition.name, open_, closed, deltas)
            if asked:
                for call in finished:
                    if counted(call, metric):
                        deltas.closed(call, metric, exposed=met)
        await plans.close_definition(connection, definition, reached)
        self.definitions.close(definition, reached)
        return reached

    def _known(
        self, event: Event, requests: Mapping[str, Sequence[StoredCall]], unmet: Collection[str]
    ) -> Sequence[PredictionFacts]:
        """What is known of the predictions that an event is about."""
        learned, _, target, _, _, _, _, also = event
        if not also:  # as of most: it is about one, if any
            stored = None if target is None else requests.get(target)
            return () if stored is None else (self._known_of(stored, learned, unmet),)
        about = (requests[target] for target in event.targets if target in requests)
        return [self._known_of(stored, learned, unmet) for stored in about]

    def _known_of(self, stored: Sequence[StoredCall], event: Feedback, unmet: Collection[str]) -> PredictionFacts:
        """What is known of one prediction for an event about it."""
        shared, row = stored[0]
        definition = self.definitions.at(shared.route, event.metric, row.at_ms)
        metric = None if definition is None else definition.metric
        met = not unmet or event.metric == EXPOSED or row.id not in unmet
        why = inapplicable(stored, event, metric)
        return new_facts((shared.route, row.at_ms, metric, met, _variant(stored, event.item), why))

    def _key(self, event: Feedback) -> Key:
        """Where to look for what an event by key is about."""
        assert event.route is not None
        assert event.key is not None
        definition = self.definitions.at(event.route, event.metric, event.event_ms)
        if definition is None or definition.metric is None:
            return Key(event.route, event.key, event.event_ms)
        return Key(event.route, event.key, event.event_ms, definition.metric.before_ms or 0, definition.key_rule)

    def _led(self, event: Feedback, found: Mapping[Key, tuple[str, ...]]) -> dict[str, Any]:
        """What changes of an event by key when it has been looked up."""
        key = self._key(event)
        targets = found[key]
        return {
            "target": targets[0] if targets else None,
            "also": tuple(sorted(targets[1:])),
            "due_ms": patience_ends_ms(event, key.before_ms),
        }

    def _note_key(self, call: StoredCall) -> None:
        """A keyed prediction may be what an event meant that was looked up already.

        Because it is behind the watermark (its writer was slow or died), or because events may precede it.
        """
        since_ms = call.at_ms - self.definitions.back_ms(call.route)
        if call.row.key is not None and self.watermark_ms is not None and since_ms < self.watermark_ms:
            self._missed.add((call.route, call.row.key, since_ms))
            self.work_due = True


def _variant(stored: Sequence[StoredCall], item: str | None) -> str | None:
    """Whose answer an event is about."""
    for call in stored:
        shared = call[0]
        if shared.role == "primary" or (shared.role == "draft" and item in (call.items or ())):
            return shared.variant
    return None


def _without_repeats(
    lines: Sequence[StoredCall], there: Mapping[tuple[str, str, str], StoredCall], deltas: Deltas
) -> Sequence[StoredCall]:
    """Return the calls that say something new: the first of each name, or the end of one that is open."""
    written: dict[tuple[str, str, str], StoredCall] = {}
    for call in lines:
        name = _name(call)
        old = written.get(name) or there.get(name)
        if old is not None and (call.open or not old.open):
            deltas.counts["duplicate_rows"] += 1
        else:
            written[name] = call
    return list(written.values())


def _parted(events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """Part events by the predictions they are about; nothing and all, where that is one."""
    targets = sorted({event.target or "" for event in events})
    middle = targets[len(targets) // 2]
    return [e for e in events if (e.target or "") < middle], [e for e in events if (e.target or "") >= middle]


def _targets(events: Iterable[Event]) -> set[str]:
    """Return every prediction that these events are about."""
    found = {event.target for event in events if event.target is not None}
    return found.union(*(event.also for event in events if event.also))


def _learned(events: Iterable[Event]) -> list[Feedback]:
    return [event.feedback for event in events]


def _name(call: StoredCall) -> tuple[str, str, str]:
    return call.row.id, call.shared.role, call.shared.variant


def _finished(stored: Iterable[StoredCall]) -> list[StoredCall]:
    return [call for call in stored if call[1].open_by is None]


_TARGET: Final = itemgetter(Event._fields.index("target"))

_ALWAYS_MS: Final = 2**62
