"""A rollout goes from step to step by itself, and back when the candidate does harm."""

from __future__ import annotations

import pytest

from policies.rollouts.calendar import ChangeWindow
from policies.rollouts.ladder import Stage
from policies.rollouts.standing import START, Standing
from policies.types import Evidence, Occasion
from tests.policies.rollouts.climb import HOUR, MINUTE, Climb, broken, rollout


def test_it_goes_up_step_by_step_and_is_done() -> None:
    climb = Climb(rollout())
    assert climb.after() == ["started"]
    assert climb.after(HOUR - 1) == []
    assert climb.after(1) == ["step_passed"]
    assert climb.after(HOUR) == ["step_passed"]
    assert climb.after(HOUR) == ["done"]
    assert climb.at == ("done", 3)
    assert climb.after(HOUR, guardrails=(broken(),)) == []


def test_the_plan_follows_the_step_and_the_state() -> None:
    policy = rollout(Stage(shadow=0.5, hold=HOUR), Stage(share=0.1, hold=HOUR), Stage(share=1.0))
    plans = [policy.plan(Evidence(), Standing(number=1, step=step)) for step in range(3)]
    assert [plan.shares for plan in plans] == [{"v1": 1.0}, {"v1": 0.9, "v2": 0.1}, {"v2": 1.0}]
    assert [mirror.share for mirror in plans[0].mirrors] == [0.5]  # type: ignore[attr-defined]
    back = policy.plan(Evidence(), Standing(number=1, step=1, state="rolled_back"))
    assert (back.shares, back.mirrors) == ({"v1": 1.0}, ())  # type: ignore[attr-defined]
    assert policy.plan(Evidence(), Standing(number=1, step=1, state="done")).shares == {"v2": 1.0}


def test_a_ramp_sends_no_unit_back() -> None:
    policy = rollout(*(Stage(share=share, hold=1) for share in (0.01, 0.1, 0.5)), Stage(share=1.0))
    before: set[str] = set()
    for step in range(4):
        plan = policy.plan(Evidence(), Standing(number=1, step=step))
        units = {unit for unit in map(str, range(2_000)) if plan.decide(Occasion("s", unit, unit)).answering == ("v2",)}
        assert before <= units
        before = units
    assert len(before) == 2_000


def test_a_restarted_rollout_gives_the_same_users() -> None:
    """LaunchDarkly's restarted rollouts serve other users; the salt has no reason to change."""
    climb = Climb(rollout(Stage(share=0.2, hold=HOUR), Stage(share=1.0)))
    climb.after()
    one = climb.policy.plan(Evidence(), climb.standing)
    assert climb.act("rollback") == ["rolled_back"]
    assert climb.act("restart") == ["restarted"]
    again = climb.policy.plan(Evidence(), climb.standing)
    units = [Occasion("salt", unit, unit) for unit in map(str, range(500))]
    assert [one.decide(unit) for unit in units] == [again.decide(unit) for unit in units]


@pytest.mark.parametrize("wait", ["approval", "pause", "window", "hold", "last step"])
def test_guardrails_are_judged_whatever_it_waits_for(wait: str) -> None:
    """Flagger #1801: no rollback while waiting at a gate."""
    climb = Climb(
        rollout(
            Stage(share=0.1, hold=MINUTE, approve=wait == "approval"),
            Stage(share=1.0, hold=HOUR),
            change_window=ChangeWindow(days="sun") if wait == "window" else None,
        )
    )
    climb.after()
    if wait == "last step":
        assert climb.after(MINUTE) == ["step_passed"]
    elif wait != "hold":
        assert climb.after(2 * MINUTE if wait != "pause" else 0) == []
    if wait == "pause":
        climb.act("pause")
    assert climb.after(1, guardrails=(broken(),)) == ["rolled_back"]
    assert climb.policy.plan(Evidence(), climb.standing).shares == {"v1": 1.0}


def test_start_is_step_one() -> None:
    assert rollout().plan(Evidence(), START).shares == {"v1": 0.99, "v2": 0.01}
