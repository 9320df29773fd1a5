"""What was said of a route's variants, and may not be said again: reported verdicts, and the looks of planned tests.

Rule: a look is written once. What was decided at it stays, whatever is corrected later: a test with a declared maximum
promises its error for exactly the looks that were made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, Table, Text, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts.ledger import Look
from gateway.store.schema import sql
from gateway.store.schema.count_tables import looks, verdicts

#: A route and an epoch.
Place = tuple[str, str]
#: A metric, its definition, a variant and its version.
Tested = tuple[str, str, str, str]


class Reported(NamedTuple):
    """The status of a variant's comparison that was last reported, and when."""

    status: str
    at_ms: int


async def read_reported(connection: AsyncConnection, places: Collection[Place]) -> dict[Place, dict[str, Reported]]:
    """Return by variant what was last reported of these routes and epochs."""
    found: dict[Place, dict[str, Reported]] = {place: {} for place in places}
    query = _here(connection.dialect.name, verdicts)
    for route, epoch, variant, status, at_ms in await connection.execute(query, sql.as_list(places)):
        found[route, epoch][variant] = Reported(status, at_ms)
    return found


async def write_reported(connection: AsyncConnection, said: Mapping[tuple[str, str, str], Reported]) -> None:
    """Store what is reported now, by route, epoch and variant."""
    await sql.upsert(connection, verdicts, [(*place, *one) for place, one in said.items()])


async def read_looks(
    connection: AsyncConnection, places: Collection[Place]
) -> dict[Place, dict[Tested, tuple[Look, ...]]]:
    """Return the looks of these routes and epochs, each test's in order."""
    found: dict[Place, dict[Tested, tuple[Look, ...]]] = {place: {} for place in places}
    query = _here(connection.dialect.name, looks).order_by(looks.c.number)
    for route, epoch, *tested, _, at_ms, fraction, z, boundary, decided in await connection.execute(
        query, sql.as_list(places)
    ):
        of = found[route, epoch]
        key: Any = tuple(tested)
        of[key] = (*of.get(key, ()), Look(at_ms, fraction, z, boundary, bool(decided)))
    return found


async def write_looks(connection: AsyncConnection, made: Iterable[tuple[Place, Tested, int, Look]]) -> None:
    """Store new looks, each with its number; one that is stored already stays as it is."""
    rows = [
        (*place, *tested, number, one.at_ms, one.fraction, one.z, one.boundary, int(one.decided))
        for place, tested, number, one in made
    ]
    await sql.ensure(connection, looks, rows)


@cache
def _here(dialect: str, table: Table) -> Select[Any]:
    wanted = sql.listed(dialect, Text(), Text())
    return select(table).join(wanted, (table.c.route == wanted.c.c0) & (table.c.epoch == wanted.c.c1))


__all__: Final = ["Reported", "read_looks", "read_reported", "write_looks", "write_reported"]
