"""Means and differences: exact cases, another program's numbers, and how often intervals miss the truth."""

from __future__ import annotations

from math import inf, nan, sqrt

import numpy as np
import pytest

from policies.statistics.bernoulli import rate_interval
from policies.statistics.sequential import (
    TIGHTEST_AT_UNITS,
    Bounds,
    Difference,
    Interval,
    difference_interval,
    mean_interval,
)
from policies.types import Buckets, Tally
from tests.policies.examples import rate_tally
from tests.policies.statistics.tallies import Array, allowed, tally_of

UNIT: Bounds = (0.0, 1.0)


def users(rng: np.random.Generator, count: int, requests: int = 20) -> tuple[Array, Array]:
    """Sums and counts of users whose rates are Beta(0.4, 1.6): mean 0.2, and very different from user to user."""
    rates = rng.beta(0.4, 1.6, count)
    return rng.binomial(requests, rates).astype(float), np.full(count, float(requests))


def misses(found: Interval | Difference | None, truth: float) -> bool:
    assert found is not None
    return not found.low <= truth <= found.high


# One mean, bounds known


def test_requests_of_0_and_1_are_trials_of_a_rate() -> None:
    assert mean_interval(rate_tally(30, 100), bounds=UNIT) == Interval(*rate_interval(30, 70), "exact")


def test_a_unit_counts_for_its_share_of_the_heaviest() -> None:
    """Users of 4 and 2 values with 5 successes: 1.5 trials, 1.25 successes."""
    tally = Tally.of_units([(4, 4), (1, 2)] * 40)
    assert mean_interval(tally, bounds=UNIT) == Interval(*rate_interval(50, 10), "exact")


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (10.0, 30.0), (-7.5, -7.0)])
def test_any_bounds_are_0_to_1_on_another_scale(bounds: Bounds) -> None:
    low, high = bounds
    units = [(0.2, 1.0), (1.7, 3.0), (0.9, 1.0), (0.0, 2.0)] * 20
    scaled = Tally.of_units([(low * d + (high - low) * m, d) for m, d in units])
    one, other = mean_interval(Tally.of_units(units), bounds=UNIT), mean_interval(scaled, bounds=bounds)
    assert one is not None
    assert other is not None
    assert other.low == pytest.approx(low + (high - low) * one.low)
    assert other.high == pytest.approx(low + (high - low) * one.high)


def test_without_values_the_mean_lies_in_the_bounds() -> None:
    assert mean_interval(Tally(), bounds=(2.0, 5.0)) == Interval(2.0, 5.0, "exact")


@pytest.mark.parametrize(
    "tally",
    [
        rate_tally(12, 10),
        rate_tally(-2, 10),
        rate_tally(1, -10),
        Tally(n=3, m=nan, d=3),
        Tally(n=3, m=1, d=inf),
        Tally(n=10, m=4, m2=4, d=10, d2=10, md=4),
    ],
)
def test_impossible_tallies_still_give_an_interval_within_the_bounds(tally: Tally) -> None:
    found = mean_interval(tally, bounds=UNIT)
    assert found is not None
    assert 0 <= found.low < found.high <= 1


def test_at_a_billion_units_it_is_narrow_and_holds_the_mean() -> None:
    found = mean_interval(rate_tally(200_000_000, 1_000_000_000), bounds=UNIT)
    assert found is not None
    assert 0.1999 < found.low < 0.2 < found.high < 0.2001


@pytest.mark.parametrize("shape", ["alike", "mixed", "heavy users differ", "not 0 or 1"])
def test_over_units_the_exact_interval_misses_in_at_most_alpha(shape: str) -> None:
    """Also when heavy users have other rates than light ones: only E[M] = mean · E[D] is needed."""
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(500):
        requests = np.full(60, 10.0) if shape == "alike" else rng.integers(1, 11, 60).astype(float)
        rates = rng.random(60) ** 4 if shape == "mixed" else (rng.random(60) < 0.2).astype(float)
        if shape == "heavy users differ":
            rates = np.where(requests > 5, 0.8, 0.1)
        sums = rng.binomial(requests.astype(int), rates).astype(float)
        if shape == "not 0 or 1":
            sums = requests * rng.beta(0.2, 0.8, 60)
        truth = {"alike": 0.2, "mixed": 0.2, "heavy users differ": (0.8 * 40 + 0.1 * 15) / 55, "not 0 or 1": 0.2}[shape]
        missed += misses(mean_interval(tally_of(sums, requests), bounds=UNIT), truth)
    assert missed / 500 <= allowed(0.05, 500)


