"""The difference of two shares: exact at every look, against its definition and brute force."""

from __future__ import annotations

from math import inf, log, nan

import numpy as np
import pytest
from scipy.special import betaln

from policies.statistics.two_shares import PRIOR, Trials, share_gap


def by_brute_force(one: Trials, alpha: float) -> tuple[float, float]:
    """The same from its definition, on a grid: every difference with a pair of shares that is not refuted."""
    p = np.linspace(1e-4, 1 - 1e-4, 1001)
    average = sum(betaln(PRIOR[0] + k, PRIOR[1] + n - k) - betaln(*PRIOR) for k, n in (one[:2], one[2:]))
    logs = [k * np.log(p) + (n - k) * np.log1p(-p) for k, n in (one[:2], one[2:])]
    allowed = average - (logs[0][:, None] + logs[1][None, :]) < log(1 / alpha)
    gaps = p[None, :] - p[:, None]
    return float(gaps[allowed].min()), float(gaps[allowed].max())


@pytest.mark.parametrize(
    "one", [Trials(30, 100, 45, 90), Trials(0, 320, 8, 80), Trials(5, 10, 5, 10), Trials(40, 40, 0, 30)]
)
def test_the_interval_has_every_difference_that_is_not_refuted(one: Trials) -> None:
    assert share_gap([one]) == pytest.approx(by_brute_force(one, 0.05), abs=0.003)


def test_swapping_sides_negates_it_and_swapping_success_and_failure_does_with_a_prior_that_is_swapped() -> None:
    low, high = share_gap([Trials(3, 50, 12, 60)])
    assert share_gap([Trials(12, 60, 3, 50)]) == pytest.approx((-high, -low), abs=1e-5)


def test_a_ramp_during_a_bad_day_is_no_difference() -> None:
    """Both fail 1 % on the first day and 10 % on the second, when most get the variant."""
    days = [Trials(9, 900, 1, 100), Trials(10, 100, 90, 900)]
    low, high = share_gap(days)
    assert low < 0 < high
    pooled = [sum(column) for column in zip(*days, strict=True)]
    assert share_gap([Trials(*pooled)])[0] > 0.03


def test_impossible_counts_say_nothing_or_are_clamped() -> None:
    assert share_gap([]) == share_gap([Trials(0, 0, 5, 10)]) == share_gap([Trials(nan, nan, inf, inf)]) == (-1.0, 1.0)
    assert share_gap([Trials(-3, 10, 50, 20)]) == share_gap([Trials(0, 10, 20, 20)])


def test_the_truth_is_missed_at_any_look_less_often_than_promised() -> None:
    """Looked at after every 20 requests up to 1,000, of which a fifth goes to the variant; both fail 1 %."""
    rng, missed, experiments = np.random.default_rng(5), 0, 120
    for _ in range(experiments):
        mine = rng.random(1000) < 0.2
        failed = rng.random(1000) < 0.01
        for n in range(100, 1001, 100):
            k1, n1 = int((failed & mine)[:n].sum()), int(mine[:n].sum())
            low, high = share_gap([Trials(int(failed[:n].sum()) - k1, n - n1, k1, n1)])
            if not low <= 0 <= high:
                missed += 1
                break
    assert missed <= 0.05 * experiments
