"""Comparing sticky units at any look: by hand, by symmetry, and how often equal variants are told apart."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, nan, sqrt

import numpy as np
import numpy.typing as npt
import pytest

from policies.statistics.difference import Difference
from policies.statistics.means import strata as strata_module
from policies.statistics.means.betting import Stakes, evidence_between
from policies.statistics.means.compare import compare, shares_moved
from policies.statistics.means.strata import Pair, by_buckets, estimate
from policies.statistics.paired import unit_variance
from policies.types import Buckets, Tally
from tests.policies.examples import rate_tally
from tests.policies.statistics.tallies import Array, allowed, tally_of

UNIT = (0.0, 1.0)
Mask = npt.NDArray[np.bool_]
#: M and D of every unit, and whether it got the variant.
Period = tuple[npt.NDArray[np.floating], npt.NDArray[np.floating], Mask]


@dataclass
class Sums:
    """Buckets of units."""

    m: list[float]
    d: list[float]


def sums_of(m: Array, d: Array, bucket: npt.NDArray[np.int64]) -> Sums:
    return Sums(np.bincount(bucket, m, 64).tolist(), np.bincount(bucket, d, 64).tolist())


def cut(periods: list[Period], bucket: npt.NDArray[np.int64]) -> tuple[list[Pair], list[tuple[Sums, Sums]]]:
    """Return the strata of periods in which each unit has (M, D) and the baseline or the variant."""
    strata, buckets = [], []
    seen = [np.zeros(len(bucket), bool), np.zeros(len(bucket), bool)]
    for m, d, b in ((m.astype(float), d.astype(float), b) for m, d, b in periods):
        tallies, sums = [], []
        for side, mask in enumerate((~b, b)):
            mine = mask & (d > 0)
            tally = tally_of(m[mine], d[mine], distinct=int((mine & ~seen[side]).sum()))
            seen[side] |= mine
            tallies.append(tally)
            sums.append(sums_of(np.where(mine, m, 0.0), np.where(mine, d, 0.0), bucket))
        strata.append((tallies[0], tallies[1]))
        buckets.append((sums[0], sums[1]))
    return strata, buckets


def decided(found: Difference | None) -> bool:
    return found is not None and found.decides(0.05)


# One stratum


def test_with_one_value_a_unit_the_standard_error_is_that_of_two_proportions() -> None:
    """50/50 and equal rates: p(1 − p)·(n / (n − 1))·2 / n, and 4·n₀·n₁ / (n₀ + n₁) = 2·n effective units."""
    found = estimate([(rate_tally(400, 1000), rate_tally(400, 1000))])
    assert found is not None
    assert found.variance == pytest.approx(2 * 0.24 / 999)
    assert found.size == pytest.approx(2000, rel=1e-3)
    assert (found.units, found.smaller, found.covariance) == (2000, 1000, 0)


def test_an_effective_size_is_harmonic() -> None:
    found = estimate([(rate_tally(3800, 9500), rate_tally(200, 500))])
    assert found is not None
    assert found.size == pytest.approx(4 * 9500 * 500 / 10000, rel=1e-2)


def test_a_rate_of_one_in_twenty_needs_25_times_its_squared_skewness() -> None:
    """(1 − 2p)² / (p(1 − p)) = .81 / .0475 = 17.05."""
    found = estimate([(rate_tally(500, 10000), rate_tally(500, 10000))])
    assert found is not None
    assert found.needed == pytest.approx(25 * 0.81 / 0.0475, rel=1e-3)


def test_uneven_units_count_for_fewer() -> None:
    """Half the units have 1 value, half 9: (n · Σd²) / (Σd)² = 2 · 82 / 100, so it takes 164 for each 100."""
    units = [(float(i % 2), 1.0) for i in range(200)] + [(4.0 + i % 2, 9.0) for i in range(200)]
    found = estimate([(Tally.of_units(units), Tally.of_units(units))])
    assert found is not None
    assert found.needed == pytest.approx(164)


def test_tallies_of_an_old_store_have_no_third_moments_and_count_as_the_most_skewed() -> None:
    """A 0/1 value's residual is at most 1, so |Σr³| ≤ Σr²: the squared skewness is at most 1 / (p(1 − p))."""
    old = Tally(n=10000, m=500, m2=500, d=10000, d2=10000, md=500, positive=500, d_max=1)
    found = estimate([(old, old)], bounds=UNIT)
    assert found is not None
    assert found.needed == pytest.approx(25 / 0.0475, rel=1e-3)
    unbounded = compare([(old, old)], bounds=None)
    assert unbounded is not None
    assert unbounded.withheld is not None


