"""Where each thing stands that moves by itself or by hand: routes, overrides, triggers, filled slots.

Rule: the newest body alone, as its writer made it; how it came to be is in the events that the same transaction writes.
Whoever writes one begins with ``Store.change``, so that in a fleet only the holder of the lease does; an override is
any node's to write, and is locked first (``lock_standings``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, NamedTuple

import orjson
from sqlalchemy import bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema import sql
from gateway.store.schema.count_tables import standings

#: What a standing can be of; an "ask" is an act that waits for the holder of the lease. Names are unique within a kind;
#: routes and triggers are named as in the file.
Kind = Literal["route", "override", "trigger", "slot", "ask"]


class Stood(NamedTuple):
    """What is stored of one name: plain JSON values, and when they were written."""

    body: dict[str, Any]
    at_ms: int


async def read_standings(connection: AsyncConnection, kind: Kind) -> dict[str, Stood]:
    """Return everything of a kind by name, in the order of names."""
    rows = await connection.execute(_OF_KIND, {"kind": kind})
    return {name: Stood(orjson.loads(body), at_ms) for name, body, at_ms in rows}


async def read_standing(connection: AsyncConnection, kind: Kind, name: str) -> Stood | None:
    """Return what is stored of one name; None if nothing ever was."""
    row = (await connection.execute(_ONE, {"kind": kind, "name": name})).first()
    return None if row is None else Stood(orjson.loads(row.body), row.at_ms)


async def lock_standings(connection: AsyncConnection, kind: Kind, names: Collection[str]) -> None:
    """Keep others from writing these until the transaction ends; one that nothing is stored of gets an empty body."""
    await sql.ensure(connection, standings, [(kind, name, "{}", 0) for name in sorted(names)])
    for name in sorted(names):  # always in this order: two that lock the same never wait for each other
        await connection.execute(_ONE.with_for_update(), {"kind": kind, "name": name})


async def write_standings(
    connection: AsyncConnection, kind: Kind, bodies: Mapping[str, Mapping[str, Any]], at_ms: int
) -> None:
    """Store these bodies, each instead of the one before."""
    rows = [(kind, name, orjson.dumps(body).decode(), at_ms) for name, body in bodies.items()]
    await sql.upsert(connection, standings, rows)


async def forget_standings(connection: AsyncConnection, kind: Kind, names: Collection[str]) -> None:
    """Delete what is stored of these names."""
    if names:
        await connection.execute(_FORGET, [{"b_kind": kind, "b_name": name} for name in names])


_OF_KIND: Final = (
    select(standings.c.name, standings.c.body, standings.c.at_ms)
    .where(standings.c.kind == bindparam("kind"))
    .order_by(standings.c.name)
)
_ONE: Final = select(standings.c.body, standings.c.at_ms).where(
    standings.c.kind == bindparam("kind"), standings.c.name == bindparam("name")
)
_FORGET: Final = delete(standings).where(
    standings.c.kind == bindparam("b_kind"), standings.c.name == bindparam("b_name")
)
