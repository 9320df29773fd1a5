"""A person in command: what each act does, and in which sentence it is refused where it does not apply."""

from __future__ import annotations

from typing import Any

import pytest

from policies import AB, Interleave, Shadow, Single, Thompson
from policies.plans import held
from policies.rollouts.calendar import ChangeWindow
from policies.rollouts.ladder import Approval, Stage
from policies.types import Evidence, Policy
from tests.policies.rollouts.climb import DAY, HOUR, MINUTE, Climb, broken, rollout

LAST = Stage(share=1.0, hold=HOUR, whole_days=False)
FOUR_EYES = Approval(by=2, not_author=True, ticket=True)


def begun(*steps: Stage, **settings: Any) -> Climb:
    climb = Climb(rollout(*steps, **settings))
    climb.after()
    return climb


def test_an_approval_lets_a_step_pass_and_is_given_once() -> None:
    climb = begun(Stage(share=0.1, approve=True), LAST)
    assert climb.after(DAY) == []
    assert climb.act("approve", "ann", why="looks good") == ["approved"]
    assert (climb.events[-1]["who"], climb.events[-1]["reason"]) == ("ann", "looks good")
    refused = climb.act("approve", "ann")
    assert refused == "ann approved step 1 of 2 (v2 answers 10 %) already, at 2026-03-03 08:00 UTC"
    assert climb.act("approve", "bob") == "step 1 of 2 (v2 answers 10 %) has its 1 approvals already"
    assert climb.after() == ["step_passed"]
    assert climb.act("approve") == "step 2 of 2 (v2 answers 100 %) asks for no approval"


def test_an_approval_is_that_of_its_step() -> None:
    climb = begun(Stage(share=0.1, hold=HOUR, approve=True), Stage(share=0.2, hold=1, approve=True), LAST)
    climb.act("approve")
    assert climb.after(HOUR) == ["step_passed"]
    assert climb.after(HOUR) == []
    assert climb.waits() == ["approval"]


def test_four_eyes() -> None:
    climb = begun(Stage(share=0.1, approve=FOUR_EYES), LAST)
    assert "names a ticket" in climb.act("approve", "ann", author="eve")
    assert "not known who wrote" in climb.act("approve", "ann", ticket="T-1")
    assert "eve wrote the candidate's setting" in climb.act("approve", "eve", author="eve", ticket="T-1")
    assert climb.act("approve", "ann", author="eve", ticket="T-1") == ["approved"]
    assert climb.after(HOUR) == []
    assert "already" in climb.act("approve", "ann", author="eve", ticket="T-2")
    assert climb.act("approve", "bob", author="eve", ticket="T-1") == ["approved"]
    assert climb.after() == ["step_passed"]


@pytest.mark.parametrize("approval", [Approval(by=2), Approval(not_author=True)])
def test_four_eyes_need_to_know_whose_they_are(approval: Approval) -> None:
    """Where the admin port asks for no token, a name is what the sender says, and two names may be one person."""
    climb = begun(Stage(share=0.1, approve=approval), LAST)
    assert "needs to know who approves" in climb.act("approve", "ann", author="eve", known=False)
    assert "approv" in climb.act("advance", "ann", author="eve", known=False)
    assert climb.act("approve", "ann", author="eve") == ["approved"]


@pytest.mark.parametrize("verb", ["advance", "promote"])
def test_nobody_goes_around_the_approvals_of_others(verb: Any) -> None:
    climb = begun(Stage(share=0.1, approve=FOUR_EYES), LAST)
    assert "approv" in climb.act(verb, "ann", author="eve", ticket="T-1")
    climb.act("approve", "bob", author="eve", ticket="T-1")
    assert "approv" in climb.act(verb, "eve", author="eve", ticket="T-1")
    assert "approv" in climb.act(verb, "bob", author="eve", ticket="T-1")
    assert climb.act(verb, "ann", author="eve", ticket="T-1") == ["promoted" if verb == "promote" else "advanced"]


def test_one_approval_is_given_by_who_advances() -> None:
    climb = begun(Stage(share=0.1, approve=True), LAST)
    assert climb.act("advance") == ["advanced"]
    assert climb.at == ("running", 2)
    assert climb.act("advance") == ["done"]


def test_a_person_goes_on_outside_the_change_window_and_that_is_said() -> None:
    climb = begun(Stage(share=0.1, hold=DAY), LAST, change_window=ChangeWindow(days="sun"))
    assert climb.act("advance") == ["advanced"]
    assert "although the change window is sun" in climb.events[-1]["why"]


def test_pause_and_resume() -> None:
    climb = begun(Stage(share=0.1, hold=HOUR), LAST)
    assert climb.act("resume") == "it is not paused"
    assert climb.act("pause", "ann") == ["paused"]
    assert climb.act("pause", "bob") == "it is paused by ann already"
    assert climb.after(DAY) == []
    assert climb.waits()[0] == "person"
    assert climb.act("resume") == ["resumed"]
    assert climb.after() == ["step_passed"]


def test_who_resumes_in_spite_of_a_broken_guardrail_is_not_paused_again() -> None:
    climb = begun(Stage(share=0.1, hold=HOUR), LAST, on_failure="pause")
    harm: dict[str, Any] = {"guardrails": (broken("correct"),)}
    assert climb.after(1, **harm) == ["paused"]
    assert climb.act("resume", **harm) == ["resumed"]
    assert "although broken: correct" in climb.events[-1]["why"]
    assert climb.after(1, **harm) == []
    assert climb.after(1, guardrails=(broken("correct"), broken("failures"))) == ["paused"]


