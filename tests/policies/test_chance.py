"""Chance: exact shares, independence between experiments, and ramps that move no unit back."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import sqrt

import pytest

from policies.chance import chance, pick

UNITS = [f"user-{i}" for i in range(200_000)]


def picked(salt: str, key: str, weights: Iterable[tuple[str, float]]) -> str:
    name, weight = pick(salt, key, weights)
    assert (name, weight) in tuple(weights)
    return name


@pytest.mark.parametrize(
    "shares",
    [
        {"stable": 0.99, "candidate": 0.01},
        {"stable": 0.95, "candidate": 0.05},
        {"a": 0.5, "b": 0.5},
        {"a": 0.6, "b": 0.3, "c": 0.1},
    ],
)
def test_200_000_units_meet_the_shares_within_four_standard_errors(shares: dict[str, float]) -> None:
    weights = tuple(shares.items())
    counts = dict.fromkeys(shares, 0)
    for unit in UNITS:
        counts[picked("experiment", unit, weights)] += 1
    for name, share in shares.items():
        assert abs(counts[name] - share * len(UNITS)) < 4 * sqrt(share * (1 - share) * len(UNITS))


def test_two_experiments_over_the_same_20_000_units_are_uncorrelated() -> None:
    """By the phi coefficient of 20 pairs. A weak hash, salt last, agrees for 24 % of users instead of 50 %."""
    weights = (("a", 0.5), ("b", 0.5))
    assigned = [[picked(f"experiment-{e}", unit, weights) == "b" for unit in UNITS[:20_000]] for e in range(21)]
    for one, other in pairwise(assigned):
        n, n1, n2 = len(one), sum(one), sum(other)
        both = sum(x and y for x, y in zip(one, other, strict=True))
        phi = (n * both - n1 * n2) / sqrt(n1 * (n - n1) * n2 * (n - n2))
        assert abs(phi) < 0.03


@pytest.mark.parametrize("others", [(("a", 1.0),), (("a", 0.7), ("c", 0.3))])
def test_raising_one_weight_moves_units_only_towards_it(others: tuple[tuple[str, float], ...]) -> None:
    """Operators ramp in steps; a user must not flicker between models."""
    units = UNITS[:5_000]
    before = dict.fromkeys(units, "")
    for share in (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 1.0):
        weights = (*((name, weight * (1 - share)) for name, weight in others), ("b", share))
        now = {unit: picked("ramp", unit, weights) for unit in units}
        assert all(now[unit] in {before[unit], "b"} or not before[unit] for unit in units)
        before = now
    assert set(before.values()) == {"b"}


def test_the_order_of_the_names_does_not_matter() -> None:
    forward, backward = (("a", 0.2), ("b", 0.8)), (("b", 0.8), ("a", 0.2))
    assert all(picked("s", unit, forward) == picked("s", unit, backward) for unit in UNITS[:1_000])


def test_a_weight_of_zero_is_never_picked() -> None:
    assert {picked("s", unit, (("a", 0.0), ("b", 1.0))) for unit in UNITS[:1_000]} == {"b"}


@pytest.mark.parametrize("weights", [(), (("a", 0.0),)])
def test_no_positive_weight_is_an_error(weights: tuple[tuple[str, float], ...]) -> None:
    with pytest.raises(ValueError, match="positive weight"):
        picked("s", "u", weights)


def test_chance_is_uniform_in_each_of_twenty_bins() -> None:
    counts = [0] * 20
    for unit in UNITS[:20_000]:
        counts[int(chance("s", unit) * 20)] += 1
    assert all(abs(count - 1_000) < 4 * sqrt(1_000 * 0.95) for count in counts)


def test_parts_cannot_be_shifted_into_each_other() -> None:
    assert len({chance("a", "bc"), chance("ab", "c"), chance("", "abc"), chance("a", "b", "c")}) == 4


def test_a_unit_of_broken_text_still_gets_its_chance() -> None:
    """Header bytes that are not UTF-8 arrive as lone surrogates."""
    assert 0 < chance("s", "caf\udce9") < 1


def test_a_decision_of_today_is_the_decision_of_tomorrow() -> None:
    """Users keep their variant across releases: changing the hash would reassign all of them."""
    assert chance("checkout", "user-1", "v2") == 0.5187375222956434
    halves = (("v1", 0.5), ("v2", 0.5))
    assert "".join(picked("checkout", f"user-{i}", halves) for i in range(8)) == "v1v1v2v2v1v2v2v1"
