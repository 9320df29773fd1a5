"""Calls as rows: the fields that are a call's own, and the number of the set of fields that it shares with others.

Rule: a row has the content of its journal line. A call whose stream has not ended is ``open``: it can be looked up, and
counts nowhere.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import BigInteger, Select, Text, bindparam, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.rows import shared_fields
from gateway.store.rows.shared_fields import SharedFields
from gateway.store.schema import sql
from gateway.store.schema.partitions import DAY_MS, ensure
from gateway.store.schema.row_tables import calls
from router.outcomes import counted
from router.records import CALL_FIELDS, Fault, Role, fields_stored
from router.snapshot import Metric


class CallRow(NamedTuple):
    """A row of the table: a call's own fields. ``prediction`` and ``more`` are JSON, ``more`` holds the rare fields."""

    id: str
    shared_number: int
    route: str
    at_ms: int
    unit: str | None
    key: str | None
    latency_ms: float | None
    overhead_ms: float | None
    prediction: str | None
    more: str | None
    open_by: str | None


_Values = tuple[
    str, int, str, int, str | None, str | None, float | None, float | None, str | None, str | None, str | None
]
#: CallRow(*values), of all its fields, at a third of the time: there are thousands a second.
new_call_row: Final[Callable[[_Values], CallRow]] = partial(tuple.__new__, CallRow)


class StoredCall(NamedTuple):
    """A call with all its fields; those that something is counted by are attributes."""

    shared: SharedFields
    row: CallRow

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def at_ms(self) -> int:
        return self.row.at_ms

    @property
    def route(self) -> str:
        return self.shared.route

    @property
    def epoch(self) -> str:
        return self.shared.epoch

    @property
    def period(self) -> int:
        return self.shared.period

    @property
    def variant(self) -> str:
        return self.shared.variant

    @property
    def version(self) -> str:
        return self.shared.version

    @property
    def role(self) -> Role:
        return self.shared.role

    @property
    def fault(self) -> Fault | None:
        return self.shared.fault

    @property
    def forced(self) -> bool:
        return self.shared.forced

    @property
    def uncounted(self) -> bool:
        return self.shared.uncounted

    @property
    def served(self) -> str | None:
        return self.shared.served

    @property
    def failed(self) -> bool:
        return self.shared.failed

    @property
    def counted_unit(self) -> str | None:
        """The unit that is counted: None when the call counts as a unit of its own, as without any unit."""
        return self.row.unit if self.shared.by_unit else None

    @property
    def bucketed_unit(self) -> str | None:
        """Who is counted where units are counted, the request itself if it has none; None where they are not."""
        own = self.row.id if self.row.unit is None else self.row.unit
        return own if self.shared.by_unit else None

    @property
    def predicted(self) -> bool:
        return self.row.prediction is not None

    @property
    def prediction(self) -> Any:
        return None if self.row.prediction is None else orjson.loads(self.row.prediction)

    @property
    def items(self) -> tuple[str, ...] | None:
        return self._texts("items")

    @property
    def shown(self) -> tuple[str, ...] | None:
        return self._texts("shown")

    def _texts(self, name: str) -> tuple[str, ...] | None:
        found = None if self.row.more is None else orjson.loads(self.row.more).get(name)
        return None if found is None else tuple(found)

    @property
    def wrong(self) -> tuple[str, ...]:
        return wrong_of(self.row)

    @property
    def open(self) -> bool:
        return self.row.open_by is not None


#: StoredCall(*values), likewise.
new_stored_call: Final[Callable[[tuple[SharedFields, CallRow]], StoredCall]] = partial(tuple.__new__, StoredCall)


def wrong_of(row: CallRow) -> tuple[str, ...]:
    """Return what the worker found wrong with a call, in words of ``records.WRONG``; mostly nothing."""
    if row.more is None or _WRONG not in row.more:
        return ()
    return tuple(orjson.loads(row.more).get("wrong") or ())


#: How the field begins in ``more``; within a text the quotes would be escaped.
_WRONG: Final = '"wrong":'


class Span(NamedTuple):
    """The predictions of a route made in [since, until)."""

    route: str
    since_ms: int
    until_ms: int


INSIDE: Final = (
    calls.c.route == bindparam("route"),
    calls.c.at_ms >= bindparam("since_ms"),
    calls.c.at_ms < bindparam("until_ms"),
)


CountedCalls = tuple[SharedFields, int, Sequence[str]]
_INSIDE: Final = select(calls).where(*INSIDE).order_by(calls.c.at_ms, calls.c.id, calls.c.kin)
_BEYOND: Final = select(calls.c.at_ms).where(*INSIDE).order_by(calls.c.at_ms).offset(bindparam("limit")).limit(1)
_FINISHED: Final = (*INSIDE, calls.c.open_by.is_(None))
_COUNTED: Final = select(calls.c.kin, func.count()).where(*_FINISHED).group_by(calls.c.kin)
_UNITS: Final = select(calls.c.kin, func.coalesce(calls.c.unit, calls.c.id)).where(*_FINISHED)
_DELETED: Final = delete(calls).where(
    calls.c.id == bindparam("b_id"), calls.c.kin == bindparam("b_kin"), calls.c.at_ms == bindparam("b_at_ms")
)

