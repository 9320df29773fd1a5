"""What many calls have in common, said once: all but a few fields of a row are the same for thousands of them.

Rule: a kin's number is a hash of what it says. So it is the same in every store and at every node, nothing need be
asked to know it, and a number once learned holds for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass, field, fields
from functools import cache
from hashlib import blake2b
from typing import Any, Final

import orjson
from sqlalchemy import BigInteger, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema import sql
from gateway.store.schema.tables import kin
from router.records import UNCOUNTED, VARIANT_FAULTS, Fault, Role

#: How many are kept in memory: some ten megabytes. A bandit makes a few a second.
MOST: Final = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class SharedFields:
    """The fields of ``Prediction`` that are the same for many calls.

    Made by ``known`` or ``met``: then equal ones are nearly always the same object, and can be told apart by identity.
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
        failed = self.fault in VARIANT_FAULTS or (self.status or 0) >= 500 or self.served is not None
        object.__setattr__(self, "failed", failed)
        answered = self.fault in {None, "client_error"} and self.served is None
        object.__setattr__(self, "client_error", answered and 400 <= (self.status or 0) < 500)
        object.__setattr__(self, "uncounted", self.reason == UNCOUNTED)
        said = [getattr(self, name) for name in NAMES]
        digest = blake2b(orjson.dumps(said), digest_size=8).digest()
        object.__setattr__(self, "number", int.from_bytes(digest, "big") >> 1)  # databases know no unsigned ones


NAMES: Final = tuple(f.name for f in fields(SharedFields) if f.init)

#: By what they say, and by number. Facts that cannot change, so that any thread may share them and forget them.
_KNOWN: Final[dict[tuple[Any, ...], SharedFields]] = {}
_NUMBERED: Final[dict[int, SharedFields]] = {}


def known(said: tuple[Any, ...]) -> SharedFields | None:
    """Return the kin that says this, if it was met before; ``said`` has the fields in their order."""
    return _KNOWN.get(said)


def met(said: tuple[Any, ...]) -> SharedFields:
    """Return the kin that says this."""
    found = _KNOWN.get(said)
    if found is None:
        if len(_KNOWN) >= MOST:
            _KNOWN.clear()
            _NUMBERED.clear()
        found = _KNOWN[said] = SharedFields(*said)
        _NUMBERED[found.number] = found
    return found


async def write(connection: AsyncConnection, fresh: Collection[SharedFields]) -> None:
    """Store these kin, those that are there already too."""
    await sql.ensure(connection, kin, [(one.number, *astuple(one)[: len(NAMES)]) for one in fresh])


async def numbered(connection: AsyncConnection, numbers: Collection[int]) -> Mapping[int, SharedFields]:
    """Return the kin with these numbers, which are stored."""
    found = {number: _NUMBERED[number] for number in set(numbers) if number in _NUMBERED}
    if missing := set(numbers) - found.keys():
        for number, *said in await connection.execute(_with(connection.dialect.name), sql.as_values(missing)):
            found[number] = met(tuple(said))
    return found


@cache
def _with(dialect: str) -> Select[Any]:
    return select(kin).where(kin.c.id.in_(sql.among(dialect, BigInteger())))
