"""The sample-ratio check: it alarms on broken routes and not on sound ones, however the shares move."""

from __future__ import annotations

from dataclasses import asdict
from math import exp, log, pi, sin

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import dirichlet_multinomial, multinomial

from policies.statistics.sample_ratio import (
    ALARM_BELOW,
    CONCENTRATION,
    Cause,
    SampleRatio,
    SampleRatioState,
    _log_bet,
    _normalised,
    _prior,
    accumulate,
    by_period,
    find_cause,
    sample_ratio,
)
from tests.policies.statistics.tallies import allowed

Stretch = tuple[dict[str, int], dict[str, float]]
HALVES = {"a": 0.5, "b": 0.5}
counts = st.integers(0, 500)


@given(st.lists(counts, min_size=3, max_size=3))
def test_one_stretch_is_the_ratio_of_two_published_laws(given_counts: list[int]) -> None:
    """Dirichlet-multinomial to multinomial, by scipy."""
    shares = [0.5, 0.3, 0.2]
    bet = dirichlet_multinomial.logpmf(given_counts, [CONCENTRATION * s for s in shares], sum(given_counts))
    due = multinomial.logpmf(given_counts, sum(given_counts), shares)
    found = sample_ratio([(dict(zip("abc", given_counts, strict=True)), dict(zip("abc", shares, strict=True)))])
    assert found.p == pytest.approx(min(1, exp(due - bet)), rel=1e-6)


@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=6))
def test_cutting_a_stretch_of_steady_shares_changes_nothing(pieces: list[tuple[int, int]]) -> None:
    shares = {"a": 0.3, "b": 0.7}
    cut = [({"a": a, "b": b}, shares) for a, b in pieces]
    whole = ({"a": sum(a for a, _ in pieces), "b": sum(b for _, b in pieces)}, shares)
    # p is the smallest after any stretch, so the last of the cut ones is compared by leaving out the others' minima.
    assert sample_ratio(cut).p <= sample_ratio([whole]).p * (1 + 1e-9)


@given(counts, counts)
def test_the_names_of_the_variants_do_not_matter(a: int, b: int) -> None:
    one = sample_ratio([({"a": a, "b": b}, {"a": 0.2, "b": 0.8})])
    other = sample_ratio([({"x": b, "y": a}, {"y": 0.2, "x": 0.8})])
    assert one.p == pytest.approx(other.p, rel=1e-9)


@pytest.mark.parametrize(
    ("counts", "ok"),
    [
        ({"a": 50, "b": 60}, True),
        ({"a": 500, "b": 600}, True),
        ({"a": 1_000, "b": 1_200}, False),
        ({"a": 1_500, "b": 1_800}, False),
        ({"a": 821_588, "b": 815_482}, False),
        ({"a": 500_000, "b": 500_500}, True),
    ],
)
def test_what_is_caught_of_an_even_split(counts: dict[str, int], ok: bool) -> None:
    assert sample_ratio([(counts, HALVES)]).ok is ok


def test_a_variant_without_a_share_must_have_no_units() -> None:
    assert sample_ratio([({"a": 9, "b": 1}, {"a": 1.0, "b": 0.0})]) == SampleRatio(0.0, False)
    assert sample_ratio([({"a": 9, "c": 1}, {"a": 1.0})]) == SampleRatio(0.0, False)
    assert sample_ratio([({"a": 9, "b": 0}, {"a": 1.0, "b": 0.0})]) == SampleRatio(1.0, True)


@pytest.mark.parametrize("stretches", [[], [({}, HALVES)], [({"a": 0, "b": 0}, HALVES)], [({"a": -4}, HALVES)]])
def test_without_units_there_is_nothing_to_say(stretches: list[Stretch]) -> None:
    assert sample_ratio(stretches) == SampleRatio(1.0, True)


def test_an_alarm_is_not_taken_back_by_sound_stretches_later() -> None:
    """The units that were assigned wrongly are still among those compared."""
    broken: Stretch = ({"a": 1_500, "b": 1_800}, HALVES)
    sound: Stretch = ({"a": 50_000, "b": 50_000}, HALVES)
    assert sample_ratio([broken, sound]).p == sample_ratio([broken]).p


def test_shares_need_not_sum_to_1_exactly() -> None:
    found = sample_ratio([({"a": 100, "b": 200, "c": 700}, {"a": 0.1, "b": 0.2, "c": 0.7})])
    assert found.p == pytest.approx(1)


