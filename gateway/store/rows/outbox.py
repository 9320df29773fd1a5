"""Events that wait in the store until they are delivered to a sink.

Rule: an event is written in the transaction that records what it is about, and deleted in the one that counts its
result. So the counts of all results, with those that are pending, add up to the number of events ever made. A sink's
events are bounded in bytes: those beyond the bound are dropped and counted. A sink whose events are sent each on its
own has one event in a row, and an event that failed waits until it is due again, while others pass it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import orjson
from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema import sql
from gateway.store.schema.row_tables import outbox, sink_counts

#: What is counted of events: how many were made, what became of them, and what is pending.
Count = Literal["made", "delivered", "refused", "dropped", "erased", "dead", "pending", "pending_bytes"]

#: The most events and bytes in one row, which are sent, counted and deleted together.
MOST_EVENTS: Final = 500
MOST_BYTES: Final = 2**18

#: Rows that are searched together for events to erase.
PAGE: Final = 20


class OutboxBatch(NamedTuple):
    """Events that wait together, in their order. ``tries`` of them have failed, the first at ``tried_ms``."""

    seq: int
    sink: str
    lines: tuple[bytes, ...]
    made_ms: int
    tries: int
    tried_ms: int | None


class Made(NamedTuple):
    """Events for a sink, as JSON lines; ``most_bytes`` may wait for it in all. ``alone``: each in a row of its own."""

    lines: Sequence[bytes]
    most_bytes: int
    alone: bool = False


class About(NamedTuple):
    """Which events to erase: those about these units, predictions, or keys that feedback names."""

    units: frozenset[str]
    ids: set[str]
    keys: frozenset[tuple[str, str]]


Counts = Counter[tuple[str, Count]]

_WHOLE: Final = select(
    *(outbox.c.seq, outbox.c.sink, outbox.c.at_ms, outbox.c.events, outbox.c.tries, outbox.c.tried_ms)
).where(outbox.c.sink == bindparam("sink"))
_NEXT: Final = _WHOLE.order_by(outbox.c.seq).limit(1)
_DUE: Final = _WHOLE.where(outbox.c.due_ms <= bindparam("now_ms")).order_by(outbox.c.due_ms, outbox.c.seq).limit(1)
_FAILED: Final = (
    update(outbox)
    .where(outbox.c.seq == bindparam("b_seq"))
    .values(tries=bindparam("b_tries"), tried_ms=bindparam("b_tried_ms"), due_ms=bindparam("b_due_ms"))
)
_OLDEST: Final = select(func.min(outbox.c.seq)).group_by(outbox.c.sink)
_MADE: Final = select(outbox.c.sink, outbox.c.at_ms).where(outbox.c.seq.in_(_OLDEST))
_WAITING: Final = select(sink_counts.c.sink, sink_counts.c.n).where(sink_counts.c.result == "pending_bytes")
_FOUND: Final = select(outbox.c.n, outbox.c.bytes).where(outbox.c.seq == bindparam("b_seq"))
_DELETED: Final = delete(outbox).where(outbox.c.seq == bindparam("b_seq"))
_PAGE: Final = (
    select(outbox.c.seq, outbox.c.sink, outbox.c.events)
    .where(outbox.c.seq > bindparam("after"))
    .order_by(outbox.c.seq)
    .limit(PAGE)
)
_REWRITTEN: Final = (
    update(outbox)
    .where(outbox.c.seq == bindparam("b_seq"))
    .values(n=bindparam("b_n"), bytes=bindparam("b_bytes"), events=bindparam("b_events"))
)


async def add(connection: AsyncConnection, made: Mapping[str, Made], at_ms: int) -> Mapping[str, int]:
    """Add events by sink. Return how many were dropped, by sink.

    An empty line is an event that could not be written: it is dropped, too. Sinks without events are left out.
    """
    made = {sink: given for sink, given in made.items() if given.lines}
    if not made:
        return {}
    waiting = {str(sink): int(n) for sink, n in await connection.execute(_WAITING)}
    rows, counts = [], Counts()
    for sink, (lines, most_bytes, alone) in made.items():
        written = [line for line in lines if line]
        counts[sink, "made"] += len(lines)
        counts[sink, "dropped"] += len(lines) - len(written)
        for batch in _batches(written, 1 if alone else MOST_EVENTS):
            content = b"\n".join(batch)
            if waiting.get(sink, 0) + counts[sink, "pending_bytes"] + len(content) > most_bytes:
                counts[sink, "dropped"] += len(batch)
                continue
            counts[sink, "pending"] += len(batch)
            counts[sink, "pending_bytes"] += len(content)
            rows.append((sink, at_ms, len(batch), len(content), content, 0, None, 0))
    await sql.insert(connection, outbox, rows)
    await sql.add(connection, sink_counts, counts.items())
    return {sink: counts[sink, "dropped"] for sink in made}


async def first(connection: AsyncConnection, sink: str) -> OutboxBatch | None:
    """Return the oldest events that wait for a sink, None without any."""
    return _batch((await connection.execute(_NEXT, {"sink": sink})).first())


async def first_due(connection: AsyncConnection, sink: str, now_ms: int) -> OutboxBatch | None:
    """Return the event that is to be sent next, None while none is due: those that never failed come first."""
    return _batch((await connection.execute(_DUE, {"sink": sink, "now_ms": now_ms})).first())


async def postpone(connection: AsyncConnection, batch: OutboxBatch, now_ms: int, due_ms: int) -> None:
    """Note that a try failed; the next one is due at ``due_ms``."""
    tried_ms = now_ms if batch.tried_ms is None else batch.tried_ms
    given = {"b_seq": batch.seq, "b_tries": batch.tries + 1, "b_tried_ms": tried_ms, "b_due_ms": due_ms}
    await connection.execute(_FAILED, given)


async def finish(
    connection: AsyncConnection, batch: OutboxBatch, refused: int, end: Literal["delivered", "dead"] = "delivered"
) -> bool:
    """Delete a batch and count its events: ``refused`` of them, the others at their ``end``; return if it was there."""
    sink, which = batch.sink, {"b_seq": batch.seq}
    row = (await connection.execute(_FOUND, which)).first()
    if row is None:
        return False
    # Events that were erased meanwhile are counted as erased, although they were sent.
    refused = min(refused, row.n)
    await connection.execute(_DELETED, which)
    gone = {(sink, "pending"): -row.n, (sink, "pending_bytes"): -row.bytes}
    await sql.add(connection, sink_counts, {**gone, (sink, end): row.n - refused, (sink, "refused"): refused}.items())
    return True


async def drop(connection: AsyncConnection, keep: Collection[str]) -> set[str]:
    """Drop the events of sinks other than those to ``keep``; return their names."""
    found = await counted(connection)
    gone = {sink: counts for sink, counts in found.items() if counts["pending"] and sink not in keep}
    counts = Counts()
    for sink, waiting in gone.items():
        await connection.execute(delete(outbox).where(outbox.c.sink == sink))
        counts[sink, "dropped"] += waiting["pending"]
        counts[sink, "pending"] -= waiting["pending"]
        counts[sink, "pending_bytes"] -= waiting["pending_bytes"]
    await sql.add(connection, sink_counts, counts.items())
    return set(gone)


async def counted(connection: AsyncConnection) -> dict[str, Counter[str]]:
    """Return the counts of each sink's events, all as of one moment."""
    found: dict[str, Counter[str]] = {}
    for sink, result, n in await connection.execute(select(sink_counts)):
        found.setdefault(sink, Counter())[result] = n
    return found


