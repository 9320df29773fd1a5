"""Feedback events as rows, each with its status.

Rule: every event that was ever accepted has exactly one status, and exactly one row unless it is over the limit
(``gateway.control.join.event_limit``); all other rows are added and updated, never removed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import BigInteger, Select, Text, bindparam, delete, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.rows.calls import INSIDE, Span
from gateway.store.rows.feedback_status import UNKNOWN, Status
from gateway.store.schema import sql
from gateway.store.schema.row_tables import NAMED, calls, feedback, feedback_targets
from router.records import Feedback


class Event(NamedTuple):
    """A feedback event with its status, as it is stored.

    ``target`` is the id of the prediction it is about: given, or found by key; ``also`` are others, where the route's
    rule is "all". ``counted`` is the route under which its status is counted. A waiting event is examined again when
    the watermark passes ``due_ms``. ``seq`` is its number in the table, None before it is stored.
    """

    feedback: Feedback
    identity: str
    target: str | None
    status: Status = "waiting"
    counted: str = UNKNOWN
    due_ms: int = 0
    seq: int | None = None
    also: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """Every prediction it is about."""
        return () if self.target is None else (self.target, *self.also)

    @property
    def named(self) -> bool:
        """Whether events about other predictions may share its identity."""
        return self.feedback.event_id is not None or self.feedback.prediction_id is None

    @property
    def looked_up(self) -> bool:
        """Whether its prediction was searched for, so that no target means that there was none."""
        return self.feedback.prediction_id is not None or self.due_ms > self.feedback.event_ms


_EventValues = tuple[Feedback, str, str | None, Status, str, int, int | None, tuple[str, ...]]
#: Event(*values), of all its fields, at half of the time.
new_event: Final[Callable[[_EventValues], Event]] = partial(tuple.__new__, Event)

#: The most events by key that are looked up again at once because their predictions came late.
MOST_AFFECTED: Final = 10_000

_COLUMNS: Final = tuple(feedback.columns)
_STATED: Final = (feedback.c.target, feedback.c.status, feedback.c.counted, feedback.c.due_ms)
_RESTATE: Final = (
    update(feedback)
    .where(feedback.c.seq == bindparam("b_seq"))
    .values({column: bindparam(f"b_{column.name}") for column in _STATED})
)


async def insert(connection: AsyncConnection, events: Iterable[Event]) -> None:
    """Store new events."""
    await sql.insert(connection, feedback, [_row(event) for event in events])


async def restate(connection: AsyncConnection, events: Sequence[Event]) -> None:
    """Update the target, the status and what follows from it of events that are stored already."""
    if events:
        rows = [
            {
                "b_seq": event.seq,
                "b_target": event.target,
                "b_status": event.status,
                "b_counted": event.counted,
                "b_due_ms": event.due_ms,
            }
            for event in events
        ]
        await connection.execute(_RESTATE, rows)


async def relate(connection: AsyncConnection, events: Sequence[Event]) -> None:
    """Write the further predictions that stored events are about."""
    if events:
        await connection.execute(_PARTED, [{"b_seq": event.seq} for event in events])
        await sql.insert(
            connection, feedback_targets, [(target, event.seq) for event in events for target in event.also]
        )


async def remove(connection: AsyncConnection, events: Sequence[Event]) -> None:
    """Remove stored events."""
    if events:
        rows = [{"b_seq": event.seq} for event in events]
        await connection.execute(_PARTED, rows)
        await connection.execute(_REMOVED, rows)


async def with_identities(
    connection: AsyncConnection, identities: Collection[str], *, sharing: bool = False
) -> list[Event]:
    """Return every event with one of these identities, which are of an event id or a key.

    Events of any other identity are about one prediction: ``about`` finds them. With ``sharing`` some may be about
    several.
    """
    found = await _found(connection, "identity", identities)
    return await _with_others(connection, found) if sharing else found


async def about(
    connection: AsyncConnection, targets: Collection[str], status: Status | None = None, *, sharing: bool = False
) -> dict[str, list[Event]]:
    """Return the events about these predictions, by prediction, of one status or of any.

    A prediction without any is left out. With ``sharing`` an event may be about several of them.
    """
    found: dict[str, list[Event]] = {}
    for event in await _found(connection, "target", targets, status):
        assert event.target is not None
        found.setdefault(event.target, []).append(event)
    if sharing and targets:
        query = _sharing(connection.dialect.name, status)
        for target, *row in await connection.execute(query, sql.as_values(targets)):
            found.setdefault(target, []).append(_event(row))
        return await _whole(connection, found)
    return found


async def at_most_about(
    connection: AsyncConnection, targets: Collection[str], most: int, *, sharing: bool = False
) -> dict[str, list[Event]] | None:
    """As ``about``, for events of any status; None where there are more than ``most`` of them."""
    found: dict[str, list[Event]] = {}
    if not targets:
        return found
    n, parameters = 0, {**sql.as_values(targets), "most": most + 1}
    for row in await sql.rows(connection, _having(connection.dialect.name, "target", None, True), parameters):
        event = _event(row)
        n += 1
        found.setdefault(event.target or "", []).append(event)
    if sharing and n <= most:
        for target, *row in await connection.execute(_sharing(connection.dialect.name, None, True), parameters):
            n += 1
            found.setdefault(target, []).append(_event(row))
    if n > most:
        return None
    return await _whole(connection, found) if sharing else found


async def farthest(connection: AsyncConnection) -> str:
    """Return the greatest prediction id that any event is about, "" where there is none."""
    return (await connection.execute(select(func.max(feedback.c.target)))).scalar() or ""


async def joined(
    connection: AsyncConnection, targets: Collection[str], *, sharing: bool = False
) -> dict[str, list[Event]]:
    """Return the events that count for these predictions; a prediction without any is left out."""
    return await about(connection, targets, "joined", sharing=sharing)


async def joined_in(connection: AsyncConnection, span: Span, metric: str) -> list[str]:
    """Return the ids of a span's predictions for which an event of this metric counts."""
    return [row[0] for row in await connection.execute(_JOINED_IN, {**span._asdict(), "metric": metric})]


