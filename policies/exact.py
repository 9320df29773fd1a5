"""Exact sums: adding a term and subtracting it again gives the sum before, to the last bit.

Rule: a sum is a tuple of floats that add up to it exactly: the rounded sum, the rounded rest of that, and so on. So one
sum has one form, whatever its terms and their order; its first float is the rounded sum, and the sum of no terms is the
empty tuple. Terms must be finite, and far from the largest float: the caller bounds them (``router.records.LARGEST``).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum, isfinite

#: The rounded sum, then the parts that rounding left out.
Sum = tuple[float, ...]


def total(terms: Iterable[float]) -> Sum:
    """Return the exact sum of ``terms``. Raises ValueError or OverflowError if it is not finite.

    >>> total([1e15, 0.1, -1e15])
    (0.1,)
    >>> total([0.1, 0.2])
    (0.30000000000000004, -2.7755575615628914e-17)
    """
    left = list(terms)
    found: list[float] = []
    while head := fsum(left):
        if not isfinite(head):
            raise ValueError("a term of a sum is not finite")
        found.append(head)
        left.append(-head)
    return tuple(found)


def plus(start: Sum, term: float) -> Sum:
    """Return an exact sum with one more term."""
    if len(start) > 2:
        return total((*start, term))
    new, low = _two(start[0] if start else 0.0, term)
    if len(start) == 2:
        low, lost = _two(start[1], low)
        if lost:
            return total((*start, term))
        new, low = _two(new, low)
    if low:
        return new, low
    return (new,) if new else ()


def _two(one: float, other: float) -> tuple[float, float]:
    """Return the rounded sum of two floats and what rounding left out (Knuth's TwoSum)."""
    new = one + other
    part = new - one
    return new, (one - (new - part)) + (other - part)


def rounded(exact: Sum) -> float:
    """Return an exact sum as the nearest float."""
    return exact[0] if exact else 0.0
