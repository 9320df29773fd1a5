"""Whether values are missing alike in two variants, with and without a heavy unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from policies.statistics.difference import Difference
from policies.statistics.means.coverage import coverage_gap
from tests.policies.statistics.tallies import allowed


@dataclass
class Sums:
    """Buckets of units."""

    m: list[float]
    d: list[float]


def watched(rng: np.random.Generator, rates: tuple[float, float], heavy: float, units: int = 1_000) -> list[Difference]:
    """What is found after each 100 units, of which the first has ``heavy`` calls and the others 1 to 20."""
    b, bucket = rng.random(units) < 0.5, rng.integers(0, 64, units)
    closed = rng.integers(1, 21, units)
    closed[0] = heavy or closed[0]
    rate = np.where(b, rates[1], rates[0])
    valued = rng.binomial(closed, rng.beta(3 * rate, 3 * (1 - rate)))
    found = []
    for count in range(100, units + 1, 100):
        sides = []
        for side in (~b, b):
            here = side & (np.arange(units) < count)
            sums = [np.bincount(bucket, each * here, 64).tolist() for each in (closed, valued)]
            sides.append((Sums(sums[0], sums[0]), Sums(sums[1], sums[1])))
        if (gap := coverage_gap(sides[0], sides[1])) is not None:
            found.append(gap)
    return found


@pytest.mark.parametrize("heavy", [0, 1_000])
def test_60_against_80_percent_is_seen_also_beside_a_unit_with_a_thousand_calls(heavy: float) -> None:
    rng = np.random.default_rng(30)
    found = [watched(rng, (0.6, 0.8), heavy)[-1] for _ in range(20)]
    assert all(gap.p <= 0.01 for gap in found)
    assert np.mean([gap.difference for gap in found]) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("heavy", [0, 1_000])
def test_equal_coverage_alarms_in_at_most_alpha_over_all_looks(heavy: float) -> None:
    rng = np.random.default_rng(31)
    alarms = [any(gap.p <= 0.01 for gap in watched(rng, (0.7, 0.7), heavy)) for _ in range(80)]
    assert np.mean(alarms) <= allowed(0.01, 80)


def test_what_is_in_few_buckets_says_nothing() -> None:
    few = Sums([5.0] * 20 + [0.0] * 44, [5.0] * 20 + [0.0] * 44)
    assert coverage_gap((few, few), (few, few)) is None
    none = Sums([0.0] * 64, [0.0] * 64)
    assert coverage_gap((none, none), (few, few)) is None