@pytest.mark.parametrize("effect", [None, 0.05])
@pytest.mark.parametrize(
    "strata",
    [
        [(rate_tally(300, 1000), rate_tally(400, 1000))],
        [(rate_tally(300, 1000), rate_tally(400, 1000)), (rate_tally(90, 900), rate_tally(40, 100))],
        [(rate_tally(8, 40), rate_tally(30, 40))],
    ],
)
def test_exchanging_the_sides_turns_the_sign(strata: list[Pair], effect: float | None) -> None:
    one = compare(strata, bounds=UNIT, effect=effect)
    other = compare([pair[::-1] for pair in strata], bounds=UNIT, effect=effect)
    assert one is not None
    assert other is not None
    assert (other.difference, other.low, other.high, other.p) == pytest.approx(
        (-one.difference, -one.high, -one.low, one.p), abs=1e-5
    )


@pytest.mark.parametrize("effect", [None, 0.05])
@pytest.mark.parametrize("wins", [300, 360, 380, 390, 400])
def test_the_p_value_decides_exactly_where_the_interval_does(wins: int, effect: float | None) -> None:
    for alpha in (0.05, 0.01):
        found = compare([(rate_tally(300, 1000), rate_tally(wins, 1000))], bounds=UNIT, alpha=alpha, effect=effect)
        assert found is not None
        assert (found.p <= alpha) == (found.low > 0)


def test_values_that_few_units_decide_are_withheld_until_they_are_capped() -> None:
    rng = np.random.default_rng(11)
    spent = np.where(rng.random(12_000) < 0.05, rng.lognormal(0, 2, 12_000), 0.0)
    ones = np.ones(12_000)
    raw = tally_of(spent[:6000], ones[:6000]), tally_of(spent[6000:], ones[6000:])
    found = compare([raw], bounds=None)
    assert found is not None
    assert found.withheld is not None
    assert "cap" in found.withheld
    assert found.needs is not None
    assert found.needs > 6000
    assert not found.decides(0.99)
    low = np.minimum(spent, 5.0)
    capped = compare([(tally_of(low[:6000], ones[:6000]), tally_of(low[6000:], ones[6000:]))], bounds=(0, 5))
    assert capped is not None
    assert (capped.withheld, capped.method) == (None, "asymptotic")


def test_one_unit_with_a_thousand_values_is_cut_to_two_buckets_in_sixty_five() -> None:
    rng = np.random.default_rng(12)
    n = 2_000
    d = np.full(n, 5.0)
    d[0] = 1_000
    b = np.arange(n) % 2 == 1
    m = rng.binomial(5, np.where(b, 0.8, 0.6), n).astype(float)
    m[0] = 0.0
    strata, buckets = cut([(m, d, b)], rng.integers(0, 64, n))
    blind = compare(strata, bounds=UNIT)
    found = compare(strata, bounds=UNIT, buckets=buckets)
    assert found is not None
    assert blind is not None
    assert blind.method == "exact"
    assert decided(found)
    assert found.capped == pytest.approx(2 / 65, rel=0.1)
    assert found.low < 0.2 < found.high
    assert found.high - found.low < 0.15


def test_without_heavy_units_nothing_is_capped() -> None:
    rng = np.random.default_rng(13)
    m, d = rng.binomial(5, 0.5, 1_000).astype(float), np.full(1_000, 5.0)
    strata, buckets = cut([(m, d, rng.random(1_000) < 0.5)], rng.integers(0, 64, 1_000))
    found = compare(strata, bounds=UNIT, buckets=buckets)
    assert found is not None
    assert found.capped is None


