"""Planned sizes: against closed forms, against simulations of the methods themselves, and by symmetry."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf, log

import numpy as np
import pytest
from scipy.stats import invgauss, norm

from policies.statistics.e_process import fresh_difference
from policies.statistics.means.group_sequential import inflation
from policies.statistics.power.crossing import PlannedBet, boundary_of, crossed_by, time_of
from policies.statistics.power.power import PLANNED_LOOKS, Contrast, Design, effect_found, units_needed
from policies.types import StretchTallies, Tally

EVEN = Contrast(0.05, (0.0475, 0.0475), share=0.5, binary=True, by_log_odds=True)
DESIGNS = [
    Design("asymptotic"),
    Design("asymptotic", expected_units=20_000),
    Design("mixture", declared=0.01),
    Design("e_process"),
    Design("e_process", declared=0.01),
    Design("group_sequential"),
]


@pytest.mark.parametrize("power", [0.3, 0.8, 0.95])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_a_bet_on_the_right_drift_is_won_after_an_inverse_gaussian_time(alpha: float, power: float) -> None:
    """x − t/2 drifts by 1/2, and the bet is won when that reaches log(2/α)."""
    goal = log(2 / alpha)
    twin = invgauss(2 / goal, scale=goal**2).ppf(power)
    assert time_of(boundary_of([PlannedBet(1.0, drift=1.0)], alpha), power) == pytest.approx(twin, rel=2e-3)


def test_planned_looks_cost_what_five_of_them_cost() -> None:
    assert inflation(5) == pytest.approx(PLANNED_LOOKS, abs=0.003)


def test_a_straight_boundary_is_crossed_as_the_closed_form_says() -> None:
    """Source: Siegmund 1985, Sequential analysis, equation 3.15."""
    times = np.linspace(0.05, 20, 400)
    found = crossed_by(lambda t: 3 + 0.4 * t, times)
    drift, root = 0.6, np.sqrt(times)
    twin = norm.cdf((drift * times - 3) / root) + np.exp(2 * drift * 3) * norm.cdf((-drift * times - 3) / root)
    assert found == pytest.approx(twin, abs=2e-3)


@pytest.mark.parametrize("design", DESIGNS)
def test_the_effect_that_is_found_by_the_planned_units_is_the_one_planned_for(design: Design) -> None:
    units = units_needed(EVEN, 0.01, design)
    assert effect_found(EVEN, units, design) == pytest.approx(0.01, rel=0.01)
    assert 1.02 * 16_310 < units < 2.1 * 16_310
    assert units_needed(EVEN, 0.02, design) < 0.5 * units
    assert units_needed(EVEN, 0.01, replace(design, alpha=0.01)) > 1.2 * units


def test_what_is_smaller_than_every_bet_is_not_found_however_long_it_takes() -> None:
    """A bet on a log odds ratio of .05 loses where that is below .025."""
    found = [effect_found(EVEN, units, Design("e_process")) for units in (1e5, 1e7, 1e9, 1e12)]
    assert all(later < 1.02 * sooner for sooner, later in pairwise(found))
    assert found[-1] == pytest.approx(found[-2], rel=0.02)
    assert 0.8 * 0.025 < found[-1] / (0.05 * 0.95) < 1.3 * 0.025


@pytest.mark.parametrize("design", DESIGNS)
def test_swapping_the_sides_changes_nothing(design: Design) -> None:
    one = replace(EVEN, share=0.1, variances=(0.03, 0.06), binary=False, by_log_odds=False)
    other = replace(one, share=0.9, variances=(0.06, 0.03))
    if design.method == "e_process":  # bets are scaled by the baseline's deviation
        other = replace(other, variances=(0.03, 0.03))
        one = replace(one, variances=(0.03, 0.03))
    assert units_needed(one, 0.01, design) == pytest.approx(units_needed(other, 0.01, design))


def test_what_cannot_be_planned_is_never_found() -> None:
    for effect in (0.0, float("nan"), inf):
        assert units_needed(EVEN, effect, DESIGNS[0]) == inf
    assert units_needed(replace(EVEN, variances=(0.0, 0.0)), 0.01, DESIGNS[0]) == inf
    assert units_needed(replace(EVEN, share=None, differing=0.0, fewest=0), 0.01, Design("paired_e_process")) == inf
    assert units_needed(EVEN, 1e-4, Design("e_process")) == inf  # bets on much larger differences lose
    assert effect_found(EVEN, 150, DESIGNS[0]) == inf  # fewer than 100 on a side
    assert effect_found(replace(EVEN, mean=0.999), 300, DESIGNS[0]) == inf  # no rate is above 1


@pytest.mark.parametrize(
    ("rate", "effect", "share", "declared"), [(0.05, 0.01, 0.5, None), (0.05, 0.02, 0.1, 0.02), (0.9, 0.05, 0.5, None)]
)
def test_bets_on_fresh_requests_are_won_by_the_planned_units(
    rate: float, effect: float, share: float, declared: float | None
) -> None:
    """Four of five by then: 67 % at 80 % of them, 87 % at 120 %; three standard errors are allowed."""
    contrast = Contrast(rate, (rate * (1 - rate),) * 2, share, binary=True, by_log_odds=True)
    units = units_needed(contrast, effect, Design("e_process", declared=declared))
    rng = np.random.default_rng(1)
    looks = np.round(units * np.linspace(0.1, 1.2, 23)).astype(int)
    ours = rng.binomial(np.diff(looks, prepend=0), share, size=(100, len(looks)))
    sides = [(np.diff(looks, prepend=0) - ours, rate), (ours, rate + effect)]
    sums = [(n.cumsum(1), rng.binomial(n, p).cumsum(1)) for n, p in sides]

    def tally(n: float, m: float) -> Tally:
        return Tally(int(n), m, m, n, n, m, d_max=1)

    def decides(run: int, look: int) -> bool:
        one, other = (tally(n[run, look], m[run, look]) for n, m in sums)
        stretch = StretchTallies({"a": 1 - share, "b": share}, {("a", "k"): one, ("b", "k"): other})
        found = fresh_difference([stretch], "b", "a", "k", bounds=(0, 1), effect=declared)
        return found is not None and found.decides(0.05)

    first = [next((look for look in range(len(looks)) if decides(run, look)), 99) for run in range(100)]
    by = [np.mean([one <= look for one in first]) for look in (14, 22)]
    assert 0.53 < by[0] < 0.81
    assert by[1] > 0.77
