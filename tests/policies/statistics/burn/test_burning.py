"""Fast burn: a broken variant is out on counts alone; restarts, shared outages and single clients are no reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import exp, log

import numpy as np
import pytest

from policies.statistics.burn import Burn, Count, FailureWatch, brief, burning, faltering, sentence, watched
from policies.statistics.burn.burning import BROKE, BROKEN, HEALTHY, NEVER_ANSWERED, log_evidence
from policies.types import Tally

#: (calls, failures) of baseline and variant in one second.
Second = tuple[tuple[int, int], tuple[int, int]]


def seconds_of(
    rng: np.random.Generator, rate: float, share: float, fails: Callable[[int], tuple[float, float]], length: int
) -> Iterable[Second]:
    """Poisson traffic; ``fails(second)`` are the chances of failure of baseline and variant."""
    for second in range(length):
        calls = rng.poisson(rate * (1 - share)), rng.poisson(rate * share)
        failed = [int(rng.binomial(n, p)) for n, p in zip(calls, fails(second), strict=True)]
        yield (int(calls[0]), failed[0]), (int(calls[1]), failed[1])


def looks_at(seconds: Iterable[Second], *, began_ms: int = 0) -> Iterable[tuple[int, FailureWatch]]:
    """What a decider knows after each second, of a step that it saw begin; every call is a unit of its own."""
    totals = {"old": Count(), "new": Count()}
    watch = watched(None, began_ms, began_ms, totals, "old")
    for second, sides in enumerate(seconds, 1):
        totals = {
            name: totals[name].and_also(Count(calls, failed, calls, failed))
            for name, (calls, failed) in zip(totals, sides, strict=True)
        }
        watch = watched(watch, began_ms, began_ms + 1000 * second, totals, "old")
        yield second, watch


def first_burn(seconds: Iterable[Second]) -> tuple[int, Burn] | None:
    return next(((at, burns[0]) for at, watch in looks_at(seconds) if (burns := burning(watch))), None)


def test_the_bet_is_the_likelihood_ratio_of_the_textbook() -> None:
    """By hand: equal shares, so both fail .5 on average; each failure and each answer multiplies by .95 / .5."""
    assert log_evidence(5, 0, 0, 5, 0.5) == pytest.approx(10 * log(0.95 / 0.5))
    both = 0.01 * BROKEN + 0.99 * HEALTHY
    assert log_evidence(3, 1, 2, 7, 0.01) == pytest.approx(
        3 * log(BROKEN / both) + log(0.05 / (1 - both)) + 2 * log(HEALTHY / both) + 7 * log(0.95 / (1 - both))
    )


def test_the_bet_does_not_care_which_side_is_called_the_variant() -> None:
    """A failure of one is as good as an answer of the other, where both names and outcomes are swapped."""
    assert log_evidence(7, 2, 1, 11, 0.3) == pytest.approx(log_evidence(11, 1, 2, 7, 0.7))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("rate", [0.02, 0.5, 0.97])
def test_where_both_fail_alike_the_bet_is_fair(share: float, rate: float) -> None:
    """Exactly: the sum over the outcomes of one call, whichever of the two it goes to, is 1."""
    mean = sum(
        (share if mine else 1 - share)
        * (rate if failed else 1 - rate)
        * exp(log_evidence(mine * failed, mine * (1 - failed), (1 - mine) * failed, (1 - mine) * (1 - failed), share))
        for mine in (0, 1)
        for failed in (0, 1)
    )
    assert mean == pytest.approx(1)


def test_a_candidate_that_never_answered_is_out_within_two_seconds() -> None:
    """At ten requests a second and more to the candidate nearly always; at five in most runs, and soon after in all."""
    rng = np.random.default_rng(1)
    for rate, share, by_two in ((50, 0.5, 1.0), (20, 0.5, 0.95), (500, 0.01, 0.6), (10, 0.5, 0.6)):
        found = [first_burn(seconds_of(rng, rate, share, lambda _: (0.05, 1.0), 10)) for _ in range(60)]
        assert all(one is not None and one[1].reason == "never_answered" for one in found)
        assert np.mean([one is not None and one[0] <= 2 for one in found]) >= by_two, (rate, share)


def test_one_that_answered_and_breaks_is_out_soon_after_a_restart_would_be_over() -> None:
    rng = np.random.default_rng(2)
    for rate, share in ((50, 0.5), (500, 0.01), (50, 0.9)):
        for _ in range(10):
            found = first_burn(seconds_of(rng, rate, share, lambda at: (0.02, 0.02 if at < 20 else 1.0), 20 + 40))
            assert found is not None
            assert found[1].reason == "broke"
            assert 30 < found[0] <= 20 + 25


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_five_seconds_of_a_restart_are_no_reason_on_either_side(share: float) -> None:
    rng = np.random.default_rng(3)
    for rate in (2, 50, 2000):
        for whose in (0, 1):

            def fails(at: int, whose: int = whose) -> tuple[float, float]:
                down = 1.0 if 15 <= at < 20 else 0.01
                return (down, 0.01) if whose == 0 else (0.01, down)

            for _ in range(5):
                assert first_burn(seconds_of(rng, rate, share, fails, 60)) is None


def test_one_that_fails_just_now_is_known_and_for_no_longer() -> None:
    """For ten seconds it may be a restart, and is not out: but nothing should be passed in the midst of it."""
    seconds = [((25, 1), (25, 1))] * 60 + [((25, 1), (25, 25))] * 5 + [((25, 1), (25, 1))] * 5
    found = {at: faltering(watch) for at, watch in looks_at(seconds)}
    assert not any(found[at] for at in (*range(1, 61), *range(66, 71)))
    assert found[61] == {"new": "failed 25 of its last 25 calls"}
    assert all(found[at] for at in range(61, 66))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_an_outage_of_both_is_no_reason_however_long_and_however_it_moves(share: float) -> None:
    rng = np.random.default_rng(4)

    def both(at: int) -> tuple[float, float]:
        return (down := abs((at / 20) % 2 - 1), down)

    for rate in (5, 500):
        for _ in range(8):
            found = first_burn(seconds_of(rng, rate, share, both, 120))
            assert found is None or found[1].reason == "alone"


def test_an_outage_that_begins_with_the_step_is_taken_for_the_candidates_less_often_than_stated() -> None:
    """Whatever share of all calls fails: at most exp(−6)."""
    rng = np.random.default_rng(5)
    wrong = []
    for p in (0.4, 0.5, 0.6, 0.8):

        def both(_: int, p: float = p) -> tuple[float, float]:
            return p, p

        wrong += [first_burn(seconds_of(rng, 10, 0.5, both, 4)) is not None for _ in range(250)]
    assert np.mean(wrong) <= exp(-NEVER_ANSWERED) + 0.003


def test_one_client_that_is_always_refused_moves_nothing() -> None:
    """It makes all of the candidate's calls but a few, and they all fail."""
    totals = {"old": Count(1000, 0, 1000, 0), "new": Count(900, 0, 900, 0)}
    watch = watched(None, 0, 0, totals, "old")
    for second in range(1, 60):
        refused = totals["new"].and_also(Count(1, 1, 500, 500)) if second == 1 else None
        totals = {
            "old": totals["old"].and_also(Count(5, 0, 5, 0)),
            "new": refused or totals["new"].and_also(Count(0, 0, 500, 500)),
        }
        watch = watched(watch, 0, 1000 * second, totals, "old")
        assert burning(watch) == ()