async def oldest_ms(connection: AsyncConnection) -> dict[str, int]:
    """Return when the oldest event that waits for each sink was made."""
    return {str(sink): int(at_ms) for sink, at_ms in await connection.execute(_MADE)}


async def erase(connection: AsyncConnection, about: About, after: int) -> tuple[int, int | None]:
    """Erase events about these in the next rows; return how many, and after which row to go on, None at the end.

    Events about a prediction that is no longer stored are found by its request event, which waits before them.
    """
    rows = (await connection.execute(_PAGE, {"after": after})).all()
    kept = await asyncio.to_thread(_kept, [_lines(row) for row in rows], about)
    counts, changed, emptied = Counts(), list[dict[str, Any]](), list[dict[str, Any]]()
    for row, lines in zip(rows, kept, strict=True):
        before, content = _lines(row), b"\n".join(lines)
        if len(lines) == len(before):
            continue
        gone = len(before) - len(lines)
        counts[row.sink, "erased"] += gone
        counts[row.sink, "pending"] -= gone
        counts[row.sink, "pending_bytes"] -= len(row.events) - len(content)
        if lines:
            changed.append({"b_seq": row.seq, "b_n": len(lines), "b_bytes": len(content), "b_events": content})
        else:
            emptied.append({"b_seq": row.seq})
    if changed:
        await connection.execute(_REWRITTEN, changed)
    if emptied:
        await connection.execute(_DELETED, emptied)
    await sql.add(connection, sink_counts, counts.items())
    erased = sum(n for (_, result), n in counts.items() if result == "erased")
    return erased, rows[-1].seq if len(rows) == PAGE else None


def _batch(row: Any) -> OutboxBatch | None:
    return None if row is None else OutboxBatch(row.seq, row.sink, _lines(row), int(row.at_ms), row.tries, row.tried_ms)


def _lines(row: Any) -> tuple[bytes, ...]:
    return tuple(bytes(row.events).split(b"\n"))


def _kept(batches: Iterable[Sequence[bytes]], about: About) -> list[list[bytes]]:
    return [[line for line in lines if not _is_about(orjson.loads(line), about)] for lines in batches]


def _is_about(event: Mapping[str, Any], about: About) -> bool:
    data, subject = event["data"], event.get("subject")
    if data.get("unit") in about.units:
        about.ids.add(subject or "")
        return True
    unmatched = subject is None and (data.get("route"), data.get("key")) in about.keys
    return unmatched or subject in about.ids


def _batches(lines: Iterable[bytes], most: int) -> Iterator[Sequence[bytes]]:
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == most or size + len(line) > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line) + 1
    if batch:
        yield batch
