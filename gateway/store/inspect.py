"""The version and size of a database, for operators, also while a controller has it open.

Rule: nothing is written and no lock is taken. SQLite is read over a connection that cannot write, which is harmless
with every version of SQLite.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from gateway.store.schema import migrations
from gateway.store.schema.tables import schema_version
from gateway.store.store import FILE, StoreError, postgresql_engine, reason

#: A server that accepts no connection for this long cannot be reached.
CONNECT_SECONDS: Final = 5

_VERSION: Final = f"SELECT version FROM {schema_version.name}"  # noqa: S608
_PARTITIONS: Final = """
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass('calls') ORDER BY c.relname
"""
_SIZE: Final = """
    SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relkind = 'r'
"""


class Inspection(NamedTuple):
    """The version of the tables (None: there are none), their size, and the partitions of the calls, oldest first."""

    version: int | None
    size_bytes: int
    partitions: Sequence[str] = ()

    @property
    def state(self) -> str:
        """ "empty", "behind", "current" or "newer" than the program."""
        if self.version is None:
            return "empty"
        if self.version > migrations.VERSION:
            return "newer"
        return "current" if self.version == migrations.VERSION else "behind"


async def inspect_store(store: str, data_dir: Path, *, password: str | None = None) -> Inspection:
    """Return the state of a store. Raises StoreError if it cannot be reached or read."""
    try:
        if store == "sqlite":
            return await asyncio.to_thread(_sqlite, data_dir / FILE)
        return await _postgresql(store, password)
    except (OSError, SQLAlchemyError, ImportError, sqlite3.Error) as error:
        raise StoreError(f"the store cannot be read: {reason(error)}") from error


async def clock_ahead_seconds(store: str, password: str | None) -> float:
    """Return how far a server's clock is ahead of ours. Raises StoreError if it cannot be asked."""
    engine = postgresql_engine(store, password, connect_seconds=CONNECT_SECONDS)
    try:
        async with engine.connect() as connection:
            asked = time.time()
            theirs = (await connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one()
            return float(theirs) - (asked + time.time()) / 2
    except (OSError, SQLAlchemyError) as error:
        raise StoreError(f"the store cannot be read: {reason(error)}") from error
    finally:
        await engine.dispose()


def _sqlite(path: Path) -> Inspection:
    if not path.exists():
        return Inspection(None, 0)
    size = sum(file.stat().st_size for file in (path, path.with_name(f"{FILE}-wal")) if file.exists())
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (schema_version.name,)).fetchone()
        return Inspection(connection.execute(_VERSION).fetchone()[0] if there else None, size)


async def _postgresql(store: str, password: str | None) -> Inspection:
    engine = postgresql_engine(store, password, connect_seconds=CONNECT_SECONDS)
    try:
        async with engine.connect() as connection:
            version = await migrations.version_of(connection)
            size = (await connection.execute(text(_SIZE))).scalar_one()
            names = [name for (name,) in await connection.execute(text(_PARTITIONS))]
            return Inspection(version, size, names)
    finally:
        await engine.dispose()
