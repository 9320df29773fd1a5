"""Preference: the exact sign test, and an interval for the share of wins."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from policies.statistics.bernoulli import rate_interval
from policies.statistics.preference import Preference, preference
from policies.types import Tally


def votes(wins: int, losses: int, ties: int = 0) -> Tally:
    return Tally.of_units([(1, 1)] * wins + [(-1, 1)] * losses + [(0, 1)] * ties)


@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(60, 40, 0.0568879336), (530, 470, 0.0620232), (8, 2, 0.109375), (5, 5, 1.0)]
)
def test_reference_values_of_the_sign_test(wins: int, losses: int, p: float) -> None:
    assert preference(votes(wins, losses)).p == pytest.approx(p, abs=1e-7)


@pytest.mark.parametrize(("wins", "losses"), [(0, 1), (3, 9), (17, 4), (501, 499), (70_000, 71_000)])
def test_p_is_that_of_scipy(wins: int, losses: int) -> None:
    found = preference(Tally(n=wins + losses, positive=wins, negative=losses))
    assert found.p == pytest.approx(binomtest(wins, wins + losses).pvalue, rel=1e-9)


def test_the_interval_is_that_of_the_rate_of_wins_among_votes() -> None:
    found = preference(votes(60, 40, ties=25), alpha=0.1)
    assert (found.wins, found.losses, found.ties, found.share) == (60, 40, 25, 0.6)
    assert (found.low, found.high) == rate_interval(60, 40, alpha=0.1)


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
