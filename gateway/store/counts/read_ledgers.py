"""Read ledgers from the store; and find out which of them changed since they were read.

Rule: as many statements for many routes as for one. A ledger that has not changed is not read again: its version
(``versions``) says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Select, Table, Text, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts import history, plans
from gateway.store.counts.history import StoredPlan
from gateway.store.counts.ledger import Ledger, Seen, Stretch, TallyKey, UnitsOf, is_versioned, versioned
from gateway.store.counts.reported import read_late, read_looks
from gateway.store.counts.tallies import SUMS, number
from gateway.store.rows import calls
from gateway.store.rows.bounded_reads import first_since
from gateway.store.rows.calls import Span
from gateway.store.schema import sql
from gateway.store.schema.count_tables import (
    buckets,
    faults,
    feedback_counts,
    forced,
    latency,
    moved,
    signs,
    stretches,
    tallies,
)
from gateway.store.schema.count_tables import plans as numbered
from gateway.store.units import few_units
from gateway.store.units.unit_buckets import buckets_of
from policies.statistics.sample_ratio import START
from policies.types import Tally

#: A route and an epoch.
RouteEpoch = tuple[str, str]
#: The shares of a plan, by route and revision: they never change.
KnownShares = dict[tuple[str, int], Mapping[str, float]]

_KEY: Final = TallyKey._fields
_WIDTH: Final = len(_KEY)


class LedgerVersions(NamedTuple):
    """How often each route's counts changed, and the watermark: at the same number, a ledger is the same."""

    moved: Mapping[str, int]
    watermark_ms: int | None


async def versions(connection: AsyncConnection) -> LedgerVersions:
    """Return what to compare, in order to know whether a ledger that was read before is still the same."""
    found = {row[0]: row[1] for row in await connection.execute(select(moved))}
    return LedgerVersions(found, await number(connection, "watermark_ms"))


async def evidence(
    connection: AsyncConnection, places: Collection[RouteEpoch], known: KnownShares | None = None
) -> dict[RouteEpoch, Ledger]:
    """Return what plans are made from, of each of these routes and epochs: mature tallies, and shares.

    ``known`` are shares that were read before; it learns the others.
    """
    counted = await _rows(connection, _tallies(connection.dialect.name, True), places)
    ledgers = {place: Ledger(*place, tallies=dict(_tally(row[1:]) for row in rows)) for place, rows in counted.items()}
    return await _with_shares(connection, ledgers, {} if known is None else known)


async def read(
    connection: AsyncConnection, places: Collection[RouteEpoch], known: KnownShares | None = None
) -> dict[RouteEpoch, Ledger]:
    """Return everything counted for each of these routes and epochs, without ``oldest_ms``; ``known`` as above."""
    dialect = connection.dialect.name

    async def of(table: Table, *columns: str) -> Mapping[RouteEpoch, Sequence[Any]]:
        return await _rows(connection, _here(dialect, table, *columns), places)

    counted = await _rows(connection, _tallies(dialect, False), places)
    timed, broken = (
        await of(latency, "variant", "role", "bucket", "n"),
        await of(faults, "variant", "role", "fault", "n"),
    )
    chosen = await of(forced, "n")
    given = await _rows(connection, _stretches(dialect), places)
    late = {(place[0], row[1]) for place, rows in given.items() for row in rows if row[2] is None}
    changed, looked = await read_late(connection, places), await read_looks(connection, places)
    packed, sample_ratios = await history.find(connection, late), await history.read_sample_ratios(connection, places)
    statuses: defaultdict[str, dict[tuple[str, str], int]] = defaultdict(dict)
    routes = sql.as_values([route for route, _ in places])
    for route, metric, status, n in await connection.execute(_feedback(dialect), routes):
        statuses[route][metric, status] = n
    of_signs = _here(dialect, signs, "variant", "role", "word", "n", "first_ms", "last_ms", "detail")
    of_feedback = {(route, "") for route, _ in places}
    wrong = await _rows(connection, of_signs, of_feedback.union(places))
    watermark_ms = await number(connection, "watermark_ms")
    few = await few_units.read(connection, _by_units(counted))
    split = await _rows(connection, _unit_buckets(dialect), places)
    summed = {place: dict(_tally(row[1:]) for row in rows) for place, rows in counted.items()}
    ledgers = {
        place: Ledger(
            *place,
            tallies=summed[place],
            buckets={TallyKey._make(key): buckets_of(body) for *key, body in split[place]},
            few_units={of: each for (*at, of), each in few.items() if tuple(at) == place},
            sample_ratio=sample_ratios.get(place, START),
            test_changed_ms=changed.get(place),
            looks=looked[place],
            stretches=tuple(
                _joined(given[place], {key[1]: plan for key, plan in packed.items() if key[0] == place[0]})
            ),
            latency=_buckets(timed[place], summed[place]),
            faults=_by_version(((row[:3], row[3]) for row in broken[place]), summed[place]),
            feedback=statuses[place[0]],
            signs=_by_version(
                ((row[:3], Seen(*row[3:])) for row in (*wrong[place], *wrong[place[0], ""])), summed[place]
            ),
            forced=sum(n for (n,) in chosen[place]),
            watermark_ms=watermark_ms,
        )
        for place in places
    }
    return await _with_shares(connection, ledgers, {} if known is None else known)


