"""What variants have shown of each other at the same shares: a good week is nobody's merit."""

from __future__ import annotations

from math import nan

import pytest

from policies.statistics.contrasts import effective_counts
from policies.types import StretchTallies, Tally
from tests.policies.examples import rate_tally

Counts = tuple[tuple[float, float], ...]


def stretch(shares: dict[str, float], **counts: tuple[int, int]) -> StretchTallies:
    """A stretch with (successes, trials) of each variant."""
    return StretchTallies(shares, {(name, "m"): rate_tally(*pair) for name, pair in counts.items()})


def at(rate: float, n: int, **shares: float) -> StretchTallies:
    """A stretch in which everyone has the same rate and got exactly its share."""
    return stretch(shares, **{name: (round(rate * n * share), round(n * share)) for name, share in shares.items()})


def counts(*stretches: StretchTallies, of: str = "ab") -> Counts:
    return effective_counts(stretches, tuple(of), "m")


HALF = {"a": 0.5, "b": 0.5}


def test_at_constant_shares_they_are_the_plain_sums_whatever_the_rates_do() -> None:
    one, other = stretch(HALF, a=(5, 50), b=(9, 60)), stretch(HALF, a=(30, 40), b=(20, 30))
    assert counts(one) == ((5, 45), (9, 51))
    assert counts(one, other) == ((35, 55), (29, 61))


def test_equal_variants_are_equal_though_one_had_its_traffic_when_rates_were_high() -> None:
    """Pooled, "b" has 370 of 1,000 and "a" 130 of 1,000."""
    (a, not_a), (b, not_b) = counts(at(0.1, 1_000, a=0.9, b=0.1), at(0.4, 1_000, a=0.1, b=0.9))
    assert a / not_a == pytest.approx(b / not_b, rel=0.02)


def test_in_a_steady_world_nearly_everything_compares() -> None:
    """Rates are the same in all stretches, only shares move: between stretches as within, all is evidence."""
    stretches = [at(0.1, 1_000, a=share, b=1 - share) for share in (0.9, 0.7, 0.5, 0.3, 0.1) * 8]
    (a, not_a), (b, not_b) = counts(*stretches)
    assert a / not_a == pytest.approx(b / not_b, rel=1e-3)
    contrasts = 8 * 1_000 * (2 * 0.09 + 2 * 0.21 + 0.25)
    assert contrasts < 1 / (1 / (a + not_a) + 1 / (b + not_b)) <= 10_000


def test_where_rates_change_two_variants_tell_as_much_as_their_contrasts() -> None:
    """By hand: a contrast of n requests has the variance of σ² / (n·π·(1 − π)), and stretches add up."""
    (a, not_a), (b, not_b) = counts(at(0.1, 100_000, a=0.9, b=0.1), at(0.4, 200_000, a=0.2, b=0.8))
    contrasts = 100_000 * 0.09 + 200_000 * 0.16
    assert 1 / (1 / (a + not_a) + 1 / (b + not_b)) == pytest.approx(contrasts, rel=0.001)


def test_there_the_log_odds_of_two_variants_differ_as_weighted_by_overlap() -> None:
    """By hand: weights 0.1 and 0.8 of "a", 0.9 and 0.2 of "b"."""
    one = stretch({"a": 0.9, "b": 0.1}, a=(9_000, 90_000), b=(1_200, 10_000))
    other = stretch({"a": 0.2, "b": 0.8}, a=(3_900, 9_000), b=(20_000, 40_000))
    (a, not_a), (b, not_b) = counts(one, other)
    good = (0.9 * 1_200 + 0.2 * 20_000) / (0.1 * 9_000 + 0.8 * 3_900)
    bad = (0.9 * 8_800 + 0.2 * 20_000) / (0.1 * 81_000 + 0.8 * 5_100)
    assert (b / not_b) / (a / not_a) == pytest.approx(good / bad, rel=0.003)