def bandit_shares(revisions: int) -> list[dict[str, float]]:
    """Shares that wander, a little at every revision."""
    bs = [0.5 + 0.4 * sin(2 * pi * t / revisions) for t in range(revisions)]
    return [{"a": 1 - b, "b": b} for b in bs]


def simulate(shares: list[dict[str, float]], units: int, loss: float, runs: int, seed: int) -> list[SampleRatio]:
    """Runs in which variant b loses a share of its units on the way to the log."""
    rng = np.random.default_rng(seed)
    due = np.array([s["b"] for s in shares])
    drawn = rng.binomial(units, due, (runs, len(shares)))
    kept = rng.binomial(drawn, 1 - loss)
    return [
        sample_ratio([({"a": int(units - d), "b": int(k)}, s) for d, k, s in zip(*row, shares, strict=True)])
        for row in zip(drawn, kept, strict=True)
    ]


@pytest.mark.parametrize(
    ("shares", "units"),
    [
        ([HALVES] * 50, 40),
        ([{"a": 0.99, "b": 0.01}] * 10 + [{"a": 0.9, "b": 0.1}] * 10 + [HALVES] * 10, 200),
        (bandit_shares(100), 20),
    ],
    ids=["even", "ramp", "bandit"],
)
def test_sound_routes_alarm_in_at_most_one_of_a_thousand_runs(shares: list[dict[str, float]], units: int) -> None:
    """There is a look after every revision, and p is the smallest of all looks."""
    found = simulate(shares, units, loss=0.0, runs=500, seed=1)
    assert np.mean([not check.ok for check in found]) <= allowed(0.001, 500)
    assert np.mean([check.p < 0.05 for check in found]) <= allowed(0.05, 500)


@pytest.mark.parametrize(("loss", "units"), [(0.15, 40), (0.15, 2)])
def test_a_variant_that_loses_units_is_caught_while_the_shares_wander(loss: float, units: int) -> None:
    """A stretch of 40 units, or of 2, shows nothing alone: the evidence must carry over from stretch to stretch."""
    found = simulate(bandit_shares(12_000 // units), units, loss, runs=20, seed=2)
    assert np.mean([not check.ok for check in found]) >= 0.9


def test_a_variant_that_grows_from_1_to_50_percent_does_not_blind_the_check() -> None:
    """Its tilt in the first 100 units is noise; too strong a prior would have lost its whole stake on it."""
    early: Stretch = ({"a": 9_880, "b": 120}, {"a": 0.99, "b": 0.01})
    late: Stretch = ({"a": 1_500, "b": 1_800}, HALVES)
    alone = -log(sample_ratio([late]).p)
    assert -log(sample_ratio([early, late]).p) > 0.8 * alone
    assert not sample_ratio([({"a": 9_930, "b": 70}, early[1]), late]).ok


COUNTS = st.dictionaries(st.sampled_from("abc"), st.integers(-3, 500), max_size=3)
SHARES = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda two: {"a": two[0], "b": two[1], "c": 0.3})


def walked(stretches: list[tuple[dict[str, int], dict[str, float]]]) -> SampleRatio:
    """The check as it was at commit 30d391e, which read all stretches from the first one each time."""
    observed: dict[str, float] = {}
    expected: dict[str, float] = {}
    stake = best = 0.0
    for counts, shares in stretches:
        due = _normalised(shares)
        given = {name: count for name, count in counts.items() if count > 0}
        if not given:
            continue
        if any(name not in due for name in given):
            return SampleRatio(0.0, False)
        stake += _log_bet(given, due, _prior(due, observed, expected))
        best = max(best, stake)
        total = sum(given.values())
        for name, share in due.items():
            observed[name] = observed.get(name, 0.0) + given.get(name, 0)
            expected[name] = expected.get(name, 0.0) + total * share
    p = exp(-best)
    return SampleRatio(p, p >= ALARM_BELOW)


@given(st.lists(st.tuples(COUNTS, SHARES), max_size=8), st.integers(0, 8))
def test_the_check_goes_on_from_anywhere_to_the_number_that_a_walk_from_the_beginning_gives(
    stretches: list[tuple[dict[str, int], dict[str, float]]], cut: int
) -> None:
    state = SampleRatioState(**orjson.loads(orjson.dumps(asdict(accumulate(stretches[:cut])))))  # as a store keeps it
    assert sample_ratio(stretches[cut:], state) == walked(stretches) == sample_ratio(stretches)


SMALLEST = st.sampled_from([0.0, 5e-324, 1e-308, 1e-300, 1e-12, 0.3, 1.0])


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("abc"), st.sampled_from([0, 1, 5, 1_000_000])),
            st.dictionaries(st.sampled_from("abc"), SMALLEST, min_size=1).filter(lambda shares: any(shares.values())),
        ),
        max_size=5,
    )
)
def test_shares_at_the_edge_of_floating_point_give_a_p_all_the_same(
    stretches: list[tuple[dict[str, int], dict[str, float]]],
) -> None:
    assert 0 <= sample_ratio(stretches).p <= 1


