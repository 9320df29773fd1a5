"""What was said of a route's variants, and may not be said again: reported verdicts, the looks of planned tests, and
what was declared of a test, with each change of it.

Rule: a look is written once. What was decided at it stays, whatever is corrected later: a test with a declared maximum
promises its error for exactly the looks that were made. A declaration is written once too: one that was changed when
values were known already promises nothing, also if it is changed back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Select, Table, Text, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts.ledger import Look
from gateway.store.schema import sql
from gateway.store.schema.count_tables import declarations, looks, tallies, verdicts
from router.snapshot import Backend, Route

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
    rows = await connection.execute(query, sql.as_list(places))
    for route, epoch, *tested, _, at_ms, fraction, z, boundary, decided, information, beside in rows:
        of = found[route, epoch]
        key: Any = tuple(tested)
        of[key] = (*of.get(key, ()), Look(at_ms, fraction, z, boundary, bool(decided), information, beside or ""))
    return found


async def write_looks(connection: AsyncConnection, made: Iterable[tuple[Place, Tested, int, Look]]) -> None:
    """Store new looks, each with its number; one that is stored already stays as it is."""
    rows = [
        (
            *place,
            *tested,
            number,
            one.at_ms,
            one.fraction,
            one.z,
            one.boundary,
            int(one.decided),
            one.information,
            one.beside,
        )
        for place, tested, number, one in made
    ]
    await sql.ensure(connection, looks, rows)


async def note_declared(
    connection: AsyncConnection, routes: Iterable[Route], backends: Mapping[str, Backend], now_ms: int
) -> list[str]:
    """Store each test that is declared otherwise than it was in the route's epoch, or of other versions.

    Returns the routes whose declaration comes late: something was known of their variants, in their present versions.
    A first declaration may come late as well. What was late stays so until there are versions of which nothing is
    known.
    """
    chosen = {(route.name, route.epoch): route for route in routes}
    newest: dict[Place, tuple[Any, bool]] = dict.fromkeys(chosen, ({"test": None, "versions": {}}, False))
    query = _here(connection.dialect.name, declarations).order_by(declarations.c.at_ms)
    for route, epoch, _, body, late in await connection.execute(query, sql.as_list(chosen)):
        newest[route, epoch] = orjson.loads(body), bool(late)
    turned = []
    for place, route in chosen.items():
        before, was_late = newest[place]
        versions = {name: backends[name].version for name in route.variants if name in backends}
        said = orjson.loads(orjson.dumps({"test": route.test, "versions": versions}))
        switched = said["test"] != before["test"]
        if said == before or not (switched or before["versions"]):
            continue
        others = [(name, version) for name, version in versions.items() if name != route.baseline]
        known = (switched or was_late) and await _known(connection, place, others)
        await sql.upsert(connection, declarations, [(*place, now_ms, orjson.dumps(said).decode(), int(known))])
        turned += [route.name] if known and switched else []
    return turned


async def read_late(connection: AsyncConnection, places: Collection[Place]) -> dict[Place, int]:
    """Return when each of these tests was declared otherwise after something was known; most never were."""
    found: dict[Place, int] = {}
    query = _here(connection.dialect.name, declarations).order_by(declarations.c.at_ms)
    for route, epoch, at_ms, _, late in await connection.execute(query, sql.as_list(places)):
        if late:
            found[route, epoch] = at_ms
        else:
            found.pop((route, epoch), None)
    return found


async def _known(connection: AsyncConnection, place: Place, variants: Iterable[tuple[str, str]]) -> bool:
    """Return whether any of these versions of variants has a mature value."""
    for variant, version in variants:
        of = {"route": place[0], "epoch": place[1], "variant": variant, "version": version}
        if (await connection.execute(_KNOWN, of)).first() is not None:
            return True
    return False


_KNOWN: Final = (
    select(tallies.c.id)
    .where(
        *(tallies.c[name] == bindparam(name) for name in ("route", "epoch", "variant", "version")),
        tallies.c.phase == "mature",
        tallies.c.n > 0,
    )
    .limit(1)
)


@cache
def _here(dialect: str, table: Table) -> Select[Any]:
    wanted = sql.listed(dialect, Text(), Text())
    return select(table).join(wanted, (table.c.route == wanted.c.c0) & (table.c.epoch == wanted.c.c1))


__all__: Final = [
    "Reported",
    "note_declared",
    "read_late",
    "read_looks",
    "read_reported",
    "write_looks",
    "write_reported",
]
