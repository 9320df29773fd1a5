"""Bets on who answered: exactly fair where two variants do not differ, whatever the values and the shares do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import exp, prod

import pytest

from policies.statistics.difference import Difference
from policies.statistics.e_process import fresh_difference, log_e_values, pair_of
from policies.types import StretchTallies, Tally

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
