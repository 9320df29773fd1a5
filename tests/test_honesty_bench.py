"""The bench of honesty: what it simulates is what a store would hold, and it skips no decision."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.honesty import interleaving
from loadtests.honesty.__main__ import main
from loadtests.honesty.before import BEFORE
from loadtests.honesty.cases import Array, Case, Measured, median, share
from loadtests.honesty.registry import CASES
from loadtests.honesty.route import Design
from loadtests.honesty.streams import binary, one_to_twenty, rewards, units
from loadtests.honesty.verdicts import LEAST_SCORE, first_decisions
from policies.plans import CompetitivePairs, TeamDraft
from policies.types import Tally


def test_cumulative_sums_are_the_tallies_of_their_units() -> None:
    """Whatever is drawn: each look holds what the store would after these units."""
    seen: list[tuple[Array, Array]] = []

    def draw(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
        seen.append(rewards(0.3, one_to_twenty)(random, shape))
        return seen[-1]

    [looks] = units(np.random.default_rng(3), draw, 1.0, runs=2, looks=3, batch=10)
    m, d = seen[0]
    for run in (0, 1):
        for look in range(3):
            upto = 10 * (look + 1)
            by_hand = Tally.of_units(zip(m[run, :upto].tolist(), d[run, :upto].tolist(), strict=True))
            found = looks.tally(run, look, 1)
            assert [getattr(found, name) for name in Tally.__slots__] == pytest.approx(
                [getattr(by_hand, name) for name in Tally.__slots__]
            )
            assert looks.tally(run, look, 0) == Tally()


def test_a_skipped_look_never_decides() -> None:
    """The screen saves time and changes nothing."""
    looks = binary(np.random.default_rng(5), (0.05, 0.07), 0.5, runs=10, looks=40)
    screened, whole = (first_decisions(looks, Design(), least=least) for least in (LEAST_SCORE, 0.0))
    assert screened.sign.tolist() == whole.sign.tolist()
    assert screened.look.tolist() == whole.look.tolist()


def test_a_target_is_missed_only_beyond_two_standard_errors() -> None:
    case = Case("x", "what", "where", lambda random, runs: share([True]), bound=0.05)
    assert [case.judged(Measured(value, 0.01, 100)) for value in (0.05, 0.0699, 0.08)] == ["yes", "within 2 SE", "NO"]
    assert case.judged(median([float("inf")], np.random.default_rng(0))) == "NO"


def test_every_line_has_its_own_name_and_prints_the_same_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert set(BEFORE) <= {case.name for case in CASES}
    case = next(case for case in CASES if case.group == "h")
    assert case.found(20) == case.found(20)


@pytest.mark.parametrize("option", [["--only", "nothing"], ["--runs", "0"]])
def test_options_that_mean_nothing_are_refused(option: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(option)


def test_pairs_keep_the_preference_and_leave_out_the_votes_of_a_coin() -> None:
    """A small version of row p: the same queries and clicks, merged both ways, averaged over every order of a draft."""
    rankers = interleaving.Rankers(own=(1.0, 0.4))
    pairs, drafted = interleaving.chances(rankers, np.random.default_rng(1), 8)
    assert pairs[0] - pairs[1] >= 0.85 * (drafted[0] - drafted[1]) > 0
    assert pairs.sum() <= 0.8 * drafted.sum()


def test_rankers_of_one_list_are_told_apart_by_no_click() -> None:
    plans = [kind(("old", "new"), "", "", 6) for kind in (CompetitivePairs, TeamDraft)]
    clicked = dict.fromkeys("abcdef", 0.3)
    pairs, drafted = (interleaving.query(plan, ["abcdef", "abcdef"], clicked) for plan in plans)
    assert pairs == (0.0, 0.0)
    assert drafted[0] == pytest.approx(drafted[1])
    assert drafted[0] == pytest.approx((1 - 0.7**6) / 2)


@pytest.mark.parametrize(
    ("group", "runs"), [("b", 15), ("e", 20), ("d", 60), ("f", 60), ("h", 15), ("j", 15), ("shadow", 10), ("a", 6)]
)
def test_a_small_version_keeps_its_promises(group: str, runs: int) -> None:
    """Of each guard (skew, buckets, newcomers, few units, cap, pairs, bets on fresh requests) one group of lines."""
    for case in (case for case in CASES if case.group == group):
        assert case.judged(case.found(runs)) != "NO", case.name