async def with_oldest(connection: AsyncConnection, ledgers: Mapping[RouteEpoch, Ledger]) -> dict[RouteEpoch, Ledger]:
    """Return the ledgers with when the oldest predictions were made whose windows are open."""
    definitions = await plans.read_definitions(connection, {route for route, _ in ledgers})
    newest = {
        (place, name): definition
        for place in ledgers
        for name in definitions.names(place[0])
        if (definition := definitions.newest(place[0], name)) is not None and definition.metric is not None
    }
    spans = [Span(place[0], definition.closed_until, 2**62) for (place, _), definition in newest.items()]
    oldest: dict[RouteEpoch, dict[tuple[str, str], int]] = {place: {} for place in ledgers}
    for (place, name), first_ms in zip(newest, await calls.first_in(connection, spans), strict=True):
        if first_ms is not None:
            found = await first_since(connection, *place, first_ms)
            oldest[place] |= {(variant, name): at_ms for variant, at_ms in found.items()}
    return {place: replace(ledger, oldest_ms=oldest[place]) for place, ledger in ledgers.items()}


async def _rows(
    connection: AsyncConnection, query: Select[Any], places: Collection[RouteEpoch]
) -> dict[RouteEpoch, list[Sequence[Any]]]:
    """Return what a query finds by route and epoch, which come first in its rows."""
    found: dict[RouteEpoch, list[Sequence[Any]]] = {place: [] for place in places}
    for row in await sql.rows(connection, query, sql.as_list(places)):
        found[row[0], row[1]].append(row[2:])
    return found


@lru_cache(maxsize=2**16)
def _tally(row: tuple[Any, ...]) -> tuple[TallyKey, Tally]:
    """Return a row's tally; cached, because a bandit has thousands of stretches, and all but one are over."""
    return TallyKey._make(row[:_WIDTH]), Tally(*row[_WIDTH:])


def _by_units(
    counted: Mapping[RouteEpoch, Sequence[Any]],
) -> dict[tuple[str, str, UnitsOf], dict[int, Tally]]:
    """Return the mature tallies that may be of units, by number, those of all periods together."""
    found: defaultdict[tuple[str, str, UnitsOf], dict[int, Tally]] = defaultdict(dict)
    for place, rows in counted.items():
        for row in rows:
            key, tally = _tally(row[1:])
            if key.phase == "mature" and not key.revision:
                found[*place, UnitsOf._make(key[1:7])][row[0]] = tally
    return found


async def _with_shares(
    connection: AsyncConnection, ledgers: Mapping[RouteEpoch, Ledger], known: KnownShares
) -> dict[RouteEpoch, Ledger]:
    """Return the ledgers with the shares of the revisions that their tallies name."""
    named = {place: {key.revision for key in ledger.tallies} - {0} for place, ledger in ledgers.items()}
    missing = {(route, revision) for (route, _), revisions in named.items() for revision in revisions} - known.keys()
    known |= {at: orjson.loads(plan.shares) for at, plan in (await history.find(connection, missing)).items()}
    return {
        (route, epoch): replace(
            ledger,
            shares={one: known[route, one] for one in sorted(named[route, epoch]) if (route, one) in known},
        )
        for (route, epoch), ledger in ledgers.items()
    }


