"""Bets on who answered: exactly fair where two variants do not differ, whatever the values and the shares do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import exp, inf, log, nan, prod

import numpy as np
import pytest
from scipy.special import expit, logit

from policies.statistics.difference import Difference
from policies.statistics.e_process import LOG_ODDS, LOG_ODDS_WEIGHTS, fresh_difference, log_e_values, pair_of
from policies.types import StretchTallies, Tally
from tests.policies.statistics.tallies import allowed, tally_of

Bounds = tuple[float, float] | None

#: Values of six requests, in two stretches of three, of which the variant "b" has these shares.
VALUES = [(0, 0, 0, 0, 0, 0), (1, 0, 0, 1, 1, 1), (0, 0, 1, 1, 1, 1), (1, 1, 1, 1, 1, 0)]
SHARES = [(0.5, 0.5), (0.02, 0.9), (0.3, 0.7)]


def stretch(share: float, baseline: Sequence[float], variant: Sequence[float]) -> StretchTallies:
    """A stretch of requests with these values; a third variant has a tenth of the traffic."""
    tallies = {
        ("a", "m"): Tally.of_units((y, 1) for y in baseline),
        ("b", "m"): Tally.of_units((y, 1) for y in variant),
    }
    return StretchTallies({"a": 0.9 * (1 - share), "b": 0.9 * share, "c": 0.1}, tallies)


def split(share: float, values: tuple[float, ...], to: tuple[int, ...]) -> StretchTallies:
    return stretch(share, *([y for y, side in zip(values, to, strict=True) if side == which] for which in (0, 1)))


def e_value(stretches: list[StretchTallies], bounds: Bounds, effect: float | None = None) -> float:
    pair = pair_of(stretches, "b", "a", "m")
    assert pair is not None
    up, down = log_e_values(pair, bounds=bounds, effect=effect)
    return (exp(up) + exp(down)) / 2


def mean_e_value(values: tuple[float, ...], shares: tuple[float, ...], bounds: Bounds, effect: float | None) -> float:
    """The mean over all ways in which six requests with these values may have been given to the two variants."""
    total = 0.0
    for to in product((0, 1), repeat=6):
        ends = [split(shares[0], values[:3], to[:3]), split(shares[1], values[3:], to[3:])]
        chance = prod(shares[i // 3] if side else 1 - shares[i // 3] for i, side in enumerate(to))
        total += chance * e_value(ends, bounds, effect)
    return total


@pytest.mark.parametrize("effect", [None, 0.1])
@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("values", VALUES)
def test_the_mean_over_all_assignments_is_exactly_1(
    values: tuple[float, ...], shares: tuple[float, ...], effect: float | None
) -> None:
    """By Ville's inequality that bounds the chance of ever being wrong, whatever the values are."""
    assert mean_e_value(values, shares, (0.0, 1.0), effect) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("bounds", [(0.0, 10.0), None])
@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("values", [(0, 10, 2.5, 1, 0, 7), (0, 0, 0, 10, 0, 0), (1, 2, 3, 4, 5, 6)])
def test_of_other_values_the_mean_is_at_most_1(
    values: tuple[float, ...], shares: tuple[float, ...], bounds: Bounds
) -> None:
    assert 0.5 < mean_e_value(values, shares, bounds, None) <= 1 + 1e-12


def found(stretches: list[StretchTallies], variant: str, baseline: str, bounds: Bounds = (0.0, 1.0)) -> Difference:
    difference = fresh_difference(stretches, variant, baseline, "m", bounds=bounds)
    assert difference is not None
    return difference


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 3.0), None])
def test_swapping_the_variants_turns_the_difference_round(bounds: Bounds) -> None:
    stretches = [stretch(0.3, [1] * 30 + [0] * 40, [1] * 20 + [0] * 10), stretch(0.6, [1] * 9 + [0] * 31, [1] * 60)]
    one, other = found(stretches, "b", "a", bounds), found(stretches, "a", "b", bounds)
    assert one.p == pytest.approx(other.p, rel=1e-9)
    assert one.p < 1
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))


def test_it_is_the_product_of_likelihood_ratios_request_by_request() -> None:
    """A batch twin: Π p_A(y) / (π·p_b(y) + (1 − π)·p_a(y)), one request after the other, for each difference."""
    stretches = [
        stretch(0.3, [1] * 20 + [0] * 160, [1] * 15 + [0] * 60),
        stretch(0.8, [1] * 3 + [0] * 30, [0] * 90 + [1] * 20),
    ]
    rate = (35 + 0.5) / (255 + 1)  # of the first stretch by its own values, of the second by those of the first
    total = 0.0
    for sign, (size, weight) in product((1, -1), zip(LOG_ODDS, LOG_ODDS_WEIGHTS, strict=True)):
        gain = 0.0
        for share, one in zip((0.3, 0.8), stretches, strict=True):
            a, b = expit(logit(rate) - share * sign * size), expit(logit(rate) + (1 - share) * sign * size)
            mixture = share * b + (1 - share) * a
            for p, name in ((a, "a"), (b, "b")):
                tally = one.tally(name, "m")
                gain += tally.m * log(p / mixture) + (tally.d - tally.m) * log((1 - p) / (1 - mixture))
        total += weight * exp(gain) / 2
    assert e_value(stretches, (0.0, 1.0)) == pytest.approx(total, rel=1e-9)


