"""What is kept for a time only, and how it goes: a chunk at a time, or in PostgreSQL a day.

Rule: a prediction goes with the feedback about it, and never before all its windows have closed: what is counted stays,
and what comes later about it finds no prediction. Tallies are not touched. One more kind is one function and one line
in ``KINDS``; its name is a series' label and its setting a key of ``[gateway]``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, Integer, bindparam, delete, exists, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store import partitions, plans, sql
from gateway.store.partitions import DAY_MS
from gateway.store.tables import bodies, calls, feedback, feedback_targets, kin

#: Rows per transaction: some tens of milliseconds in SQLite, where whoever records waits meanwhile.
CHUNK: Final = 2_000


class Expired(NamedTuple):
    """What went, by kind; and where to go on, None when there is nothing left to remove."""

    removed: Mapping[str, int]
    next: int | None


class Kind(NamedTuple):
    """``expire(connection, before_ms, start)`` removes some of what is older than ``before_ms``, beginning at 0."""

    name: str
    setting: str
    expire: Callable[[AsyncConnection, int, int], Awaitable[Expired]]


async def _predictions(connection: AsyncConnection, before_ms: int, _: int) -> Expired:
    """Calls, and the bodies and feedback about them. Those with an open window stay, whatever their age."""
    before_ms = min(before_ms, await _needed_from(connection))
    if connection.dialect.name == "postgresql":
        before_ms -= before_ms % DAY_MS
    which = {"bound": _first_id(before_ms), "most": CHUNK}
    captured = (await connection.execute(_OLD_BODIES, which)).rowcount
    if captured >= CHUNK:
        return Expired({"bodies": captured}, 0)
    await connection.execute(_SHARED, which)  # first: SQLite gives the numbers of rows that went to new ones
    events = (await connection.execute(_ABOUT, which)).rowcount
    if events >= CHUNK:
        return Expired({"bodies": captured, "feedback": events}, 0)
    gone = await (_days if connection.dialect.name == "postgresql" else _rows)(connection, before_ms)
    removed = {"bodies": captured, "feedback": events, "predictions": gone or 0}
    return Expired(removed, 0 if gone is not None else None)


async def _bodies(connection: AsyncConnection, before_ms: int, _: int) -> Expired:
    """What was captured of requests and answers."""
    gone = (await connection.execute(_OLD_BODIES, {"bound": _first_id(before_ms), "most": CHUNK})).rowcount
    return Expired({"bodies": gone}, 0 if gone >= CHUNK else None)


async def _needed_from(connection: AsyncConnection) -> int:
    """Return the time from which on predictions may have an open window."""
    return min(
        (
            definition.closed_until
            for definition in await plans.read_definitions(connection)
            if definition.metric is not None
            and (definition.until_ms is None or definition.closed_until < definition.until_ms)
        ),
        default=2**62,
    )


async def _days(connection: AsyncConnection, before_ms: int) -> int | None:
    """Drop the oldest partition that lies before a time; None if there is none."""
    await connection.execute(_ALONE, {"bound": _first_id(before_ms)})
    oldest = min(await partitions.present(connection), default=None)
    if oldest is None or (oldest + 1) * DAY_MS > before_ms:
        return None
    return await partitions.drop(connection, oldest)


async def _rows(connection: AsyncConnection, before_ms: int) -> int | None:
    """Delete a chunk of calls from before a time; None if there are none."""
    await connection.execute(_ALONE, {"bound": _first_id(before_ms)})
    for (route,) in (await connection.execute(_ROUTES)).all():
        found = await connection.execute(_OLD_CALLS, {"b_route": route, "before": before_ms, "most": CHUNK})
        if found.rowcount:
            return found.rowcount
    return None


async def _feedback(connection: AsyncConnection, before_ms: int, start: int) -> Expired:
    """Events that found no prediction, and repeats; what counts goes with its prediction."""
    rows = (await connection.execute(_EVENTS, {"start": start, "most": CHUNK})).all()
    old = [seq for seq, received_ms, status in rows if received_ms < before_ms and status in ("orphaned", "repeated")]
    if old:
        among = sql.among(connection.dialect.name, BigInteger())
        for table in (feedback_targets, feedback):
            await connection.execute(delete(table).where(table.c.seq.in_(among)), sql.as_values(old))
    # Events are numbered as they come: behind one that is young there are only young ones.
    more = len(rows) == CHUNK and rows[-1].received_ms < before_ms
    return Expired({"feedback": len(old)}, rows[-1].seq if more else None)


#: Everything that can be kept for a time.
KINDS: Final = (
    Kind("predictions", "prediction_retention", _predictions),
    Kind("feedback", "feedback_retention", _feedback),
    Kind("bodies", "body_retention", _bodies),
)


def _first_id(at_ms: int) -> str:
    """What no id made at this time or later is less than."""
    digits = f"{max(0, at_ms):012x}"
    return f"{digits[:8]}-{digits[8:]}"


#: An event may be about several predictions, and is needed until the last of them goes.
_ALSO_YOUNG: Final = exists().where(
    feedback_targets.c.seq == feedback.c.seq, feedback_targets.c.target >= bindparam("bound")
)
_OLD_EVENTS: Final = (
    select(feedback.c.seq)
    .where(feedback.c.target < bindparam("bound"), feedback.c.status.not_in(("waiting", "orphaned")), ~_ALSO_YOUNG)
    .order_by(feedback.c.target)
    .limit(bindparam("most"))
)
_SHARED: Final = delete(feedback_targets).where(feedback_targets.c.seq.in_(_OLD_EVENTS))
_ABOUT: Final = delete(feedback).where(feedback.c.seq.in_(_OLD_EVENTS))
_OLD_BODIES: Final = delete(bodies).where(
    bodies.c.id.in_(
        select(bodies.c.id).where(bodies.c.id < bindparam("bound")).order_by(bodies.c.id).limit(bindparam("most"))
    )
)
_ROUTES: Final = select(kin.c.route).distinct()
_ROWID: Final = literal_column("rowid", Integer)
_OLD_CALLS: Final = delete(calls).where(
    _ROWID.in_(
        select(_ROWID)
        .select_from(calls)
        .where(calls.c.route == bindparam("b_route"), calls.c.at_ms < bindparam("before"))
        .order_by(calls.c.at_ms)
        .limit(bindparam("most"))
    )
)
_EVENTS: Final = (
    select(feedback.c.seq, feedback.c.received_ms, feedback.c.status)
    .where(feedback.c.seq > bindparam("start"))
    .order_by(feedback.c.seq)
    .limit(bindparam("most"))
)
#: What an event was about, once it is gone.
_ALONE: Final = delete(feedback_targets).where(
    feedback_targets.c.target < bindparam("bound"), ~exists().where(feedback.c.seq == feedback_targets.c.seq)
)
