"""A database as the first program made it (commit 30d391e) is migrated to the tables that a new one has."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
from sqlalchemy import Connection, inspect

from gateway.store import Store
from gateway.store.schema import migrations
from gateway.store.schema.migrations import Migrated
from gateway.store.store import FILE


def made_by_the_first_program(where: str, path: Path) -> None:
    dialect = "sqlite" if where == "sqlite" else "postgresql"
    statements = (Path(__file__).parent / f"version_1.{dialect}.sql").read_text()
    statements += "INSERT INTO schema_version VALUES (1);"
    if where == "sqlite":
        with closing(sqlite3.connect(path / FILE)) as connection:
            connection.executescript(statements)
    else:
        with psycopg.connect(where, autocommit=True) as server:
            server.execute(statements.encode())


def schema(connection: Connection) -> dict[str, tuple[object, ...]]:
    """Columns with their types, keys and indexes, by table; without views and partitions of days."""
    found = inspect(connection)
    return {
        table: (
            {(column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(table)},
            tuple(found.get_pk_constraint(table)["constrained_columns"]),
            {(index["name"], *map(str, index["column_names"])) for index in found.get_indexes(table)},
        )
        for table in found.get_table_names()
        if not table.startswith("calls_")
    }


def opened(where: str, path: Path) -> tuple[Migrated, dict[str, tuple[object, ...]]]:
    async def run() -> tuple[Migrated, dict[str, tuple[object, ...]]]:
        store = await Store.open(where, path)
        try:
            async with store.begin() as connection:
                return store.migrated, await connection.run_sync(schema)
        finally:
            await store.close()

    return asyncio.run(run())


def test_it_is_migrated_to_the_tables_of_a_new_one(tmp_path: Path, store: str, new_store: Callable[[], str]) -> None:
    (tmp_path / "new").mkdir()
    made_by_the_first_program(store, tmp_path)
    migrated, found = opened(store, tmp_path)
    assert migrated == Migrated(1, migrations.VERSION)
    assert found == opened(new_store(), tmp_path / "new")[1]
