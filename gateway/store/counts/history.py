"""Old plans, packed many in one row, and what old stretches have shown: a bandit makes a plan a second.

Rule: nothing is lost that a report or a replay asks for. Every plan is found under its route and revision, as a row or
in a pack. The sample-ratio check goes on from the state after the stretches that were removed, and gives the same
number. What is counted under a removed revision later (by a node that was cut off for long) is a stretch of its own,
after those.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import groupby
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import BigInteger, Select, Text, bindparam, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema import sql
from gateway.store.schema.count_tables import courses, plan_packs, plans, stretches
from policies.statistics.sample_ratio import START, SampleRatioState, accumulate

#: How many plans of a route stay rows, the newest ones: some minutes of a bandit's.
KEPT: Final = 500
#: Plans in a pack.
PACK: Final = 500


class StoredPlan(NamedTuple):
    """A plan as the table has it: ``plan`` and ``shares`` are JSON."""

    route: str
    revision: int
    epoch: str
    period: int
    at_ms: int
    plan: str
    shares: str


async def due(connection: AsyncConnection) -> list[str]:
    """Return the routes that have so many plans as rows that some can be folded."""
    return [row[0] for row in await connection.execute(_MANY, {"most": KEPT + PACK})]


async def fold(connection: AsyncConnection, route: str) -> bool:
    """Fold the oldest plans of a route, if it has many; return whether it had."""
    made = [StoredPlan(*row) for row in await connection.execute(_OLDEST, {"route": route, "most": KEPT + PACK})]
    if len(made) < KEPT + PACK:
        return False
    del made[PACK:]
    for (epoch, period), group in groupby(made, key=lambda plan: (plan.epoch, plan.period)):
        await _fold_these(connection, route, epoch, period, list(group))
    await connection.execute(_PACKED, {"b_route": route, "b_last": made[-1].revision})
    return True


async def find(connection: AsyncConnection, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], StoredPlan]:
    """Return the plans of these routes and revisions, as far as they are stored."""
    if not wanted:
        return {}
    query = _plans(connection.dialect.name)
    rows = await connection.execute(query, sql.as_list(wanted))
    found = {(row[0], row[1]): StoredPlan(*row) for row in rows}
    missing = defaultdict[str, set[int]](set)
    for route, revision in set(wanted) - found.keys():
        missing[route].add(revision)
    for route, revisions in missing.items():
        async for plan in _packed(connection, route, revisions):
            found[route, plan.revision] = plan
    return found


async def last_of(connection: AsyncConnection, route: str, epoch: str) -> StoredPlan | None:
    """Return the last plan of an epoch, None if none is stored."""
    place = {"route": route, "epoch": epoch}
    row = (await connection.execute(_LAST, place)).first()
    if row is not None:
        return StoredPlan(*row)
    last: int | None = (await connection.execute(_LAST_PACKED, place)).scalar()
    return None if last is None else (await find(connection, [(route, last)])).get((route, last))


async def read_sample_ratios(
    connection: AsyncConnection, places: Collection[tuple[str, str]]
) -> Mapping[tuple[str, str], SampleRatioState]:
    """Return where the sample-ratio check stands after the stretches that are no rows any more, by route and epoch."""
    rows = await connection.execute(_courses(connection.dialect.name), sql.as_list(places))
    return {(route, epoch): SampleRatioState(**orjson.loads(state)) for route, epoch, state in rows}


async def _fold_these(
    connection: AsyncConnection, route: str, epoch: str, period: int, made: Sequence[StoredPlan]
) -> None:
    """Pack the plans of one period, and fold what was given under them or earlier ones of it."""
    place = {"b_route": route, "b_epoch": epoch, "b_period": period, "b_last": made[-1].revision}
    given: dict[int, dict[str, int]] = {}
    for revision, variant, n in await connection.execute(_GIVEN, place):
        given.setdefault(revision, {})[variant] = n
    shares = {plan.revision: plan.shares for plan in made}
    late = await find(connection, {(route, revision) for revision in given.keys() - shares.keys()})
    shares |= {plan.revision: plan.shares for plan in late.values()}
    since = (await read_sample_ratios(connection, [(route, epoch)])).get((route, epoch), START)
    in_order = [(given[revision], shares[revision]) for revision in sorted(given) if revision in shares]
    state, body = await asyncio.to_thread(_folded, in_order, since.begin(period), made)
    if in_order:
        await sql.upsert(connection, courses, [(route, epoch, orjson.dumps(asdict(state)).decode())])
    await connection.execute(_SHOWN, place)
    pack = (route, made[0].revision, made[-1].revision, epoch, period, made[-1].at_ms, body)
    await sql.upsert(connection, plan_packs, [pack])


def _folded(
    given: Sequence[tuple[Mapping[str, int], str]], since: SampleRatioState, made: Sequence[StoredPlan]
) -> tuple[SampleRatioState, bytes]:
    state = accumulate(((counts, orjson.loads(shares)) for counts, shares in given), since)
    # Column by column: similar values are together, and pack to a third of what rows do.
    return state, zlib.compress(orjson.dumps(list(zip(*made, strict=True))))


async def _packed(connection: AsyncConnection, route: str, revisions: Collection[int]) -> AsyncIterator[StoredPlan]:
    """Yield those of a route's plans that are in packs."""
    span = {"route": route, "low": min(revisions), "high": max(revisions)}
    for first, last in (await connection.execute(_SPANS, span)).all():
        if any(first <= revision <= last for revision in revisions):
            body = (await connection.execute(_BODY, {"route": route, "first": first})).scalar_one()
            for plan in await asyncio.to_thread(_unpacked, body):
                if plan.revision in revisions:
                    yield plan