# Several strata


def test_a_changing_world_under_a_ramp_is_no_effect() -> None:
    days = [(rate_tally(50, 500), rate_tally(50, 500)), (rate_tally(45, 900), rate_tally(5, 100))]
    found = estimate(days)
    assert found is not None
    assert found.difference == pytest.approx(0, abs=1e-15)


def test_buckets_tell_periods_of_new_users_from_periods_of_the_same_users() -> None:
    """Five equal periods: as wide as uncut, on average. Without buckets new users count as the same: √5 as wide."""
    rng = np.random.default_rng(14)
    n, worlds = 1_000, 30
    ratio = np.zeros((2, 2))
    for _ in range(worlds):
        rates, bucket = rng.beta(0.4, 1.6, n), rng.integers(0, 64, n)
        b, period = rng.random(n) < 0.5, np.arange(n) % 5
        new: list[Period] = [(rng.binomial(20, rates) * (period == k), 20.0 * (period == k), b) for k in range(5)]
        same: list[Period] = [(rng.binomial(20, rates) * 1.0, np.full(n, 20.0), b) for _ in range(5)]
        for at, periods in enumerate((new, same)):
            strata, buckets = cut(periods, bucket)
            m, d = (np.sum([each[0] for each in periods], axis=0), np.sum([each[1] for each in periods], axis=0))
            uncut = estimate(cut([(m, d, b)], bucket)[0])
            found = [estimate(strata, known) for known in (buckets, None)]
            assert uncut is not None
            ratio[at] += [each.variance / uncut.variance / worlds for each in found if each is not None]
    assert ratio[0] == pytest.approx([1.0, 5.0], rel=0.1)
    assert ratio[1] == pytest.approx([1.0, 1.06], rel=0.1)


def test_eighty_people_over_forty_tiny_edits_are_eighty_people() -> None:
    rng = np.random.default_rng(15)
    n = 80
    chance, bucket, rates = rng.random(n), rng.integers(0, 64, n), rng.beta(2, 2, n)
    periods: list[Period] = []
    for edit in range(40):
        d = (rng.random(n) < 0.3) * 1.0
        periods.append(((rng.random(n) < rates) * d, d, chance < 0.5 + 0.0002 * edit))
    strata, buckets = cut(periods, bucket)
    found = estimate(strata, buckets)
    assert found is not None
    assert found.units == 80 - int((np.sum([d for _, d, _ in periods], axis=0) == 0).sum())
    assert not decided(compare(strata, bounds=UNIT, buckets=buckets))


@pytest.mark.parametrize("same", [True, False])
def test_equal_variants_on_a_ramp_are_told_apart_in_at_most_alpha(same: bool) -> None:
    rng = np.random.default_rng(16)
    wrong, n = 0, 1_500
    for _ in range(40):
        rates, bucket, chance = rng.beta(0.4, 1.6, n), rng.integers(0, 64, n), rng.random(n)
        period = rng.integers(0, 5, n)
        periods: list[Period] = []
        for step, share in enumerate((0.1, 0.2, 0.3, 0.4, 0.5)):
            here = np.ones(n, bool) if same else period == step
            world = rates * (1 - 0.15 * step)
            periods.append((rng.binomial(8, world) * here * 1.0, 8.0 * here, chance < share))
        strata, buckets = cut(periods, bucket)
        wrong += any(decided(compare(strata[:k], bounds=UNIT, buckets=buckets[:k])) for k in range(1, 6))
    assert wrong / 40 <= allowed(0.05, 40)


# Few units


def test_eighty_users_who_get_80_against_41_percent_right_decide() -> None:
    rng = np.random.default_rng(17)
    sides = []
    for rate in (0.41, 0.8):
        d = rng.integers(5, 17, 40).astype(float)
        sides.append([(float(m), float(k)) for m, k in zip(rng.binomial(d.astype(int), rate), d, strict=True)])
    strata = [(Tally.of_units(sides[0]), Tally.of_units(sides[1]))]
    found = compare(strata, bounds=UNIT, few=(sides[0], sides[1]))
    assert found is not None
    assert found.method == "betting"
    assert decided(found)
    assert found.low < 0.39 < found.high


