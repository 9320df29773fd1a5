"""Preference: bets on the signs of units, and an interval for the share of wins."""

from __future__ import annotations

from dataclasses import replace
from math import exp

import numpy as np
import pytest
from scipy.stats import betabinom, binom

from policies.statistics.preference import Preference, log_sign_e_value, preference
from policies.types import Tally


def votes(wins: int, losses: int, ties: int = 0) -> Tally:
    return Tally.of_units([(1, 1)] * wins + [(-1, 1)] * losses + [(0, 1)] * ties)


@pytest.mark.parametrize(
    ("wins", "losses", "a", "e"),
    [(60, 40, 1, 0.9130497785), (60, 40, 10, 2.18659), (75, 25, 1, 51_752.572), (530, 470, 100, 1.831173)],
)
def test_reference_values_of_the_e_process(wins: int, losses: int, a: float, e: float) -> None:
    assert exp(log_sign_e_value(wins, losses, a)) == pytest.approx(e, rel=1e-5)
    assert preference(votes(wins, losses)).p == pytest.approx(min(1.0, exp(-log_sign_e_value(wins, losses))))


def test_a_bet_on_one_more_coin_is_fair() -> None:
    """By hand: E after a win and E after a loss have the mean E, so E is a martingale."""
    for wins, losses in ((0, 0), (1, 0), (7, 12), (400, 300)):
        now, up, down = (exp(log_sign_e_value(wins + w, losses + d)) for w, d in ((0, 0), (1, 0), (0, 1)))
        assert (up + down) / 2 == pytest.approx(now, rel=1e-9)


@pytest.mark.parametrize(("wins", "losses"), [(0, 1), (3, 9), (17, 4), (501, 499), (1_301, 1_201), (1_120, 1_000)])
def test_the_bet_is_the_likelihood_ratio_mixed_over_a_beta(wins: int, losses: int) -> None:
    found = exp(betabinom.logpmf(wins, wins + losses, 10, 10) - binom.logpmf(wins, wins + losses, 0.5))
    assert exp(log_sign_e_value(wins, losses)) == pytest.approx(found, rel=1e-8)


@pytest.mark.parametrize("each", [1, 6])
def test_p_decides_exactly_where_the_interval_excludes_one_half(each: int) -> None:
    """Of 200 votes, and with units that voted six times each: at every number of wins, at three levels."""
    for wins in range(0, 201, 4):
        tally = Tally(n=200, d=200.0 * each, positive=wins, negative=200 - wins)
        for alpha in (0.05, 0.01, 0.0001):
            found = preference(tally, alpha=alpha)
            assert (found.p <= alpha) == (not found.low <= 0.5 <= found.high)


def test_units_that_vote_again_change_their_minds_and_the_promise_holds() -> None:
    """A fixed group votes 400 times each, looked at ever again. As if each vote were final, p would fail too often."""
    rng = np.random.default_rng(7)
    runs, units = 1_000, 100
    sums = np.zeros((runs, units), np.int16)
    ever = np.zeros((2, runs), bool)
    for each in range(1, 401):
        sums += 2 * rng.integers(0, 2, sums.shape, np.int8) - 1
        if each % 2:  # an odd number of votes: no unit ties
            wins, of_run = np.unique((sums > 0).sum(axis=1), return_inverse=True)
            tallies = [Tally(n=units, d=float(units * each), positive=w, negative=units - w) for w in wins.tolist()]
            ever[0] |= np.array([preference(tally).p <= 0.05 for tally in tallies])[of_run]
            ever[1] |= np.array([preference(replace(tally, d=float(units))).p <= 0.05 for tally in tallies])[of_run]
    assert ever[0].mean() <= 0.05 < 0.06 < ever[1].mean()


def test_the_interval_and_the_share_are_those_of_the_votes_and_a_comparison_has_them_less_one_half() -> None:
    found = preference(votes(60, 40, ties=25), alpha=0.1)
    assert (found.wins, found.losses, found.ties, found.share) == (60, 40, 25, 0.6)
    assert found.low < 0.5 < 0.6 < found.high
    as_difference = found.difference()
    assert as_difference is not None
    assert (as_difference.low, as_difference.high) == (found.low - 0.5, found.high - 0.5)
    assert (as_difference.method, as_difference.p) == ("paired_e_process", found.p)


def test_the_other_ranker_sees_the_mirror_image() -> None:
    one, other = preference(votes(60, 40)), preference(votes(40, 60))
    assert (one.p, one.low, one.high) == pytest.approx((other.p, 1 - other.high, 1 - other.low), abs=1e-12)


def test_a_unit_has_one_vote_however_often_it_clicked() -> None:
    assert preference(Tally.of_units([(9, 9), (-1, 5), (-2, 3)])).wins == 1


@pytest.mark.parametrize("ties", [0, 7])
def test_without_votes_nothing_is_known(ties: int) -> None:
    assert preference(votes(0, 0, ties)) == Preference(0, 0, ties, None, 0.0, 1.0, 1.0)


def test_impossible_counts_are_clamped() -> None:
    assert preference(Tally(n=-1, positive=-2, negative=-3)) == Preference(0, 0, 0, None, 0.0, 1.0, 1.0)
