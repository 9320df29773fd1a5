"""PostgreSQL keeps calls in a partition for each day: old days are dropped as a table, not deleted row by row.

Rule: a day's partition exists before its first row. It is created as a table and then attached, which neither waits
for readers nor blocks them. Dropping one has to wait for readers, and gives up soon. Nothing here is called for SQLite.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema.row_tables import calls

DAY_MS: Final = 86_400_000

#: How many days ahead of the last one partitions are made.
AHEAD: Final = 2

_EPOCH: Final = date(1970, 1, 1)
_PREFIX: Final = f"{calls.name}_"

#: A lock held until the transaction ends: of two transactions that made the same partition, one would fail. The number
#: is "days" in ASCII.
_TURN: Final = text(f"SELECT pg_advisory_xact_lock({int.from_bytes(b'days', 'big')})")
_PRESENT: Final = text(
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = 'calls'::regclass ORDER BY c.relname"
)


def day_of(at_ms: int) -> int:
    """Return the day, counted from 1970, of a time."""
    return at_ms // DAY_MS


def name_of(day: int) -> str:
    """Return the name of a day's partition. Raises OverflowError for days beyond the calendar."""
    return f"{_PREFIX}{_EPOCH + timedelta(days=day):%Y%m%d}"


async def present(connection: AsyncConnection) -> set[int]:
    """Return the days that have a partition."""
    names = [name.removeprefix(_PREFIX) for (name,) in await connection.execute(_PRESENT)]
    return {(date.fromisoformat(name) - _EPOCH).days for name in names}


async def ensure(connection: AsyncConnection, days: Collection[int]) -> set[int]:
    """Make the partitions of these days that are missing, and return all days that have one."""
    there = await present(connection)
    if there.issuperset(days):
        return there
    await connection.execute(_TURN)
    there = await present(connection)
    for day in sorted(set(days) - there):
        name, since, until = name_of(day), day * DAY_MS, (day + 1) * DAY_MS
        await connection.execute(
            text(f"CREATE TABLE {name} (LIKE {calls.name} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        )
        await connection.execute(
            text(f"ALTER TABLE {calls.name} ATTACH PARTITION {name} FOR VALUES FROM ({since}) TO ({until})")
        )
    return there.union(days)


async def drop(connection: AsyncConnection, day: int) -> int:
    """Drop the partition of a day, and return how many calls it had. Raises DBAPIError if readers are in the way.

    While it waits, every query of calls waits behind it. So it waits two seconds at most; the caller tries again later.
    """
    name = name_of(day)
    await connection.execute(text("SET LOCAL lock_timeout = '2s'"))
    gone: int = (await connection.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one()  # noqa: S608
    await connection.execute(text(f"DROP TABLE {name}"))
    return gone
