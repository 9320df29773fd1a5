"""Units of mature tallies, and of closed windows, in a few buckets: for the errors of what is no plain sum.

Rule: a unit is in the same bucket in every period, variant, metric and epoch, because its bucket is a hash of it and of
nothing else. Sums are exact (``policies.exact``), so a corrected value leaves nothing behind. A tally has its buckets
from its beginning or never: what an earlier version counted cannot be put into any.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from functools import cache, lru_cache
from typing import Any

import orjson
from sqlalchemy import BigInteger, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection
from xxhash import xxh3_64_intdigest

from gateway.store.schema import sql
from gateway.store.schema.count_tables import buckets
from policies.exact import rounded, total
from policies.types import BUCKETS, Buckets

#: What a tally's buckets change by: of each bucket, what its count changes by, then terms that its sum changes by.
BucketChanges = defaultdict[int, list[float]]

#: The buckets of a tally as they are stored: the exact sum of each, and its count.
_Stored = tuple[list[list[float]], list[float]]


def hash_of(unit: str) -> int:
    """Return a number that says nothing about a unit but which it is: 64 bits, the same in every store."""
    return xxh3_64_intdigest(unit.encode("utf-8", "surrogatepass"))


def bucket_of(unit: str) -> int:
    """Return the bucket of a unit."""
    return hash_of(unit) % BUCKETS


def new_changes() -> BucketChanges:
    return defaultdict(lambda: [0.0])


async def move(connection: AsyncConnection, changes: Mapping[int, BucketChanges], begun: Set[int]) -> None:
    """Move the buckets of tallies, by their numbers; ``begun`` are tallies that begin in this transaction."""
    if not changes:
        return
    stored: dict[int, _Stored] = {
        number: ([[] for _ in range(BUCKETS)], [0.0] * BUCKETS) for number in changes.keys() & begun
    }
    missing = changes.keys() - stored.keys()
    if missing:
        query = _stored(connection.dialect.name)
        stored |= {one: orjson.loads(body) for one, body in await connection.execute(query, sql.as_values(missing))}
    rows = []
    for number, inside in changes.items():
        if number not in stored:
            continue  # begun by an earlier version
        m, d = stored[number]
        for bucket, (more, *terms) in inside.items():
            d[bucket] += more
            if terms:
                m[bucket] = list(total((*m[bucket], *terms)))
        rows.append((number, orjson.dumps((m, d)).decode()))
    await sql.upsert(connection, buckets, rows)


@lru_cache(maxsize=2**12)
def buckets_of(body: str) -> Buckets:
    """Return the buckets of a tally as the table has them; cached, because most did not change since the last time."""
    m, d = orjson.loads(body)
    return Buckets(tuple([rounded(one) for one in m]), tuple(d))


@cache
def _stored(dialect: str) -> Select[Any]:
    return select(buckets.c.tally, buckets.c.body).where(buckets.c.tally.in_(sql.among(dialect, BigInteger())))
