"""A file that is edited in mid-flight: what has run is kept, nothing jumps ahead, and what a person did is named."""

from __future__ import annotations

import pytest

from policies import AB, Thompson
from policies.rollouts.ladder import Stage, position
from policies.types import Evidence
from tests.policies.rollouts.climb import DAY, HOUR, Climb, broken, rollout

ONE, TEN, HALF = (Stage(share=share, hold=HOUR, whole_days=False) for share in (0.01, 0.1, 0.5))
LAST = Stage(share=1.0, hold=HOUR, whole_days=False)


def at_ten() -> Climb:
    """Return a rollout half an hour into its second step, of 10 %."""
    climb = Climb(rollout(ONE, TEN, HALF, LAST))
    climb.after()
    climb.after(HOUR)
    climb.after(HOUR // 2)
    assert climb.at == ("running", 2)
    return climb


def test_later_steps_are_edited_freely() -> None:
    climb = at_ten()
    climb.edit(steps=(ONE, TEN, Stage(share=0.3, hold=DAY), LAST))
    assert climb.after() == []
    assert climb.after(HOUR // 2) == ["step_passed"]
    assert climb.policy.plan(Evidence(), climb.standing).shares["v2"] == 0.3


def test_the_present_steps_edit_takes_over_what_has_run() -> None:
    climb = at_ten()
    climb.edit(steps=(ONE, Stage(share=0.2, hold=HOUR, units=100), HALF, LAST))
    assert climb.policy.plan(Evidence(), climb.standing).shares["v2"] == 0.2
    assert climb.after() == ["edited"]
    assert climb.after(HOUR // 2, units={"v2": 99}) == []
    assert climb.after() == ["step_passed"]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((TEN, HALF, LAST), 0),
        ((ONE, Stage(share=0.05, hold=1), TEN, HALF, LAST), 2),
        ((ONE, HALF, LAST), 0),
        ((HALF, LAST), 0),
        ((ONE, Stage(share=0.05, hold=1), Stage(share=0.08, hold=1), HALF, LAST), 2),
        ((LAST,), 0),
    ],
)
def test_an_edit_of_the_list_finds_the_step_and_never_one_with_more(steps: tuple[Stage, ...], expected: int) -> None:
    """GrowthBook #5098: the fear of the jump. Only a list whose every step gives more has no other step to offer."""
    climb = at_ten()
    climb.edit(steps=steps)
    assert position(steps, climb.standing) == expected
    climb.after()
    assert climb.standing.step == expected


def test_another_candidate_or_version_starts_at_step_one() -> None:
    climb = at_ten()
    climb.versions = {"v1": "1", "v2": "2.1"}
    assert climb.after() == ["started"]
    assert climb.at == ("running", 1)
    climb.after(HOUR)
    climb.edit(candidate="v3")
    climb.versions = {"v1": "1", "v3": "3"}
    assert climb.policy.plan(Evidence(), climb.standing).shares == {"v1": 0.99, "v3": 0.01}
    assert climb.after() == ["started"]


def test_a_new_version_is_free_of_what_the_one_before_was_rolled_back_for() -> None:
    climb = at_ten()
    climb.after(guardrails=(broken(),))
    assert climb.at == ("rolled_back", 2)
    climb.versions = {"v1": "1", "v2": "3"}
    assert climb.after() == ["started"]


def test_another_stable_begins_the_step_again_at_its_share() -> None:
    """What was compared with is another; starting over would send users back."""
    climb = at_ten()
    climb.versions = {"v1": "1.1", "v2": "2"}
    assert climb.after() == ["baseline_changed"]
    assert climb.at == ("running", 2)
    assert climb.after(HOUR - 1) == []
    assert climb.after(1) == ["step_passed"]


def test_unknown_versions_change_nothing() -> None:
    climb = at_ten()
    climb.versions = {}
    assert climb.after() == []


def test_an_act_by_hand_stands_against_a_reload_and_is_named() -> None:
    climb = at_ten()
    climb.act("pause", "ann")
    climb.edit(steps=(ONE, TEN, Stage(share=0.4, hold=DAY), LAST))
    climb.after(DAY)
    assert climb.at == ("paused", 2)
    climb.act("rollback", "ann")
    climb.edit(on_failure="pause", steps=(ONE, LAST))
    assert climb.after(DAY) == []
    assert climb.standing.detail["by_hand"]["who"] == "ann"


def test_an_act_on_another_policy_ends_when_the_file_changes_that_very_setting() -> None:
    climb = Climb(AB(shares={"v1": 0.5, "v2": 0.5}))
    climb.act("rollback", "ann", baseline="v1")
    assert climb.after(baseline="v1") == []
    climb.edit(sticky=False)
    assert climb.after(baseline="v1") == []
    climb.edit(shares={"v1": 0.9, "v2": 0.1})
    assert climb.after(baseline="v1") == ["freed"]
    assert "ends what ann did by hand (rollback)" in climb.events[-1]["why"]


def test_an_act_on_a_bandit_ends_when_the_file_changes_its_variants() -> None:
    climb = Climb(Thompson(variants=("v1", "v2"), reward="click"))
    climb.act("pause", "ann")
    climb.edit(floor=0.05)
    assert climb.after() == []
    climb.edit(variants=("v1", "v2", "v3"))
    assert climb.after() == ["freed"]


def test_what_a_guardrail_did_is_no_hand_act_and_ends_with_the_version() -> None:
    climb = Climb(AB(shares={"v1": 0.5, "v2": 0.5}))
    climb.after(baseline="v1", guardrails=(broken(action="rollback"),))
    climb.edit(shares={"v1": 0.9, "v2": 0.1})
    assert climb.after(baseline="v1") == []
    climb.versions = {"v1": "1", "v2": "9"}
    assert climb.after(baseline="v1") == ["freed"]
    assert climb.standing.held == {}


def test_what_an_edit_does_by_itself_is_known_without_findings() -> None:
    """The snapshot that an edit makes is planned of this, before the decider has stored it."""
    climb = at_ten()
    moved = climb.policy.reconciled(climb.standing, {"v1": "1", "v2": "3"}, "v1", climb.now)
    assert moved is not None
    assert moved.standing.step == 0
    assert climb.policy.reconciled(climb.standing, climb.versions, "v1", climb.now) is None
