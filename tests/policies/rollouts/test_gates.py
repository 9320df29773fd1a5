"""What a step waits for, and five outcomes that are five things: each has an event and an end of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policies.rollouts.calendar import ChangeWindow
from policies.rollouts.ladder import Stage, days_to_reach
from policies.rollouts.standing import Judged
from tests.policies.rollouts.climb import DAY, HOUR, MINUTE, MONDAY, Climb, broken, rollout

LAST = Stage(share=1.0, hold=HOUR, whole_days=False)


def at_step(stage: Stage, **settings: object) -> Climb:
    """Return a rollout that has just begun a step, with full promotion after it."""
    climb = Climb(rollout(stage, LAST, **settings))
    climb.after()
    return climb


def clean(metric: str = "correct") -> Judged:
    return Judged(metric=metric, variant="v2", state="clean")


def test_an_inconclusive_step_is_not_promoted() -> None:
    """Argo #3850: inconclusive was promoted. At the end of at_most it pauses for a person."""
    climb = at_step(Stage(share=0.1, hold=HOUR, clean=("correct",), at_most=2 * HOUR))
    undecided = replace(clean(), state="undecided")
    assert climb.after(2 * HOUR, guardrails=(undecided,)) == []
    assert climb.after(1, guardrails=(undecided,)) == ["inconclusive"]
    assert climb.at == ("paused", 1)
    assert climb.after(5 * DAY, guardrails=(clean(),)) == []
    assert climb.act("resume") == ["resumed"]
    assert climb.after(1, guardrails=(undecided,)) == []  # at_most begins again
    assert climb.after(1, guardrails=(clean(),)) == ["step_passed"]


def test_no_data_pauses_and_resumes_by_itself() -> None:
    """Argo #1905: no data is neither good nor bad news. It is said after a grace, and is over when calls come."""
    climb = at_step(Stage(share=0.1, hold=HOUR, at_most=2 * HOUR))
    assert climb.after(10 * MINUTE, last_ms={}) == []
    assert climb.after(1, last_ms={}) == ["no_data"]
    assert climb.after(3 * DAY, last_ms={}) == []
    assert climb.waits() == ["no_data", "hold"]
    assert climb.after() == ["data_again"]
    assert climb.at == ("running", 1)


def test_it_does_not_advance_though_traffic_stopped() -> None:
    """Flagger #1011. Time without data is no time that a step has lasted."""
    climb = at_step(Stage(share=0.1, hold=2 * HOUR))
    climb.after(HOUR)
    stopped = {"v1": climb.now, "v2": climb.now}
    climb.after(11 * MINUTE, last_ms=stopped)
    assert climb.after(30 * HOUR, last_ms=stopped) == []
    assert climb.after() == ["data_again"]
    assert climb.after(59 * MINUTE) == []
    assert climb.after(MINUTE) == ["step_passed"]


def test_rare_calls_are_not_missed_calls() -> None:
    climb = at_step(Stage(share=0.01, hold=10 * DAY))
    assert climb.after(DAY, calls={"v2": 24}) == []
    hourly: dict[str, Any] = {"last_ms": {"v2": climb.now}, "calls": {"v2": 24}}
    assert climb.after(10 * HOUR, **hourly) == []
    assert climb.after(1, **hourly) == ["no_data"]


def test_what_cannot_be_measured_holds_and_says_why() -> None:
    climb = at_step(Stage(share=0.1, hold=HOUR))
    assert climb.after(HOUR, errors=("recording is 4 minutes behind",)) == ["measuring_error"]
    assert "4 minutes behind" in climb.events[-1]["why"]
    assert climb.after(DAY, errors=("recording is 5 minutes behind",)) == []
    assert climb.at == ("running", 1)
    assert climb.after(1) == ["measured_again", "step_passed"]


def test_a_measuring_error_does_not_come_and_go_in_every_second() -> None:
    climb = at_step(Stage(share=0.1, hold=DAY))
    made = [climb.after(1_000, errors=("coverage",) if second % 2 else ()) for second in range(120)]
    assert sum(map(len, made)) <= 4


def test_a_failing_candidate_is_rolled_back_at_once_or_paused() -> None:
    for on_failure, kind in (("rollback", "rolled_back"), ("pause", "paused")):
        climb = at_step(Stage(share=0.1, hold=HOUR), on_failure=on_failure)
        assert climb.after(1, guardrails=(broken(),)) == [kind]
        assert climb.after(DAY, guardrails=(broken(),)) == []


def test_a_stable_that_fails_itself_is_not_gone_back_to() -> None:
    climb = at_step(Stage(share=0.1, hold=HOUR))
    assert climb.after(HOUR, burning={"v2": "fails"}, failing="fails in 100 % of calls") == ["baseline_failing"]
    assert climb.after(HOUR, burning={"v2": "fails"}, failing="fails in 100 % of calls") == []
    assert climb.at == ("running", 1)
    assert climb.after(1, burning={"v2": "fails"}) == ["baseline_recovered", "rolled_back"]


