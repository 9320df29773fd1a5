"""What many calls have in common, stored once: all but a few fields of a row are the same for thousands of calls.

Rule: the number of a set of shared fields is a hash of their values. So it is the same in every store and at every
node, it is known without asking the store, and it never changes. (The table and the column that hold it are named
``kin``.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final

import orjson
from sqlalchemy import BigInteger, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema import sql
from gateway.store.schema.row_tables import shared_values
from router.records import UNCOUNTED, Fault, Role, fields_stored, is_failure

#: How many are kept in memory: some ten megabytes. A bandit makes a few a second.
MOST: Final = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class SharedFields:
    """The fields of ``Prediction`` that are marked as shared, in its order (a test compares them), and what follows.

    Made by ``interned``: then equal ones are nearly always the same object, and are compared by identity.
    """

    route: str
    epoch: str
    period: int
    revision: int
    variant: str
    model: str
    version: str
    role: Role
    reason: str
    propensity: float | None
    by_unit: bool
    forced: bool
    method: str
    status: int | None
    fault: Fault | None
    served: str | None
    number: int = field(init=False)
    failed: bool = field(init=False)
    #: Whether the backend answered with a 4xx, however that counts.
    client_error: bool = field(init=False)
    uncounted: bool = field(init=False)

    def __post_init__(self) -> None:
        if self.propensity is not None:
            object.__setattr__(self, "propensity", float(self.propensity))
        object.__setattr__(self, "failed", is_failure(self.fault, self.status, self.served))
        answered = self.fault in {None, "client_error"} and self.served is None
        object.__setattr__(self, "client_error", answered and 400 <= (self.status or 0) < 500)
        object.__setattr__(self, "uncounted", self.reason == UNCOUNTED)
        digest = blake2b(orjson.dumps(values(self)), digest_size=8).digest()
        object.__setattr__(self, "number", int.from_bytes(digest, "big") >> 1)  # databases know no unsigned ones


NAMES: Final = tuple(one.name for one in fields_stored("shared"))
#: The values of the shared fields, in the order of their names.
values: Final[Callable[[SharedFields], tuple[Any, ...]]] = attrgetter(*NAMES)

#: By their values, and by number. Neither ever changes, so any thread may use them, and they may be forgotten.
_BY_VALUES: Final[dict[tuple[Any, ...], SharedFields]] = {}
_BY_NUMBER: Final[dict[int, SharedFields]] = {}


def known(values: tuple[Any, ...]) -> SharedFields | None:
    """Return the shared fields with these values if they are in memory; ``values`` are in the order of ``NAMES``."""
    return _BY_VALUES.get(values)


def interned(values: tuple[Any, ...]) -> SharedFields:
    """Return the shared fields with these values."""
    found = _BY_VALUES.get(values)
    if found is None:
        if len(_BY_VALUES) >= MOST:
            _BY_VALUES.clear()
            _BY_NUMBER.clear()
        found = _BY_VALUES[values] = SharedFields(*values)
        _BY_NUMBER[found.number] = found
    return found


async def write(connection: AsyncConnection, fresh: Collection[SharedFields]) -> None:
    """Store these, also those that are stored already."""
    await sql.ensure(connection, shared_values, [(one.number, *values(one)) for one in fresh])


async def numbered(connection: AsyncConnection, numbers: Collection[int]) -> Mapping[int, SharedFields]:
    """Return the shared fields with these numbers, which are stored."""
    found = {number: _BY_NUMBER[number] for number in set(numbers) if number in _BY_NUMBER}
    if missing := set(numbers) - found.keys():
        for number, *stored in await connection.execute(_with(connection.dialect.name), sql.as_values(missing)):
            found[number] = interned(tuple(stored))
    return found


@cache
def _with(dialect: str) -> Select[Any]:
    return select(shared_values).where(shared_values.c.id.in_(sql.among(dialect, BigInteger())))
