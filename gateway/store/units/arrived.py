"""Each unit's first request: what the sample-ratio check counts, once in an epoch while the salt is the same.

Rule: a first request is the least of those that are known, so it does not matter in which order they come.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from sys import getsizeof
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Select, Text, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts.deltas import Arrival, RoutePeriod
from gateway.store.schema import sql
from gateway.store.schema.count_tables import ARRIVED_IN, arrivals, assignments

#: What a row takes in memory beside its unit's name.
ROW_BYTES: Final = 400


class Assignment(NamedTuple):
    """An epoch of a route while its units are hashed with one salt, since a period: so long a unit arrives once.

    What it was given then is no new evidence about the shares in later periods: there it is given the same again.
    """

    route: str
    epoch: str
    since: int


@dataclass(slots=True)
class Arrived:
    """First requests that are known, and about how much memory they take."""

    known: dict[Assignment, dict[str, Arrival]] = field(default_factory=dict)
    size_bytes: int = 0


async def arrive(
    connection: AsyncConnection,
    seen: Mapping[RoutePeriod, Mapping[str, Arrival]],
    cached: Arrived,
) -> Counter[tuple[RoutePeriod, int, str]]:
    """Write the arrivals that are new, or earlier than those known, and return what the stretches change by."""
    changes: Counter[tuple[RoutePeriod, int, str]] = Counter()
    first = await _by_assignment(connection, {period: those for period, those in seen.items() if those})
    missing = [
        (*assigned, unit)
        for assigned, those in first.items()
        for unit in those.keys() - cached.known.setdefault(assigned, {}).keys()
    ]
    cached.size_bytes += sum([ROW_BYTES + getsizeof(unit) for *_, unit in missing])
    await _recall_arrivals(connection, missing, cached.known)
    rows = []
    for assigned, those in first.items():
        known, place = cached.known[assigned], assigned[:2]
        for unit, arrival in those.items():
            old = known.get(unit)
            if old is not None and old <= arrival:
                continue
            if old is not None:
                changes[RoutePeriod(*place, old.period), old.revision, old.variant] -= 1
            changes[RoutePeriod(*place, arrival.period), arrival.revision, arrival.variant] += 1
            known[unit] = arrival
            at_ms, id_, period, revision, variant = arrival
            rows.append((*assigned, unit, at_ms, id_, revision, variant, period))
    await sql.upsert(connection, arrivals, rows)
    return changes


async def _by_assignment(
    connection: AsyncConnection, seen: Mapping[RoutePeriod, Mapping[str, Arrival]]
) -> Mapping[Assignment, Mapping[str, Arrival]]:
    """Return the first arrival of each unit while the salt was the same."""
    if not seen:
        return {}
    began: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0])
    for route, epoch, since in await connection.execute(select(assignments)):
        began[route, epoch].append(since)
    found: dict[Assignment, Mapping[str, Arrival]] = {}
    for (route, epoch, period), those in seen.items():
        assigned = Assignment(route, epoch, max(one for one in began[route, epoch] if one <= max(period, 0)))
        known = found.get(assigned, {})
        earlier = {unit: one for unit, one in those.items() if unit not in known or one < known[unit]}
        found[assigned] = {**known, **earlier} if known else those
    return found


async def _recall_arrivals(
    connection: AsyncConnection, missing: Collection[tuple[Any, ...]], known: dict[Assignment, dict[str, Arrival]]
) -> None:
    if not missing:
        return
    query = _arrivals(connection.dialect.name)
    for route, epoch, since, unit, *rest in await connection.execute(query, sql.as_list(missing)):
        known[Assignment(route, epoch, since)][unit] = Arrival(*rest)


@cache
def _arrivals(dialect: str) -> Select[Any]:
    wanted = sql.listed(dialect, Text(), Text(), BigInteger(), Text())
    columns = (arrivals.c[name] for name in ("route", "epoch", "period", "unit", "at_ms", "id"))
    return select(*columns, ARRIVED_IN, arrivals.c.revision, arrivals.c.variant).join(
        wanted,
        (arrivals.c.route == wanted.c.c0)
        & (arrivals.c.epoch == wanted.c.c1)
        & (arrivals.c.period == wanted.c.c2)
        & (arrivals.c.unit == wanted.c.c3),
    )
