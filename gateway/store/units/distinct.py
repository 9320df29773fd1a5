"""How many units differ: a unit that has values in several periods of one tally is one unit.

Rule: a unit is counted in the first period in which it has values, so that over the periods of a variant, version and
metric ``Tally.distinct`` adds up to the number of different units, after any sequence of corrections.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from sqlalchemy import BigInteger, Select, Text, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema import sql
from gateway.store.schema.count_tables import units

_NEVER: Final = 2**63


@dataclass(slots=True)
class Flips:
    """What one transaction changes of a tally that has several periods, whose numbers are ``numbers``.

    ``units`` says of each unit and period: True, it has values and had none; False, it has none any more.
    """

    numbers: Mapping[int, int]
    units: defaultdict[str, dict[int, bool]] = field(default_factory=lambda: defaultdict(dict))

    def others(self, unit: str, low: int, high: int) -> tuple[int, ...]:
        """Return the numbers of the periods in [low, high) in which nothing flips for this unit, in order."""
        flipped = self.units[unit]
        return tuple(self.numbers[one] for one in sorted(self.numbers) if low <= one < high and one not in flipped)


async def repeats(connection: AsyncConnection, flips: Sequence[Flips]) -> list[Counter[int]]:
    """Return, by period of each tally, by how many more units ``distinct`` changes than ``n`` does.

    Asked before the units' rows are written. Where a unit is counted depends on the first period in which it had values
    or has some: on nothing that comes later, if it has values in an earlier one.
    """
    spans = [{unit: _span(flipped) for unit, flipped in one.units.items()} for one in flips]
    before, between = (defaultdict[tuple[int, ...], set[str]](set) for _ in range(2))
    for one, span in zip(flips, spans, strict=True):
        for unit, (low, _) in span.items():
            before[one.others(unit, 0, low)].add(unit)
    earlier = {among: await _present(connection, among, names) for among, names in before.items()}
    moving = [
        {unit: at for unit, at in span.items() if unit not in earlier[one.others(unit, 0, at[0])]}
        for one, span in zip(flips, spans, strict=True)
    ]
    for one, span in zip(flips, moving, strict=True):
        for unit, (low, high) in span.items():
            between[one.others(unit, low, high)].add(unit)
    later = {among: await _firsts(connection, among, names) for among, names in between.items()}
    found = []
    for one, span in zip(flips, moving, strict=True):
        more = Counter[int]()
        for flipped in one.units.values():
            for period, appears in flipped.items():
                more[period] -= 1 if appears else -1
        periods = {number: period for period, number in one.numbers.items()}
        for unit, (low, high) in span.items():
            sign = 1 if one.units[unit][low] else -1
            more[low] += sign
            next_number = later[one.others(unit, low, high)].get(unit)
            instead = high if next_number is None else periods[next_number]
            if instead != _NEVER:
                more[instead] -= sign
        found.append(more)
    return found


def _span(flipped: Mapping[int, bool]) -> tuple[int, int]:
    """Return the first period in which a unit had values and has none, and the first the other way round, in order."""
    had = min((period for period, appears in flipped.items() if not appears), default=_NEVER)
    has = min((period for period, appears in flipped.items() if appears), default=_NEVER)
    return min(had, has), max(had, has)


async def _present(connection: AsyncConnection, among: Sequence[int], names: Collection[str]) -> set[str]:
    """Return which units have values in any of these tallies."""
    found = await _ask(connection, _in_any(connection.dialect.name), among, names)
    return {row[0] for row in found}


async def _firsts(connection: AsyncConnection, among: Sequence[int], names: Collection[str]) -> dict[str, int]:
    """Return the first of these tallies in which each unit has values, if it has any in one."""
    found: dict[str, int] = {}
    places = {number: place for place, number in enumerate(among)}
    for unit, number in await _ask(connection, _in_each(connection.dialect.name), among, names):
        found[unit] = min(number, found.get(unit, number), key=places.__getitem__)
    return found


async def _ask(
    connection: AsyncConnection, query: Select[Any], among: Sequence[int], names: Collection[str]
) -> Sequence[Any]:
    if not among:
        return ()
    return await sql.rows(connection, query, sql.as_list([(name,) for name in names]) | sql.as_values(among, "among"))


@cache
def _in_any(dialect: str) -> Select[Any]:
    wanted = sql.listed(dialect, Text())
    inside = units.c.tally.in_(sql.among(dialect, BigInteger(), "among"))
    found = select(units.c.tally).where(inside, units.c.unit == wanted.c.c0, units.c.d != 0)
    return select(wanted.c.c0).where(found.exists())


@cache
def _in_each(dialect: str) -> Select[Any]:
    wanted = sql.listed(dialect, Text())
    inside = units.c.tally.in_(sql.among(dialect, BigInteger(), "among"))
    return select(units.c.unit, units.c.tally).join(wanted, units.c.unit == wanted.c.c0).where(inside, units.c.d != 0)
