"""Everything that is stored about one unit: to show it, or to erase it.

Rule: a unit is found by its rows, under each name it may have been stored under. There is no index of units, because
writing every row would cost more: all calls are read, some thousands per transaction, so that recording continues.

Erasing deletes the rows that are about the unit alone. Its rows in ``units`` and ``arrivals`` hold sums that tallies
are made of: they stay, under a random name.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Text, bindparam, delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts import tallies
from gateway.store.rows import outbox, set_aside_items
from gateway.store.rows.outbox import About
from gateway.store.schema import sql
from gateway.store.schema.count_tables import ARRIVED_IN, arrivals, units
from gateway.store.schema.count_tables import tallies as counts
from gateway.store.schema.row_tables import bodies, calls, feedback, feedback_targets

#: Calls read per transaction: a tenth of a second.
CALLS_AT_ONCE: Final = 50_000


#: A route, and the key that a caller gave a request to it.
Keyed = tuple[str, str]


class Transactions(Protocol):
    """What opens transactions: the store, or a stand-in in tests."""

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]: ...
    def change(self) -> AbstractAsyncContextManager[AsyncConnection]: ...


@dataclass(slots=True)
class Erased:
    """How much was erased. ``unit_rows`` were renamed instead; ``events`` had been waiting for sinks."""

    calls: int = 0
    feedback: int = 0
    bodies: int = 0
    unit_rows: int = 0
    events: int = 0


async def predictions(
    store: Transactions, names: Sequence[str], at_once: int = CALLS_AT_ONCE
) -> AsyncIterator[list[str]]:
    """Yield the ids of a unit's predictions, those of each transaction together."""
    low = ""
    while True:
        async with store.read() as connection:
            after = select(calls.c.id).where(calls.c.id > low).order_by(calls.c.id)
            high: str | None = (await connection.execute(after.offset(at_once - 1).limit(1))).scalar()
            inside = (calls.c.id > low,) if high is None else (calls.c.id > low, calls.c.id <= high)
            found = select(calls.c.id).distinct().where(*inside, calls.c.unit.in_(names)).order_by(calls.c.id)
            ids = [row[0] for row in await connection.execute(found)]
        if ids:
            yield ids
        if high is None:
            return
        low = high


async def erase(store: Transactions, names: Sequence[str], at_once: int = CALLS_AT_ONCE) -> Erased:
    """Erase a unit. Called again after an interruption it completes the erasure."""
    erased = Erased()
    found = [(ids, await _keys(store, ids)) async for ids in predictions(store, names, at_once)]
    await _erase_waiting(store, names, found, erased)
    for ids, keys in found:
        async with store.change() as connection:
            await _delete(connection, ids, keys, erased)
    async with store.change() as connection:
        for name in names:
            erased.unit_rows += await _rename(connection, name, secrets.token_hex(16))
    return erased


