"""The lease: which node joins, plans and acts.

Rule: whoever holds it says so in every transaction that it writes in, with the number it got, and before anything else.
That renews the lease, and locks its row until the commit: nobody else can take it in between. A holder that slept
beyond its expiry, and whose place was taken, has an old number and writes nothing. Only the database's clock counts,
and nothing but a row, so it works on every engine that speaks PostgreSQL's protocol.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, func, literal_column, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import ColumnElement

from gateway.store.schema import sql
from gateway.store.schema.fleet_tables import lease

#: After how long without a word of its holder it can be taken.
LEASE_MS: Final = 10_000

#: The database's clock, in Unix milliseconds; also within a transaction it goes on.
NOW_MS: Final[ColumnElement[int]] = literal_column("CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)")

_NAME: Final = "holder"
_BACKEND: Final = func.pg_backend_pid()
#: A holder's transaction that lasts longer, while its lease has expired, is that of nobody who is awake.
ASLEEP_SECONDS: Final = LEASE_MS * 0.8 / 1000
_FREE_LOCKS: Final = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN lease ON pid = backend "
    "WHERE expires_ms < CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AND usename = current_user "
    "AND pid <> pg_backend_pid() AND xact_start < clock_timestamp() - make_interval(secs => :seconds)"
)
_FREE: Final = or_(lease.c.holder == bindparam("b_holder"), lease.c.expires_ms < NOW_MS)
_TAKE: Final = (
    update(lease)
    .where(lease.c.name == _NAME, _FREE)
    .values(holder=bindparam("b_holder"), fencing=lease.c.fencing + 1, expires_ms=NOW_MS + LEASE_MS, backend=_BACKEND)
    .returning(lease.c.fencing)
)
_FENCE: Final = (
    update(lease)
    .where(lease.c.name == _NAME, lease.c.fencing == bindparam("b_fencing"))
    .values(expires_ms=NOW_MS + LEASE_MS, backend=_BACKEND)
)
_RELEASE: Final = (
    update(lease).where(lease.c.name == _NAME, lease.c.fencing == bindparam("b_fencing")).values(expires_ms=0)
)
_READ: Final = select(lease.c.holder, lease.c.fencing, lease.c.expires_ms - NOW_MS).where(lease.c.name == _NAME)


class LeaseLost(Exception):
    """Another node holds the lease: what was to be written is its to write."""


class Lease(NamedTuple):
    """The lease as it is: who holds it, for how long yet (negative: it has expired)."""

    holder: str
    fencing: int
    left_ms: int


async def read(connection: AsyncConnection) -> Lease:
    """Return the lease. A look locks nothing, so nobody who only looks waits for the holder's transaction."""
    found = (await connection.execute(_READ)).first()
    return Lease("", 0, -1) if found is None else Lease(*found)


async def take(connection: AsyncConnection, holder: str) -> int | None:
    """Take the lease if it has expired or was this node's in another life; return its fencing number."""
    await sql.ensure(connection, lease, [(_NAME, "", 0, 0, 0)])
    found: Any = (await connection.execute(_TAKE, {"b_holder": holder})).scalar()
    return None if found is None else int(found)


async def free_locks(connection: AsyncConnection) -> None:
    """End the transaction of a holder that fell asleep in the middle of it: its locks would outlast its lease.

    The server ends one that waits for its next statement by itself, but not one in the middle of a COPY.
    """
    await connection.execute(_FREE_LOCKS, {"seconds": ASLEEP_SECONDS})


async def fence(connection: AsyncConnection, fencing: int) -> None:
    """Let the transaction go on only if this number is the newest: then until the commit it stays so.

    Raises LeaseLost.
    """
    if (await connection.execute(_FENCE, {"b_fencing": fencing})).rowcount != 1:
        raise LeaseLost("another node has taken the lease")


async def release(connection: AsyncConnection, fencing: int) -> None:
    """Let others take the lease at once, if it is still ours."""
    await connection.execute(_RELEASE, {"b_fencing": fencing})