def test_no_step_is_passed_while_the_candidate_fails_most_of_its_calls() -> None:
    """It may be a restart, which rolls nothing back; but the last step must not be passed in the midst of it."""
    climb = at_step(Stage(share=1.0, hold=HOUR, whole_days=False))
    assert climb.after(HOUR, faltering={"v2": "failed 20 of its last 20 calls"}) == []
    assert climb.after(9_000, burning={"v2": "fails"}) == ["rolled_back"]
    climb = at_step(Stage(share=1.0, hold=HOUR, whole_days=False))
    assert climb.after(HOUR, faltering={"v2": "failed 20 of its last 20 calls"}) == []
    assert climb.after(5_000) == ["step_passed"]


def test_a_limit_that_both_break_is_no_reason_to_go_back_and_another_harm_is() -> None:
    """A stable variant that is always a little slower than its limit must not keep a broken candidate in traffic."""
    slow = tuple(broken("latency_ms.p95", name, bound=300.0) for name in ("v1", "v2"))
    climb = at_step(Stage(share=0.1, hold=HOUR))
    assert climb.after(HOUR, guardrails=slow) == ["baseline_failing"]
    assert climb.at == ("running", 1)
    worse = broken("latency_ms.p95", bound=50.0)  # than the stable variant's
    for harm in ({"guardrails": (*slow, broken())}, {"guardrails": (*slow, worse)}, {"burning": {"v2": "fails"}}):
        climb = at_step(Stage(share=0.1, hold=HOUR))
        assert climb.after(1, **{"guardrails": slow, **harm}) == ["rolled_back"]


def test_a_limit_that_the_stable_variant_alone_breaks_holds_nothing_up() -> None:
    climb = at_step(Stage(share=0.1, hold=HOUR))
    assert climb.after(HOUR, guardrails=(broken("latency_ms.p95", "v1", bound=300.0),)) == ["step_passed"]


def test_a_person_rolls_back_to_a_failing_stable() -> None:
    climb = at_step(Stage(share=0.1, hold=HOUR))
    assert climb.act("rollback", failing="fails too") == ["rolled_back"]
    assert "although it fails itself" in climb.events[-1]["why"]


def test_a_warning_is_said_once_and_holds_nothing_up() -> None:
    climb = at_step(Stage(share=0.1, hold=HOUR))
    warned: dict[str, Any] = {"guardrails": (broken("correct", action="warn"),)}
    assert climb.after(1, **warned) == ["guardrail_broken"]
    assert climb.after(HOUR, **warned) == ["step_passed"]
    assert climb.after(1, **warned) == []


def test_timer_and_sample_and_approval_are_all_needed() -> None:
    """GrowthBook #5906."""
    stage = Stage(share=0.1, hold=HOUR, units=100, approve=True)
    few: dict[str, Any] = {"units": {"v2": 99}}
    climb = at_step(stage)
    assert climb.waits(**few) == ["units", "hold", "approval"]
    climb.act("approve")
    climb.after(HOUR)
    assert climb.at == ("running", 2)
    climb = at_step(stage)
    assert climb.after(HOUR) == []
    assert climb.waits() == ["approval"]
    assert climb.after(1, **few) == []
    assert climb.act("approve", **few) == ["approved"]
    assert climb.after(1, **few) == []
    assert climb.after(1) == ["step_passed"]
    climb = at_step(stage)
    climb.act("approve")
    assert climb.after(HOUR - 1) == []


def test_copies_must_be_compared_and_agree() -> None:
    climb = at_step(Stage(shadow=1.0, pairs=500, agreement=0.9))
    assert climb.after(1, pairs={"v2": 499}, agreement={"v2": (0.99, 0.97, 1.0)}) == []
    assert climb.after(1, agreement={"v2": (0.91, 0.88, 0.94)}) == []
    assert climb.waits(agreement={"v2": (0.91, 0.88, 0.94)}) == ["agreement"]
    assert climb.after(1, agreement={"v2": (0.93, 0.90, 0.95)}) == ["step_passed"]


def test_copies_that_are_shown_to_disagree_have_failed() -> None:
    climb = at_step(Stage(shadow=1.0, pairs=500, agreement=0.9))
    few: dict[str, Any] = {"pairs": {"v2": 20}, "agreement": {"v2": (0.5, 0.3, 0.7)}}
    assert climb.after(1, **few) == []
    assert climb.after(1, agreement={"v2": (0.5, 0.3, 0.7)}) == ["rolled_back"]


