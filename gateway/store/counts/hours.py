"""Calls and mature values by the hour of their prediction, after a week by the day: for series.

Rule: moved by the same outcomes as the tallies, so that hours add up to what they sum up. Sums are exact
(``policies.exact``). An hour that moves after its day was made is folded into it later; readers see a day all the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Select, Text, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts.ledger import CALLS
from gateway.store.counts.tally_delta import TallyAddress, exact_of, rest_of
from gateway.store.schema import sql
from gateway.store.schema.count_tables import hours
from policies.exact import rounded, total

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
#: Hours are kept for so long, then days.
KEPT_MS: Final = 7 * DAY_MS
#: Rows folded in one transaction, and rows read for one series.
CHUNK: Final = 1_000
MOST: Final = 20_000

#: What hours change by: of each tally and hour, what the count changes by, then terms that the sum changes by.
HourChanges = Mapping[tuple[TallyAddress, int], list[float]]


class HourKey(NamedTuple):
    """Which hour of what: as in ``TallyKey``, own values alone. ``hour_ms`` is its beginning, or that of a day."""

    route: str
    epoch: str
    metric: str
    definition: str
    hour_ms: int
    variant: str
    version: str
    role: str


async def move(connection: AsyncConnection, changes: HourChanges) -> None:
    """Move hours by what tallies change by, the periods and stretches of each together."""
    together = defaultdict[HourKey, list[float]](lambda: [0.0])
    for (of, hour), (more, *terms) in changes.items():
        key = HourKey(of.route, of.epoch, of.metric, of.definition, hour * HOUR_MS, of.variant, of.version, of.role)
        together[key][0] += more
        together[key] += terms
    await _add(connection, together)


async def fold(connection: AsyncConnection, now_ms: int) -> bool:
    """Fold some hours that are older than a week into their days; return whether there may be more."""
    before = {"before": kept_from(now_ms), "most": CHUNK}
    rows = [(HourKey(*row[: len(_KEY)]), *row[len(_KEY) :]) for row in await connection.execute(_OLD, before)]
    days = defaultdict[HourKey, list[float]](lambda: [0.0])
    for key, d, m, rest in rows:
        day = days[key._replace(hour_ms=key.hour_ms - key.hour_ms % DAY_MS)]
        day[0] += d
        day += exact_of(m, rest)
    await _add(connection, days)
    if rows:
        gone = [{f"b_{name}": part for name, part in zip(_KEY, key, strict=True)} for key, *_ in rows]
        await connection.execute(_GONE, gone)
    return len(rows) == CHUNK


async def series(
    connection: AsyncConnection, route: str, metric: str, since_ms: int, now_ms: int
) -> list[dict[str, Any]]:
    """Return a route's calls (metric ``CALLS``, of which ``sum`` failed) or values as plain JSON values, in order.

    Of epochs and definitions too each has its own. At most the newest ``MOST`` rows are looked at.
    """
    young = kept_from(now_ms)
    since_ms -= since_ms % (HOUR_MS if since_ms >= young else DAY_MS)
    which = {"route": route, "metric": metric, "since": since_ms, "most": MOST}
    found: defaultdict[HourKey, list[float]] = defaultdict(lambda: [0.0])
    for *of, d, m, rest in await sql.rows(connection, _SERIES, which):
        key = HourKey(*of)
        if key.hour_ms < young:
            key = key._replace(hour_ms=key.hour_ms - key.hour_ms % DAY_MS)
        found[key][0] += d
        found[key] += exact_of(m, rest)
    in_order = sorted(found, key=lambda key: (key.hour_ms, *key))
    return [_shown(key, found[key], young) for key in in_order if found[key][0]]


def kept_from(now_ms: int) -> int:
    """Return the time from which on hours are kept: the beginning of a day."""
    return now_ms - now_ms % DAY_MS - KEPT_MS


def _shown(key: HourKey, parts: Iterable[float], young: int) -> dict[str, Any]:
    n, *terms = parts
    m = rounded(total(terms))
    names = ("epoch", "variant", "version", "role", "definition")
    return {
        "at_ms": key.hour_ms,
        "hours": 1 if key.hour_ms >= young else 24,
        **{name: getattr(key, name) for name in names if not (name == "definition" and key.metric == CALLS)},
        "n": int(n),
        "sum": m,
        "mean": m / n if n else None,
    }


async def _add(connection: AsyncConnection, changes: Mapping[HourKey, list[float]]) -> None:
    if not changes:
        return
    stored = {}
    for *of, d, m, rest in await sql.rows(
        connection, _listed(connection.dialect.name), sql.as_list(list(map(tuple, changes)))
    ):
        stored[HourKey(*of)] = (d, exact_of(m, rest))
    rows = []
    for key, (more, *terms) in changes.items():
        d, before = stored.get(key, (0.0, ()))
        m = total((*before, *terms))
        rows.append((*key, d + more, rounded(m), rest_of(m)))
    await sql.upsert(connection, hours, rows)


_KEY: Final = HourKey._fields
_COLUMNS: Final = tuple(hours.c)
_OLD: Final = (
    select(*_COLUMNS)
    .where(hours.c.hour_ms < bindparam("before"), hours.c.hour_ms % DAY_MS != 0)
    .limit(bindparam("most"))
)
_GONE: Final = delete(hours).where(*(hours.c[name] == bindparam(f"b_{name}") for name in _KEY))
_SERIES: Final = (
    select(*_COLUMNS)
    .where(
        hours.c.route == bindparam("route"),
        hours.c.metric == bindparam("metric"),
        hours.c.hour_ms >= bindparam("since"),
    )
    .order_by(hours.c.hour_ms.desc())
    .limit(bindparam("most"))
)


@cache
def _listed(dialect: str) -> Select[Any]:
    kinds = tuple(BigInteger() if name == "hour_ms" else Text() for name in _KEY)
    wanted = sql.listed(dialect, *kinds)
    same = [hours.c[name] == wanted.c[f"c{place}"] for place, name in enumerate(_KEY)]
    query = select(*_COLUMNS).join(wanted, same[0])
    return query.where(*same[1:])
