"""The interval of a rate: published values, the definition by brute force, and repeated looks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import betaln
from scipy.stats import binom

from policies.statistics.bernoulli import TIGHTEST_AT_TRIALS, rate_interval
from tests.policies.statistics.tallies import allowed


@pytest.mark.parametrize(
    ("successes", "trials", "tightest_at", "interval"),
    [
        (700, 1000, 100, (0.651629, 0.745949)),
        (15, 50, 50, (0.129556, 0.511896)),
        (1, 50, 50, (0, 0.13489)),
        (100, 200, 1, (0.328923, 0.671076)),
        (1, 2, 1, (0, 1)),
    ],
)
def test_published_values(successes: int, trials: int, tightest_at: float, interval: tuple[float, float]) -> None:
    """confseq's own unit tests of the same mixture."""
    found = rate_interval(successes, trials - successes, tightest_at=tightest_at)
    assert found == pytest.approx(interval, abs=1e-5)


@pytest.mark.parametrize(("successes", "failures"), [(3, 7), (40, 60), (1.7, 12.4), (250, 2), (0, 25), (0.4, 30)])
def test_it_holds_exactly_the_rates_whose_bet_stays_below_1_over_alpha(successes: float, failures: float) -> None:
    spread = -2 * np.log(0.05)
    c = TIGHTEST_AT_TRIALS / (spread + np.log1p(spread)) - 1
    rates = np.linspace(0, 1, 20_001)[1:-1]
    bets = (
        betaln(c * rates + successes, c * (1 - rates) + failures)
        - betaln(c * rates, c * (1 - rates))
        - successes * np.log(rates)
        - failures * np.log1p(-rates)
    )
    accepted = rates[bets < np.log(20)]
    low, high = rate_interval(successes, failures)
    assert low == pytest.approx(accepted[0], abs=1e-4)
    assert high == pytest.approx(accepted[-1], abs=1e-4)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.97])
def test_it_misses_the_rate_at_any_of_a_thousand_looks_in_at_most_alpha(rate: float) -> None:
    """The fixed-size interval would miss in a third of the runs."""
    rng = np.random.default_rng(0)
    lowest, highest = np.array([_accepted_counts(n, rate) for n in range(1, 1_001)]).T
    paths = np.cumsum(rng.random((4_000, 1_000)) < rate, axis=1)
    missed = ((paths < lowest) | (paths > highest)).any(axis=1).mean()
    assert missed <= allowed(0.05, len(paths))


def _accepted_counts(trials: int, rate: float) -> tuple[int, int]:
    """The fewest and most successes whose interval holds the rate, by bisection: intervals move up with successes."""

    def first(test: int, lower: int, upper: int) -> int:
        while lower < upper:
            middle = (lower + upper) // 2
            bound = rate_interval(middle, trials - middle)[test]
            lower, upper = (lower, middle) if bound >= rate else (middle + 1, upper)
        return lower

    # Accepted are the counts from the first whose high reaches the rate up to, but without, the first whose low does.
    return first(1, 0, trials), first(0, 0, trials + 1) - 1


def test_peeking_brackets_are_the_inverse_of_the_interval() -> None:
    lowest, highest = _accepted_counts(200, 0.3)
    held = [k for k in range(201) if rate_interval(k, 200 - k)[0] < 0.3 <= rate_interval(k, 200 - k)[1]]
    assert (lowest, highest) == (held[0], held[-1])
    assert held == list(range(lowest, highest + 1))


def test_at_one_look_it_is_wider_than_clopper_pearson_by_at_most_three_quarters() -> None:
    for trials in (100, 300, 1_000, 10_000):
        low, high = rate_interval(trials * 0.4, trials * 0.6)
        fixed = binom(trials, 0.4)
        width = (fixed.ppf(0.975) - fixed.ppf(0.025)) / trials
        assert width < high - low < 1.75 * width


@pytest.mark.parametrize(("successes", "failures"), [(3, 17), (400, 600), (0, 9), (2.5, 2.5)])
def test_failures_are_successes_of_the_opposite(successes: float, failures: float) -> None:
    low, high = rate_interval(successes, failures)
    assert rate_interval(failures, successes) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_a_smaller_alpha_is_a_wider_interval() -> None:
    widths = [high - low for low, high in (rate_interval(30, 70, alpha=a) for a in (0.2, 0.05, 0.01, 1e-6))]
    assert widths == sorted(widths)


def test_no_trials_say_nothing() -> None:
    assert rate_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("trials", [1e3, 1e6, 1e9, 1e12])
@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.01, 0.5, 0.999, 1.0])
def test_it_brackets_the_observed_rate_at_every_size(trials: float, rate: float) -> None:
    low, high = rate_interval(trials * rate, trials * (1 - rate))
    assert 0 <= low <= rate <= high <= 1
    assert high - low < 13 * np.sqrt(max(rate * (1 - rate), 5 / trials) / trials)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
def test_alpha_must_be_a_probability(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must lie in"):
        rate_interval(1, 1, alpha=alpha)
