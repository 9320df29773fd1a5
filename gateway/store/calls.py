"""Predictions as rows: one per call.

Rule: a row says what its journal line said, column for field and in the same order, but for ``retries``. A call whose
stream has not ended is ``open``: it is there to be found, and counts nowhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from operator import attrgetter
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Select, Text, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store import sql
from gateway.store.tables import predictions
from router.records import Prediction, Role
from router.snapshot import Metric

#: How often a call was repeated is no column: nobody asks for it call by call, and the metrics have it.
_NAMES: Final = tuple(f.name for f in fields(Prediction) if f.name in predictions.c)
_FIELDS: Final = attrgetter(*_NAMES)
_FEATURES, _PREDICTED, _PREDICTION, _ITEMS = map(_NAMES.index, ("features", "predicted", "prediction", "items"))


@dataclass(frozen=True, slots=True)
class Stored:
    """A call as stored, and the writer whose journal it came from."""

    call: Prediction
    writer: str
    open: bool


class Span(NamedTuple):
    """The predictions of a route made in [since, until)."""

    route: str
    since_ms: int
    until_ms: int


class Kin(NamedTuple):
    """What calls that are counted together have in common."""

    route: str
    epoch: str
    period: int
    variant: str
    version: str
    role: Role


INSIDE: Final = (
    predictions.c.route == bindparam("route"),
    predictions.c.at_ms >= bindparam("since_ms"),
    predictions.c.at_ms < bindparam("until_ms"),
)


_BEYOND: Final = (
    select(predictions.c.at_ms).where(*INSIDE).order_by(predictions.c.at_ms).offset(bindparam("limit")).limit(1)
)
_COUNTED: Final = (
    select(*(predictions.c[name] for name in Kin._fields), func.count())
    .where(*INSIDE, ~predictions.c.open, ~predictions.c.forced)
    .where(predictions.c.fault.is_(None) | (predictions.c.fault != "dropped"))
    .group_by(*(predictions.c[name] for name in Kin._fields))
)
_COUNTED_ANSWERS: Final = _COUNTED.where(predictions.c.role != "shadow")


async def write(connection: AsyncConnection, rows: Iterable[Stored]) -> None:
    """Write calls; one that was open is replaced by its end."""
    await sql.upsert(connection, predictions, [_row(stored) for stored in rows])


async def of(connection: AsyncConnection, ids: Collection[str]) -> dict[str, list[Stored]]:
    """Return every call of these prediction ids; an id without any is left out."""
    if not ids:
        return {}
    found: dict[str, list[Stored]] = {}
    for row in await connection.execute(_of(connection.dialect.name), sql.as_values(ids)):
        found.setdefault(row[0], []).append(_stored(row))
    return found


async def open_of(connection: AsyncConnection, writer: str) -> list[Stored]:
    """Return the calls of a writer whose end it has not told."""
    query = select(predictions).where(predictions.c.open, predictions.c.writer == bindparam("writer"))
    return [_stored(row) for row in await connection.execute(query, {"writer": writer})]


async def latest_ms(connection: AsyncConnection, route: str) -> int | None:
    """Return when the route's youngest prediction was made, None if it has none."""
    query = select(func.max(predictions.c.at_ms)).where(predictions.c.route == bindparam("route"))
    found: int | None = (await connection.execute(query, {"route": route})).scalar()
    return found


async def reach(connection: AsyncConnection, route: str, since_ms: int, until_ms: int, limit: int) -> int:
    """Return until when [since, until) holds about ``limit`` of the route's calls: ``until_ms``, or earlier.

    Calls of one millisecond are never parted.
    """
    span = Span(route, since_ms, until_ms)
    beyond: int | None = (await connection.execute(_BEYOND, {**span._asdict(), "limit": limit})).scalar()
    return until_ms if beyond is None else max(beyond, since_ms + 1)


async def ids_in(connection: AsyncConnection, span: Span) -> list[str]:
    """Return the ids of a route's predictions in a span."""
    query = select(predictions.c.id).distinct().where(*INSIDE)
    return [row[0] for row in await connection.execute(query, span._asdict())]


async def counted_in(connection: AsyncConnection, span: Span, metric: Metric) -> list[tuple[Kin, int]]:
    """Return how many finished calls of a span could have a value, as ``router.outcomes.counted`` says one by one."""
    query = _COUNTED if metric.kind == "label" else _COUNTED_ANSWERS
    return [(Kin(*kin), n) for *kin, n in await connection.execute(query, span._asdict())]


def as_json(call: Prediction) -> dict[str, Any]:
    """Return the call as plain JSON values, every field named."""
    return dict(zip(_NAMES, _FIELDS(call), strict=True))


@cache
def _of(dialect: str) -> Select[Any]:
    return select(predictions).where(predictions.c.id.in_(sql.among(dialect, Text())))


def _row(stored: Stored) -> tuple[Any, ...]:
    values = list(_FIELDS(stored.call))
    if values[_FEATURES] is not None:
        values[_FEATURES] = _json(values[_FEATURES])
    values[_PREDICTION] = _json(values[_PREDICTION]) if values[_PREDICTED] else None
    if values[_ITEMS] is not None:
        values[_ITEMS] = _json(values[_ITEMS])
    values += (stored.writer, stored.open)
    return tuple(values)


def _stored(row: Sequence[Any]) -> Stored:
    *values, writer, is_open = row
    content: dict[str, Any] = dict(zip(_NAMES, values, strict=True))
    for name in ("features", "prediction", "items"):
        if content[name] is not None:
            content[name] = orjson.loads(content[name])
    if content["items"] is not None:
        content["items"] = tuple(content["items"])
    return Stored(Prediction(**content), writer, is_open)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
