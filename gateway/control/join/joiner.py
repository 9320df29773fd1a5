"""The join: calls and events, whenever either comes, become values; what changed moves the tallies.

Rule: every step asks what a request is worth before and after, by ``router.outcomes``, and writes the difference. A
step therefore does not depend on what came first, and steps may be cut anywhere.

Each method works inside the caller's transaction and adds to ``Deltas``, which the caller writes. After a transaction
that failed, the joiner is loaded anew. Events are joined by ``event_join``, windows closed by ``windows``, and values
counted by ``valuation``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.join.event_join import EventJoin
from gateway.control.join.event_status import arrived, patience_ends_ms
from gateway.control.join.valuation import Valuation, finished_of
from gateway.control.join.windows import Windows
from gateway.store.counts.definitions import Definition, Definitions
from gateway.store.counts.deltas import Deltas
from gateway.store.rows import calls, feedback_events, key_lookup
from gateway.store.rows.calls import StoredCall
from gateway.store.rows.key_lookup import Key
from gateway.store.rows.recorded import RecordedCall
from router.records import Feedback


class Joiner:
    """Joins calls and events. ``watermark_ms`` is the event time before which everything is known.

    ``newest`` is the greatest id that a call is stored under, and ``farthest`` the greatest that any event is about.
    Ids grow with time: beyond these nothing need be looked up, and nearly every call is beyond.
    Call ``look`` once before anything else.
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
        self._valuation = Valuation(definitions)
        self._events = EventJoin(definitions, self._valuation, farthest)
        self.windows = Windows(definitions, self._valuation, set_aside)
        self._newest = newest
        self._stored_shared: set[int] = set()
        self._days: set[int] = set()

    async def look(self, connection: AsyncConnection) -> None:
        """Find out which definitions have calls whose windows are open."""
        await self.windows.look(connection, list(self.definitions))

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
            looked_up = {id(event): self._looked_up(event, found) for event in by_key}
            fresh = [e._replace(**looked_up[id(e.feedback)]) if id(e.feedback) in looked_up else e for e in fresh]
        await self._events.restate(connection, fresh, self.watermark_ms, deltas)

    async def apply_watermark(self, connection: AsyncConnection, deltas: Deltas, limit: int) -> bool:
        """Do what the watermark allows: look up keys, give up on orphans, close windows. True: there is more.

        Each is done for about ``limit`` predictions or events, so that a transaction does not last. With 0 only that is
        done which cannot be done later: to look up the events that may mean a prediction which came late.
        """
        if self.watermark_ms is None:
            self.work_due = False
            return False
        waiting = await self._look_up(connection, self.watermark_ms, deltas, limit)
        closing, due = False, list(self.windows.due(self.watermark_ms))
        if not limit:
            closing, due = bool(due), []
        for definition in due:
            until = definition.closes_until(self.watermark_ms)
            closing |= await self.windows.close(connection, definition, until, deltas, limit) < until
        if due:
            await self.windows.look(connection, [self.definitions.with_key(definition.key) for definition in due])
        self.work_due = waiting or closing
        return self.work_due

    def due_pieces(self) -> list[Definition | None]:
        """Return what is due, in pieces: events that wait (None), and the windows under each definition."""
        return [] if self.watermark_ms is None else [None, *self.windows.due(self.watermark_ms)]

    async def apply_watermark_to_first(
        self, connection: AsyncConnection, deltas: Deltas, piece: Definition | None, tried: list[int | str]
    ) -> None:
        """Apply the watermark to the first event of a piece, or to its first predictions.

        The event's number, or the predictions' ids, are added to ``tried`` before.
        """
        assert self.watermark_ms is not None
        if piece is None:
            seq = await feedback_events.next_due(connection, self.watermark_ms)
            if seq is not None:
                tried.append(seq)
                await self._look_up(connection, self.watermark_ms, deltas, 1)
            return
        tried += await self.first_closing(connection, piece)
        await self.windows.close(connection, piece, piece.closes_until(self.watermark_ms), deltas, 1)
        await self.windows.look(connection, [self.definitions.with_key(piece.key)])

    async def first_closing(self, connection: AsyncConnection, piece: Definition) -> list[str]:
        """Return the predictions whose windows close first: those of one millisecond."""
        assert self.watermark_ms is not None
        return await self.windows.first_closing(connection, piece, self.watermark_ms)

    async def _look_up(self, connection: AsyncConnection, watermark_ms: int, deltas: Deltas, limit: int) -> bool:
        """Join again ``limit`` events that are due, and those that may mean predictions which came late; True: more."""
        found = await feedback_events.affected(connection, self._missed, watermark_ms, sharing=self.definitions.sharing)
        self._missed.clear()
        due = await feedback_events.due(connection, watermark_ms, limit)
        touched = {event.seq: event for event in (*due, *found)}
        by_key = [event for event in touched.values() if event.feedback.prediction_id is None]
        looked_up = await key_lookup.targets(connection, [self._key(event.feedback) for event in by_key])
        for event in by_key:
            touched[event.seq] = event._replace(**self._looked_up(event.feedback, looked_up))
        await self._events.restate(connection, list(touched.values()), watermark_ms, deltas)
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
        near = {one for one in ids if one <= self._events.farthest}
        about = await feedback_events.about(connection, near, sharing=self.definitions.sharing)
        finished = [call for call in written if call[1].open_by is None]
        deltas.calls(finished)
        self.work_due |= self.windows.note_calls(deltas.oldest, self.watermark_ms)
        for prediction_id, new in self._with_others(finished, known.keys() | about.keys()).items():
            closed = self.definitions.closed_at(new[0].route, new[0].at_ms)
            joined = [event for event in about.get(prediction_id, ()) if event.status == "joined"]
            self._valuation.count(finished_of(known.get(prediction_id, ())), new, joined, closed, deltas)
        for call in written:
            if call[1].key is not None:
                self._note_key(call)
        self._newest = max([self._newest, *ids])
        # Of a merged answer each ranker's row may show the item that an event names.
        merged = {row.id for shared, row in finished if shared.role == "draft"}
        awaited = (events for one, events in about.items() if one not in known or one in merged)
        waiting = [event for events in awaited for event in events]
        await self._events.restate(connection, waiting, self.watermark_ms, deltas)

    def _with_others(self, finished: Sequence[StoredCall], expected: Collection[str]) -> Mapping[str, list[StoredCall]]:
        """Return, by request, the calls of requests of which more is known, several came, or a window has closed."""
        number = Counter([row.id for _, row in finished])
        closed = {route: self.definitions.closed_until(route) for route in {shared.route for shared, _ in finished}}
        found: defaultdict[str, list[StoredCall]] = defaultdict(list)
        for call in finished:
            row = call[1]
            if number[row.id] > 1 or row.id in expected or row.at_ms < closed[row.route]:
                found[row.id].append(call)
        return found

    def _key(self, event: Feedback) -> Key:
        """Return where to look for the predictions that an event by key is about."""
        assert event.route is not None
        assert event.key is not None
        definition = self.definitions.at(event.route, event.metric, event.event_ms)
        if definition is None or definition.metric is None:
            return Key(event.route, event.key, event.event_ms)
        return Key(event.route, event.key, event.event_ms, definition.metric.before_ms or 0, definition.key_rule)

    def _looked_up(self, event: Feedback, found: Mapping[Key, tuple[str, ...]]) -> dict[str, Any]:
        """Return the fields of an event by key that change when it has been looked up."""
        key = self._key(event)
        targets = found[key]
        return {
            "target": targets[0] if targets else None,
            "also": tuple(sorted(targets[1:])),
            "due_ms": patience_ends_ms(event, key.before_ms),
        }

    def _note_key(self, call: StoredCall) -> None:
        """Note a keyed prediction that events which were looked up already may mean.

        It may be behind the watermark (its writer was slow or died), or events may precede it.
        """
        since_ms = call.at_ms - self.definitions.back_ms(call.route)
        if call.row.key is not None and self.watermark_ms is not None and since_ms < self.watermark_ms:
            self._missed.add((call.route, call.row.key, since_ms))
            self.work_due = True


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


def _name(call: StoredCall) -> tuple[str, str, str]:
    return call.row.id, call.shared.role, call.shared.variant