def test_without_calls_of_the_baseline_failing_is_all_that_is_known() -> None:
    """At a share of 1 a shared outage and the candidate's own look the same."""
    found = first_burn([((0, 0), (50, 0 if at < 5 else 50)) for at in range(30)])
    assert found is not None
    assert (found[0], found[1].reason) == (17, "alone")
    said = "new failed 600 of 600 calls in the last 11 s; whether old would have is not known"
    assert sentence(found[1], "old") == said


def test_what_comes_late_and_all_at_once_shows_no_duration() -> None:
    """A restart of 5 s, of which a node tells 40 s later; and a recorder that stood still for 20 s."""
    lump: list[Second] = [((50, 0), (50, 0))] * 10 + [((50, 0), (300, 250))] + [((50, 0), (50, 0))] * 10
    stalled: list[Second] = [((50, 0), (50, 0))] * 10 + [((50, 0), (50, 50))] + [((0, 0), (0, 0))] * 20
    stalled += [((1000, 0), (1000, 200))] + [((50, 0), (50, 0))] * 10
    assert first_burn(lump) is None
    assert first_burn(stalled) is None


def test_a_decider_that_lost_its_memory_waits_as_if_nothing_had_been() -> None:
    """It sees that the candidate answered once, and of the failures only those that come now."""
    totals = {"old": Count(9000, 0, 9000, 0), "new": Count(9000, 600, 9000, 600)}
    watch = watched(None, 0, 600_000, totals, "old")
    for second in range(1, 20):
        totals = {
            "old": totals["old"].and_also(Count(25, 0, 25, 0)),
            "new": totals["new"].and_also(Count(25, 25, 25, 25)),
        }
        watch = watched(watch, 0, 600_000 + 1000 * second, totals, "old")
        assert bool(burning(watch)) == (second > 11)
    up, down = brief(watch, "new")
    # Ten of the 600 s before are unknown: 150 of 9,475 calls.
    assert up >= 150 / 9475
    assert down == 0


def test_totals_that_fall_begin_anew() -> None:
    watch = watched(None, 0, 0, {"old": Count(9, 9, 9, 9)}, "old")
    assert watched(watch, 0, 1000, {"old": Count(8, 8, 8, 8)}, "old").watched_ms == 1000
    assert watched(watch, 500, 1000, {"old": Count(9, 9, 9, 9)}, "old").watched_ms == 1000


def test_the_worst_ten_seconds_are_what_they_explain() -> None:
    """By hand: 5 s of failures in 100 s explain all of a difference of five points; the same of the baseline's too."""
    for whose in (0, 1):
        seconds = [tuple((50, 50 if side == whose and 40 <= at < 45 else 0) for side in (0, 1)) for at in range(100)]
        *_, (_, watch) = looks_at(seconds)  # type: ignore[arg-type]
        up, down = brief(watch, "new")
        assert (up, down) == pytest.approx((0.05, 0.0) if whose == 1 else (0.0, 0.05))


def test_the_sentence_has_the_numbers_of_both() -> None:
    found = first_burn([((5, 0), (5, 5))] * 3)
    assert found is not None
    assert sentence(found[1], "old") == "new failed every one of its 5 calls since the step began; old failed 0 of 5"
    found = first_burn([((5, 0), (5, 0))] + [((5, 1), (5, 5))] * 30)
    assert found is not None
    assert found[1].evidence >= BROKE
    assert sentence(found[1], "old") == "new failed 60 of 60 calls in the last 11 s, while old failed 12 of 60"


def test_a_count_is_what_a_tally_of_calls_says() -> None:
    assert Count.of(Tally.of_units([(2, 3), (0, 4)])) == Count(2, 1, 7, 2)