#: How far the time in an id may be from its call's.
_SLACK_MS: Final = DAY_MS // 24
_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def json_of(value: Any) -> str:
    """Return a value as JSON text, as the table holds it."""
    return orjson.dumps(value).decode()


def by_shared_fields(made: Iterable[StoredCall]) -> Mapping[SharedFields, list[CallRow]]:
    """Return the rows of these calls by their shared fields."""
    rows: defaultdict[SharedFields, list[CallRow]] = defaultdict(list)
    for call in made:
        rows[call.shared].append(call.row)
    return rows


async def write(
    connection: AsyncConnection,
    fresh: Sequence[StoredCall],
    *,
    ended: Sequence[StoredCall] = (),
    stored: set[int] | None = None,
    days: set[int] | None = None,
) -> None:
    """Write calls, replacing the ``ended`` ones, which were open.

    ``stored`` are the numbers of shared fields known to be stored, ``days`` the days known to have a partition; both
    are added to.
    """
    stored = set() if stored is None else stored
    days = set() if days is None else days
    if connection.dialect.name == "postgresql" and not days.issuperset(
        new := {call.row.at_ms // DAY_MS for call in fresh}
    ):
        days.update(await ensure(connection, new))
    unstored = {call.shared.number: call.shared for call in fresh if call.shared.number not in stored}
    await shared_fields.write(connection, unstored.values())
    if len(stored) > shared_fields.MOST:
        stored.clear()  # storing one again does no harm
    stored.update(unstored)
    if ended:
        rows = [call.row for call in ended]
        replaced = [{"b_id": row.id, "b_kin": row.shared_number, "b_at_ms": row.at_ms} for row in rows]
        await connection.execute(_DELETED, replaced)
    await sql.insert(connection, calls, [call.row for call in fresh])


async def of(connection: AsyncConnection, ids: Collection[str]) -> dict[str, list[StoredCall]]:
    """Return every call of these prediction ids; an id without any is left out."""
    found: dict[str, list[StoredCall]] = {}
    if not ids:
        return found
    if connection.dialect.name == "postgresql":
        stored = await _of_days(connection, ids)
    else:
        stored = await _calls(connection, _of(connection.dialect.name), sql.as_values(ids))
    for call in stored:
        found.setdefault(call.row.id, []).append(call)
    return found


async def open_of(connection: AsyncConnection, writer: str) -> list[StoredCall]:
    """Return a writer's calls that are open."""
    return await _calls(connection, select(calls).where(calls.c.open_by == bindparam("writer")), {"writer": writer})


async def newest(connection: AsyncConnection) -> str:
    """Return the greatest id there is, "" where there is none."""
    return (await connection.execute(select(func.max(calls.c.id)))).scalar() or ""


async def latest_ms(connection: AsyncConnection, route: str) -> int | None:
    """Return when the route's latest prediction was made, None if it has none."""
    query = select(func.max(calls.c.at_ms)).where(calls.c.route == bindparam("route"))
    found: int | None = (await connection.execute(query, {"route": route})).scalar()
    return found


async def reach(connection: AsyncConnection, route: str, since_ms: int, until_ms: int, limit: int) -> int:
    """Return the end of a part of [since, until) that holds about ``limit`` of the route's calls: at most ``until_ms``.

    Calls of one millisecond are never separated.
    """
    span = Span(route, since_ms, until_ms)
    beyond: int | None = (await connection.execute(_BEYOND, {**span._asdict(), "limit": limit})).scalar()
    return until_ms if beyond is None else max(beyond, since_ms + 1)


async def first_in(connection: AsyncConnection, spans: Sequence[Span]) -> list[int | None]:
    """Return when the first call of each span was made, None where there is none: one statement for all of them."""
    if not spans:
        return []
    numbered = [(n, *span) for n, span in enumerate(spans)]
    rows = await connection.execute(_first_in(connection.dialect.name), sql.as_list(numbered))
    found = {row[0]: row[1] for row in rows}
    return [found[n] for n in range(len(spans))]


async def inside(connection: AsyncConnection, span: Span) -> list[StoredCall]:
    """Return a route's calls in a span, by time; those of one prediction are adjacent."""
    return await _calls(connection, _INSIDE, span._asdict())


async def ids_in(connection: AsyncConnection, span: Span) -> list[str]:
    """Return the ids of a route's predictions in a span."""
    query = select(calls.c.id).distinct().where(*INSIDE)
    return [row[0] for row in await connection.execute(query, span._asdict())]


async def counted_in(connection: AsyncConnection, span: Span, metric: Metric) -> list[CountedCalls]:
    """Return how many finished calls of a span could have a value, by their shared fields, and whose they are.

    Where units are counted there is one for each call, its id where it has none; elsewhere nobody.
    """
    rows = [(number, n) for number, n in await connection.execute(_COUNTED, span._asdict())]
    of_number = await shared_fields.numbered(connection, [number for number, _ in rows])
    units = defaultdict[int, list[str]](list)
    if any(of_number[number].by_unit for number, _ in rows):
        for number, unit in await sql.rows(connection, _UNITS, span._asdict()):
            units[number].append(unit)
    found = ((of_number[number], n, units[number]) for number, n in rows)
    return [(shared, n, of if shared.by_unit else ()) for shared, n, of in found if counted(shared, metric)]


def as_json(call: StoredCall) -> dict[str, Any]:
    """Return the call as plain JSON values: every field of the table (``records.CALL_FIELDS``), in its order."""
    return {**as_stored(call), "prediction": call.prediction, "open": call.open}


def as_stored(call: StoredCall) -> dict[str, Any]:
    """Return every field of the table, in its order; ``prediction`` is the JSON it is stored as."""
    return dict(zip(_NAMES, _in_order(stored_values(call)), strict=True))


def stored_values(call: StoredCall) -> tuple[Any, ...]:
    """Return the values of ``STORED_NAMES``; ``prediction`` is the JSON it is stored as."""
    row = call.row
    rare = _RARE_DEFAULTS if row.more is None else _rare({**_RARE, **orjson.loads(row.more)})
    return (*shared_fields.values(call.shared), *_own(row), row.prediction is not None, *rare)


_NAMES: Final = tuple(one.name for one in CALL_FIELDS)
#: ``predicted`` has no column: there is a prediction where the column of that name is not NULL.
_OWN: Final = tuple(one.name for one in fields_stored("own") if one.name != "predicted")
_own: Final[Callable[[CallRow], tuple[Any, ...]]] = attrgetter(*_OWN)
_RARE: Final = {one.name: one.default for one in fields_stored("rare")}
_RARE_DEFAULTS: Final = tuple(_RARE.values())
_rare: Final[Callable[[Mapping[str, Any]], tuple[Any, ...]]] = itemgetter(*_RARE)
#: Every field of the table, in the order in which the values of a row are together.
STORED_NAMES: Final = (*shared_fields.NAMES, *_OWN, "predicted", *_RARE)
_in_order: Final[Callable[[tuple[Any, ...]], tuple[Any, ...]]] = itemgetter(*map(STORED_NAMES.index, _NAMES))


async def _calls(connection: AsyncConnection, query: Select[Any], parameters: Mapping[str, Any]) -> list[StoredCall]:
    rows = [new_call_row(row) for row in await sql.rows(connection, query, parameters)]
    of_number = await shared_fields.numbered(connection, {row.shared_number for row in rows})
    return [new_stored_call((of_number[row.shared_number], row)) for row in rows]


async def _of_days(connection: AsyncConnection, ids: Collection[str]) -> list[StoredCall]:
    """Return the calls of these ids, searching only the partitions of the ids' times: there may be hundreds."""
    timed = [(one, int(one[:8] + one[9:13], 16)) for one in ids if _UUID7.fullmatch(one)]
    found: list[StoredCall] = []
    if timed:
        times = [at_ms for _, at_ms in timed]
        bounds = {"low": min(times) - _SLACK_MS, "high": max(times) + _SLACK_MS}
        found = await _calls(connection, _timed(), {**bounds, **sql.as_list(timed)})
    if untimed := set(ids).difference(one for one, _ in timed):
        found += await _calls(connection, _of("postgresql"), sql.as_values(untimed))
    return found


@cache
def _timed() -> Select[Any]:
    wanted = sql.listed("postgresql", Text(), BigInteger())
    return (
        select(calls)
        .join(wanted, calls.c.id == wanted.c.c0)
        .where(calls.c.at_ms >= bindparam("low"), calls.c.at_ms <= bindparam("high"))
        .where(calls.c.at_ms >= wanted.c.c1 - _SLACK_MS, calls.c.at_ms <= wanted.c.c1 + _SLACK_MS)
    )


@cache
def _first_in(dialect: str) -> Select[Any]:
    wanted = sql.listed(dialect, BigInteger(), Text(), BigInteger(), BigInteger())
    inside = (calls.c.route == wanted.c.c1, calls.c.at_ms >= wanted.c.c2, calls.c.at_ms < wanted.c.c3)
    first = select(calls.c.at_ms).where(*inside).order_by(calls.c.at_ms).limit(1).correlate(wanted)
    return select(wanted.c.c0, first.scalar_subquery())


@cache
def _of(dialect: str) -> Select[Any]:
    return select(calls).where(calls.c.id.in_(sql.among(dialect, Text())))
