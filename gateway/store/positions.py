"""How far the journal has been read, by segment and by writer; and the watermark that follows from it.

Rule: written in the same transaction as what was read, so that reading on after any interruption repeats nothing and
skips nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import Text, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store import sql
from gateway.store.tables import journal_numbers, numbers, offsets, writers
from gateway.store.tallies import number
from gateway.store.watermark import Writer, Writers

_WATERMARK = "watermark_ms"


async def read_offsets(connection: AsyncConnection) -> dict[str, int]:
    """Return how far each segment is drained, in bytes, by folder and file name."""
    return {str(segment): int(offset) for segment, offset in await connection.execute(select(offsets))}


async def write_offsets(connection: AsyncConnection, drained: Mapping[str, int]) -> None:
    await sql.upsert(connection, offsets, list(drained.items()))


async def forget_offsets(connection: AsyncConnection, segments: Collection[str]) -> None:
    """Forget segments whose files are gone."""
    if segments:
        query = delete(offsets).where(offsets.c.segment.in_(sql.among(connection.dialect.name, Text())))
        await connection.execute(query, sql.as_values(segments))


async def read_numbers(connection: AsyncConnection) -> dict[str, int]:
    """Return the number of the line that comes next, by folder and writer."""
    return {str(chain): int(number) for chain, number in await connection.execute(select(journal_numbers))}


async def write_numbers(connection: AsyncConnection, following: Mapping[str, int]) -> None:
    await sql.upsert(connection, journal_numbers, list(following.items()))


async def forget_numbers(connection: AsyncConnection, silent: Collection[str]) -> None:
    """Forget writers whose files are gone."""
    if silent:
        query = delete(journal_numbers).where(journal_numbers.c.chain.in_(sql.among(connection.dialect.name, Text())))
        await connection.execute(query, sql.as_values(silent))


async def read_writers(connection: AsyncConnection) -> Writers:
    """Return every writer's last mark, and the watermark."""
    known = {name: Writer(*rest) for name, *rest in await connection.execute(select(writers))}
    return Writers(known, await number(connection, _WATERMARK))


async def forget_writers(connection: AsyncConnection, run: str) -> None:
    """Forget writers of runs before ``run`` that are gone: they hold nothing back, and names sort by age."""
    await connection.execute(delete(writers).where(writers.c.gone, writers.c.writer < bindparam("run")), {"run": run})


async def write_writers(
    connection: AsyncConnection, changed: Iterable[tuple[str, Writer]], watermark_ms: int | None
) -> None:
    """Write the writers that changed, and the watermark."""
    await sql.upsert(connection, writers, [(name, w.mark_ms, w.bye, w.gone) for name, w in changed])
    if watermark_ms is not None:
        await sql.upsert(connection, numbers, [(_WATERMARK, watermark_ms)])
