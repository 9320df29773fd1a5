"""Reads that look at a bounded number of a route's calls: the first of each variant, and the newest that were drawn.

Rule: what they return is right for the calls that were looked at, and costs the same whatever else is stored.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.rows import shared_fields
from gateway.store.rows.calls import INSIDE, Span
from gateway.store.schema.row_tables import calls

#: How many calls are searched for the first of each variant.
LOOKED_AT: Final = 2_000
#: How many are searched for where the shares are off: some tenths of a second, and only when that check has failed.
NEWEST: Final = 50_000

_FIRST: Final = select(calls.c.kin, calls.c.at_ms).where(*INSIDE).order_by(calls.c.at_ms).limit(LOOKED_AT)
_NEWEST: Final = (
    select(calls.c.kin, calls.c.at_ms, calls.c.unit, calls.c.id, calls.c.more)
    .where(*INSIDE)
    .order_by(calls.c.at_ms.desc())
    .limit(NEWEST)
)


#: How many of the newest calls are counted by variant.
SERVED: Final = 2_000
_SERVED: Final = select(calls.c.kin).where(*INSIDE).order_by(calls.c.at_ms.desc()).limit(SERVED)


class Drawn(NamedTuple):
    """A request whose variant was drawn; ``more`` is JSON, with the features among others."""

    at_ms: int
    revision: int
    variant: str
    more: str | None

    @property
    def features(self) -> dict[str, Any]:
        """The logged features by name."""
        found = None if self.more is None else orjson.loads(self.more).get("features")
        return found if isinstance(found, dict) else {}


async def first_since(connection: AsyncConnection, route: str, epoch: str, since_ms: int) -> dict[str, int]:
    """Return when each variant of an epoch was first called since a time, among the first ``LOOKED_AT`` calls."""
    span = Span(route, since_ms, 2**62)
    first = [(number, at_ms) for number, at_ms in await connection.execute(_FIRST, span._asdict())]
    of_number = await shared_fields.numbered(connection, {number for number, _ in first})
    found: dict[str, int] = {}
    for number, at_ms in first:
        if of_number[number].epoch == epoch:
            found.setdefault(of_number[number].variant, at_ms)
    return found


async def newest_served(connection: AsyncConnection, route: str, epoch: str, since_ms: int) -> dict[str, int]:
    """Return how many of the newest calls since a time each variant answered, of those that were drawn."""
    counts = Counter(number for (number,) in await connection.execute(_SERVED, Span(route, since_ms, 2**62)._asdict()))
    found = Counter[str]()
    for number, shared in (await shared_fields.numbered(connection, set(counts))).items():
        if shared.role == "primary" and shared.epoch == epoch and not shared.forced:
            found[shared.variant] += counts[number]
    return dict(found)


async def newest_drawn(connection: AsyncConnection, route: str, epoch: str, since: int) -> list[Drawn]:
    """Return the newest requests of an epoch whose variant was drawn, in the periods from ``since`` on.

    A unit is there once, with its first request of these: it is given the same variant again.
    """
    rows = (await connection.execute(_NEWEST, Span(route, since, 2**62)._asdict())).all()
    of_number = await shared_fields.numbered(connection, {row[0] for row in rows})
    found: dict[str, Drawn] = {}
    for number, at_ms, unit, id_, more in rows:
        shared = of_number[number]
        drawn = shared.role == "primary" and not shared.forced and not shared.uncounted
        if drawn and shared.epoch == epoch and shared.period >= since:
            key = unit if shared.by_unit and unit is not None else id_
            found[key] = Drawn(at_ms, shared.revision, shared.variant, more)  # the newest came before
    return list(found.values())
