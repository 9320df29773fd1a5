"""Statistics of the numbers of several rounds: medians, ratios with their spread, percentiles.

Rule: two values are compared within a round and only then over the rounds, because the machine differs from one round
to the next. Pure: numbers in, numbers out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some numbers, and the smallest and the largest of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return brief(self.median)
        return f"{brief(self.median)} ({brief(self.low)} to {brief(self.high)})"


def spread(numbers: Sequence[float]) -> Spread:
    """Return the median of at least one number and how far they spread.

    >>> print(spread([3.0, 1.0, 2.0]))
    2.00 (1.00 to 3.00)
    """
    return Spread(statistics.median(numbers), min(numbers), max(numbers))


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the ratios of ``above`` to ``below``, pair by pair.

    >>> print(ratios([2.0, 30.0, 8.0], [1.0, 10.0, 4.0]))
    2.00 (2.00 to 3.00)
    """
    return _paired(lambda a, b: a / b if b else math.inf, above, below)


def differences(these: Sequence[float], those: Sequence[float]) -> Spread:
    """Return the differences ``these`` minus ``those``, pair by pair."""
    return _paired(lambda a, b: a - b, these, those)


def percentile(numbers: Sequence[float], share: float) -> float:
    """Return the smallest of the numbers that at least this share of them do not exceed (nearest rank).

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5), percentile([4.0, 1.0, 3.0, 2.0], 0.99)
    (2.0, 4.0)
    """
    ordered = sorted(numbers)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def brief(number: float) -> str:
    """Write a number with as many digits as matter.

    >>> brief(0.8741), brief(26.43), brief(12345.6), brief(0.0)
    ('0.87', '26.4', '12,346', '0')
    """
    if not number:
        return "0"
    size = abs(number)
    return f"{number:,.0f}" if size >= 100 else f"{number:.1f}" if size >= 10 else f"{number:.2f}"


def _paired(function: Callable[[float, float], float], these: Sequence[float], those: Sequence[float]) -> Spread:
    return spread([function(a, b) for a, b in zip(these, those, strict=True)])