BROKEN: Stretch = ({"a": 700, "b": 1000}, HALVES)
SOUND: Stretch = ({"a": 1000, "b": 1000}, HALVES)


def test_the_check_recovers_with_the_first_edit_after_an_alarm() -> None:
    during = by_period([(1, SOUND), (2, BROKEN)], 2).found
    assert (during.ok, during.since, during.aside) == (False, 0, None)
    after = by_period([(1, SOUND), (2, BROKEN)], 3).found
    assert (after.ok, after.p, after.since, after.aside) == (True, 1.0, 3, during.p)
    later = by_period([(1, SOUND), (2, BROKEN), (3, SOUND), (4, SOUND)], 4).found
    assert (later.ok, later.since, later.aside) == (True, 3, during.p)


def test_an_edit_that_mends_nothing_is_followed_by_another_alarm() -> None:
    found = by_period([(1, BROKEN), (2, BROKEN)], 2).found
    assert (found.ok, found.since) == (False, 2)
    assert by_period([(1, BROKEN), (2, BROKEN), (3, SOUND)], 3).found.since == 3


def test_without_an_alarm_edits_set_nothing_aside() -> None:
    """A small tilt is found over many edits: evidence of sound periods is carried over them."""
    tilted: Stretch = ({"a": 235, "b": 265}, HALVES)
    assert by_period([(1, tilted)], 2).found.ok
    found = by_period([(period, tilted) for period in range(1, 11)], 10).found
    assert (found.ok, found.since) == (False, 0)


def test_a_state_that_was_kept_goes_on_over_edits_as_a_walk_from_the_beginning_does() -> None:
    every = [(1, SOUND), (2, BROKEN), (3, SOUND), (3, BROKEN), (4, SOUND)]
    whole = by_period(every, 5)
    for cut in range(len(every)):
        kept = by_period(every[:cut], 0)
        again = SampleRatioState(**orjson.loads(orjson.dumps(asdict(kept))))
        assert by_period(every[cut:], 5, again) == whole


def cells(**units: tuple[int, int]) -> dict[tuple[str, str], dict[tuple[int, str], int]]:
    """Units of a and b in revision 7, by country."""
    return {("country", name): {(7, "a"): a, (7, "b"): b} for name, (a, b) in units.items()}


def whole_of(groups: dict[tuple[str, str], dict[tuple[int, str], int]]) -> dict[tuple[int, str], int]:
    return {(7, name): sum(one[7, name] for one in groups.values()) for name in "ab"}


def test_the_group_in_which_most_of_a_fault_is_is_its_cause() -> None:
    groups = cells(de=(900, 1_400), fr=(1_000, 1_010), us=(2_030, 2_000))
    found = find_cause(groups, whole_of(groups), {7: HALVES})
    assert found == Cause("country", "de", {"a": 900, "b": 1_400}, {"a": 1_150.0, "b": 1_150.0})


@pytest.mark.parametrize(
    "groups",
    [
        cells(de=(900, 1_100), fr=(910, 1_110), us=(1_790, 2_200)),  # everywhere
        cells(de=(1_000, 1_010), fr=(990, 1_000)),  # nowhere
        cells(de=(20, 29), fr=(1_500, 1_500)),  # too few
        cells(de=(900, 1_400)),  # all that there is
        {},
    ],
)
def test_a_fault_that_is_everywhere_or_nowhere_has_no_cause_among_the_groups(
    groups: dict[tuple[str, str], dict[tuple[int, str], int]],
) -> None:
    assert find_cause(groups, whole_of(groups), {7: HALVES}) is None


def test_causes_are_corrected_for_how_many_groups_were_looked_at() -> None:
    """The same units alone alarm, and among a thousand countries do not."""
    one = cells(de=(410, 570), fr=(500, 510))
    assert find_cause(one, whole_of(one), {7: HALVES}) is not None
    many = one | {("country", f"c{i}"): {(7, "a"): 30, (7, "b"): 30} for i in range(1_000)}
    assert find_cause(many, whole_of(many), {7: HALVES}) is None