async def due(connection: AsyncConnection, watermark_ms: int, limit: int) -> list[Event]:
    """Return waiting events that are due."""
    rows = await connection.execute(_DUE, {"watermark": watermark_ms, "limit": limit})
    return [_event(row) for row in rows]


async def next_due(connection: AsyncConnection, watermark_ms: int) -> int | None:
    """Return the number of the first waiting event that is due; the event itself may be unreadable."""
    found: int | None = (await connection.execute(_NEXT_DUE, {"watermark": watermark_ms})).scalar()
    return found


async def unreadable(connection: AsyncConnection, targets: Collection[str]) -> list[int]:
    """Return the numbers of the events about these predictions that cannot be read."""
    if not targets:
        return []
    query = select(feedback.c.seq, feedback.c.value).where(
        feedback.c.target.in_(sql.among(connection.dialect.name, Text())), _FOUND
    )
    found = []
    for seq, value in await connection.execute(query, sql.as_values(targets)):
        try:
            orjson.loads(value)
        except ValueError:
            found.append(seq)
    return found


async def orphans(connection: AsyncConnection, route: str | None, limit: int) -> list[Event]:
    """Return events whose prediction never came, counted under one route or any, the newest first."""
    query = select(feedback).where(feedback.c.status == literal_column("'orphaned'"))
    if route is not None:
        query = query.where(feedback.c.counted == bindparam("route"))
    query = query.order_by(feedback.c.seq.desc()).limit(bindparam("limit"))
    parameters = {"limit": limit} if route is None else {"limit": limit, "route": route}
    return [_event(row) for row in await connection.execute(query, parameters)]


async def affected(
    connection: AsyncConnection, keys: Collection[tuple[str, str, int]], watermark_ms: int, *, sharing: bool = False
) -> list[Event]:
    """Return the events by key that were looked up and may be about predictions that came since.

    ``keys`` are (route, key, the earliest time of an event about it). Events after the watermark still wait.
    """
    if not keys:
        return []
    wanted = sql.listed(connection.dialect.name, Text(), Text(), BigInteger())
    query = (
        select(feedback)
        .distinct()
        .join(wanted, (feedback.c.route == wanted.c.c0) & (feedback.c.key == wanted.c.c1))
        .where(feedback.c.key.is_not(None), feedback.c.event_ms >= wanted.c.c2, _FOUND)
        .where(feedback.c.event_ms < bindparam("watermark"))
    )
    rows = await connection.execute(query.limit(MOST_AFFECTED), {"watermark": watermark_ms, **sql.as_list(keys)})
    found = [_event(row) for row in rows]
    return await _with_others(connection, found) if sharing else found


def as_json(event: Event) -> dict[str, Any]:
    """Return the event as plain JSON values, with its status."""
    given = event.feedback
    return {
        "metric": given.metric,
        "value": given.value,
        "item": given.item,
        "key": given.key,
        "event_id": given.event_id,
        "revision": given.revision,
        "occurred_ms": given.occurred_ms,
        "received_ms": given.received_ms,
        "status": event.status,
    }


