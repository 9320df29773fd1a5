"""Count tallies again that hold impossible sums.

Rule: what is counted follows from the stored calls and events, so a tally that an older program let become infinite, or
made of values beyond the limit, is counted anew from them. Where retention has removed calls, the row of their unit
stays counted, if values within the limit could have that sum; requests that are units of their own are lost.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import and_, bindparam, delete, not_, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts import plans, tallies
from gateway.store.counts.definitions import Definitions
from gateway.store.counts.deltas import FINER_SINCE, address_of
from gateway.store.counts.ledger import Phase
from gateway.store.counts.tallies import NOTHING, Counted, replace
from gateway.store.counts.tally_delta import TallyAddress, TallyDelta, exact_of, rest_of
from gateway.store.rows import calls, feedback_events
from gateway.store.rows.calls import StoredCall
from gateway.store.schema import sql
from gateway.store.schema.count_tables import buckets, units
from gateway.store.schema.count_tables import tallies as table
from gateway.store.schema.fleet_tables import numbers
from gateway.store.schema.migrations import COUNT_ONCE
from policies.exact import plus, rounded, total
from router.exposure import exposed
from router.outcomes import in_time, values
from router.records import EXPOSED, LARGEST, Feedback

logger = logging.getLogger(__name__)

#: Calls that are read at a time.
PORTION: Final = 5_000
#: Set once every tally that an older program counted was checked.
DONE: Final = "recounted"

#: No sum that may be made of values gets so far; NaN, infinity and nothing are not less than it either.
_MOST: Final = 1e150
_BROKEN: Final = not_(and_(*(table.c[name].between(-_MOST, _MOST) for name in ("m", "m2", "md"))))
#: A tally of a value beyond the limit has a greater sum of squares than this.
_SUSPECT: Final = or_(_BROKEN, table.c.m2 > LARGEST * LARGEST)
_READ: Final = select(units.c.unit, units.c.m, units.c.d, units.c.rest).where(units.c.tally == bindparam("tally"))
#: Of requests without a unit it would not be known in which bucket they are.
_WITHOUT_BUCKETS: Final = delete(buckets).where(buckets.c.tally == bindparam("tally"))
_SET: Final = (
    update(table)
    .where(table.c.id == bindparam("b_id"))
    .values({name: bindparam(f"b_{name}") for name in (*tallies.SUMS, "rest")})
)


@dataclass(slots=True)
class _Counted:
    """One tally as the stored rows give it: its units, and requests that are units of their own."""

    alone: TallyDelta
    units: dict[str, Counted] = field(default_factory=dict)

    def add(self, unit: str | None, worth: float) -> None:
        if unit is None:
            self.alone.requests(worth, 1)
        else:
            m, d = self.units.get(unit, NOTHING)
            self.units[unit] = (plus(m, worth), d + 1)


async def recount(connection: AsyncConnection) -> int:
    """Count again every tally that is not finite, and once in a store's life those that may hold what is no value.

    Return how many.
    """
    done = await tallies.number(connection, DONE)
    addresses = tuple(table.c[name] for name in TallyAddress._fields)
    query = select(table.c.id, *addresses).where(_SUSPECT if done is None else _BROKEN)
    found = {number: TallyAddress(*address) for number, *address in await connection.execute(query)}
    if found:
        definitions = await plans.read_definitions(connection)
        by_metric: defaultdict[tuple[str, str], dict[TallyAddress, int]] = defaultdict(dict)
        for number, address in found.items():
            by_metric[address.route, address.metric][address] = number
        for (route, metric), ids in by_metric.items():
            counted = await _count(connection, definitions, route, metric, ids)
            for address, number in ids.items():
                await _write(connection, number, counted[address])
        await connection.execute(text(COUNT_ONCE))
        logger.warning(
            "%d tallies held values beyond the limit, and are counted again from the stored rows", len(found)
        )
        await tallies.note_moved(connection, {address.route for address in found.values()})
    if done is None:
        await sql.upsert(connection, numbers, [(DONE, 1)])
    return len(found)


async def _count(
    connection: AsyncConnection, definitions: Definitions, route: str, metric: str, addresses: Collection[TallyAddress]
) -> Mapping[TallyAddress, _Counted]:
    """Return these tallies of one metric, counted from the stored calls and events of their route."""
    found = {address: _Counted(TallyDelta(address.phase == "mature")) for address in addresses}
    finer_since_ms = await tallies.number(connection, FINER_SINCE) or 0
    since, end = 0, (await calls.latest_ms(connection, route) or 0) + 1
    while since < end:
        until = await calls.reach(connection, route, since, end, PORTION)
        ids = await calls.ids_in(connection, calls.Span(route, since, until))
        joined = await feedback_events.joined(connection, ids, sharing=definitions.sharing)
        for prediction_id, stored in (await calls.of(connection, ids)).items():
            learned = [event.feedback for event in joined.get(prediction_id, ())]
            for address, worth in _worth(definitions, metric, stored, learned, finer_since_ms):
                if address in found:
                    found[address].add(stored[0].counted_unit, worth)
        since = until
    return found


def _worth(
    definitions: Definitions,
    metric: str,
    stored: Sequence[StoredCall],
    learned: Sequence[Feedback],
    finer_since_ms: int,
) -> Iterator[tuple[TallyAddress, float]]:
    """Yield what one request is worth, by the tally that it counts in."""
    finished, at_ms = [call for call in stored if not call.open], stored[0].at_ms
    definition = definitions.at(stored[0].route, metric, at_ms)
    if not finished or definition is None or definition.metric is None:
        return
    if metric != EXPOSED and definitions.exposure(definition.route, at_ms) and not exposed(learned):
        return
    about = [one for one in learned if one.metric == metric and in_time(one.event_ms, at_ms, definition.metric)]
    first = finished[0]
    for value in values(finished, about, definition.metric, closed=definition.closed(at_ms)):
        phases: tuple[tuple[Phase, float | None], ...] = (("live", value.live), ("mature", value.mature))
        for phase, worth in phases:
            if worth is not None:
                yield address_of(first, value, definition.metric, phase, finer_since_ms), worth


async def _write(connection: AsyncConnection, number: int, counted: _Counted) -> None:
    """Write a tally as it was counted again, and the rows of its units."""
    stored = {}
    for unit, m, d, rest in await connection.execute(_READ, {"tally": number}):
        stored[unit] = (m, d, rest)
    kept: dict[str, Counted] = {}
    for unit, (m, d, rest) in stored.items():
        # Where calls were removed, the unit's row is all there is, unless no values within the limit have that sum.
        if counted.units.get(unit, NOTHING)[1] < d and abs(m) <= LARGEST * d:
            kept[unit] = (exact_of(m, rest), d)
    every = {**dict.fromkeys(stored, NOTHING), **counted.units, **kept}
    change = counted.alone
    replace(change, [], list(every.values()))
    await sql.upsert(connection, units, [(number, unit, rounded(m), d, rest_of(m)) for unit, (m, d) in every.items()])
    sums = {name: total(getattr(change, name)) for name in tallies.EXACT}
    row = {f"b_{name}": getattr(change, name) for name in tallies.SUMS if name not in sums}
    row |= {f"b_{name}": rounded(exact) for name, exact in sums.items()}
    await connection.execute(_WITHOUT_BUCKETS, {"tally": number})
    await connection.execute(_SET, {"b_id": number, "b_rest": tallies.rests_of(sums), **row})
