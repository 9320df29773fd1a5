"""Reading and changing a store beside a running gateway, for commands on its machine.

Rule: reading takes no lock and changes nothing. Changing a SQLite store needs the lock that a running controller holds,
so there ``Locked`` sends the caller to the admin port; on PostgreSQL it is one more client.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.inspect import CONNECT_SECONDS, inspect_store
from gateway.store.store import FILE, Store, StoreError, postgresql_engine, reason, sqlite_engine


class Locked(StoreError):
    """A running gateway has the SQLite store open."""


@asynccontextmanager
async def reading(store: str, data_dir: Path, password: str | None) -> AsyncIterator[AsyncConnection]:
    """Yield a connection that only reads. Raises StoreError if there are no tables of this program's version."""
    found = await inspect_store(store, data_dir, password=password)
    if found.state != "current":
        raise StoreError(f"the store's tables are {found.state}: turnout db status says more")
    if store == "sqlite":
        engine = sqlite_engine(data_dir / FILE, reading=True)
    else:
        engine = postgresql_engine(store, password, connect_seconds=CONNECT_SECONDS, reading=True)
    try:
        async with engine.connect() as connection:
            yield connection
    except (OSError, SQLAlchemyError, sqlite3.Error) as error:
        raise StoreError(f"the store cannot be read: {reason(error)}") from error
    finally:
        await engine.dispose()


@asynccontextmanager
async def changing(store: str, data_dir: Path, password: str | None) -> AsyncIterator[AsyncConnection]:
    """Yield a connection in a transaction that is committed at the end. Raises Locked, and StoreError."""
    try:
        opened = await Store.open(store, data_dir, password=password)
    except StoreError as error:
        if "another controller" in str(error):
            raise Locked(str(error)) from error
        raise
    try:
        async with opened.begin() as connection:
            yield connection
    except (OSError, SQLAlchemyError, sqlite3.Error) as error:
        raise StoreError(f"the store cannot be changed: {reason(error)}") from error
    finally:
        await opened.close()
