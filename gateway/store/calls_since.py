"""Calls and failures of many routes since a period each: what is looked at every second.

Rule: one statement for all of them, which reads the rows of those periods alone, however long the epoch has lasted.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Select, Text, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts.ledger import CALLS
from gateway.store.schema import sql
from gateway.store.schema.count_tables import tallies

_COLUMNS: Final = ("period", "variant", "version", "role", "n", "positive", "d", "m")


class CallsOf(NamedTuple):
    """The calls of one version of a variant in one role and period: ``n`` units, of which ``positive`` met a failure;
    ``d`` calls, of which ``m`` failed."""

    period: int
    variant: str
    version: str
    role: str
    n: int
    positive: int
    d: float
    m: float


async def calls_since(
    connection: AsyncConnection, places: Collection[tuple[str, str, int]]
) -> dict[str, list[CallsOf]]:
    """Return the calls of these routes, each in an epoch and since a period."""
    found: dict[str, list[CallsOf]] = {route: [] for route, _, _ in places}
    if places:
        for route, *counted in await sql.rows(connection, _since(connection.dialect.name), sql.as_list(places)):
            found[route].append(CallsOf._make(counted))
    return found


@cache
def _since(dialect: str) -> Select[Any]:
    wanted = sql.listed(dialect, Text(), Text(), BigInteger())
    return (
        select(tallies.c.route, *(tallies.c[name] for name in _COLUMNS))
        .join(wanted, (tallies.c.route == wanted.c.c0) & (tallies.c.epoch == wanted.c.c1))
        .where(
            tallies.c.revision == 0,
            tallies.c.period >= wanted.c.c2,
            tallies.c.metric == CALLS,
            tallies.c.phase == "live",
            tallies.c.against == "",
        )
    )
