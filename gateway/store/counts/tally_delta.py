"""Which tally, and what it changes by: terms of sums that are still to be added up; and how a row has an exact sum.

Rule: only sums and differences, as in ``deltas``, which collects them for a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, NamedTuple

import orjson

from gateway.store.counts.ledger import Phase
from policies.exact import Sum, total
from router.records import Role


class TallyAddress(NamedTuple):
    """Which tally of which route and epoch; as ``ledger.TallyKey``."""

    route: str
    epoch: str
    period: int
    variant: str
    version: str
    role: Role
    against: str
    metric: str
    definition: str
    phase: Phase
    revision: int = 0


_Address = tuple[str, str, int, str, str, Role, str, str, str, Phase, int]
#: TallyAddress(*values), of all its fields, at half of the time.
new_address: Final[Callable[[_Address], TallyAddress]] = partial(tuple.__new__, TallyAddress)


@dataclass(slots=True)
class TallyDelta:
    """What a tally changes by. Its lists are terms that are still to be summed (``policies.exact``).

    Third moments are kept where ``moments`` says so. ``repeats`` is by how much more ``distinct`` changes than ``n``
    (``units.distinct``).
    """

    moments: bool = False
    n: int = 0
    repeats: int = 0
    d: float = 0.0
    d2: float = 0.0
    positive: int = 0
    negative: int = 0
    d_max: float = 0.0
    m: list[float] = field(default_factory=list)
    m2: list[float] = field(default_factory=list)
    md: list[float] = field(default_factory=list)
    m3: list[float] = field(default_factory=list)
    m2d: list[float] = field(default_factory=list)
    md2: list[float] = field(default_factory=list)
    d3: list[float] = field(default_factory=list)

    @property
    def distinct(self) -> int:
        return self.n + self.repeats

    def requests(self, value: float | None, n: int, sign: Literal[1, -1] = 1) -> None:
        """Add ``n`` requests of this value that are units of their own, or take them away."""
        if value is None:
            return
        self.n += sign * n
        self.d += sign * n
        self.d2 += sign * n
        self.d_max = max(self.d_max, 1.0)
        if self.moments:
            self.d3.append(float(sign * n))
        if value > 0:
            self.positive += sign * n
        elif value < 0:
            self.negative += sign * n
        else:
            return
        # A product that may be rounded is no sum: then each of them is a term.
        times, terms = (n, 1) if n == 1 or (value.is_integer() and abs(value) < _WHOLE) else (1, n)
        self.m += [sign * times * value] * terms
        self.m2 += [sign * times * value * value] * terms
        self.md += [sign * times * value] * terms
        if self.moments:
            self.m3 += [sign * times * value * value * value] * terms
            self.m2d += [sign * times * value * value] * terms
            self.md2 += [sign * times * value] * terms

    def units(self, m: Sequence[float], d: Sequence[float], sign: Literal[1, -1] = 1) -> None:
        """Add units with these sums and counts of values, or take them away; one without values counts for nothing."""
        there = [d_ for d_ in d if d_]
        self.n += sign * len(there)
        self.d += sign * sum(there)
        self.d2 += sign * sum([d_ * d_ for d_ in there])
        self.positive += sign * sum([m_ > 0 for m_ in m])
        self.negative += sign * sum([m_ < 0 for m_ in m])
        self.d_max = max(self.d_max, *there, 0.0)
        self.m2 += [sign * m_ * m_ for m_ in m if m_]
        both = [(m_, d_) for m_, d_ in zip(m, d, strict=True) if m_]
        self.md += [sign * m_ * d_ for m_, d_ in both]
        if self.moments:
            self.m3 += [sign * m_ * m_ * m_ for m_, _ in both]
            self.m2d += [sign * m_ * m_ * d_ for m_, d_ in both]
            self.md2 += [sign * m_ * d_ * d_ for m_, d_ in both]
            self.d3 += [sign * d_ * d_ * d_ for d_ in there]


class TallyChanges(dict[TallyAddress, TallyDelta]):
    """What tallies change by. One that is not there yet begins, with moments if it is of mature values."""

    def __missing__(self, address: TallyAddress) -> TallyDelta:
        self[address] = found = TallyDelta(address.phase == "mature")
        return found


#: Below it a cube times the number of lines in a transaction is exact.
_WHOLE: Final = 2.0**12


def exact_of(m: float, rest: str | None) -> Sum:
    """Return the exact sum that a row has."""
    if rest is not None:
        return total((m, *orjson.loads(rest)))
    return (m,) if m else ()


def rest_of(m: Sum) -> str | None:
    """Return what a row has beside a rounded sum."""
    return orjson.dumps(m[1:]).decode() if len(m) > 1 else None