def _unpacked(body: bytes) -> list[StoredPlan]:
    return [StoredPlan(*row) for row in zip(*orjson.loads(zlib.decompress(body)), strict=True)]


_MANY: Final = select(plans.c.route).group_by(plans.c.route).having(func.count() >= bindparam("most", type_=BigInteger))
_OLDEST: Final = (
    select(plans).where(plans.c.route == bindparam("route")).order_by(plans.c.revision).limit(bindparam("most"))
)
_LAST: Final = (
    select(plans)
    .where(plans.c.route == bindparam("route"), plans.c.epoch == bindparam("epoch"))
    .order_by(plans.c.revision.desc())
    .limit(1)
)
_LAST_PACKED: Final = select(func.max(plan_packs.c.last)).where(
    plan_packs.c.route == bindparam("route"), plan_packs.c.epoch == bindparam("epoch")
)
_PACKED: Final = delete(plans).where(plans.c.route == bindparam("b_route"), plans.c.revision <= bindparam("b_last"))
_UNDER: Final = (
    stretches.c.route == bindparam("b_route"),
    stretches.c.epoch == bindparam("b_epoch"),
    stretches.c.period == bindparam("b_period"),
    stretches.c.revision <= bindparam("b_last"),
)
_GIVEN: Final = select(stretches.c.revision, stretches.c.variant, stretches.c.n).where(*_UNDER)
_SHOWN: Final = delete(stretches).where(*_UNDER)
_SPANS: Final = select(plan_packs.c.first, plan_packs.c.last).where(
    plan_packs.c.route == bindparam("route"),
    plan_packs.c.last >= bindparam("low"),
    plan_packs.c.first <= bindparam("high"),
)
_BODY: Final = select(plan_packs.c.body).where(
    plan_packs.c.route == bindparam("route"), plan_packs.c.first == bindparam("first")
)


@cache
def _plans(dialect: str) -> Select[Any]:
    wanted = sql.listed(dialect, Text(), BigInteger())
    return select(plans).join(wanted, (plans.c.route == wanted.c.c0) & (plans.c.revision == wanted.c.c1))


@cache
def _courses(dialect: str) -> Select[Any]:
    wanted = sql.listed(dialect, Text(), Text())
    return select(courses).join(wanted, (courses.c.route == wanted.c.c0) & (courses.c.epoch == wanted.c.c1))
