"""Pairs of answers to the same requests: by hand, by brute force over the signs, by symmetry, and simulated."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import exp, inf, log, nan

import numpy as np
import pytest
from scipy.stats import norm

from policies.statistics.difference import Difference
from policies.statistics.paired import BEST_AT, log_bet, paired_difference, times_the_sample
from policies.types import Tally
from tests.policies.statistics.tallies import allowed, tally_of


def of(units: list[tuple[float, float]], alpha: float = 0.05) -> Difference:
    found = paired_difference(Tally.of_units(units), bounds=(-1, 1), alpha=alpha)
    assert found is not None
    return found


def discordant(wins: int, losses: int, equal: int = 0) -> list[tuple[float, float]]:
    return [(1.0, 1.0)] * wins + [(-1.0, 1.0)] * losses + [(0.0, 1.0)] * equal


def test_the_bet_is_the_mean_of_two_normal_mixtures() -> None:
    """A batch twin: the integral over λ, instead of its closed form."""
    scale, made = 2 * log(20) + np.log1p(2 * log(20)), 0.0
    for best in BEST_AT:
        deviation = np.sqrt(scale / best)
        at = norm.ppf((np.arange(200_000) + 0.5) / 200_000) * deviation
        made += np.exp(at * 20 - at**2 * 100 / 2).mean() / 2
    assert log_bet(20**2 / 100, 100) == pytest.approx(log(made), abs=1e-3)


def test_over_all_signs_the_bet_has_a_mean_of_at_most_one() -> None:
    """Exact: ten units that differ by one to four, whose signs are fair coins."""
    sizes = [1, 1, 1, 2, 2, 3, 3, 3, 4, 4]
    made = [
        exp(log_bet(sum(s * m for s, m in zip(signs, sizes, strict=True)) ** 2 / sum(m * m for m in sizes), 10))
        for signs in product((-1, 1), repeat=10)
    ]
    assert 0.5 < np.mean(made) <= 1


def test_swapping_the_variants_mirrors_everything() -> None:
    one, other = of(discordant(60, 35, 900)), of(discordant(35, 60, 900))
    assert (one.difference, one.low, one.high, one.p) == pytest.approx(
        (-other.difference, -other.high, -other.low, other.p), abs=1e-12
    )


@pytest.mark.parametrize("wins", [40, 45, 50, 52, 53, 55, 60, 80])
def test_the_interval_excludes_zero_exactly_where_p_decides(wins: int) -> None:
    for alpha in (0.2, 0.05, 0.01):
        found = of(discordant(wins, 30, 500), alpha)
        assert found.decides(alpha) == (found.low > 0)


def test_the_scale_of_a_loss_does_not_matter() -> None:
    units = [(float(m), 1.0) for m in np.linspace(-3, 5, 40)]
    one = paired_difference(Tally.of_units(units), bounds=None)
    other = paired_difference(Tally.of_units([(1000 * m, d) for m, d in units]), bounds=None)
    assert one is not None
    assert other is not None
    assert (1000 * one.low, 1000 * one.high, one.p) == pytest.approx((other.low, other.high, other.p))


def test_a_unit_of_a_thousand_requests_alone_decides_nothing() -> None:
    """Its difference is one coin, however large."""
    assert of([(1000.0, 1000.0), *discordant(10, 10)]).p > 0.5
    assert of([(1000.0, 1000.0)]).p == 1.0


def test_equal_answers_say_only_how_rare_differences_are() -> None:
    found = of(discordant(0, 0, 1000))
    assert (found.difference, found.p) == (0.0, 1.0)
    assert found.low < -0.005
    assert found.high > 0.005


@pytest.mark.parametrize(
    "tally", [Tally(), Tally(n=-3, d=-3), Tally(n=5, m=nan, m2=1, d=5), Tally(n=5, m=inf, m2=inf, d=5), Tally(n=5, m=1)]
)
def test_impossible_tallies_have_no_result(tally: Tally) -> None:
    assert paired_difference(tally, bounds=(-1, 1)) is None
    assert times_the_sample(tally, tally, tally) is None


def test_over_many_looks_equal_variants_are_seldom_told_apart() -> None:
    """300 routes, a look per 25 units of one to twenty requests each; each unit prefers one variant by chance."""
    random = np.random.default_rng(7)
    runs, looks, each = 300, 20, 25
    d = random.integers(1, 21, (runs, looks, each)).astype(float)
    lean = random.beta(2, 2, d.shape)
    differing = random.binomial(d.astype(int), 0.3)
    m = (2 * random.binomial(differing, lean) - differing).astype(float)
    wrong = 0
    for run in range(runs):
        tallies = [tally_of(m[run, :upto].ravel(), d[run, :upto].ravel()) for upto in range(1, looks + 1)]
        wrong += any((found := paired_difference(t, bounds=(-1, 1))) is not None and found.p <= 0.05 for t in tallies)
    assert wrong / runs <= allowed(0.05, runs)


def test_pairs_need_a_fraction_of_an_ab_test() -> None:
    """Both are right on half of the requests, and differ on a tenth: 2·(1/4 + 1/4) / (1/10)."""
    own = Tally.of_units([(1.0, 1.0)] * 500 + [(0.0, 1.0)] * 500)
    pairs = Tally.of_units(discordant(50, 50, 900))
    assert times_the_sample(pairs, own, own) == pytest.approx(10)
    assert times_the_sample(Tally.of_units(discordant(0, 0, 9)), own, own) is None


def test_a_loss_to_one_side_is_no_difference_until_it_is_known_how_skewed_it_is() -> None:
    """One pair in twenty loses by a lognormal amount, and all others win a little: the mean difference is 0."""
    random = np.random.default_rng(3)
    wrong = {True: 0, False: 0}
    for _ in range(60):
        lost = np.exp(1.5 * random.standard_normal(3000)) * (random.random(3000) < 0.05)
        m = lost - np.exp(1.5**2 / 2) * 0.05
        for symmetric in wrong:
            looks = [tally_of(m[:upto], np.ones(upto)) for upto in range(100, 3001, 100)]
            found = [paired_difference(tally, bounds=None, symmetric=symmetric) for tally in looks]
            wrong[symmetric] += any(one is not None and one.decides(0.05) for one in found)
    assert wrong[True] > 10  # were it trusted
    assert wrong[False] <= 3


def test_without_moments_a_skewed_loss_is_withheld() -> None:
    tally = Tally.of_units([(float(m), 1.0) for m in np.linspace(-1, 5, 200)])
    known = paired_difference(tally, bounds=None, symmetric=False)
    unknown = paired_difference(replace(tally, m3=0.0, m2d=0.0, md2=0.0, d3=0.0), bounds=None, symmetric=False)
    assert known is not None
    assert known.decides(0.001)
    assert unknown is not None
    assert (unknown.p, unknown.needs) == (1.0, None)
    assert unknown.withheld is not None