def test_from_a_quarter_on_a_step_lasts_whole_days() -> None:
    for share, lasts in ((0.24, 30 * HOUR), (0.25, 2 * DAY)):
        climb = at_step(Stage(share=share, hold=30 * HOUR))
        assert climb.after(lasts - 1) == []
        assert climb.after(1) == ["step_passed"]
    assert Stage(share=0.5, hold=30 * HOUR, whole_days=False).hold_ms == 30 * HOUR


def test_a_step_is_passed_in_the_change_window_alone() -> None:
    """Held for an hour at 09:00 UTC, which is 10:00 in Berlin; then from Friday on over the weekend and a freeze."""
    window = ChangeWindow(days="mon-thu", hours="11:00-17:00", zone="Europe/Berlin")
    climb = at_step(Stage(share=0.1, hold=HOUR), change_window=window, no_changes=("2026-03-09/2026-03-10",))
    assert climb.after(HOUR) == []
    assert climb.waits() == ["window"]
    assert climb.after(HOUR - 1) == []
    assert climb.after(1) == ["step_passed"]
    climb.now = MONDAY + 4 * DAY  # Friday
    assert climb.after() == []
    climb.now = MONDAY + 7 * DAY + 3 * HOUR  # Monday, in the freeze
    assert climb.after() == []
    wait = climb.policy.waits_for(climb.standing, climb.findings(), climb.now)[-1]
    assert wait.until_ms == MONDAY + 9 * DAY + 2 * HOUR
    climb.now = wait.until_ms
    assert climb.after() == ["done"]


def test_what_is_waited_for_says_until_when_at_todays_traffic() -> None:
    climb = at_step(Stage(share=0.1, hold=2 * HOUR, units=100))
    climb.now += HOUR
    waits = climb.policy.waits_for(climb.standing, climb.findings(units={"v2": 25}), climb.now)
    assert [(wait.condition, wait.until_ms) for wait in waits] == [
        ("units", climb.now + 3 * HOUR),
        ("hold", climb.now + HOUR),
    ]
    assert waits[0].sentence == "25 of 100 units of v2"


def test_a_sample_that_takes_centuries_has_no_date() -> None:
    climb = at_step(Stage(share=0.1, units=2**62), change_window=ChangeWindow(days="sun"))
    climb.now += DAY
    waits = climb.policy.waits_for(climb.standing, climb.findings(units={"v2": 1}), climb.now)
    assert [(wait.condition, wait.until_ms is None) for wait in waits] == [("units", True), ("window", False)]
    assert climb.after(units={"v2": 1}) == []


def test_how_many_days_a_sample_takes_is_known_beforehand() -> None:
    policy = rollout(Stage(shadow=0.5, pairs=500), Stage(share=0.01, units=200), Stage(share=0.1, hold=1), LAST)
    assert days_to_reach(policy, 1_000, 2_000) == {0: 0.5, 1: 20.0}
    assert policy.unreachable(1_000, 2_000) == ()
    assert [problem.message for problem in policy.unreachable(100, 10)] == [
        "asks for 500 pairs, which take 100 days at 50 % of 10 requests a day",
        "asks for 200 units, which take 200 days at 1 % of 100 units a day",
    ]
    late = rollout(Stage(share=0.01, units=200, at_most=DAY), LAST).unreachable(1_000, 0)
    assert late[0].path == ("steps", 0, "units")
    assert late[0].message.endswith("take 20 days at 1 % of 1,000 units a day, and at_most is 1 day")
    assert days_to_reach(policy, 0, 0) == {0: float("inf"), 1: float("inf")}


@pytest.mark.parametrize("end", ["done", "promoted"])
def test_an_abort_counts_after_full_promotion(end: str) -> None:
    """Argo #4461: an abort was ignored after promote-full."""
    climb = at_step(Stage(share=0.1, hold=HOUR))
    if end == "promoted":
        assert climb.act("promote") == ["promoted"]
        assert climb.at == ("running", 2)
    else:
        climb.after(HOUR)
        climb.after(HOUR)
        assert climb.at == ("done", 2)
    assert climb.act("rollback") == ["rolled_back"]


def test_delayed_quality_rolls_back_after_promotion_until_the_last_hold_ends() -> None:
    climb = at_step(Stage(share=0.1, hold=HOUR))
    climb.after(HOUR)
    assert climb.at == ("running", 2)
    assert climb.after(HOUR - 1, guardrails=(broken("correct"),)) == ["rolled_back"]


def test_guardrails_roll_back_and_signals_only_pause() -> None:
    """GrowthBook #6186."""
    for action, kind in (("rollback", "rolled_back"), ("pause", "paused")):
        climb = at_step(Stage(share=0.1, hold=HOUR))
        assert climb.after(1, guardrails=(broken("correct", action=action),)) == [kind]