async def _whole(connection: AsyncConnection, found: Mapping[str, Sequence[Event]]) -> dict[str, list[Event]]:
    """Return these events with the further predictions that they are about; an event found twice is one object."""
    each = {event.seq: event for events in found.values() for event in events}
    whole = {event.seq: event for event in await _with_others(connection, list(each.values()))}
    return {target: [whole[event.seq] for event in events] for target, events in found.items()}


async def _with_others(connection: AsyncConnection, found: Sequence[Event]) -> list[Event]:
    """Return these events with the further predictions that they are about."""
    also: dict[int, list[str]] = {}
    seqs = [event.seq for event in found if event.seq is not None]
    query = select(feedback_targets.c.seq, feedback_targets.c.target).where(
        feedback_targets.c.seq.in_(sql.among(connection.dialect.name, BigInteger()))
    )
    for seq, target in await connection.execute(query, sql.as_values(seqs)):
        also.setdefault(seq, []).append(target)
    return [e._replace(also=tuple(sorted(also[e.seq]))) if e.seq in also else e for e in found]


#: No query finds an event that was set aside (``gateway.store.rows.set_aside_items``).
_FOUND: Final = feedback.c.status != literal_column("'set_aside'")
_REMOVED: Final = delete(feedback).where(feedback.c.seq == bindparam("b_seq"))
_PARTED: Final = delete(feedback_targets).where(feedback_targets.c.seq == bindparam("b_seq"))
_DUE: Final = (
    select(feedback)
    # The literal lets SQLite use the index of waiting events.
    .where(feedback.c.status == literal_column("'waiting'"), feedback.c.due_ms < bindparam("watermark"))
    .order_by(feedback.c.due_ms)
    .limit(bindparam("limit"))
)
_NEXT_DUE: Final = _DUE.with_only_columns(feedback.c.seq).params(limit=1)
_JOINED_IN: Final = (
    select(feedback.c.target)
    .distinct()
    .select_from(calls)
    .join(feedback, feedback.c.target == calls.c.id)
    .where(*INSIDE, feedback.c.status == "joined", feedback.c.metric == bindparam("metric"))
)


async def _found(
    connection: AsyncConnection, column: str, values: Collection[str], status: Status | None = None
) -> list[Event]:
    if not values:
        return []
    query = _having(connection.dialect.name, column, status)
    return [_event(row) for row in await sql.rows(connection, query, sql.as_values(values))]


@cache
def _having(dialect: str, column: str, status: Status | None, bounded: bool = False) -> Select[Any]:
    query = select(feedback).where(feedback.c[column].in_(sql.among(dialect, Text())), _FOUND)
    if column == "identity":
        query = query.where(NAMED)  # lets the index be used, which has only these
    if bounded:
        query = query.limit(bindparam("most"))
    return query if status is None else query.where(feedback.c.status == status)


@cache
def _sharing(dialect: str, status: Status | None, bounded: bool = False) -> Select[Any]:
    query = (
        select(feedback_targets.c.target, *_COLUMNS)
        .join(feedback, feedback.c.seq == feedback_targets.c.seq)
        .where(feedback_targets.c.target.in_(sql.among(dialect, Text())), _FOUND)
    )
    if bounded:
        query = query.limit(bindparam("most"))
    return query if status is None else query.where(feedback.c.status == status)


def _row(event: Event) -> tuple[Any, ...]:
    """Return the event's columns but for the first, which the database makes."""
    given = event.feedback
    return (
        event.identity,
        given.revision,
        given.received_ms,
        given.occurred_ms,
        given.event_ms,
        given.metric,
        orjson.dumps(given.value).decode(),
        given.prediction_id,
        given.route,
        given.key,
        given.item,
        given.event_id,
        event.target,
        event.status,
        event.counted,
        event.due_ms,
    )


def _event(row: Sequence[Any]) -> Event:
    """Return the event of a row. Drivers give rows as tuples: a test holds the order of the columns."""
    (
        seq,
        identity,
        revision,
        received_ms,
        occurred_ms,
        _,
        metric,
        value,
        prediction_id,
        route,
        key,
        item,
        event_id,
        target,
        status,
        counted,
        due_ms,
    ) = row
    given = Feedback(
        metric, orjson.loads(value), received_ms, prediction_id, route, key, item, event_id, revision, occurred_ms
    )
    return Event(given, identity, target, status, counted, due_ms, seq)
