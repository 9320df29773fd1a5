"""Feedback events as rows, each with what it ended as.

Rule: every event that was ever accepted has exactly one row and one status; rows are added and restated, never removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson
from sqlalchemy import BigInteger, Select, Text, bindparam, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import ColumnElement, FromClause

from gateway.ledger import UNKNOWN, Status
from gateway.store import sql
from gateway.store.calls import INSIDE, Span
from gateway.store.tables import calls, feedback
from router.records import Feedback


@dataclass(frozen=True, slots=True)
class Event:
    """A stored event.

    ``target`` is the id of the prediction it is about: given, or found by key. ``counted`` is the route under which its
    status is counted. A waiting event is looked at again when the watermark passes ``due_ms``. ``seq`` is None before
    it is stored.
    """

    feedback: Feedback
    identity: str
    target: str | None
    status: Status = "waiting"
    counted: str = UNKNOWN
    due_ms: int = 0
    seq: int | None = None


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
    """Write target, status and the like of events that are stored already."""
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


async def with_identities(connection: AsyncConnection, identities: Collection[str]) -> list[Event]:
    """Return every event that has one of these identities."""
    return await _found(connection, "identity", identities)


async def about(connection: AsyncConnection, targets: Collection[str]) -> list[Event]:
    """Return every event about one of these predictions, whatever its status."""
    return await _found(connection, "target", targets)


async def farthest(connection: AsyncConnection) -> str:
    """Return the greatest id that any event is about, "" where there is none: no event is about a greater one."""
    return (await connection.execute(select(func.max(feedback.c.target)))).scalar() or ""


async def joined(connection: AsyncConnection, targets: Collection[str]) -> dict[str, list[Event]]:
    """Return the events that count for these predictions; a prediction without any is left out."""
    found: dict[str, list[Event]] = {}
    for event in await _found(connection, "target", targets, "joined"):
        assert event.target is not None
        found.setdefault(event.target, []).append(event)
    return found


async def joined_in(connection: AsyncConnection, span: Span, metric: str) -> list[str]:
    """Return the ids of a span's predictions for which an event of this metric counts."""
    return [row[0] for row in await connection.execute(_JOINED_IN, {**span._asdict(), "metric": metric})]


async def due(connection: AsyncConnection, watermark_ms: int, limit: int) -> list[tuple[Event, str | None]]:
    """Return waiting events whose time has come, each with the prediction its key leads to (None: none, or by id)."""
    rows = await connection.execute(_DUE, {"watermark": watermark_ms, "limit": limit})
    return [(_event(row[:-1]), row[-1]) for row in rows]


async def leads(
    connection: AsyncConnection, keys: Collection[tuple[str, str, int]]
) -> dict[tuple[str, str, int], str | None]:
    """Return the prediction that each (route, key, event_ms) leads to, None where there is none."""
    if not keys:
        return {}
    wanted = sql.listed(connection.dialect.name, Text(), Text(), BigInteger())
    query = select(wanted, _latest(wanted.c.c0, wanted.c.c1, wanted.c.c2, wanted))
    found = await connection.execute(query, sql.as_list(set(keys)))
    return {(route, key, event_ms): target for route, key, event_ms, target in found}


async def led_elsewhere(
    connection: AsyncConnection, keys: Collection[tuple[str, str, int]], watermark_ms: int
) -> list[tuple[Event, str | None]]:
    """Return events by key that may lead to one of these predictions, given as (route, key, at_ms), and where they do.

    Only events that were looked up before matter: those not behind the watermark still wait.
    """
    if not keys:
        return []
    wanted = sql.listed(connection.dialect.name, Text(), Text(), BigInteger())
    query = (
        select(*_COLUMNS, _latest(feedback.c.route, feedback.c.key, feedback.c.event_ms, feedback))
        .distinct()
        .join(wanted, (feedback.c.route == wanted.c.c0) & (feedback.c.key == wanted.c.c1))
        .where(feedback.c.key.is_not(None), feedback.c.event_ms >= wanted.c.c2)
        .where(feedback.c.event_ms < bindparam("watermark"))
    )
    rows = await connection.execute(query, {"watermark": watermark_ms, **sql.as_list(keys)})
    return [(_event(row[:-1]), row[-1]) for row in rows]


def as_json(event: Event) -> dict[str, Any]:
    """Return the event as plain JSON values, with its status."""
    learned = event.feedback
    return {
        "metric": learned.metric,
        "value": learned.value,
        "item": learned.item,
        "key": learned.key,
        "event_id": learned.event_id,
        "revision": learned.revision,
        "occurred_ms": learned.occurred_ms,
        "received_ms": learned.received_ms,
        "status": event.status,
    }


def _latest(route: ColumnElement[Any], key: ColumnElement[Any], event_ms: ColumnElement[Any], of: FromClause) -> Any:
    """The latest prediction of a route and key that is not younger than the event; of equal times the greatest id."""
    return (
        select(calls.c.id)
        .where(calls.c.route == route, calls.c.key == key)
        .where(calls.c.key.is_not(None), calls.c.at_ms <= event_ms)
        .order_by(calls.c.at_ms.desc(), calls.c.id.desc())
        .limit(1)
        .correlate(of)
        .scalar_subquery()
    )


_DUE: Final = (
    select(*_COLUMNS, _latest(feedback.c.route, feedback.c.key, feedback.c.event_ms, feedback))
    # The literal lets SQLite use the index of waiting events.
    .where(feedback.c.status == literal_column("'waiting'"), feedback.c.due_ms < bindparam("watermark"))
    .order_by(feedback.c.due_ms)
    .limit(bindparam("limit"))
)
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
    return [_event(row) for row in await connection.execute(query, sql.as_values(values))]


@cache
def _having(dialect: str, column: str, status: Status | None) -> Select[Any]:
    query = select(feedback).where(feedback.c[column].in_(sql.among(dialect, Text())))
    return query if status is None else query.where(feedback.c.status == status)


def _row(event: Event) -> tuple[Any, ...]:
    learned = event.feedback
    return (
        event.identity,
        learned.revision,
        learned.received_ms,
        learned.occurred_ms,
        learned.event_ms,
        learned.metric,
        orjson.dumps(learned.value).decode(),
        learned.prediction_id,
        learned.route,
        learned.key,
        learned.item,
        learned.event_id,
        event.target,
        event.status,
        event.counted,
        event.due_ms,
    )


def _event(row: Sequence[Any]) -> Event:
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
    learned = Feedback(
        metric=metric,
        value=orjson.loads(value),
        received_ms=received_ms,
        prediction_id=prediction_id,
        route=route,
        key=key,
        item=item,
        event_id=event_id,
        revision=revision,
        occurred_ms=occurred_ms,
    )
    return Event(learned, identity, target, status, counted, due_ms, seq)
