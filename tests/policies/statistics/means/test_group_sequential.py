"""Boundaries for a declared maximum: published ones, one by hand, and how often they are crossed."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.statistics.means.compare import standardised
from policies.statistics.means.group_sequential import boundary, inflation, sequential_p, spent
from policies.types import Tally
from tests.policies.statistics.tallies import allowed


def test_ldbounds_has_the_same_boundaries() -> None:
    """ldbounds 2.0, spending as O'Brien and Fleming, two-sided .05, five equal looks."""
    fractions = [0.2, 0.4, 0.6, 0.8, 1.0]
    found = [boundary(fractions[:looks]) for looks in range(1, 6)]
    assert found == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)


def test_one_look_at_the_end_is_a_fixed_test() -> None:
    assert boundary([1.0]) == pytest.approx(1.959964, abs=1e-6)
    assert boundary([1.2]) == boundary([1.0])
    assert spent(1.0, 0.05) == 0.05


def test_the_second_of_two_looks_spends_what_is_left() -> None:
    """By scipy's bivariate normal law: P(|Z₁| < b₁, |Z₂| < b₂) = 1 − α, with correlation √.5."""
    from scipy.stats import multivariate_normal

    one, two = boundary([0.5]), boundary([0.5, 1.0])
    law = multivariate_normal([0, 0], [[1, 0.5**0.5], [0.5**0.5, 1]])
    inside = law.cdf([one, two]) - law.cdf([-one, two]) - law.cdf([one, -two]) + law.cdf([-one, -two])
    assert inside == pytest.approx(0.95, abs=1e-5)


def test_looks_that_hardly_differ_and_looks_too_early_decide_nothing() -> None:
    assert boundary([0.5, 0.501]) == inf
    assert boundary([0.5, 0.501, 1.0]) == boundary([0.5, 1.0])
    assert boundary([0.01]) == inf
    assert boundary([]) == inf


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.005])
def test_p_is_the_alpha_at_which_the_look_decides(alpha: float) -> None:
    fractions = [0.3, 0.6, 0.9]
    assert sequential_p(fractions, boundary(fractions, alpha)) == pytest.approx(alpha, rel=1e-3)
    assert sequential_p(fractions, 0.0) == 1.0
    assert sequential_p(fractions, 50.0) < 1e-10


def test_five_looks_take_three_percent_more_units_than_one() -> None:
    assert 1.02 < inflation(5) < 1.03
    assert inflation(1) == pytest.approx(1.0)


def test_a_declared_maximum_errs_in_alpha_and_finds_almost_what_a_fixed_test_finds() -> None:
    rng = np.random.default_rng(21)
    fractions = np.sort(np.append(rng.random(9), 1.0))
    steps = np.diff(np.concatenate([[0], fractions]))
    noise = np.cumsum(rng.normal(size=(20_000, 10)) * np.sqrt(steps), axis=1)
    bounds = np.array([boundary(fractions[:looks].tolist()) for looks in range(1, 11)])
    crossed = (np.abs(noise / np.sqrt(fractions)) > bounds).any(axis=1).mean()
    assert abs(crossed - 0.05) < allowed(0.05, 20_000) - 0.05
    drift = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    found = (np.abs((noise + drift * fractions) / np.sqrt(fractions)) > bounds).any(axis=1).mean()
    assert found / 0.8 > 0.93


def test_boundaries_fall_from_look_to_look() -> None:
    fractions = [0.1 * look for look in range(1, 11)]
    found = [boundary(fractions[:looks]) for looks in range(1, 11)]
    assert all(one > other for one, other in pairwise(found) if one < inf)


FRACTIONS = (0.2, 0.4, 0.6, 0.8, 1.0)


@pytest.mark.parametrize("grows", [(1, 3, 9, 27, 81), (10, 14, 16, 17, 17.5), (30, 40, 40.01, 40.01, 40.01)])
def test_a_declared_end_errs_in_alpha_however_traffic_grows_until_then(grows: tuple[float, ...]) -> None:
    """Information is not time: by the calendar alone, a tripling of traffic from look to look errs in 6.3 %."""
    information = np.array(grows, dtype=float)
    steps = np.diff(information, prepend=0.0)
    normal = np.random.default_rng(7).normal(size=(200_000, len(steps))) * np.sqrt(steps)
    z = np.abs(np.cumsum(normal, axis=1)) / np.sqrt(information)
    bounds = [boundary(FRACTIONS[:looks], 0.05, grows[:looks]) for looks in range(1, 6)]
    assert (z > bounds).any(axis=1).mean() <= allowed(0.05, 200_000)
    assert (z > bounds).any(axis=1).mean() >= 0.047  # all of alpha is spent


@given(st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5), st.floats(1e-6, 1e6))
def test_only_the_ratios_of_information_matter(steps: list[float], unit: float) -> None:
    information = np.cumsum(steps)
    found = boundary(FRACTIONS, 0.05, list(information * unit))
    assert found == pytest.approx(boundary(FRACTIONS, 0.05, list(information)), rel=1e-6)


def test_information_that_grows_as_the_fractions_or_was_not_kept_changes_nothing() -> None:
    for known in ([2.0, 4.0, 6.0, 8.0, 10.0], [0.0, 0.0, 0.0, 0.0, 5.0], None):
        assert boundary(FRACTIONS, 0.05, known) == pytest.approx(boundary(FRACTIONS), abs=1e-9)
        assert sequential_p(FRACTIONS, 2.5, known) == pytest.approx(sequential_p(FRACTIONS, 2.5), rel=1e-6)


def test_a_look_that_brings_no_information_decides_nothing_and_the_maximum_decides() -> None:
    assert boundary([0.2, 0.4], 0.05, [5.0, 5.01]) == inf
    assert boundary([0.2, 0.4], 0.05, [5.0, 4.0]) == inf
    assert boundary([0.2, 1.0], 0.05, [5.0, 5.0]) < 2.0


def test_units_only_add_to_the_information_though_a_rare_event_becomes_frequent() -> None:
    """The variance of the difference rises there, so 1 / that would fall: looks would seem to go together."""

    def seen(successes: int, units: int) -> tuple[float, float]:
        side = Tally.of_units([(1, 1)] * successes + [(0, 1)] * (units - successes))
        found = standardised([(side, side)], bounds=(0.0, 1.0))
        assert found is not None
        return found

    for successes, units in ((200, 20_000), (700, 21_000)):
        rate, information = successes / units, seen(successes, units)[1]
        assert information == pytest.approx(units / 2 * rate * (1 - rate), rel=1e-3)
    assert seen(700, 21_000)[1] > 2 * seen(200, 20_000)[1]