def test_a_rollback_is_final_until_it_is_restarted() -> None:
    climb = begun(Stage(share=0.1, hold=HOUR, approve=True), LAST)
    climb.act("approve")
    assert climb.act("rollback", "ann") == ["rolled_back"]
    for verb in ("approve", "advance", "pause", "resume", "promote"):
        assert climb.act(verb) == "it is rolled back by ann; restart it to begin at step 1"
    assert climb.act("rollback") == "it is rolled back by ann already"
    assert climb.after(DAY) == []
    assert climb.act("restart") == ["restarted"]
    assert climb.at == ("running", 1)
    assert climb.after(HOUR) == []  # the approval was that of the run before


def test_what_is_done_can_be_rolled_back_or_restarted_alone() -> None:
    climb = begun(LAST)
    climb.after(HOUR)
    assert climb.at == ("done", 1)
    for verb in ("approve", "advance", "pause", "resume", "promote"):
        assert "it is done" in climb.act(verb)
    assert climb.act("restart") == ["restarted"]


def test_promote_gives_everything_and_the_last_hold_is_judged() -> None:
    climb = begun(Stage(share=0.1, hold=DAY), Stage(share=0.5, hold=DAY), LAST)
    assert climb.act("promote") == ["promoted"]
    assert climb.at == ("running", 3)
    assert "already, in the last step" in climb.act("promote")
    assert climb.after(1, guardrails=(broken(),)) == ["rolled_back"]


OTHERS: list[tuple[Policy, dict[str, float]]] = [
    (AB(shares={"v1": 0.5, "v2": 0.3, "v3": 0.2}), {"v1": 1.0, "v2": 0.0, "v3": 0.0}),
    (Thompson(variants=("v1", "v2", "v3"), reward="click"), {"v1": 1.0, "v2": 0.0, "v3": 0.0}),
    (Interleave(rankers=("v1", "v2", "v3"), items="/hits", length=5), {"v1": 1.0}),
    (Shadow(primary="v1", shadows={"v2": 1.0}), {"v1": 1.0}),
]


@pytest.mark.parametrize(("policy", "shares"), OTHERS, ids=lambda one: getattr(one, "kind", ""))
def test_rollback_gives_everything_to_the_baseline_of_any_policy(policy: Policy, shares: dict[str, float]) -> None:
    climb = Climb(policy)
    assert climb.act("rollback", baseline="v1") == ["rolled_back"]
    plan = held(policy.plan(Evidence(), climb.standing), climb.standing.held, "v1", policy.floor)
    assert plan.shares == shares
    assert not getattr(plan, "mirrors", ())
    assert climb.act("rollback", baseline="v1") == "v1 gets everything already"
    assert climb.act("resume", baseline="v1") == ["resumed"]
    assert climb.standing.held == {}
    assert "nothing is paused or held" in climb.act("resume", baseline="v1")


@pytest.mark.parametrize("verb", ["approve", "advance", "promote"])
def test_what_has_no_steps_has_none_to_pass(verb: Any) -> None:
    for policy, _ in OTHERS:
        assert Climb(policy).act(verb) == (
            f"the policy {policy.kind} has no steps; only a rollout has something to {verb}"
        )


def test_pausing_is_for_shares_that_move() -> None:
    climb = Climb(Thompson(variants=("v1", "v2"), reward="click"))
    assert climb.act("pause") == ["paused"]
    assert climb.act("pause", "bob") == "it is paused by ann already"
    assert "do not move by themselves" in Climb(AB(shares={"v1": 0.5, "v2": 0.5})).act("pause")
    assert "no variant but v1" in Climb(Single(variant="v1")).act("rollback")


def test_a_guardrail_takes_a_variant_out_of_any_policy() -> None:
    climb = Climb(AB(shares={"v1": 0.5, "v2": 0.3, "v3": 0.2}), versions={"v1": "1", "v2": "2", "v3": "3"})
    assert climb.after(baseline="v1", guardrails=(broken(variant="v3"),)) == []  # the file names no action
    harm: dict[str, Any] = {"baseline": "v1", "guardrails": (broken(variant="v3", action="rollback"),)}
    assert climb.after(**harm) == ["held"]
    assert climb.standing.held == {"v3": "out"}
    assert climb.after(**harm) == []
    assert climb.act("resume", **harm) == ["resumed"]
    assert climb.after(**harm) == []  # the person went on in spite of it


def test_floor_leaves_a_bandits_variant_the_least_share_and_rollback_takes_that_too() -> None:
    climb = Climb(Thompson(variants=("v1", "v2"), reward="click"))
    assert climb.after(guardrails=(broken(action="floor"),)) == ["held"]
    assert climb.standing.held == {"v2": "floor"}
    assert climb.after(guardrails=(broken(action="floor"), broken("correct", action="rollback"))) == ["held"]
    assert climb.standing.held == {"v2": "out"}


def test_fast_failing_follows_the_guardrail_on_failures() -> None:
    for action, kinds in ((None, []), ("warn", ["guardrail_broken"]), ("rollback", ["held"])):
        climb = Climb(AB(shares={"v1": 0.5, "v2": 0.5}))
        judged = broken(action=action)
        calm = (type(judged)(metric="failures", variant="v2", state="undecided", action=judged.action),)
        assert climb.after(baseline="v1", burning={"v2": "fails"}, guardrails=calm) == kinds


def test_nothing_is_held_while_the_baseline_itself_fails() -> None:
    climb = Climb(AB(shares={"v1": 0.5, "v2": 0.5}))
    harm: dict[str, Any] = {"baseline": "v1", "guardrails": (broken(action="rollback"),)}
    assert climb.after(failing="fails", **harm) == ["baseline_failing"]
    assert climb.after(failing="fails", **harm) == []
    assert climb.after(MINUTE, **harm) == ["baseline_recovered", "held"]