def _by_version(rows: Iterable[tuple[Sequence[Any], Any]], tallies: Mapping[TallyKey, Tally]) -> dict[Any, Any]:
    """Return what is counted by (variant, …), each variant named with its version.

    A program that had no versions within an epoch counted without them: that is of the first version of the variant.
    """
    found: dict[Any, Any] = {}
    first: dict[str, str] | None = None
    for (name, *more), n in rows:
        if name and not is_versioned(name):
            first = first or {k.variant: k.version for k in sorted(tallies, key=lambda k: k.period, reverse=True)}
            name = versioned(name, first[name]) if name in first else name
        place = (name, *more)
        found[place] = found[place] + n if place in found else n
    return found


def _buckets(rows: Sequence[Any], tallies: Mapping[TallyKey, Tally]) -> dict[Any, dict[int, int]]:
    found: defaultdict[Any, dict[int, int]] = defaultdict(dict)
    for (variant, role, bucket), n in _by_version(((row[:3], row[3]) for row in rows), tallies).items():
        found[variant, role][bucket] = n
    return dict(found)


def _joined(rows: Sequence[Any], packed: Mapping[int, StoredPlan]) -> Iterator[Stretch]:
    """Yield stretches, of rows that are in order. One without a stored plan (the store is younger than the plan) has no
    shares to compare with, and is left out."""
    shares: dict[tuple[int, int], str] = {}
    found: dict[tuple[int, int], dict[str, int]] = {}
    for period, revision, share, variant, n in rows:
        if share is None and revision in packed:
            share = packed[revision].shares
        if share is not None:
            shares[period, revision] = share
            found.setdefault((period, revision), {})[variant] = n
    for (period, revision), counts in found.items():
        yield Stretch(period, revision, orjson.loads(shares[period, revision]), counts)


@cache
def _here(dialect: str, table: Table, *columns: str) -> Select[Any]:
    """Select the rows of a table that are of the listed routes and epochs."""
    wanted = sql.listed(dialect, Text(), Text())
    chosen = (table.c.route, table.c.epoch, *(table.c[name] for name in columns))
    return select(*chosen).join(wanted, (table.c.route == wanted.c.c0) & (table.c.epoch == wanted.c.c1))


@cache
def _tallies(dialect: str, mature: bool) -> Select[Any]:
    query = _here(dialect, tallies, "id", *_KEY, *SUMS).where(tallies.c.n != 0)
    return query.where(tallies.c.phase == "mature") if mature else query


@cache
def _unit_buckets(dialect: str) -> Select[Any]:
    wanted = sql.listed(dialect, Text(), Text())
    return (
        select(tallies.c.route, tallies.c.epoch, *(tallies.c[name] for name in _KEY), buckets.c.body)
        .join(wanted, (tallies.c.route == wanted.c.c0) & (tallies.c.epoch == wanted.c.c1))
        .join(buckets, buckets.c.tally == tallies.c.id)
        .where(tallies.c.revision == 0, tallies.c.n != 0)
    )


@cache
def _stretches(dialect: str) -> Select[Any]:
    wanted = sql.listed(dialect, Text(), Text())
    return (
        select(
            stretches.c.route,
            stretches.c.epoch,
            *(stretches.c.period, stretches.c.revision, numbered.c.shares, stretches.c.variant, stretches.c.n),
        )
        .join(wanted, (stretches.c.route == wanted.c.c0) & (stretches.c.epoch == wanted.c.c1))
        .outerjoin(numbered, (numbered.c.route == stretches.c.route) & (numbered.c.revision == stretches.c.revision))
        .order_by(stretches.c.period, stretches.c.revision)
    )


@cache
def _feedback(dialect: str) -> Select[Any]:
    return select(feedback_counts).where(
        feedback_counts.c.route.in_(sql.among(dialect, Text())), feedback_counts.c.n != 0
    )