def test_few_equal_users_are_told_apart_in_at_most_alpha_over_all_looks() -> None:
    """Users come back between looks, so that their means move."""
    rng = np.random.default_rng(18)
    wrong = 0
    for _ in range(150):
        rates, b = rng.beta(0.6, 1.4, 80), rng.random(80) < 0.5
        who = rng.integers(0, 80, 800)
        right = (rng.random(800) < rates[who]) * 1.0
        for look in (50, 100, 200, 400, 800):
            m, d = np.bincount(who[:look], right[:look], 80), np.bincount(who[:look], minlength=80) * 1.0
            sides = [Stakes.on_values((m[side & (d > 0)] / d[side & (d > 0)]).tolist()) for side in (~b, b)]
            if evidence_between(sides[0], sides[1], 0.0) >= -log(0.05):
                wrong += 1
                break
    assert wrong / 150 <= allowed(0.05, 150)


def test_few_users_on_a_ramp_are_not_pooled_over_a_world_that_changes() -> None:
    """One value a user and day: all right on the first day at a share of 10 %, all wrong on the second at 50 %."""
    days = [(rate_tally(54, 54), rate_tally(6, 6)), (rate_tally(0, 30), rate_tally(0, 30))]
    few = ([(1.0, 1.0)] * 54 + [(0.0, 1.0)] * 30, [(1.0, 1.0)] * 6 + [(0.0, 1.0)] * 30)
    pooled = compare([(days[0][0] + days[1][0], days[0][1] + days[1][1])], bounds=UNIT, few=few)
    found = compare(days, bounds=UNIT, few=few)
    assert pooled is not None
    assert found is not None
    assert (decided(pooled), pooled.method) == (True, "betting")
    assert (decided(found), found.method) == (False, "exact")
    assert found.difference == pytest.approx(0)


# Relative differences, declared maxima, impossible input


def test_a_relative_interval_has_the_ends_at_which_fiellers_statistic_is_critical() -> None:
    found = compare([(rate_tally(300, 1000), rate_tally(400, 1000))], bounds=UNIT)
    raw = estimate([(rate_tally(300, 1000), rate_tally(400, 1000))])
    assert found is not None
    assert raw is not None
    assert found.relative is not None
    assert found.relative[0] == pytest.approx(1 / 3)
    z = (found.difference - found.low) / sqrt(raw.variance)
    for end in found.relative[1:]:
        ratio = 1 + end
        error = sqrt(raw.variances[1] + ratio**2 * raw.variances[0])
        assert abs(raw.means[1] - ratio * raw.means[0]) / error == pytest.approx(z)


def test_a_baseline_that_may_be_0_has_no_relative_difference() -> None:
    rng = np.random.default_rng(19)
    values = rng.normal(0, 1, 2_000)
    ones = np.ones(1_000)
    found = compare([(tally_of(values[:1000], ones), tally_of(values[1000:], ones))], bounds=None)
    assert found is not None
    assert found.relative is None


def test_a_declared_maximum_decides_at_the_end_as_a_fixed_test_almost_does() -> None:
    pair = rate_tally(300, 1000), rate_tally(345, 1000)
    early = compare([pair], bounds=UNIT, looks=[0.5])
    late = compare([pair], bounds=UNIT, looks=[0.5, 1.0])
    assert early is not None
    assert late is not None
    assert (early.method, decided(early), decided(late)) == ("group_sequential", False, True)


