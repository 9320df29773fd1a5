"""Evidence of an estimate that is watched: published numbers, symmetry, and how often Brownian motion crosses."""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np
import pytest

from policies.statistics.means.mixture import TIGHTEST, Bet, Watch, declared, undeclared
from tests.policies.statistics.tallies import allowed

ONE = Watch((Bet("normal", 1.0, TIGHTEST),))


def test_gbstats_has_the_same_critical_value() -> None:
    """gbstats 0.8.0, SequentialTwoSidedTTest: 400 against 500 of 1,000, tuned to 5,000, is .1 ± .0691824."""
    error = sqrt((0.24 + 0.25) / 999)
    watch = undeclared(2000, expected=5000)
    assert watch.critical(0.05) * error == pytest.approx(0.1 - 0.030817602290690513, rel=1e-6)


def test_a_normal_bet_is_the_ratio_of_two_normal_densities() -> None:
    """N(0, 1 + v) over N(0, 1) at z."""
    value, _ = Bet("normal", 1.0, 3.0).log_evidence(2.0)
    assert value == pytest.approx(log(0.5 * exp(-(2.0**2) / 8) / exp(-(2.0**2) / 2)))


def test_a_bet_on_two_points_is_a_hyperbolic_cosine() -> None:
    value, _ = Bet("points", 1.0, 4.0).log_evidence(1.5)
    assert exp(value) == pytest.approx(exp(-2) * np.cosh(3.0))


@pytest.mark.parametrize("bet", [Bet("normal", 0.7, 2.5), Bet("points", 0.3, 9.0)])
def test_the_slope_is_that_of_the_evidence(bet: Bet) -> None:
    (low, _), (_, slope), (high, _) = (bet.log_evidence(z) for z in (1.3 - 1e-5, 1.3, 1.3 + 1e-5))
    assert slope == pytest.approx((high - low) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("watch", [ONE, undeclared(5000, 400), declared(5000, 400, 0.01, 0.004)])
@pytest.mark.parametrize("alpha", [0.05, 0.01, 1e-6])
def test_p_at_the_critical_value_is_alpha(watch: Watch, alpha: float) -> None:
    assert watch.p(watch.critical(alpha)) == pytest.approx(alpha, rel=1e-6)
    assert watch.p(-watch.critical(alpha)) == pytest.approx(alpha, rel=1e-6)


def test_what_could_not_be_decided_before_the_first_look_is_gained() -> None:
    late, early = undeclared(1000, 800).critical(0.05), undeclared(1000, 100).critical(0.05)
    assert undeclared(1000).critical(0.05) > early > late


def test_extreme_sizes_and_differences_give_numbers() -> None:
    for size in (1.0, 1e3, 1e12):
        assert 1.9 < undeclared(size, size / 2).critical(0.05) < 1e7
        assert undeclared(size, size / 2).p(1e6) < 1e-300
        assert undeclared(size, size / 2).p(0.0) == 1.0
        assert declared(size, size / 3, 0.01, 1e-6).critical(0.05) > 1.9


@pytest.mark.parametrize("first", [200.0, 2000.0])
@pytest.mark.parametrize("effect", [None, 0.0438])
def test_brownian_motion_crosses_in_at_most_alpha(first: float, effect: float | None) -> None:
    """Watched from the first look to a thousand times its size; nearly all of α is spent where no more can come."""
    rng = np.random.default_rng(20)
    sizes = np.geomspace(first, 1000 * first, 300)
    steps = np.diff(np.concatenate([[0], sizes]))
    z = np.cumsum(rng.normal(size=(2_000, 300)) * np.sqrt(steps), axis=1) / np.sqrt(sizes)
    watches = [
        undeclared(size, first) if effect is None else declared(size, first, effect, 2 / sqrt(size)) for size in sizes
    ]
    bounds = np.array([watch.critical(0.05) for watch in watches])
    crossed = (np.abs(z) > bounds).any(axis=1).mean()
    assert 0.01 < crossed <= allowed(0.05, 2_000)
