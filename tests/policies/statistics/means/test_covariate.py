"""Adjusting for what units did before: least squares, a published sequence, and what it gains."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from policies.statistics.means.covariate import CovariateSums, adjusted_difference, adjusted_estimate
from policies.statistics.means.mixture import Bet, Watch
from policies.statistics.means.strata import by_student
from tests.policies.statistics.tallies import Array


def sums(m: Array, x: Array) -> CovariateSums:
    return CovariateSums(
        len(m), float(m.sum()), float(x.sum()), float((m * m).sum()), float((m * x).sum()), float((x * x).sum())
    )


def correlated(rng: np.random.Generator, n: int, correlation: float) -> tuple[Array, Array]:
    x = rng.normal(3, 2, n)
    return 1 + correlation * (x - 3) / 2 + sqrt(1 - correlation**2) * rng.normal(size=n), x


def test_the_difference_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(40)
    m, x = correlated(rng, 400, 0.7)
    b = np.arange(400) % 4 == 0
    m = m + 0.3 * b
    found = adjusted_estimate(sums(m[~b], x[~b]), sums(m[b], x[b]))
    assert found is not None
    design = np.column_stack([np.ones(400), b, x])
    beta = np.linalg.lstsq(design, m, rcond=None)[0]
    assert found.difference == pytest.approx(beta[1])
    residuals = m - design @ beta
    robust = np.linalg.inv(design.T @ design) @ (design.T * residuals**2 @ design) @ np.linalg.inv(design.T @ design)
    assert found.variance == pytest.approx(robust[1, 1], rel=0.03)


def test_avlm_has_nearly_the_same_interval() -> None:
    """β = 2.32245, se .21566, n = 100, k = 8, g = 11.588: (1.65305, 2.99184)."""
    z = Watch((Bet("normal", 1.0, 100 / 11.588),)).critical(0.05)
    margin = by_student(z, 100 - 8) * 0.21566
    assert (2.32245 - margin, 2.32245 + margin) == pytest.approx((1.65305, 2.99184), rel=2e-3)


def test_a_correlation_of_six_tenths_leaves_two_thirds_of_the_variance() -> None:
    rng = np.random.default_rng(41)
    ratios = []
    for _ in range(50):
        m, x = correlated(rng, 2_000, 0.6)
        plain = adjusted_estimate(sums(m[:1000], 0 * x[:1000]), sums(m[1000:], 0 * x[1000:]))
        found = adjusted_estimate(sums(m[:1000], x[:1000]), sums(m[1000:], x[1000:]))
        assert plain is not None
        assert found is not None
        ratios.append(found.variance / plain.variance)
    assert np.mean(ratios) == pytest.approx(1 - 0.36, abs=0.02)
    assert np.mean(ratios) < 0.7


def test_shifting_the_covariate_changes_nothing_and_exchanging_sides_turns_the_sign() -> None:
    rng = np.random.default_rng(42)
    m, x = correlated(rng, 600, 0.5)
    one = adjusted_difference(sums(m[:250], x[:250]), sums(m[250:], x[250:]))
    moved = adjusted_difference(sums(m[:250], 10 * x[:250] - 70), sums(m[250:], 10 * x[250:] - 70))
    turned = adjusted_difference(sums(m[250:], x[250:]), sums(m[:250], x[:250]))
    assert one is not None
    assert moved is not None
    assert turned is not None
    assert (moved.low, moved.high, moved.p) == pytest.approx((one.low, one.high, one.p))
    assert (turned.low, turned.high, turned.p) == pytest.approx((-one.high, -one.low, one.p))


def test_sides_that_began_differently_are_compared_at_the_same_past() -> None:
    """No effect, but the variant's users spent more before: only the adjusted difference is 0."""
    rng = np.random.default_rng(43)
    x = np.concatenate([rng.normal(3, 1, 2_000), rng.normal(4, 1, 2_000)])
    m = x + rng.normal(size=4_000)
    found = adjusted_difference(sums(m[:2000], x[:2000]), sums(m[2000:], x[2000:]))
    assert found is not None
    assert abs(found.difference) < 0.1
    assert not found.decides(0.05)


def test_few_or_impossible_sums_give_nothing() -> None:
    assert adjusted_estimate(CovariateSums(2, 1, 1, 1, 1, 1), CovariateSums(500, 1, 1, 1, 1, 1)) is None
    assert adjusted_difference(CovariateSums(500, 1, float("nan"), 1, 1, 1), CovariateSums(500, 1, 1, 1, 1, 1)) is None
    assert adjusted_difference(CovariateSums(50, 1, 1, 9, 1, 9), CovariateSums(500, 1, 1, 9, 1, 9)) is None