def test_three_variants_are_ranked_by_all_their_contrasts() -> None:
    """b is twice as good as a in odds, and c as b; no stretch has all three at the shares of another.

    Log odds of sums over stretches are nearly, not exactly, those of the stretches.
    """
    odds = {"a": 1.0, "b": 2.0, "c": 4.0}
    plans = [
        ({"a": 0.6, "b": 0.3, "c": 0.1}, 0.05),
        ({"a": 0.1, "b": 0.8, "c": 0.1}, 0.02),
        ({"b": 0.5, "c": 0.5}, 0.1),
    ]

    def made(shares: dict[str, float], level: float) -> StretchTallies:
        rates = {name: level * odds[name] / (1 + level * odds[name]) for name in shares}
        sizes = {name: round(1e6 * share) for name, share in shares.items()}
        return stretch(shares, **{name: (round(sizes[name] * rates[name]), sizes[name]) for name in shares})

    found = counts(*(made(*plan) for plan in plans), of="abc")
    measured = [good / bad for good, bad in found]
    assert measured[1] / measured[0] == pytest.approx(2, rel=0.03)
    assert measured[2] / measured[1] == pytest.approx(2, rel=0.03)


def test_neither_the_order_of_the_variants_nor_what_counts_as_success_matters() -> None:
    def mirrored(one: StretchTallies) -> StretchTallies:
        return StretchTallies(one.shares, {key: rate_tally(int(t.n - t.m), t.n) for key, t in one.tallies.items()})

    stretches = (
        stretch({"a": 0.5, "b": 0.3, "c": 0.2}, a=(50, 500), b=(40, 300), c=(10, 200)),
        stretch({"a": 0.1, "b": 0.2, "c": 0.7}, a=(20, 100), b=(44, 200), c=(99, 700)),
    )
    one = counts(*stretches, of="abc")
    other = counts(*stretches, of="cab")
    assert [other[1], other[2], other[0]] == [pytest.approx(pair) for pair in one]
    assert [(bad, good) for good, bad in counts(*map(mirrored, stretches), of="abc")] == [pytest.approx(p) for p in one]


def test_a_variant_with_few_contrasts_counts_for_little() -> None:
    """It stood alone in the second stretch: that says nothing of the others, and leaves them what they have."""
    found = counts(at(0.1, 1_000, a=0.45, b=0.45, c=0.1), at(0.4, 100_000, a=0.0, b=0.0, c=1.0), of="abc")
    assert [round(good + bad) for good, bad in found] == [450, 450, pytest.approx(100, abs=5)]
    assert found[2][0] / sum(found[2]) == pytest.approx(found[0][0] / sum(found[0]), rel=0.1)


def test_without_values_there_are_no_counts() -> None:
    assert counts() == ((0, 0), (0, 0))
    assert counts(StretchTallies(HALF, {}), stretch({"a": 0.3, "b": 0.7}, a=(3, 30))) == ((3, 27), (0, 0))


def test_no_success_at_all_is_no_reason_to_stop() -> None:
    (a, not_a), (b, not_b) = counts(
        stretch(HALF, a=(0, 50), b=(5, 50)), stretch({"a": 0.2, "b": 0.8}, a=(0, 20), b=(8, 80))
    )
    assert a == pytest.approx(0, abs=1e-3)
    assert b / (b + not_b) == pytest.approx(0.1, rel=0.1)
    assert not_a > 0


def test_impossible_tallies_count_for_nothing() -> None:
    absurd = [rate_tally(-5, 3), rate_tally(9, 3), rate_tally(1, -3), Tally(n=1, m=nan, d=1), Tally(n=1, m=1, d=1e999)]
    stretches = [
        StretchTallies({"a": 0.1 * k, "b": -1.0}, {("a", "m"): one, ("b", "m"): one}) for k, one in enumerate(absurd)
    ]
    assert all(count >= 0 for pair in counts(*stretches) for count in pair)


def test_unknown_shares_are_taken_from_the_values() -> None:
    known = counts(at(0.1, 1_000, a=0.9, b=0.1), at(0.4, 1_000, a=0.1, b=0.9))
    unknown = StretchTallies({}, at(0.1, 1_000, a=0.9, b=0.1).tallies)
    assert counts(unknown, at(0.4, 1_000, a=0.1, b=0.9)) == known
