"""The assignment key of a fleet: the newest is in use, and every node reads it from here.

Rule: a number never changes its key. Offering another key under a number returns the key that is stored.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema import sql
from gateway.store.schema.count_tables import epochs
from gateway.store.schema.fleet_tables import assignment_keys


class StoredKey(NamedTuple):
    """A key in the store. Rotating stores the next number."""

    number: int
    secret: str


async def newest(connection: AsyncConnection) -> StoredKey | None:
    """Return the key in use, None where the fleet has none."""
    query = (
        select(assignment_keys.c.number, assignment_keys.c.secret).order_by(assignment_keys.c.number.desc()).limit(1)
    )
    found = (await connection.execute(query)).first()
    return None if found is None else StoredKey(*found)


async def offer(connection: AsyncConnection, number: int, secret: str, now_ms: int) -> StoredKey | None:
    """Store a key under a number unless it is given already, and return the one in use."""
    await sql.ensure(connection, assignment_keys, [(number, secret, now_ms)])
    return await newest(connection)


async def assigned_before(connection: AsyncConnection) -> bool:
    """Return whether the store has an epoch, so that units were assigned already."""
    return (await connection.execute(select(epochs.c.route).limit(1))).first() is not None