def test_a_stretch_without_known_shares_bets_nothing() -> None:
    known = stretch(0.5, [1] * 30 + [0] * 40, [1] * 50 + [0] * 20)
    unknown = StretchTallies({}, known.tallies)
    assert found([unknown, known], "b", "a") == found([known], "b", "a")
    assert fresh_difference([unknown], "b", "a", "m", bounds=(0.0, 1.0)) is None
    assert fresh_difference([], "b", "a", "m", bounds=(0.0, 1.0)) is None


def test_a_cycle_of_the_rates_is_no_difference() -> None:
    """Most of "b" was drawn while the rate was 0.4: pooled, it has 370 of 1,000 and "a" has 130."""
    low = stretch(0.1, [1] * 90 + [0] * 810, [1] * 10 + [0] * 90)
    same = found([low, stretch(0.9, [1] * 40 + [0] * 60, [1] * 360 + [0] * 540)], "b", "a")
    assert same.difference == pytest.approx(0, abs=1e-12)
    assert same.p == 1
    assert same.low < 0 < same.high


def test_a_difference_is_found_and_a_declared_one_sooner() -> None:
    one = [stretch(0.5, [1] * 500 + [0] * 9_500, [1] * 600 + [0] * 9_400)]
    undeclared, declared = (fresh_difference(one, "b", "a", "m", bounds=(0.0, 1.0), effect=e) for e in (None, 0.01))
    assert undeclared is not None
    assert declared is not None
    assert declared.p < undeclared.p < 0.05
    assert (undeclared.described, undeclared.withheld, undeclared.decides(0.05)) == (True, None, True)
    assert undeclared.relative is not None
    assert undeclared.relative[0] == pytest.approx(0.2)
    assert undeclared.relative[1] < 0.2 < undeclared.relative[2]


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
def test_impossible_tallies_are_left_out(bounds: Bounds) -> None:
    def both(tally: Tally) -> StretchTallies:
        return StretchTallies({"a": 0.5, "b": 0.5}, dict.fromkeys([("a", "m"), ("b", "m")], tally))

    sound = stretch(0.5, [1] * 30 + [0] * 40, [1] * 50 + [0] * 20)
    absurd = [Tally(-5, 3, 3, 1, 1, 1), Tally(1, nan, 1, 1, 1, 1), Tally(1, 1, 1, inf, 1, 1), Tally(0, 0, 0, 0, 0, 0)]
    assert found([*map(both, absurd), sound], "b", "a", bounds) == found([sound], "b", "a", bounds)
    assert 0 <= found([sound, both(Tally(1, 9, 1, 1, 1))], "b", "a", bounds).p <= 1


@pytest.mark.parametrize(("bounds", "share"), [((0.0, 1.0), 0.05), ((0.0, 9.0), 0.2), (None, 0.5)])
def test_equal_variants_are_hardly_ever_told_apart_at_any_look(bounds: Bounds, share: float) -> None:
    """100 experiments of 2,000 requests whose rate cycles, looked at after every 200."""
    rng, wrong = np.random.default_rng(5), 0
    rates = 0.11 + 0.09 * np.sin(np.arange(2_000) / 150)
    for _ in range(100):
        values = (rng.random(2_000) < rates) * (1.0 if bounds == (0.0, 1.0) else rng.choice([1.0, 2.0, 9.0], 2_000))
        to = rng.random(2_000) < share
        sums = np.array([np.cumsum([side, values * side, values**2 * side], 1)[:, 199::200] for side in (~to, to)])
        for look in range(10):
            sides = [Tally(int(n), m, m2, n, n, m, d_max=1.0) for n, m, m2 in sums[:, :, look]]
            tallies = {("a", "m"): sides[0], ("b", "m"): sides[1]}
            if found([StretchTallies({"a": 1 - share, "b": share}, tallies)], "b", "a", bounds).decides(0.05):
                wrong += 1
                break
    assert wrong <= 100 * allowed(0.05, 100)


def test_more_variation_on_the_smaller_side_is_no_difference() -> None:
    """Both have a mean of 1; "b" has a tenth of the requests and varies three times as much. Bets that reckon with the
    variation of all requests together called it different in 29 of 100 experiments."""
    rng, wrong = np.random.default_rng(6), 0
    for _ in range(60):
        to = rng.random(20_000) < 0.1
        values = np.where(to, rng.exponential(1.0, 20_000), 1 + 0.3 * rng.standard_normal(20_000))
        for n in range(2_000, 20_001, 2_000):
            sides = {("b", "m"): values[:n][to[:n]], ("a", "m"): values[:n][~to[:n]]}
            tallies = {key: tally_of(side, np.ones(len(side))) for key, side in sides.items()}
            if found([StretchTallies({"a": 0.9, "b": 0.1}, tallies)], "b", "a", None).decides(0.05):
                wrong += 1
                break
    assert wrong <= 60 * allowed(0.05, 60)
