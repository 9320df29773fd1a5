"""Whether two variants have values for the same share of what they answered.

Rule: from buckets of units alone, so that one heavy unit can neither hide a difference nor make one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from policies.statistics.difference import Difference
from policies.statistics.means.compare import of_estimate
from policies.statistics.means.mixture import undeclared
from policies.statistics.means.strata import BucketSums, by_buckets

#: Fewer buckets with anything in them say too little of how much buckets vary.
FEWEST_BUCKETS: Final = 32


@dataclass(frozen=True, slots=True)
class _Covered:
    m: list[float]
    d: list[float]


def coverage_gap(
    baseline: tuple[BucketSums, BucketSums], variant: tuple[BucketSums, BucketSums], *, alpha: float = 0.01
) -> Difference | None:
    """Return how much larger the variant's share of closed predictions with a value is, valid at every look.

    Each side is given by the buckets of its (closed, mature) tallies, whose ``d`` are counted: predictions whose window
    has closed, and those of them that have a value. A bucket weighs at most as much as two typical ones. None while
    fewer than 32 buckets of a side have any, or buckets are too skewed: then nothing is known from them.
    """
    sides = [
        _Covered(
            [min(max(valued, 0.0), max(closed, 0.0)) for closed, valued in zip(of.d, known.d, strict=True)],
            [max(closed, 0.0) for closed in of.d],
        )
        for of, known in (baseline, variant)
    ]
    if any(sum(closed > 0 for closed in side.d) < FEWEST_BUCKETS for side in sides):
        return None
    found = by_buckets([(sides[0], sides[1])])
    if found is None or not found.ready:
        return None
    # The effective number of predictions that say so much.
    rate = sum(found.means) / 2
    size = 4 * rate * (1 - rate) / found.variance
    return of_estimate(found, undeclared(size), (0.0, 1.0), alpha)
