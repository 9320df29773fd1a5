"""Journal lines that nodes have shipped and the holder of the lease has yet to record.

Rule: lines are stored as they are in the journal, those of one writer in its order. A node adds them and moves its
offsets in one transaction; the holder deletes them and writes their rows in one: so each line is recorded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Select, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema import sql
from gateway.store.schema.fleet_tables import intake

#: How many bytes of one node may wait here; further lines wait in its journal, whose bound the operator sets.
MOST_BYTES: Final = 64 * 2**20

_HEADS: Final = select(intake.c.seq, intake.c.n).order_by(intake.c.seq).limit(500)
_WAITING: Final = select(intake.c.node, func.sum(intake.c.bytes)).group_by(intake.c.node)
_MARK: Final = update(intake).where(intake.c.seq == bindparam("b_seq")).values(taken=bindparam("b_taken"))


class Chunk(NamedTuple):
    """Some lines of one writer, the first ``taken`` bytes of which are recorded."""

    seq: int
    node: str
    writer: str
    taken: int
    content: bytes

    def lines(self, limit: int) -> list[bytes]:
        """Return the first lines that are not recorded."""
        return self.content[self.taken :].split(b"\n")[:-1][:limit]


async def add(connection: AsyncConnection, node: str, parts: Iterable[tuple[str, Sequence[bytes]]]) -> None:
    """Add lines, newlines left out, by writer."""
    rows = []
    for writer, lines in parts:
        content = b"\n".join(lines) + b"\n"
        rows.append((node, writer, len(lines), len(content), 0, content))
    await sql.insert(connection, intake, rows)


async def waiting_bytes(connection: AsyncConnection) -> Mapping[str, int]:
    """Return how many bytes of each node wait."""
    return {node: int(size) for node, size in await connection.execute(_WAITING)}


async def newest(connection: AsyncConnection) -> int:
    """Return the number of the newest chunk, 0 if there is none."""
    return (await connection.execute(select(func.max(intake.c.seq)))).scalar() or 0


async def first(connection: AsyncConnection, limit: int) -> list[Chunk]:
    """Return the oldest chunks, of about ``limit`` lines together, and at least one if there is any."""
    wanted: list[int] = []
    n = 0
    for seq, lines in await connection.execute(_HEADS):
        if wanted and n + lines > limit:
            break
        wanted.append(seq)
        n += lines
    if not wanted:
        return []
    columns = (intake.c.seq, intake.c.node, intake.c.writer, intake.c.taken, intake.c.lines)
    query = select(*columns).where(intake.c.seq.in_(_listed(connection))).order_by(intake.c.seq)
    return [Chunk(*row) for row in await connection.execute(query, sql.as_values(wanted))]


async def mark_recorded(connection: AsyncConnection, taken: Mapping[int, int | None]) -> None:
    """Write down up to which byte each chunk is recorded (None: to its end, so that it is deleted)."""
    done = [seq for seq, until in taken.items() if until is None]
    if done:
        await connection.execute(delete(intake).where(intake.c.seq.in_(_listed(connection))), sql.as_values(done))
    rest = [{"b_seq": seq, "b_taken": until} for seq, until in taken.items() if until is not None]
    if rest:
        await connection.execute(_MARK, rest)


def _listed(connection: AsyncConnection) -> Select[Any]:
    return sql.among(connection.dialect.name, BigInteger())
