"""Tallies, the unit rows they are sums of, and the plain counters: written by ``Deltas`` (``read_ledgers`` reads them).

Rule: every transaction that changes what is counted of a route adds to its number in ``moved``.

A unit row and its tally move together, by the difference of the unit before and after. Their sums are exact
(``policies.exact``): a column has the rounded sum, and ``rest`` what rounding left out of it. So a tally is what a
fresh computation gives, whatever was corrected on the way, and nothing that is finite makes it infinite.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from math import isfinite
from sys import getsizeof
from typing import Any, Final

import orjson
from sqlalchemy import BigInteger, Select, Text, bindparam, case, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts import hours
from gateway.store.counts.deltas import Deltas
from gateway.store.counts.tally_delta import TallyAddress, TallyChanges, TallyDelta, exact_of, rest_of
from gateway.store.schema import sql
from gateway.store.schema.count_tables import (
    counts,
    faults,
    feedback_counts,
    forced,
    latency,
    moved,
    newest_calls,
    signs,
    stretches,
    tallies,
    units,
)
from gateway.store.schema.fleet_tables import numbers
from gateway.store.units import unit_buckets
from gateway.store.units.arrived import ROW_BYTES, Arrived, arrive
from gateway.store.units.distinct import Flips, repeats
from gateway.store.units.unit_buckets import BucketChanges, bucket_of, new_changes
from policies.exact import Sum, plus, rounded, total
from policies.types import EMPTY, Tally

#: A unit's exact sum and its count of values.
Counted = tuple[Sum, float]
NOTHING: Final[Counted] = ((), 0.0)

#: How much of units, and of arrivals, is kept in memory: about 100,000 of them, of ordinary names.
CACHE_BYTES: Final = 48 * 2**20
CACHED_ADDRESSES: Final = 100_000

#: How exactly it is known when an epoch's last call was made.
SLACK_MS: Final = 3_600_000

_ADDRESS = tuple(tallies.c[name] for name in TallyAddress._fields)
SUMS: Final = tuple(one.name for one in fields(Tally))
#: What a tally begins with, in the order of its columns after those of its address.
_BEGUN: Final = tuple(getattr(EMPTY, one.name, None) for one in list(tallies.c)[1 + len(_ADDRESS) :])
#: Sums of what may be any number: never moved by a rounded difference.
EXACT: Final = ("m", "m2", "md", "m3", "m2d", "md2", "d3")
_WHOLE: Final = tuple(name for name in SUMS if name not in (*EXACT, "d_max"))
_MOVE = (
    update(tallies)
    .where(tallies.c.id == bindparam("b_id"))
    .values(
        {
            **{name: tallies.c[name] + bindparam(f"b_{name}") for name in _WHOLE},
            **{name: bindparam(f"b_{name}") for name in (*EXACT, "rest")},
            "d_max": case((tallies.c.d_max < bindparam("b_d_max"), bindparam("b_d_max")), else_=tallies.c.d_max),
        }
    )
)


@dataclass(slots=True)
class TallyCache:
    """Rows as they are in the store, kept because they will be needed again. Discarded when a transaction fails.

    Bounded: when a kind of rows is too large, all of that kind are dropped, and read from the store again.
    """

    ids: dict[TallyAddress, int] = field(default_factory=dict)
    #: The numbers of a tally's periods, by its address in period 0; only where they are no stretches.
    periods: defaultdict[TallyAddress, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    units: dict[int, dict[str, Counted]] = field(default_factory=dict)
    arrivals: Arrived = field(default_factory=Arrived)
    #: Of each epoch, None before it was asked for.
    newest: dict[tuple[str, str], int] | None = None
    #: About how much the units take.
    units_bytes: int = 0

    def shrink(self) -> None:
        """Drop everything of each kind that has become too large."""
        if len(self.ids) > CACHED_ADDRESSES:
            self.ids.clear()
            self.periods.clear()
        if self.units_bytes > CACHE_BYTES:
            self.units.clear()
            self.units_bytes = 0
        if self.arrivals.size_bytes > CACHE_BYTES:
            self.arrivals = Arrived()


async def apply(connection: AsyncConnection, deltas: Deltas, tally_cache: TallyCache) -> None:
    """Write everything that ``deltas`` sums up."""
    tally_cache.shrink()
    changes = deltas.changes()
    ids = tally_cache.ids
    begun = await _begin(connection, {*changes, *deltas.units}, tally_cache)
    await _move_units(connection, deltas, ids, tally_cache, changes)
    await unit_buckets.move(connection, _bucketed(deltas, ids), begun)
    await _move(connection, {ids[address]: change for address, change in changes.items()})
    await hours.move(connection, deltas.hours)
    began = await arrive(connection, deltas.arrivals, tally_cache.arrivals)
    began.update(deltas.stretches)
    await sql.add(
        connection, stretches, [((*period, revision, variant), n) for (period, revision, variant), n in began.items()]
    )
    await _note_newest(connection, deltas.newest, tally_cache)
    await sql.add(connection, latency, deltas.latency.items())
    await sql.add(connection, faults, deltas.faults.items())
    await sql.note(connection, signs, [(*sign, *seen) for sign, seen in deltas.signs.items()])
    await sql.add(connection, forced, deltas.forced.items())
    await sql.add(connection, feedback_counts, deltas.feedback().items())
    await sql.add(connection, counts, [((name,), n) for name, n in deltas.counts.items()])
    await note_moved(connection, deltas.routes())


async def note_moved(connection: AsyncConnection, routes: Iterable[str]) -> None:
    """Note that what is counted of these routes changed."""
    # In order, so that two nodes which write at the same moment cannot wait for each other.
    await sql.add(connection, moved, [((route,), 1) for route in sorted(routes)])


async def number(connection: AsyncConnection, name: str) -> int | None:
    """Return a single number that was stored under this name."""
    query = select(numbers.c.value).where(numbers.c.name == bindparam("name"))
    found: int | None = (await connection.execute(query, {"name": name})).scalar()
    return found


async def feedback_total(connection: AsyncConnection) -> Mapping[tuple[str, str, str], int]:
    """Return how many events there are by (route, metric, status), over everything."""
    query = select(feedback_counts).where(feedback_counts.c.n != 0)
    return {(route, metric, status): n for route, metric, status, n in await connection.execute(query)}


async def counted(connection: AsyncConnection) -> Mapping[str, int]:
    """Return what the recorder counted about journal lines, by name."""
    return {str(name): int(n) for name, n in await connection.execute(select(counts))}


async def _note_newest(
    connection: AsyncConnection, newest: Mapping[tuple[str, str], int], tally_cache: TallyCache
) -> None:
    """Write when the last calls of epochs were made, to the hour."""
    if tally_cache.newest is None:
        found = await connection.execute(select(newest_calls))
        tally_cache.newest = {(route, epoch): at_ms for route, epoch, at_ms in found}
    known = tally_cache.newest
    later = {address: at_ms for address, at_ms in newest.items() if at_ms > known.get(address, -SLACK_MS) + SLACK_MS}
    if later:
        known.update(later)
        await sql.upsert(connection, newest_calls, [(*address, at_ms) for address, at_ms in later.items()])


async def _begin(connection: AsyncConnection, addresses: Collection[TallyAddress], tally_cache: TallyCache) -> set[int]:
    """Find out the number of each tally, and return those of tallies that begin."""
    ids = tally_cache.ids
    missing = [address for address in addresses if address not in ids]
    if not missing:
        return set()
    await _learn(connection, missing, tally_cache)
    new = [address for address in missing if address not in ids]
    if new:
        await sql.insert(connection, tallies, [(*address, *_BEGUN) for address in new])
        await _learn(connection, new, tally_cache)
    return {ids[address] for address in new}


async def _learn(connection: AsyncConnection, missing: Collection[TallyAddress], tally_cache: TallyCache) -> None:
    """Read the numbers of stored tallies. With one of an epoch and a revision all are read: there will be others."""
    places = {(address.route, address.epoch, address.revision) for address in missing}
    found = await connection.execute(_addresses(connection.dialect.name), sql.as_list(places))
    for number, *of in found:
        address = TallyAddress(*of)
        tally_cache.ids[address] = number
        if not address.revision:
            tally_cache.periods[address._replace(period=0)][address.period] = number


def _bucketed(deltas: Deltas, ids: Mapping[TallyAddress, int]) -> Mapping[int, BucketChanges]:
    """Return what the buckets of tallies change by, by their numbers."""
    found = {ids[address]: inside for address, inside in deltas.buckets.items()}
    for address, those in deltas.units.items():
        if address.phase == "mature":
            inside = found.setdefault(ids[address], new_changes())
            for unit, (more_d, *terms) in those.items():
                more = inside[bucket_of(unit)]
                more[0] += more_d
                more += terms
    return found


async def _move(connection: AsyncConnection, changes: Mapping[int, TallyDelta]) -> None:
    """Move tallies, by their numbers."""
    if not changes:
        return
    query = _sums(connection.dialect.name)
    rows = []
    for number, *sums, rest in await connection.execute(query, sql.as_values(changes.keys())):
        change = changes[number]
        left = {} if rest is None else orjson.loads(rest)
        row = {"b_id": number, "b_d_max": change.d_max, **{f"b_{name}": getattr(change, name) for name in _WHOLE}}
        exact = {
            # What is not finite waits to be counted again (``gateway.control.join.recount``), and stops nothing.
            name: total((value if isfinite(value) else 0.0, *left.get(name, ()), *getattr(change, name)))
            for name, value in zip(EXACT, sums, strict=True)
        }
        rows.append(row | {f"b_{name}": rounded(found) for name, found in exact.items()} | {"b_rest": rests_of(exact)})
    await connection.execute(_MOVE, rows)


async def _move_units(
    connection: AsyncConnection,
    deltas: Deltas,
    ids: Mapping[TallyAddress, int],
    tally_cache: TallyCache,
    changes: TallyChanges,
) -> None:
    """Move unit rows, and add to ``changes`` what their tallies change by."""
    missing = [
        (ids[address], unit)
        for address, those in deltas.units.items()
        for unit in those.keys() - tally_cache.units.setdefault(ids[address], {}).keys()
    ]
    if missing:
        tally_cache.units_bytes += sum([ROW_BYTES + getsizeof(unit) for _, unit in missing])
        query = _units(connection.dialect.name)
        for tally, unit, m, d, rest in await connection.execute(query, sql.as_list(missing)):
            tally_cache.units[tally][unit] = (exact_of(m, rest), d)
    rows: list[tuple[Any, ...]] = []
    flips: dict[TallyAddress, Flips] = {}
    for address, those in deltas.units.items():
        tally, change = ids[address], changes[address]
        known = tally_cache.units[tally]
        before, after = list[Counted](), list[Counted]()
        for unit, (more_d, *terms) in those.items():
            old = known.get(unit, NOTHING)
            m = old[0]
            for term in terms:
                m = plus(m, term)
            # A unit that has no values left has no sum either, whatever an older program's rounding left behind.
            new = (m, d) if (d := old[1] + more_d) else NOTHING
            known[unit] = new
            rows.append((tally, unit, rounded(new[0]), new[1], rest_of(new[0])))
            before.append(old)
            after.append(new)
        replace(change, before, after)
        if len(numbers := tally_cache.periods[everywhere := address._replace(period=0)]) > 1:
            flipped = flips.setdefault(everywhere, Flips(numbers)).units
            for unit, (_, had), (_, has) in zip(those, before, after, strict=True):
                if (not had) != (not has):
                    flipped[unit][address.period] = not had
    for everywhere, more in zip(flips, await repeats(connection, list(flips.values())), strict=True):
        for period, n in more.items():
            if n:
                changes[everywhere._replace(period=period)].repeats += n
    await sql.upsert(connection, units, rows)


def replace(change: TallyDelta, before: Sequence[Counted], after: Sequence[Counted]) -> None:
    """Add to what a tally changes by that units have other sums than before."""
    old, new = ([rounded(m) for m, _ in counted] for counted in (before, after))
    change.units(old, [d for _, d in before], -1)
    change.units(new, [d for _, d in after])
    change.m += [-one for m, _ in before for one in m]
    change.m += [one for m, _ in after for one in m]


def rests_of(exact: Mapping[str, Sum]) -> str | None:
    """Return what a tally's row has beside its rounded sums."""
    left = {name: found[1:] for name, found in exact.items() if len(found) > 1}
    return orjson.dumps(left).decode() if left else None


@cache
def _addresses(dialect: str) -> Select[Any]:
    wanted = sql.listed(dialect, Text(), Text(), BigInteger())
    return select(tallies.c.id, *_ADDRESS).join(
        wanted,
        (tallies.c.route == wanted.c.c0) & (tallies.c.epoch == wanted.c.c1) & (tallies.c.revision == wanted.c.c2),
    )


@cache
def _sums(dialect: str) -> Select[Any]:
    columns = (tallies.c[name] for name in (*EXACT, "rest"))
    return select(tallies.c.id, *columns).where(tallies.c.id.in_(sql.among(dialect, BigInteger())))


@cache
def _units(dialect: str) -> Select[Any]:
    wanted = sql.listed(dialect, BigInteger(), Text())
    return select(units).join(wanted, (units.c.tally == wanted.c.c0) & (units.c.unit == wanted.c.c1))