@pytest.mark.parametrize("bounds", [UNIT, None])
@pytest.mark.parametrize(
    "tally",
    [
        Tally(),
        Tally(n=-5, m=1, d=-5),
        Tally(n=500, m=nan, m2=1, d=500, d2=500, md=1),
        Tally(n=500, m=inf, m2=inf, d=500, d2=500, md=1),
        Tally(n=500, m=900, m2=900, d=500, d2=500, md=900, d_max=1, m3=900, m2d=900, md2=900, d3=500, distinct=500),
        Tally(n=500, m=100, m2=-1, d=500, d2=1, md=1e9, d_max=1, m3=nan, m2d=inf, md2=1, d3=1, distinct=-3),
        Tally(n=2, m=1e200, m2=1e300, d=2, d2=2, md=1e200, d_max=1, m3=1e300, m2d=1, md2=1, d3=2, distinct=2),
    ],
)
def test_impossible_tallies_raise_nothing_and_decide_nothing_new(
    tally: Tally, bounds: tuple[float, float] | None
) -> None:
    sound = rate_tally(250, 500)
    for strata in ([(tally, sound)], [(sound, tally)], [(tally, tally)]):
        found = compare(strata, bounds=bounds)
        assert found is None or found.low <= found.high or found.withheld is not None
    alone = compare([(sound, sound)], bounds=bounds)
    assert alone is not None


def test_alpha_must_be_a_probability() -> None:
    with pytest.raises(ValueError, match="alpha must lie in"):
        compare([], bounds=UNIT, alpha=1.5)


# The gate


def test_equal_revenue_at_a_small_share_is_told_apart_in_at_most_alpha_because_of_the_gate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """5 % of the users buy, for lognormal amounts; a canary of 5 % shows few large ones, so both sums are too low."""
    rng = np.random.default_rng(22)
    n, runs = 20_000, 60
    experiments = []
    for _ in range(runs):
        spent = np.where(rng.random(n) < 0.05, rng.lognormal(0, 1.5, n), 0.0)
        b = rng.random(n) < 0.05
        looks = [(spent[:count], b[:count]) for count in np.geomspace(2_500, n, 8).astype(int)]
        experiments.append(
            [(tally_of(x[~mine], np.ones((~mine).sum())), tally_of(x[mine], np.ones(mine.sum()))) for x, mine in looks]
        )

    def wrong() -> float:
        return float(np.mean([any(decided(compare([pair], bounds=None)) for pair in each) for each in experiments]))

    assert wrong() <= allowed(0.05, runs)
    monkeypatch.setattr(strata_module, "SKEWNESS_FACTOR", 0.0)
    monkeypatch.setattr(strata_module, "SHRINKAGE", 0.0)
    assert wrong() > allowed(0.05, runs)


def test_a_period_that_a_correction_emptied_is_no_period() -> None:
    """A comparison of few users over two periods, of which one has lost every value, is that of the other."""
    one = Tally.of_units([(1.0, 1.0)] * 20), Tally.of_units([(0.0, 1.0)] * 20)
    assert not shares_moved([one, (Tally(), Tally())])
    assert not shares_moved([(Tally(), Tally()), (Tally(), Tally())])


def test_periods_whose_differences_cancel_decide_nothing() -> None:
    """Few users, all better in one period and all worse in the next: their mean difference is 0."""
    right, wrong = Tally.of_units([(1.0, 1.0)] * 20), Tally.of_units([(0.0, 1.0)] * 20)
    found = compare([(right, wrong), (wrong, right)], bounds=(0.0, 1.0))
    assert found is not None
    assert not found.decides(0.05)
    assert -1 <= found.low <= found.difference <= found.high <= 1


EXTREMES = (0.0, 1.0, -1.0, 50.0, 1e15, 1e74, -1e74, 1e300, 5e-324, inf, -inf, nan)


def test_sums_near_the_limits_of_numbers_raise_nothing_in_an_estimate() -> None:
    """Values lie within limits that keep sums far from these; what a store holds may still be broken."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        sums = [float(one) for one in rng.choice(EXTREMES, 24)]
        pair = _of_sums(sums[:10]), _of_sums(sums[10:20])
        one, other = (
            Buckets((m, *[1.0] * 63), (d, *[1.0] * 63)) for m, d in zip(sums[20:22], sums[22:24], strict=True)
        )
        estimate([pair, pair], [(one, other)] * 2)
        by_buckets([(one, other)])
        unit_variance(pair[0])


def _of_sums(sums: list[float]) -> Tally:
    m, m2, d, d2, md, d_max, m3, m2d, md2, d3 = sums
    return Tally(300, m, m2, d, d2, md, 3, 3, d_max, m3, m2d, md2, d3, 300)
