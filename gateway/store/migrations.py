"""Bring a database to the schema this program speaks.

Rule: a new database gets today's tables at once; an older one walks up the numbered steps, one transaction for all; a
newer one is refused, because what a newer program meant cannot be guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.tables import metadata, schema_version

VERSION: Final = 1

#: Version → the statements that lead to it from the one before. Steps are never edited once released.
STEPS: Final[Mapping[int, Sequence[str]]] = {}


class NewerSchema(Exception):
    """The database was written by a newer program."""


async def migrate(connection: AsyncConnection) -> None:
    """Create or upgrade the tables. Raises NewerSchema and touches nothing if the database is ahead of this program."""
    found = await connection.run_sync(lambda sync: inspect(sync).has_table(schema_version.name))
    if not found:
        await connection.run_sync(metadata.create_all)
        await connection.execute(schema_version.insert(), {"version": VERSION})
        return
    version = (await connection.execute(select(schema_version.c.version))).scalar_one()
    if version > VERSION:
        raise NewerSchema(f"the database has schema version {version}; this program knows versions up to {VERSION}")
    for step in range(version + 1, VERSION + 1):
        for statement in STEPS[step]:
            await connection.execute(text(statement))
    await connection.execute(schema_version.update(), {"version": VERSION})