async def counted(store: Transactions, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a unit's part of each tally: its sum and its count."""
    places = tuple(c for c in counts.c if c.name in _PLACES)
    query = (
        select(*places, units.c.m, units.c.d)
        .join_from(counts, units, units.c.tally == counts.c.id)
        .where(units.c.unit.in_(names))
        .order_by(counts.c.id)
    )
    async with store.read() as connection:
        return [{"kind": "tally", **_plain(row)} for row in await connection.execute(query)]


async def arrived(store: Transactions, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return when a unit was first seen, in each epoch."""
    columns = (column for column in arrivals.c if column.name not in {"period", "in_period"})
    query = select(*columns, ARRIVED_IN.label("period")).where(arrivals.c.unit.in_(names)).order_by(arrivals.c.at_ms)
    async with store.read() as connection:
        return [{"kind": "arrival", **_plain(row)} for row in await connection.execute(query)]


_PLACES: Final = frozenset({"route", "epoch", "period", "variant", "version", "role", "against", "metric", "phase"})


def _plain(row: Any) -> dict[str, Any]:
    return {str(name): content for name, content in row._mapping.items()}  # SQLAlchemy's names are a subclass of str


async def _delete(connection: AsyncConnection, ids: Collection[str], keys: Iterable[Keyed], erased: Erased) -> None:
    among, values = sql.among(connection.dialect.name, Text()), sql.as_values(ids)
    routes = select(calls.c.route).distinct().where(calls.c.id.in_(among))
    await tallies.note_moved(connection, [row[0] for row in await connection.execute(routes, values)])
    # Feedback by key that has no prediction yet would never find one.
    unmatched = delete(feedback).where(
        tuple_(feedback.c.route, feedback.c.key) == tuple_(bindparam("b_route"), bindparam("b_key")),
        feedback.c.target.is_(None),
    )
    for route, key in keys:
        erased.feedback += (await connection.execute(unmatched, {"b_route": route, "b_key": key})).rowcount
    await _detach(connection, ids)
    erased.feedback += (await connection.execute(delete(feedback).where(feedback.c.target.in_(among)), values)).rowcount
    erased.bodies += (await connection.execute(delete(bodies).where(bodies.c.id.in_(among)), values)).rowcount
    await set_aside_items.forget(connection, ids)
    erased.calls += (await connection.execute(delete(calls).where(calls.c.id.in_(among)), values)).rowcount


async def _keys(store: Transactions, ids: Collection[str]) -> list[Keyed]:
    """Return the keys that these predictions have."""
    async with store.read() as connection:
        among = sql.among(connection.dialect.name, Text())
        keyed = select(calls.c.route, calls.c.key).where(calls.c.id.in_(among), calls.c.key.is_not(None)).distinct()
        return [(route, key) for route, key in await connection.execute(keyed, sql.as_values(ids))]


async def _erase_waiting(
    store: Transactions, names: Sequence[str], found: Sequence[tuple[list[str], list[Keyed]]], erased: Erased
) -> None:
    """Erase events that wait for sinks: before the predictions, because most events are found only by those."""
    ids, keys = {one for ids, _ in found for one in ids}, frozenset(key for _, keys in found for key in keys)
    about = About(frozenset(names), ids, keys)
    after: int | None = 0
    while after is not None:
        async with store.change() as connection:
            gone, after = await outbox.erase(connection, about, after)
        erased.events += gone


async def _detach(connection: AsyncConnection, ids: Collection[str]) -> None:
    """Remove these predictions from events that are about others too: such an event stays, about the others."""
    among, values = sql.among(connection.dialect.name, Text()), sql.as_values(ids)
    await connection.execute(delete(feedback_targets).where(feedback_targets.c.target.in_(among)), values)
    shared = (
        select(feedback_targets.c.seq, func.min(feedback_targets.c.target))
        .join(feedback, feedback.c.seq == feedback_targets.c.seq)
        .where(feedback.c.target.in_(among))
        .group_by(feedback_targets.c.seq)
    )
    rows = [{"b_seq": seq, "b_target": target} for seq, target in await connection.execute(shared, values)]
    if rows:
        await connection.execute(_LEFT_TO, rows)
        await connection.execute(_NO_LONGER_ALSO, rows)


_LEFT_TO: Final = update(feedback).where(feedback.c.seq == bindparam("b_seq")).values(target=bindparam("b_target"))
_NO_LONGER_ALSO: Final = delete(feedback_targets).where(
    feedback_targets.c.seq == bindparam("b_seq"), feedback_targets.c.target == bindparam("b_target")
)


async def _rename(connection: AsyncConnection, name: str, token: str) -> int:
    # With the list of tallies the query uses the primary key.
    here = (units.c.unit == name, units.c.tally.in_(select(counts.c.id)))
    renamed = (await connection.execute(update(units).where(*here).values(unit=token))).rowcount
    first = update(arrivals).where(arrivals.c.unit == name).values(unit=token, id="")
    return int(renamed + (await connection.execute(first)).rowcount)
