"""The bench of rollouts: its books are what a store would hold, and a small run of it keeps its promises."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.rollouts import play
from loadtests.rollouts.cases import HALF, HOUR, LADDERS, ended, fixed_sample
from loadtests.rollouts.traffic import drawn
from loadtests.rollouts.world import DAY, RESTART, Troubles, World, troubles
from policies.rollouts.ladder import Stage
from policies.types import Tally

#: An hour and a day instead of a week, half of it at half of the traffic.
SHORT = (Stage(share=0.1, hold=HOUR), Stage(share=0.5, hold=24 * HOUR, clean=("complaint",)), Stage(share=1.0, hold=1))


def test_a_healthy_rollout_gets_to_everyone_through_restarts_and_outages() -> None:
    found = ended(World(rate=10.0, outages_a_week=7, restarts_a_step=1.0), SHORT, np.random.default_rng(1), 1)
    assert [one.state for one in found] == ["done"]


def test_a_candidate_that_gets_more_complaints_gets_to_nobody() -> None:
    world = World(rate=10.0, complaints=(0.02, 0.04))
    assert [one.rolled_back for one in ended(world, SHORT, np.random.default_rng(2), 2)] == [True] * 2


def test_a_broken_one_is_out_at_once_and_half_broken_soon() -> None:
    calm = World(rate=50.0, failures=(0.05, 1.0), steady=True, outages_a_week=0, restarts=False)
    [found] = ended(calm, HALF, np.random.default_rng(3), 1)
    assert (found.state, found.seconds) == ("rolled_back", 1.0)


def test_in_the_last_step_a_shared_outage_sets_it_back_and_a_broken_candidate_is_found_there() -> None:
    """An outage of five minutes while all get the candidate."""
    steps = (Stage(share=0.5, hold=60_000, whole_days=False), Stage(share=1.0, hold=HOUR, whole_days=False))
    outage = Troubles(shared=((1000.0, 1300.0),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(play, "troubles", lambda *_: outage)
        [found] = ended(World(rate=10.0), steps, np.random.default_rng(4), 1)
        assert found.state == "done"
        assert found.seconds > 1300 + 60
        patch.setattr(play, "troubles", lambda *_: Troubles(own=((1, 1000.0, 9000.0),)))
        [found] = ended(World(rate=10.0), steps, np.random.default_rng(4), 1)
        assert found.rolled_back
        assert 1010 < found.seconds < 1030


def test_the_sums_are_those_of_units() -> None:
    """Of a quiet minute: each unit's calls and failures are bounded by each other, as in a tally of units."""
    step = drawn(
        np.random.default_rng(5),
        World(sticky=True, failures=(0.2, 0.2)),
        0.5,
        shadow=False,
        began=0.0,
        length=60.0,
        found=Troubles(),
    )
    for side in (0, 1):
        tally = step.calls(len(step.ends) - 1, side)
        assert 0 < tally.positive < tally.n < tally.d < tally.d2
        assert tally.m <= tally.m2 <= tally.md <= tally.d2
        assert tally.d_max == 8
        values = step.values(len(step.ends) - 1, side, "complaint")
        assert values == Tally.of_units([(1, 1)] * int(values.m) + [(0, 1)] * int(values.n - values.m))


def test_trouble_lasts_as_long_as_it_says() -> None:
    found = troubles(np.random.default_rng(6), World(), 7 * DAY)
    assert all(end - begin == pytest.approx(RESTART) for _, begin, end in found.own)
    assert all(20 <= end - begin <= 600 for begin, end in found.shared)


def test_a_fixed_test_needs_the_sample_of_the_textbook() -> None:
    """By hand: (1.645 + .842)² · (.05·.95 + .08·.92) / (.08 − .05 − .01)²."""
    assert fixed_sample((0.05, 0.08), 0.01, sticky=False) == pytest.approx(2.4865**2 * 0.1211 / 0.0004, rel=1e-3)
    assert fixed_sample((0.05, 0.08), 0.01, sticky=True) > 2 * fixed_sample((0.05, 0.08), 0.01, sticky=False)


def test_every_step_list_takes_about_a_week() -> None:
    for steps in LADDERS.values():
        assert 6 <= sum(stage.hold_ms for stage in steps) / (24 * HOUR) <= 8
