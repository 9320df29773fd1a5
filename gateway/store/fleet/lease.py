"""The lease: which node joins, plans and acts.

Rule: the holder begins every transaction that writes by updating the lease's row with its fencing number. That renews
the lease, and locks the row until the commit, so no other node can take the lease in between. A holder that was
suspended past the expiry, and was replaced, has an old number, and its transaction fails. Only the database's clock is
used, and only one row, so this works on every engine that speaks PostgreSQL's protocol.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, func, literal_column, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import ColumnElement

from gateway.store.schema import sql
from gateway.store.schema.fleet_tables import lease

#: How long a lease lasts that its holder does not renew; then another node can take it.
LEASE_MS: Final = 10_000

#: The database's clock, in Unix milliseconds; it advances within a transaction too.
NOW_MS: Final[ColumnElement[int]] = literal_column("CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)")

_NAME: Final = "holder"
_BACKEND: Final = func.pg_backend_pid()
#: If a holder's lease has expired and its transaction is older than this, the holder is taken to be suspended.
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
    """Another node holds the lease, so this one may not write."""


class Lease(NamedTuple):
    """The holder of the lease, its fencing number, and the time left (negative: it has expired)."""

    holder: str
    fencing: int
    left_ms: int


async def read(connection: AsyncConnection) -> Lease:
    """Return the lease. Reading takes no lock, so it does not wait for the holder's transaction."""
    found = (await connection.execute(_READ)).first()
    return Lease("", 0, -1) if found is None else Lease(*found)


async def take(connection: AsyncConnection, holder: str) -> int | None:
    """Take the lease if it has expired or was this node's in another life; return its fencing number."""
    await sql.ensure(connection, lease, [(_NAME, "", 0, 0, 0)])
    found: Any = (await connection.execute(_TAKE, {"b_holder": holder})).scalar()
    return None if found is None else int(found)


async def free_locks(connection: AsyncConnection) -> None:
    """End the transaction of a suspended holder, whose locks would otherwise outlast its lease.

    The server itself ends a transaction that is idle between statements, but not one in the middle of a COPY.
    """
    await connection.execute(_FREE_LOCKS, {"seconds": ASLEEP_SECONDS})


async def fence(connection: AsyncConnection, fencing: int) -> None:
    """Raise LeaseLost unless this number is the newest, and keep it the newest until the commit."""
    if (await connection.execute(_FENCE, {"b_fencing": fencing})).rowcount != 1:
        raise LeaseLost("another node has taken the lease")


async def release(connection: AsyncConnection, fencing: int) -> None:
    """Give up the lease, if this node still holds it, so that others can take it at once."""
    await connection.execute(_RELEASE, {"b_fencing": fencing})
