"""Find the predictions that a feedback event by key is about.

Rule: only the order in time decides, among the predictions that are stored: of those with the key that are not after
the event, the last, the first, or all; where there is none, the first one after the event, within ``before_ms``.
Whether the event is in time for them is decided later, as for any event.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import BigInteger, Select, Text, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import ColumnElement, Subquery

from gateway.store.schema import sql
from gateway.store.schema.row_tables import calls
from router.snapshot import KeyRule

#: The most predictions that one event is about where the rule is "all": the last ones.
MOST: Final = 100


class Key(NamedTuple):
    """What to look up: an event's route, key and time, how long after it a prediction may come, the route's rule."""

    route: str
    key: str
    event_ms: int
    before_ms: int = 0
    rule: KeyRule = "latest"


async def targets(connection: AsyncConnection, keys: Collection[Key]) -> dict[Key, tuple[str, ...]]:
    """Return the predictions of each key; of several the one that ``latest`` would choose comes first."""
    found: dict[Key, tuple[str, ...]] = {}
    for rule in sorted({key.rule for key in keys}):
        ruled = [key for key in keys if key.rule == rule]
        found |= await (_all(connection, ruled) if rule == "all" else _one(connection, ruled, rule))
    ahead = [key for key, led in found.items() if not led and key.before_ms and key.rule != "all"]
    return found | await _one(connection, ahead, "after") if ahead else found


async def _one(connection: AsyncConnection, keys: Collection[Key], which: str) -> dict[Key, tuple[str, ...]]:
    wanted = list(dict.fromkeys(keys))
    rows = await connection.execute(_query(connection.dialect.name, which), _listed(wanted))
    return {wanted[index]: () if target is None else (target,) for index, target in rows}


async def _all(connection: AsyncConnection, keys: Collection[Key]) -> dict[Key, tuple[str, ...]]:
    """Return those not after the event, the last first; then those after it, the first first."""
    wanted = list(dict.fromkeys(keys))
    found: dict[Key, tuple[str, ...]] = {}
    for index, before, after in await connection.execute(_every(connection.dialect.name), _listed(wanted)):
        found_here = [(0, -at_ms, one) for one, at_ms in orjson.loads(before or "[]")]
        found_here += [(1, at_ms, one) for one, at_ms in orjson.loads(after or "[]")]
        found[wanted[index]] = tuple(dict.fromkeys(one for *_, one in sorted(found_here)))[:MOST]
    return found


def _listed(keys: Collection[Key]) -> dict[str, str]:
    rows = [(i, key.route, key.key, key.event_ms, key.event_ms + key.before_ms) for i, key in enumerate(keys)]
    return sql.as_list(rows)


@cache
def _query(dialect: str, which: str) -> Select[Any]:
    """Select the one prediction of each row of ``_listed``: number, route, key, the event's time, the latest time."""
    wanted = sql.listed(dialect, BigInteger(), Text(), Text(), BigInteger(), BigInteger())
    return select(wanted.c.c0, _scalar(wanted, which))


@cache
def _every(dialect: str) -> Select[Any]:
    """Select each row's number, and as JSON the ids and times of the predictions before the event and after it."""
    wanted = sql.listed(dialect, BigInteger(), Text(), Text(), BigInteger(), BigInteger())
    after = calls.c.at_ms > wanted.c.c3
    sides = ((~after, True), (after & (calls.c.at_ms <= wanted.c.c4), False))
    return select(wanted.c.c0, *(_listing(dialect, wanted, *side) for side in sides))


def _listing(dialect: str, wanted: Subquery, within: ColumnElement[bool], last_first: bool) -> Any:
    order = [column.desc() if last_first else column.asc() for column in (calls.c.at_ms, calls.c.id)]
    # In the order of the index, so that no other rows are read. A request may have several calls.
    query = select(calls.c.id, calls.c.at_ms).where(_keyed(wanted), within).order_by(*order).limit(4 * MOST)
    found = query.correlate(wanted).subquery()
    if dialect == "sqlite":
        listing: Any = func.json_group_array(func.json_array(found.c.id, found.c.at_ms))
    else:
        listing = cast(func.json_agg(func.json_build_array(found.c.id, found.c.at_ms)), Text)
    return select(listing).correlate(wanted).scalar_subquery()


def _scalar(wanted: Subquery, which: str) -> Any:
    """Return the one prediction; of two at the same time the greater id is the later one."""
    after = calls.c.at_ms > wanted.c.c3
    within = after & (calls.c.at_ms <= wanted.c.c4) if which == "after" else ~after
    order = [column.desc() if which == "latest" else column.asc() for column in (calls.c.at_ms, calls.c.id)]
    query = select(calls.c.id).where(_keyed(wanted), within).order_by(*order).limit(1)
    return query.correlate(wanted).scalar_subquery()


def _keyed(wanted: Subquery) -> ColumnElement[bool]:
    return (calls.c.route == wanted.c.c1) & (calls.c.key == wanted.c.c2) & calls.c.key.is_not(None)
