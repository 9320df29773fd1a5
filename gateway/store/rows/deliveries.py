"""How webhooks were delivered: the last tries, the events that were given up, and receivers that want nothing any more.

Rule: everything here is bounded. An event that is given up leaves the outbox in the transaction that lists it, so the
counts of all results still add up; of more than ``MOST_DEAD`` of a sink the oldest is dropped, and counted as that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.rows import outbox
from gateway.store.rows.outbox import Counts, Made, OutboxBatch
from gateway.store.schema import sql
from gateway.store.schema.row_tables import dead_letters, deliveries, disabled_sinks, sink_counts

#: How many tries are kept of a sink, and how many events that were given up.
MOST_TRIES: Final = 200
MOST_DEAD: Final = 1_000

_TRIES: Final = select(deliveries).where(deliveries.c.sink == bindparam("sink")).order_by(deliveries.c.seq.desc())
_DEAD: Final = select(dead_letters).where(dead_letters.c.sink == bindparam("sink")).order_by(dead_letters.c.seq)


class Try(NamedTuple):
    """One request to deliver an event: what was answered, or why nothing was."""

    at_ms: int
    event: str
    status: int | None
    took_ms: int
    why: str | None


class Disabled(NamedTuple):
    """Since when a sink is disabled, and why."""

    at_ms: int
    why: str


async def note(connection: AsyncConnection, sink: str, one: Try) -> None:
    """Keep a try, and forget the oldest beyond ``MOST_TRIES``."""
    await connection.execute(insert(deliveries), {"sink": sink, **one._asdict()})
    mine = deliveries.c.sink == sink
    last = select(deliveries.c.seq).where(mine).order_by(deliveries.c.seq.desc()).offset(MOST_TRIES).limit(1)
    await connection.execute(delete(deliveries).where(mine, deliveries.c.seq <= last.scalar_subquery()))


async def tries(connection: AsyncConnection, sink: str) -> list[Try]:
    """Return the last tries of a sink, the newest first."""
    found = await connection.execute(_TRIES, {"sink": sink})
    return [Try(int(row.at_ms), row.event, row.status, int(row.took_ms), row.why) for row in found]


async def give_up(connection: AsyncConnection, batch: OutboxBatch, now_ms: int, why: str) -> None:
    """Move an event from the outbox to those that were given up."""
    if not await outbox.finish(connection, batch, 0, "dead"):
        return
    (content,) = batch.lines
    row = {
        "sink": batch.sink,
        "made_ms": batch.made_ms,
        "died_ms": now_ms,
        "tries": batch.tries,
        "why": why,
        "event": str(orjson.loads(content)["id"]),
        "content": content,
    }
    await connection.execute(insert(dead_letters), row)
    mine = dead_letters.c.sink == batch.sink
    last = select(dead_letters.c.seq).where(mine).order_by(dead_letters.c.seq.desc()).offset(MOST_DEAD).limit(1)
    gone = await connection.execute(delete(dead_letters).where(mine, dead_letters.c.seq <= last.scalar_subquery()))
    if gone.rowcount:
        moved: Counts = Counter({(batch.sink, "dead"): -gone.rowcount, (batch.sink, "dropped"): gone.rowcount})
        await sql.add(connection, sink_counts, moved.items())


async def dead(connection: AsyncConnection, sink: str) -> list[dict[str, Any]]:
    """Return the events of a sink that were given up, the oldest first, as plain JSON values."""
    return [
        {
            "event": row.event,
            "made_ms": int(row.made_ms),
            "died_ms": int(row.died_ms),
            "tries": int(row.tries),
            "why": row.why,
            "content": orjson.loads(bytes(row.content)),
        }
        for row in await connection.execute(_DEAD, {"sink": sink})
    ]


async def replay(connection: AsyncConnection, sink: str, events: Collection[str] | None, now_ms: int) -> int:
    """Put events that were given up, those with these ids or all, into the outbox again; return how many."""
    which = dead_letters.c.sink == sink
    if events is not None:
        which &= dead_letters.c.event.in_(list(events))
    rows = (await connection.execute(select(dead_letters).where(which).order_by(dead_letters.c.seq))).all()
    if not rows:
        return 0
    await connection.execute(delete(dead_letters).where(which))
    # They were counted as made before, and there are few of them: the bound on what waits does not hold for them.
    lines = [bytes(row.content) for row in rows]
    await outbox.add(connection, {sink: Made(lines, 2**62, alone=True)}, now_ms)
    moved: Counts = Counter({(sink, "made"): -len(rows), (sink, "dead"): -len(rows)})
    await sql.add(connection, sink_counts, moved.items())
    return len(rows)


async def disable(connection: AsyncConnection, sink: str, target: str, now_ms: int, why: str) -> None:
    """Note that the receiver at a sink's ``target`` wants no events any more."""
    await sql.upsert(connection, disabled_sinks, [(sink, target, now_ms, why)])


async def enable(connection: AsyncConnection, sink: str) -> bool:
    """Send to a sink again; return whether it was disabled."""
    return bool((await connection.execute(delete(disabled_sinks).where(disabled_sinks.c.sink == sink))).rowcount)


async def disabled(connection: AsyncConnection, sink: str, target: str) -> Disabled | None:
    """Return since when a sink's ``target`` is disabled; None if it is not, or another was."""
    found = select(disabled_sinks).where(disabled_sinks.c.sink == sink, disabled_sinks.c.target == target)
    row = (await connection.execute(found)).first()
    return None if row is None else Disabled(int(row.at_ms), row.why)
