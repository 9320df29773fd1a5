"""Deletes what is kept for a limited time: a chunk of rows at a time, or in PostgreSQL a day of predictions.

Rule: a prediction is deleted together with the feedback about it, and never before all its windows have closed. What
was counted of it stays; feedback that arrives later finds no prediction. What is counted is deleted by whole epochs,
once the epoch's last call is old enough and no prediction is left that could still change its counts. One more kind is
one function and one line in ``KINDS``; its name is a series' label and its setting a key of ``[gateway]``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Delete,
    Integer,
    Row,
    Table,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts import plans
from gateway.store.counts.tallies import SLACK_MS, note_moved
from gateway.store.rows import calls as recorded
from gateway.store.schema import partitions, sql
from gateway.store.schema.count_tables import (
    ARRIVED_IN,
    arrivals,
    assignments,
    buckets,
    courses,
    declarations,
    epochs,
    faults,
    forced,
    hours,
    latency,
    looks,
    newest_calls,
    plan_packs,
    signs,
    stretches,
    tallies,
    units,
    verdicts,
)
from gateway.store.schema.count_tables import plans as plan_rows
from gateway.store.schema.partitions import DAY_MS
from gateway.store.schema.row_tables import ORPHANED, REPEATED, bodies, calls, feedback, feedback_targets, shared_values

#: Rows per transaction: some tens of milliseconds in SQLite, for which the recorder waits.
CHUNK: Final = 2_000

#: Prefix of an epoch whose counts are being removed.
REMOVING: Final = "#"


class Expired(NamedTuple):
    """How much was removed, by kind; and where to continue, None when nothing is left to remove."""

    removed: Mapping[str, int]
    next: int | None


class Kind(NamedTuple):
    """``expire(connection, before_ms, start)`` removes some of what is older than ``before_ms``, beginning at 0.

    ``due`` is set where the recorder may have cached what is removed, and must drop its cache first: it says whether
    there is anything to remove.
    """

    name: str
    setting: str
    expire: Callable[[AsyncConnection, int, int], Awaitable[Expired]]
    due: Callable[[AsyncConnection, int], Awaitable[bool]] | None = None
    #: True where the setting is how many are kept, not how long: ``expire`` gets that number instead of a time.
    counted: bool = False


async def _predictions(connection: AsyncConnection, before_ms: int, _: int) -> Expired:
    """Remove calls, with the bodies and feedback about them. Calls with an open window stay, whatever their age."""
    before_ms = await _needed_from(connection, before_ms)
    if connection.dialect.name == "postgresql":
        before_ms -= before_ms % DAY_MS
    which = {"bound": _first_id(before_ms), "most": CHUNK}
    captured = (await connection.execute(_OLD_BODIES, which)).rowcount
    if captured >= CHUNK:
        return Expired({"bodies": captured}, 0)
    await connection.execute(_SHARED, which)  # first: SQLite reuses the numbers of deleted rows
    events = (await connection.execute(_ABOUT, which)).rowcount
    if events >= CHUNK:
        return Expired({"bodies": captured, "feedback": events}, 0)
    gone = await (_days if connection.dialect.name == "postgresql" else _rows)(connection, before_ms)
    if gone is None:  # no call refers to these plans any more
        await connection.execute(_OLD_PLANS, {"before": before_ms})
    removed = {"bodies": captured, "feedback": events, "predictions": gone or 0}
    return Expired(removed, 0 if gone is not None else None)


async def _bodies(connection: AsyncConnection, before_ms: int, _: int) -> Expired:
    """Remove what was captured of requests and answers."""
    gone = (await connection.execute(_OLD_BODIES, {"bound": _first_id(before_ms), "most": CHUNK})).rowcount
    return Expired({"bodies": gone}, 0 if gone >= CHUNK else None)


async def _needed_from(connection: AsyncConnection, before_ms: int) -> int:
    """Return the time from which on predictions may have an open window, or ``before_ms`` if that is earlier."""
    spans = [
        recorded.Span(definition.route, since_ms, until_ms)
        for definition in await plans.read_definitions(connection)
        if (since_ms := definition.first_open_ms(0)) is not None
        and since_ms < (until_ms := before_ms if definition.until_ms is None else min(before_ms, definition.until_ms))
    ]
    first = await recorded.first_in(connection, spans)
    return min((at_ms for at_ms in first if at_ms is not None), default=before_ms)


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
    routes = [str(row[0]) for row in await connection.execute(_ROUTES)]
    first = await recorded.first_in(connection, [recorded.Span(route, -(2**62), before_ms) for route in routes])
    for route, at_ms in zip(routes, first, strict=True):
        if at_ms is not None:
            which = {"b_route": route, "before": before_ms, "most": CHUNK}
            return (await connection.execute(_OLD_CALLS, which)).rowcount
    return None


async def _feedback(connection: AsyncConnection, before_ms: int, _: int) -> Expired:
    """Remove events that found no prediction, and repeats. Events that count are removed with their prediction."""
    old: list[int] = []
    for query in _EVENTS:
        rows = (await connection.execute(query, {"most": CHUNK - len(old)})).all()
        old += [seq for seq, received_ms in rows if received_ms < before_ms]
    if old:
        among = sql.among(connection.dialect.name, BigInteger())
        for table in (feedback_targets, feedback):
            await connection.execute(delete(table).where(table.c.seq.in_(among)), sql.as_values(old))
    # Events are numbered as they arrive: after one that is young enough, all are.
    return Expired({"feedback": len(old)}, 0 if len(old) >= CHUNK else None)


async def _orphans(connection: AsyncConnection, most: int, _: int) -> Expired:
    """Remove the oldest events without a prediction, so that ``most`` are left."""
    newest = (await connection.execute(_BEYOND, {"kept": most})).scalar()
    if newest is None:
        return Expired({}, None)
    old = [row[0] for row in await connection.execute(_OLDEST_ORPHANS, {"newest": newest, "most": CHUNK})]
    among = sql.among(connection.dialect.name, BigInteger())
    for table in (feedback_targets, feedback):
        await connection.execute(delete(table).where(table.c.seq.in_(among)), sql.as_values(old))
    return Expired({"orphans": len(old)}, 0 if len(old) == CHUNK else None)


async def _tallies(connection: AsyncConnection, before_ms: int, _: int) -> Expired:
    """Remove the counts of epochs whose last call was before a time, with their plans and shared fields of calls.

    First they are renamed, all at once; then they are deleted by the chunk. So an epoch that is resumed meanwhile
    begins with nothing.
    """
    removing = (await connection.execute(_BEING_REMOVED)).first()
    if removing is None:
        ended = await _ended(connection, before_ms)
        if ended is None:
            return Expired({}, None)
        place = {"b_route": ended.route, "b_epoch": ended.epoch, "b_removing": f"{REMOVING}{ended.epoch}"}
        for statement in _TAKE_AWAY:
            await connection.execute(statement, place)
        # Its arrivals go by the chunk: one that is resumed meanwhile must not take units for known by them.
        await sql.ensure(connection, assignments, [(ended.route, ended.epoch, ended.at_ms + SLACK_MS + 1)])
        await note_moved(connection, [ended.route])
        return Expired({}, 0)
    place = {"b_route": removing.route, "b_epoch": removing.epoch.removeprefix(REMOVING), "b_removing": removing.epoch}
    gone = 0
    for statement in _CHUNKS:
        which = {**place, "last": removing.at_ms + SLACK_MS, "most": CHUNK - gone}
        gone += (await connection.execute(statement, which)).rowcount
        if gone >= CHUNK:
            return Expired({"tallies": gone}, 0)
    await connection.execute(_REMOVED, place)
    return Expired({"tallies": gone}, 0)


async def _tallies_due(connection: AsyncConnection, before_ms: int) -> bool:
    if (await connection.execute(_BEING_REMOVED)).first() is not None:
        return True
    return await _ended(connection, before_ms) is not None


async def _ended(connection: AsyncConnection, before_ms: int) -> Row[Any] | None:
    """Return an epoch whose counts cannot change any more, because no prediction from its time is left."""
    for ended in (await connection.execute(_ENDED, {"before": before_ms - SLACK_MS})).all():
        last = {"b_route": ended.route, "last": ended.at_ms + SLACK_MS}
        if (await connection.execute(_EARLIER, last)).first() is None:
            return ended
    return None


#: Everything that is kept for a limited time, or up to a number.
KINDS: Final = (
    Kind("predictions", "prediction_retention", _predictions),
    Kind("feedback", "feedback_retention", _feedback),
    Kind("orphans", "max_orphans", _orphans, counted=True),
    Kind("bodies", "body_retention", _bodies),
    Kind("tallies", "tally_retention", _tallies, _tallies_due),
)


def _first_id(at_ms: int) -> str:
    """Return a lower bound of the ids that are made at this time or later."""
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
#: The shares of a plan are needed for as long as a tally names its revision.
_NAMED: Final = exists().where(
    tallies.c.route == plan_packs.c.route,
    tallies.c.epoch == plan_packs.c.epoch,
    tallies.c.revision.between(plan_packs.c.first, plan_packs.c.last),
)
_OLD_PLANS: Final = delete(plan_packs).where(plan_packs.c.until_ms < bindparam("before"), ~_NAMED)
#: Every route that ever was.
_ROUTES: Final = select(epochs.c.route).union(select(newest_calls.c.route))
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
_EVENTS: Final = tuple(
    select(feedback.c.seq, feedback.c.received_ms).where(which).order_by(feedback.c.seq).limit(bindparam("most"))
    for which in (ORPHANED, REPEATED)
)
#: Finds the newest orphan that is too many, by the index of orphans alone.
_ORPHANED: Final = feedback.c.status == literal_column("'orphaned'")
_BEYOND: Final = (
    select(feedback.c.seq).where(_ORPHANED).order_by(feedback.c.seq.desc()).limit(1).offset(bindparam("kept"))
)
_OLDEST_ORPHANS: Final = (
    select(feedback.c.seq)
    .where(_ORPHANED, feedback.c.seq <= bindparam("newest"))
    .order_by(feedback.c.seq)
    .limit(bindparam("most"))
)
#: Deletes the further targets of events that are deleted.
_ALONE: Final = delete(feedback_targets).where(
    feedback_targets.c.target < bindparam("bound"), ~exists().where(feedback.c.seq == feedback_targets.c.seq)
)

#: Finds epochs whose last call was made before a time, except the present epoch of each route.
_PRESENT: Final = (
    select(plan_rows.c.epoch)
    .where(plan_rows.c.route == newest_calls.c.route)
    .order_by(plan_rows.c.revision.desc())
    .limit(1)
    .scalar_subquery()
)
_ENDED: Final = (
    select(newest_calls)
    .where(newest_calls.c.at_ms < bindparam("before"), newest_calls.c.epoch.not_like(f"{REMOVING}%"))
    .where(newest_calls.c.epoch != func.coalesce(_PRESENT, ""))
    .order_by(newest_calls.c.at_ms)
)
_BEING_REMOVED: Final = select(newest_calls).where(newest_calls.c.epoch.like(f"{REMOVING}%")).limit(1)
_EARLIER: Final = (
    select(calls.c.id).where(calls.c.route == bindparam("b_route"), calls.c.at_ms <= bindparam("last")).limit(1)
)
_REMOVED: Final = delete(newest_calls).where(
    newest_calls.c.route == bindparam("b_route"), newest_calls.c.epoch == bindparam("b_removing")
)


def _of(table: Table, name: str = "b_epoch") -> tuple[ColumnElement[bool], ...]:
    return table.c.route == bindparam("b_route"), table.c.epoch == bindparam(name)


def _chunk(table: Table, *rows: ColumnElement[bool]) -> Delete:
    """Return a statement that deletes some of these rows."""
    keys = tuple(table.primary_key)
    return delete(table).where(tuple_(*keys).in_(select(*keys).where(*rows).limit(bindparam("most"))))


#: Tables with few rows per epoch are renamed or deleted at once; those with thousands of rows by the chunk, afterwards.
_TAKE_AWAY: Final = (
    *(update(table).where(*_of(table)).values(epoch=bindparam("b_removing")) for table in (tallies, newest_calls)),
    *(
        delete(table).where(*_of(table))
        for table in (courses, latency, faults, signs, forced, verdicts, looks, declarations)
    ),
)
_CHUNKS: Final = (
    *(
        _chunk(table, table.c.tally.in_(select(tallies.c.id).where(*_of(tallies, "b_removing"))))
        for table in (units, buckets)
    ),
    _chunk(tallies, *_of(tallies, "b_removing")),
    # A period is named by its beginning: those of an epoch that is resumed meanwhile begin later.
    _chunk(arrivals, *_of(arrivals), bindparam("last") >= ARRIVED_IN),
    *(
        _chunk(table, *_of(table), table.c.period <= bindparam("last"))
        for table in (stretches, plan_rows, plan_packs, shared_values)
    ),
    _chunk(hours, *_of(hours), hours.c.hour_ms <= bindparam("last")),
)
