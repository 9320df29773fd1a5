"""How far the journal has been read, by segment and by writer; and the watermark that follows from it.

Rule: written in the same transaction as what was read, so that reading on after any interruption repeats nothing and
skips nothing. Where there are several nodes, ``prefix`` is the node's name and "/", which distinguishes their journals.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import Text, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts.tallies import number
from gateway.store.counts.watermark import Writer, Writers
from gateway.store.schema import sql
from gateway.store.schema.fleet_tables import intake, journal_numbers, numbers, offsets, writers

_WATERMARK = "watermark_ms"


async def read_offsets(connection: AsyncConnection, prefix: str = "") -> dict[str, int]:
    """Return how far each segment is drained, in bytes, by folder and file name."""
    query = select(offsets).where(offsets.c.segment.startswith(prefix, autoescape=True))
    return {str(segment)[len(prefix) :]: int(offset) for segment, offset in await connection.execute(query)}


async def write_offsets(connection: AsyncConnection, drained: Mapping[str, int], prefix: str = "") -> None:
    await sql.upsert(connection, offsets, [(f"{prefix}{name}", offset) for name, offset in drained.items()])


async def forget_offsets(connection: AsyncConnection, segments: Collection[str], prefix: str = "") -> None:
    """Forget segments whose files are gone."""
    if segments:
        query = delete(offsets).where(offsets.c.segment.in_(sql.among(connection.dialect.name, Text())))
        await connection.execute(query, sql.as_values([f"{prefix}{name}" for name in segments]))


async def read_numbers(connection: AsyncConnection, prefix: str = "") -> dict[str, int]:
    """Return the number of the line that comes next, by folder and writer."""
    query = select(journal_numbers).where(journal_numbers.c.chain.startswith(prefix, autoescape=True))
    return {str(chain)[len(prefix) :]: int(number) for chain, number in await connection.execute(query)}


async def write_numbers(connection: AsyncConnection, following: Mapping[str, int], prefix: str = "") -> None:
    await sql.upsert(connection, journal_numbers, [(f"{prefix}{chain}", number) for chain, number in following.items()])


async def forget_numbers(connection: AsyncConnection, silent: Collection[str], prefix: str = "") -> None:
    """Forget writers whose files are gone."""
    if silent:
        query = delete(journal_numbers).where(journal_numbers.c.chain.in_(sql.among(connection.dialect.name, Text())))
        await connection.execute(query, sql.as_values([f"{prefix}{chain}" for chain in silent]))


async def read_writers(connection: AsyncConnection) -> Writers:
    """Return every writer's last mark, and the watermark."""
    known = {name: Writer(*rest) for name, *rest in await connection.execute(select(writers))}
    return Writers(known, await number(connection, _WATERMARK))


async def forget_writers(connection: AsyncConnection, run: str, prefix: str = "") -> None:
    """Forget writers of runs before ``run`` that are gone: they do not hold the watermark back. Names sort by age."""
    own = writers.c.writer.startswith(prefix, autoescape=True)
    query = delete(writers).where(writers.c.gone, own, writers.c.writer < bindparam("run"))
    await connection.execute(query, {"run": f"{prefix}{run}"})


async def forget_writers_elsewhere(connection: AsyncConnection, prefix: str) -> None:
    """Forget writers of other nodes that are gone: nothing is shipped of them any more."""
    elsewhere = ~writers.c.writer.startswith(prefix, autoescape=True)
    await connection.execute(delete(writers).where(writers.c.gone, elsewhere))


async def living(connection: AsyncConnection, prefix: str) -> set[str]:
    """Return the writers of a node that are not gone, or of which shipped lines wait to be recorded."""
    own = select(writers.c.writer).where(writers.c.writer.startswith(prefix, autoescape=True), ~writers.c.gone)
    waiting = select(intake.c.writer).where(intake.c.node == prefix[:-1])
    return {row[0] for row in await connection.execute(own.union(waiting))}


async def write_writers(
    connection: AsyncConnection, changed: Iterable[tuple[str, Writer]], watermark_ms: int | None
) -> None:
    """Write the writers that changed, and the watermark."""
    await sql.upsert(connection, writers, [(name, w.mark_ms, w.bye, w.gone) for name, w in changed])
    if watermark_ms is not None:
        await sql.upsert(connection, numbers, [(_WATERMARK, watermark_ms)])
