"""Where all get the candidate and it fails, nothing tells whether the stable variant would: it is asked."""

from __future__ import annotations

from policies.rollouts.calendar import ChangeWindow
from policies.rollouts.history import replay
from policies.rollouts.ladder import Stage
from tests.policies.rollouts.climb import DAY, HOUR, MINUTE, Climb, rollout

ALONE = {"v2": "failed 600 of 600 calls in the last 11 s; whether v1 would have is not known"}


def at_the_last_step() -> Climb:
    climb = Climb(rollout(Stage(share=0.5, hold=DAY, approve=True), Stage(share=1.0, hold=DAY)))
    climb.after()
    climb.act("approve")
    assert climb.after(DAY) == ["step_passed"]
    assert climb.policy.plan(None, climb.standing).shares == {"v2": 1.0}  # type: ignore[arg-type]
    return climb


def test_the_candidate_that_is_broken_for_itself_is_rolled_back_from_the_step_before() -> None:
    climb = at_the_last_step()
    assert climb.after(HOUR, alone=ALONE) == ["set_back"]
    assert climb.at == ("running", 1)
    assert climb.events[-1]["why"].startswith("set back to step 1 of 2 (v2 answers 50 %), to see whether v1 fails as")
    assert climb.after(2000, burning={"v2": "failed every one of its 30 calls"}) == ["rolled_back"]
    assert replay(climb.events) == climb.standing


def test_an_outage_of_both_sends_nothing_back_for_good() -> None:
    """The stable variant fails as well: that is said, and a minute after it is over all get the candidate again."""
    climb = at_the_last_step()
    climb.after(HOUR, alone=ALONE)
    assert climb.after(5000, failing="itself fails 100 % of its calls") == ["baseline_failing"]
    assert climb.after(5 * MINUTE, failing="itself fails 100 % of its calls") == []
    assert climb.after(MINUTE) == ["baseline_recovered", "step_passed"]
    assert climb.at == ("running", 2)
    assert climb.after(DAY) == ["done"]


def test_it_is_told_what_is_waited_for_and_no_second_approval_is_asked() -> None:
    climb = at_the_last_step()
    climb.after(HOUR, alone=ALONE)
    assert climb.waits() == ["hold"]
    assert climb.after(MINUTE) == ["step_passed"]


def test_elsewhere_a_failure_without_calls_of_the_baseline_moves_nothing() -> None:
    climb = Climb(rollout())
    climb.after()
    assert climb.after(MINUTE, alone=ALONE) == []


def test_with_no_step_before_it_is_rolled_back() -> None:
    """Until the rollout began the stable variant answered everything."""
    for on_failure, kinds in (("rollback", ["rolled_back"]), ("pause", ["paused"])):
        climb = Climb(rollout(Stage(share=1.0, hold=HOUR), on_failure=on_failure))
        climb.after()
        assert climb.after(MINUTE, alone=ALONE) == kinds


def test_outside_the_change_window_all_get_it_again_when_that_opens() -> None:
    climb = at_the_last_step()
    climb.edit(change_window=ChangeWindow(days="mon-thu", hours="08:00-17:00", zone="UTC"))
    climb.after()
    climb.after(12 * HOUR, alone=ALONE)
    assert climb.after(HOUR) == []
    assert climb.waits() == ["window"]
    assert climb.after(11 * HOUR) == ["step_passed"]
