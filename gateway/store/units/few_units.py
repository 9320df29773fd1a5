"""Every unit's sum and count, where there are so few that a statistic may look at each.

Rule: the units of one variant, version and metric, periods pooled, all of them or none; in an order by hash, so that it
depends neither on their values nor on when they came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from math import fsum
from typing import Any, Final, TypeVar

from sqlalchemy import BigInteger, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema import sql
from gateway.store.schema.count_tables import units
from gateway.store.units.unit_buckets import hash_of
from policies.types import Tally

#: There are fewer different units than this; and so many rows of them, over all periods, are read at most.
FEW: Final = 200
MOST_ROWS: Final = 4_000

Place = TypeVar("Place", bound=Hashable)


async def read(
    connection: AsyncConnection, groups: Mapping[Place, Mapping[int, Tally]]
) -> dict[Place, tuple[tuple[float, float], ...]]:
    """Return (M, D) of every unit of those groups of tallies, by number, that have few units: one statement for all.

    Left out is a group in which requests without a unit count as units of their own: they have no rows.
    """
    few = {place: of for place, of in groups.items() if _is_few(list(of.values()))}
    numbers = [number for of in few.values() for number in of]
    if not numbers:
        return {}
    rows = defaultdict[int, list[tuple[str, float, float]]](list)
    for number, unit, m, d in await sql.rows(connection, _rows(connection.dialect.name), sql.as_values(numbers)):
        rows[number].append((unit, m, d))
    return {
        place: _pooled([row for number in of for row in rows[number]])
        for place, of in few.items()
        if all(len(rows[number]) == tally.n for number, tally in of.items())
    }


def _is_few(of: Sequence[Tally]) -> bool:
    return 0 < sum(tally.distinct for tally in of) < FEW and sum(tally.n for tally in of) <= MOST_ROWS


def _pooled(rows: Sequence[tuple[str, float, float]]) -> tuple[tuple[float, float], ...]:
    sums = defaultdict[str, list[tuple[float, float]]](list)
    for unit, m, d in rows:
        sums[unit].append((m, d))
    each = sorted((hash_of(unit), unit) for unit in sums)
    return tuple((fsum(m for m, _ in sums[unit]), fsum(d for _, d in sums[unit])) for _, unit in each)


@cache
def _rows(dialect: str) -> Select[Any]:
    among = sql.among(dialect, BigInteger())
    return select(units.c.tally, units.c.unit, units.c.m, units.c.d).where(units.c.tally.in_(among), units.c.d != 0)
