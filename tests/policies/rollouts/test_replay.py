"""Whatever is found, done, edited and restarted: the recorded events give the standing exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import AB, Interleave, Shadow, Thompson
from policies.plans import held
from policies.rollouts.calendar import ChangeWindow, is_open
from policies.rollouts.history import replay
from policies.rollouts.ladder import Approval, Stage
from policies.rollouts.standing import START, Judged, Standing, decode_standing, encode_standing
from policies.types import Evidence, Policy
from tests.policies.rollouts.climb import DAY, HOUR, MINUTE, Climb, broken, rollout

SHARES = (0.01, 0.1, 0.3, 0.6, 1.0)
STAGES = st.fixed_dictionaries(
    {},
    optional={
        "hold": st.sampled_from([MINUTE, HOUR, 30 * HOUR]),
        "at_most": st.sampled_from([2 * DAY, 9 * DAY]),
        "units": st.sampled_from([1, 100, 2_000_000]),
        "clean": st.sampled_from([("failures",), ("correct",)]),
        "approve": st.sampled_from([True, Approval(by=2, not_author=True), Approval(ticket=True)]),
        "whole_days": st.booleans(),
    },
)
LADDERS = st.builds(
    lambda chosen, made, shadow: (
        *((Stage(shadow=1.0, pairs=10, agreement=0.9),) if shadow else ()),
        *(Stage(share=share, **more) for share, more in zip(sorted({*chosen, 1.0}), made, strict=False)),
    ),
    st.sets(st.sampled_from(SHARES)),
    st.lists(STAGES, min_size=5, max_size=5),
    st.booleans(),
)
ROLLOUTS = st.builds(
    lambda steps, more: rollout(*steps, **more),
    LADDERS,
    st.fixed_dictionaries(
        {},
        optional={
            "on_failure": st.sampled_from(["rollback", "pause"]),
            "change_window": st.just(ChangeWindow(days="mon-thu", hours="09:00-17:00", zone="Europe/Berlin")),
            "no_changes": st.just(("2026-03-04/2026-03-05",)),
        },
    ),
)
OTHERS = st.sampled_from(
    [
        Thompson(variants=("v1", "v2", "v3"), reward="click"),
        AB(shares={"v1": 0.5, "v2": 0.3, "v3": 0.2}),
        Interleave(rankers=("v1", "v2", "v3"), items="/hits", length=5),
        Shadow(primary="v1", shadows={"v2": 0.5, "v3": 1.0}),
    ]
)
JUDGED = st.builds(
    Judged,
    metric=st.sampled_from(["failures", "correct"]),
    variant=st.sampled_from(["v1", "v2", "v3"]),
    state=st.sampled_from(["broken", "undecided", "clean", "clean"]),
    action=st.sampled_from([None, "rollback", "pause", "floor", "warn"]),
)
FOUND = st.fixed_dictionaries(
    {"baseline": st.just("v1")},
    optional={
        "guardrails": st.lists(JUDGED, max_size=3).map(tuple),
        "burning": st.just({"v2": "fails"}),
        "faltering": st.just({"v2": "failed 20 of its last 20 calls"}),
        "alone": st.just({"v2": "fails, and v1 has no calls"}),
        "errors": st.just(("the sample ratio is off",)),
        "failing": st.just("fails"),
        "last_ms": st.just({}),
        "units": st.just({"v2": 5}),
        "agreement": st.sampled_from([{"v2": (0.95, 0.92, 0.97)}, {"v2": (0.5, 0.4, 0.6)}]),
    },
)
VERBS = st.sampled_from(["approve", "advance", "pause", "resume", "rollback", "restart", "promote"])
MOMENTS = st.lists(
    st.one_of(
        st.tuples(st.just("time"), st.sampled_from([1, MINUTE, HOUR, DAY]), FOUND),
        st.tuples(st.just("act"), st.tuples(VERBS, st.sampled_from(["ann", "bob", "eve"])), FOUND),
        st.tuples(st.just("edit"), LADDERS, st.none()),
        st.tuples(st.just("version"), st.sampled_from(["v1", "v2", "v3"]), st.sampled_from("123")),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=25,
)


def live(climb: Climb, moment: tuple[str, Any, Any]) -> None:
    what, one, more = moment
    match what:
        case "time":
            climb.after(one, **more)
        case "act":
            climb.act(one[0], one[1], ticket="T-1", author="eve", **more)
        case "edit" if climb.policy.stepped:
            climb.edit(steps=one)
        case "version":
            climb.versions = {**climb.versions, one: more}
        case "restart":
            climb.standing = decode_standing(json.loads(json.dumps(encode_standing(climb.standing))))


@settings(max_examples=40, deadline=None)
@given(st.one_of(ROLLOUTS, OTHERS), MOMENTS)
def test_the_events_lead_to_the_standing(policy: Policy, moments: list[tuple[str, Any, Any]]) -> None:
    climb = Climb(policy)
    for moment in moments:
        live(climb, moment)
        recorded = json.loads(json.dumps(climb.events))
        assert replay(recorded) == climb.standing
        assert [event["to"]["number"] for event in recorded] == list(range(1, len(recorded) + 1))
        assert all(
            event["kind"] and event["why"] and event["cause"] in ("evidence", "act", "edit") for event in recorded
        )
        plan = held(climb.policy.plan(Evidence(), climb.standing), climb.standing.held, "v1", climb.policy.floor)
        assert sum(plan.shares.values()) == pytest.approx(1) or set(plan.shares.values()) == {1.0}


@settings(max_examples=40, deadline=None)
@given(ROLLOUTS, MOMENTS)
def test_only_a_passed_step_or_a_person_gives_the_candidate_more(
    policy: Any, moments: list[tuple[str, Any, Any]]
) -> None:
    """And a step is passed only in the change window, with nothing that forbids it."""
    climb = Climb(policy)
    for moment in moments:
        edits = moment[0] in ("edit", "version")
        if edits:
            live(climb, moment)
            climb.after()  # what an edit does by itself
            continue
        before, count = share(climb), len(climb.events)
        live(climb, moment)
        kinds = [event["kind"] for event in climb.events[count:]]
        if share(climb) > before:
            assert moment[0] == "act" or "step_passed" in kinds
        if "step_passed" in kinds or ("done" in kinds and moment[0] == "time"):
            assert is_open(climb.policy.change_window, climb.policy.no_changes, climb.now)  # type: ignore[attr-defined]
            more = moment[2]
            assert not more.keys() & {"burning", "faltering", "errors", "failing"}
            harm = [one for one in more.get("guardrails", ()) if (one.state, one.variant) == ("broken", "v2")]
            accepted = climb.standing.detail.get("accepted", [])
            assert all(one.action == "warn" or ["v2", one.metric] in accepted for one in harm)


@settings(max_examples=40, deadline=None)
@given(ROLLOUTS, MOMENTS)
def test_harm_is_answered_at_every_moment(policy: Any, moments: list[tuple[str, Any, Any]]) -> None:
    """At a gate, at approval, paused, in the last hold: unless it is over, or there is no going back."""
    climb = Climb(policy)
    for moment in moments:
        live(climb, moment)
    climb.after()
    over = climb.standing.state in ("rolled_back", "done")
    climb.after(1, burning={"v2": "fails"})
    assert over or climb.standing.state == ("rolled_back" if policy.on_failure == "rollback" else "paused")


def test_a_lost_or_doubled_event_is_noticed() -> None:
    climb = Climb(rollout())
    climb.after()
    climb.after(HOUR)
    climb.after(HOUR, guardrails=(broken(),))
    one, two, three = climb.events
    for wrong in ([one, three], [one, two, two], [two], [one, {**two, "from": {**two["from"], "step": 5}}]):
        with pytest.raises(ValueError, match="event"):
            replay(wrong)
    assert replay([two, three], since=replay([one])) == climb.standing


def test_a_clock_that_was_set_back_turns_nothing_round() -> None:
    climb = Climb(rollout())
    climb.after()
    climb.after(HOUR)
    assert climb.after(-5 * HOUR) == []
    assert climb.act("pause") == ["paused"]
    assert climb.standing.changed_ms == climb.events[-2]["at_ms"]


def test_an_event_carries_what_was_known() -> None:
    """Argo #2658: the measured value is absent from the log."""
    climb = Climb(rollout())
    climb.after()
    climb.after(1, guardrails=(broken(value=0.08, baseline=0.05, low=0.012, bound=0.01),))
    event = climb.events[-1]
    assert event["kind"] == "rolled_back"
    assert "0.08" in event["why"]
    assert event["evidence"]["guardrails"][0]["low"] == 0.012
    assert event["evidence"]["units"]["v2"] == 1_000_000


def share(climb: Climb) -> float:
    return climb.policy.plan(Evidence(), climb.standing).shares.get("v2", 0.0)


def test_the_start_of_another_policy_is_not_taken_over() -> None:
    climb = Climb(Thompson(variants=("v1", "v2"), reward="click"))
    climb.after(guardrails=(broken(action="rollback"),))
    assert climb.standing.held == {"v2": "out"}
    climb.edit(rollout())
    assert climb.after() == ["started"]
    assert (climb.standing.held, climb.at) == ({}, ("running", 1))
    climb.edit(AB(shares={"v1": 0.5, "v2": 0.5}))
    climb.after()
    assert replace(climb.standing, number=0, policy="", changed_ms=0) == replace(START, detail={}) == Standing()