def test_watching_users_come_back_misses_in_at_most_alpha_over_all_looks() -> None:
    """Counts of units grow between looks, which the theory covers one look at a time."""
    rng = np.random.default_rng(4)
    missed = 0
    for _ in range(300):
        rates, who = rng.beta(0.4, 1.6, 100), rng.integers(0, 100, 2_000)
        hit = (rng.random(2_000) < rates[who]).astype(float)
        looks = (
            tally_of(
                np.asarray(np.bincount(who[:n], hit[:n], 100), float), np.bincount(who[:n], minlength=100).astype(float)
            )
            for n in range(50, 2_001, 150)
        )
        missed += any(misses(mean_interval(look, bounds=UNIT), 0.2) for look in looks)
    assert missed / 300 <= allowed(0.05, 300)


# One mean, bounds unknown


def test_without_bounds_it_needs_a_hundred_units() -> None:
    units = [(float(i % 7), 1.0) for i in range(100)]
    assert mean_interval(Tally.of_units(units[1:]), bounds=None) is None
    found = mean_interval(Tally.of_units(units), bounds=None)
    assert found is not None
    assert found.method == "asymptotic"


def test_at_the_size_it_is_tuned_for_it_is_1_55_times_as_wide_as_a_fixed_interval() -> None:
    n = TIGHTEST_AT_UNITS
    found = mean_interval(rate_tally(n // 2, n), bounds=None)
    assert found is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.55 * 1.96 * sqrt(0.25 / n), rel=0.005)


@pytest.mark.parametrize("unit", [(0.0, 1.0), (3.1, 1.0), (0.3, 3.0), (1e9, 7.0)])
def test_values_that_are_all_equal_are_no_certainty(unit: tuple[float, float]) -> None:
    assert mean_interval(Tally.of_units([unit] * 500), bounds=None) is None


def test_values_of_which_few_are_not_zero_are_not_yet_normal() -> None:
    assert mean_interval(Tally.of_units([(50.0, 1.0)] * 9 + [(0.0, 1.0)] * 500), bounds=None) is None
    assert mean_interval(Tally.of_units([(50.0, 1.0)] * 10 + [(0.0, 1.0)] * 500), bounds=None) is not None


def test_shifting_values_shifts_the_interval_and_scaling_scales_it() -> None:
    units = [(float(i % 7), 1.0 + i % 3) for i in range(300)]
    one = mean_interval(Tally.of_units(units), bounds=None)
    other = mean_interval(Tally.of_units([(-2 * m + 30 * d, d) for m, d in units]), bounds=None)
    assert one is not None
    assert other is not None
    assert (other.low, other.high) == pytest.approx((30 - 2 * one.high, 30 - 2 * one.low))


def test_watching_skewed_values_misses_in_at_most_alpha_over_all_looks() -> None:
    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(300):
        values, ones = rng.lognormal(0, 1, 3_000), np.ones(3_000)
        looks = (tally_of(values[:n], ones[:n]) for n in range(100, 3_001, 100))
        missed += any(misses(mean_interval(look, bounds=None), np.exp(0.5)) for look in looks)
    assert missed / 300 <= allowed(0.05, 300)


# A difference


@pytest.mark.parametrize(
    ("baseline", "variant", "expected"),
    [
        (
            Tally(1000, 4000, 26000, 20000, 420000, 84000, 900, 0, 30),
            Tally(900, 4200, 29000, 18000, 378000, 90000, 850, 0, 30),
            (0.033333333333333326, 0.011967051066864059, 0.05469961559980259),
        ),
        (rate_tally(400, 1000), rate_tally(500, 1000), (0.1, 0.030817602290690513, 0.16918239770930943)),
    ],
    ids=["ratio by user", "mean by request"],
)
def test_gbstats_gives_the_same_numbers(baseline: Tally, variant: Tally, expected: tuple[float, float, float]) -> None:
    """gbstats 0.8.0, SequentialTwoSidedTTest, absolute difference."""
    found = difference_interval([(baseline, variant)], bounds=None)
    assert found is not None
    assert (found.difference, found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert found.method == "asymptotic"


def test_equal_users_in_both_variants_are_told_apart_in_at_most_alpha_of_300_experiments() -> None:
    """A/A: 1,000 sticky users, 20 requests each, rates Beta(0.4, 1.6)."""
    rng = np.random.default_rng(6)
    missed = 0
    for _ in range(300):
        m, d = users(rng, 1_000)
        b = rng.random(1_000) < 0.5
        missed += misses(difference_interval([(tally_of(m[~b], d[~b]), tally_of(m[b], d[b]))], bounds=UNIT), 0)
    assert missed / 300 <= allowed(0.05, 300)


@pytest.mark.parametrize(
    ("rate", "share", "requests"), [(0.05, 0.01, 60_000), (0.2, 0.05, 20_000), (0.5, 0.5, 5_000), (0.97, 0.1, 20_000)]
)
def test_watching_a_canary_misses_in_at_most_alpha_over_all_looks(rate: float, share: float, requests: int) -> None:
    """With 1 % of the traffic the candidate's first hundred requests often show no success at all."""
    rng = np.random.default_rng(7)
    looks = np.unique(np.geomspace(100, requests, 30).astype(int)) - 1
    missed = 0
    for _ in range(200):
        hit, candidate = rng.random(requests) < rate, rng.random(requests) < share
        total, good, hers = (np.cumsum(x)[looks] for x in (candidate, candidate & hit, hit))
        for n, of_candidate, won, all_won in zip(looks + 1, total, good, hers, strict=True):
            pair = rate_tally(int(all_won - won), int(n - of_candidate)), rate_tally(int(won), int(of_candidate))
            if pair[1].n and misses(difference_interval([pair], bounds=UNIT), 0):
                missed += 1
                break
    assert missed / 200 <= allowed(0.05, 200)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_real_difference_is_found(adaptive: bool) -> None:
    pair = rate_tally(1_600, 4_000), rate_tally(2_000, 4_000)
    found = difference_interval([pair], bounds=UNIT, adaptive=adaptive)
    assert found is not None
    assert 0 < found.low < 0.1 < found.high


def test_a_changing_world_under_a_ramp_is_no_effect() -> None:
    """Both variants convert 10 % on day one and 5 % on day two, while shares move from 50/50 to 90/10 (Simpson).

    Pooled, 95 of 1,400 stand against 55 of 600.
    """
    days = [(rate_tally(50, 500), rate_tally(50, 500)), (rate_tally(45, 900), rate_tally(5, 100))]
    pooled = difference_interval([(days[0][0] + days[1][0], days[0][1] + days[1][1])], bounds=UNIT)
    stratified = difference_interval(days, bounds=UNIT)
    assert pooled is not None
    assert stratified is not None
    assert pooled.difference == pytest.approx(55 / 600 - 95 / 1400)
    assert stratified.difference == pytest.approx(0, abs=1e-15)


def test_strata_weigh_by_what_both_sides_have() -> None:
    """Weights 500·500/1000 = 250 and 900·100/1000 = 90."""
    strata = [(rate_tally(100, 500), rate_tally(200, 500)), (rate_tally(90, 900), rate_tally(40, 100))]
    found = difference_interval(strata, bounds=UNIT)
    assert found is not None
    assert found.difference == pytest.approx((250 * 0.2 + 90 * 0.3) / 340)


def test_a_stratum_that_lacks_one_side_changes_nothing() -> None:
    pair = rate_tally(100, 500), rate_tally(200, 500)
    alone = difference_interval([pair], bounds=UNIT)
    assert difference_interval([(rate_tally(9, 90), Tally()), pair, (Tally(), rate_tally(1, 9))], bounds=UNIT) == alone


@pytest.mark.parametrize("strata", [[], [(rate_tally(1, 5), Tally())], [(Tally(), Tally())]])
@pytest.mark.parametrize("adaptive", [False, True])
def test_without_both_sides_there_is_no_difference(strata: list[tuple[Tally, Tally]], adaptive: bool) -> None:
    assert difference_interval(strata, bounds=UNIT, adaptive=adaptive) is None


def test_cutting_independent_requests_into_strata_costs_nothing() -> None:
    pair, quarter = (rate_tally(800, 2_000), rate_tally(900, 2_000)), (rate_tally(200, 500), rate_tally(225, 500))
    whole = difference_interval([pair], bounds=UNIT, by_unit=False)
    cut = difference_interval([quarter] * 4, bounds=UNIT, by_unit=False)
    assert whole is not None
    assert cut is not None
    assert (cut.low, cut.high) == pytest.approx((whole.low, whole.high), abs=1e-4)


def test_users_who_come_back_in_every_stratum_are_not_counted_as_new_ones() -> None:
    """Five periods of the same users: an interval that takes them as independent misses several times as often."""
    rng = np.random.default_rng(8)
    missed = {True: 0, False: 0}
    for _ in range(300):
        rates, b = rng.beta(0.4, 1.6, 600), rng.random(600) < 0.5
        strata = []
        for _ in range(5):
            m, d = rng.binomial(20, rates).astype(float), np.full(600, 20.0)
            strata.append((tally_of(m[~b], d[~b]), tally_of(m[b], d[b])))
        for by_unit in missed:
            missed[by_unit] += misses(difference_interval(strata, bounds=UNIT, by_unit=by_unit), 0)
    assert missed[True] / 300 <= allowed(0.05, 300)
    assert missed[False] / 300 > 0.08


@pytest.mark.parametrize("by_unit", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
def test_exchanging_the_sides_turns_the_sign(adaptive: bool, by_unit: bool) -> None:
    strata = [(rate_tally(100, 500), rate_tally(200, 500)), (rate_tally(90, 900), rate_tally(40, 100))]
    one = difference_interval(strata, bounds=UNIT, adaptive=adaptive, by_unit=by_unit)
    other = difference_interval([pair[::-1] for pair in strata], bounds=UNIT, adaptive=adaptive, by_unit=by_unit)
    assert one is not None
    assert other is not None
    assert (other.difference, other.low, other.high) == pytest.approx((-one.difference, -one.high, -one.low))


@pytest.mark.parametrize(
    "pair",
    [
        (rate_tally(5, 99), rate_tally(50, 5_000)),  # too few units
        (rate_tally(500, 5_000), rate_tally(0, 500)),  # no success: the estimated variance is 0
        (rate_tally(500, 5_000), rate_tally(9, 500)),
        (rate_tally(4_995, 5_000), rate_tally(450, 500)),  # too few failures
    ],
)
def test_where_the_normal_law_does_not_hold_two_exact_intervals_stand_in(pair: tuple[Tally, Tally]) -> None:
    found = difference_interval([pair], bounds=UNIT)
    sides = [mean_interval(side, bounds=UNIT, alpha=0.025) for side in pair]
    assert sides[0] is not None
    assert sides[1] is not None
    assert found is not None
    assert (found.low, found.high) == pytest.approx((sides[1].low - sides[0].high, sides[1].high - sides[0].low))
    assert found.method == "exact"


def test_small_evidence_without_bounds_gives_no_difference() -> None:
    assert difference_interval([(rate_tally(20, 50), rate_tally(30, 50))], bounds=None) is None
    assert difference_interval([(rate_tally(20, 50), rate_tally(30, 50))], bounds=None, adaptive=True) is None


def test_a_bandit_without_bounds_gets_two_asymptotic_intervals() -> None:
    found = difference_interval([(rate_tally(200, 500), rate_tally(300, 500))], bounds=None, adaptive=True)
    assert found is not None
    assert found.method == "asymptotic"
    assert 0 < found.low < 0.2 < found.high


def test_the_interval_of_a_bandit_misses_in_at_most_alpha_although_shares_follow_the_evidence() -> None:
    """Rates are equal; the variant that looks better gets nine tenths of the next hundred requests."""
    rng = np.random.default_rng(9)
    missed = 0
    for _ in range(300):
        won, tried = np.array([1, 1]), np.array([2, 2])
        for _ in range(20):
            more = rng.binomial(100, 0.9 if won[1] / tried[1] > won[0] / tried[0] else 0.1)
            new = np.array([100 - more, more])
            won, tried = won + rng.binomial(new, 0.3), tried + new
            pair = rate_tally(int(won[0] - 1), int(tried[0] - 2)), rate_tally(int(won[1] - 1), int(tried[1] - 2))
            if pair[0].n and pair[1].n and misses(difference_interval([pair], bounds=UNIT, adaptive=True), 0):
                missed += 1
                break
    assert missed / 300 <= allowed(0.05, 300)


def test_a_difference_never_leaves_what_the_bounds_allow() -> None:
    found = difference_interval([(rate_tally(12, 120), rate_tally(108, 120))], bounds=UNIT)
    assert found is not None
    assert found.high <= 1
    assert found.method == "asymptotic"


def test_tallies_that_are_no_numbers_are_left_out() -> None:
    pair = rate_tally(100, 500), rate_tally(200, 500)
    broken = Tally(n=500, m=nan, m2=1, d=500, d2=500, md=1)
    assert difference_interval([(broken, pair[1]), pair], bounds=UNIT) == difference_interval([pair], bounds=UNIT)


@pytest.mark.parametrize("alpha", [0.0, 1.0, nan])
def test_alpha_must_be_a_probability(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must lie in"):
        mean_interval(Tally(), bounds=UNIT, alpha=alpha)
    with pytest.raises(ValueError, match="alpha must lie in"):
        difference_interval([], bounds=UNIT, alpha=alpha)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, 0.0), (0.0, inf), (nan, 1.0)])
def test_bounds_must_be_finite_and_ascending(bounds: Bounds) -> None:
    with pytest.raises(ValueError, match="finite and ascending"):
        mean_interval(Tally(), bounds=bounds)


def test_many_units_at_once_are_tallied_as_one_by_one() -> None:
    """The simulations of this module depend on it."""
    m, d = users(np.random.default_rng(10), 50)
    assert tally_of(m, d) == Tally.of_units(zip(m.tolist(), d.tolist(), strict=True))


# A heavy unit


@pytest.mark.parametrize("right", [0.0, 600.0, 1_000.0])
def test_one_unit_with_a_thousand_values_makes_the_interval_of_a_mean_not_wide(right: float) -> None:
    rng = np.random.default_rng(11)
    m, d, bucket = rng.binomial(5, 0.6, 2_000).astype(float), np.full(2_000, 5.0), rng.integers(0, 64, 2_000)
    before = mean_interval(tally_of(m, d), bounds=UNIT)
    m[0], d[0] = right, 1_000.0
    sums = Buckets(tuple(np.bincount(bucket, m, 64).tolist()), tuple(np.bincount(bucket, d, 64).tolist()))
    after = mean_interval(tally_of(m, d), bounds=UNIT, buckets=sums)
    assert before is not None
    assert after is not None
    assert before.method == "exact"
    assert after.high - after.low < 2 * (before.high - before.low)
    assert after.low < 0.6 < after.high


def test_watching_users_beside_a_heavy_unit_misses_in_at_most_alpha_over_all_looks() -> None:
    rng = np.random.default_rng(12)
    missed = 0
    for _ in range(60):
        d = rng.integers(1, 6, 1_000).astype(float)
        d[0] = 500
        m = rng.binomial(d.astype(int), rng.beta(1.2, 0.8, 1_000)).astype(float)
        bucket = rng.integers(0, 64, 1_000)
        for n in range(200, 1_001, 200):
            sums = Buckets(
                tuple(np.bincount(bucket[:n], m[:n], 64).tolist()), tuple(np.bincount(bucket[:n], d[:n], 64).tolist())
            )
            if misses(mean_interval(tally_of(m[:n], d[:n]), bounds=UNIT, buckets=sums), 0.6):
                missed += 1
                break
    assert missed / 60 <= allowed(0.05, 60)
