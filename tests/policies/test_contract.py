"""Laws that every policy obeys, including any that is added later.

Rule: no kind is named here.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import FrozenInstanceError
from math import fsum, sqrt
from typing import get_args

import pytest

from policies import POLICIES, decode_plan, encode_plan
from policies.plans import held
from policies.rollouts.history import replay
from policies.rollouts.standing import START, Command, Findings, Judged, Refused, Verb
from policies.types import Evidence, Occasion, Plan, Policy, Tally
from tests.policies.examples import evidence, example, occasions, rate_tally, settings

pytestmark = pytest.mark.parametrize("kind", POLICIES, ids=lambda kind: kind.kind)

COUNT = 20_000


def plans(policy: Policy) -> list[Plan]:
    """Return the plan without evidence, and the one for evidence that favours the last variant."""
    rates = {name: 0.1 + 0.02 * index for index, name in enumerate(policy.variants)}
    return [policy.plan(Evidence()), policy.plan(evidence(policy, rates))]


def test_a_kind_is_named_once(kind: type[Policy]) -> None:
    assert [other.kind for other in POLICIES].count(kind.kind) == 1


def test_settings_cannot_be_changed(kind: type[Policy]) -> None:
    policy = example(kind)
    with pytest.raises(FrozenInstanceError):
        setattr(policy, settings(kind)[0].name, "other")
    assert not hasattr(policy, "__dict__")


def test_an_example_has_no_problems_and_equals_its_twin(kind: type[Policy]) -> None:
    assert example(kind).problems() == ()
    assert example(kind) == example(kind)


def test_references_point_into_the_settings_and_name_the_variants(kind: type[Policy]) -> None:
    policy = example(kind)
    names = {setting.name for setting in settings(kind)}
    assert all(path[0] in names for path, _ in policy.references())
    assert policy.variants == tuple(dict.fromkeys(name for _, name in policy.references()))


def test_the_baseline_is_a_variant_or_must_be_named(kind: type[Policy]) -> None:
    policy = example(kind)
    assert (policy.baseline is None) == policy.needs_baseline
    assert policy.baseline is None or policy.baseline in policy.variants


def test_without_evidence_there_is_a_plan(kind: type[Policy]) -> None:
    policy = example(kind)
    assert set(policy.plan(Evidence()).shares) <= set(policy.variants)


def test_shares_are_probabilities(kind: type[Policy]) -> None:
    for plan in plans(example(kind)):
        shares = plan.shares.values()
        assert all(0 <= share <= 1 for share in shares)
        assert fsum(shares) == pytest.approx(1) or all(share == 1 for share in shares)


def test_only_a_policy_that_says_so_follows_the_evidence(kind: type[Policy]) -> None:
    before, after = plans(example(kind))
    assert (before != after) == kind.adaptive


def test_a_probability_of_being_best_is_one_over_the_variants_or_not_given(kind: type[Policy]) -> None:
    policy = example(kind)
    best = policy.probability_best(Evidence())
    assert set(best) in (set(), set(policy.variants))
    assert not best or fsum(best.values()) == pytest.approx(1)


def test_the_same_evidence_makes_the_same_plan(kind: type[Policy]) -> None:
    assert plans(example(kind)) == plans(example(kind))


def test_absurd_evidence_is_no_reason_to_stop(kind: type[Policy]) -> None:
    policy = example(kind)
    absurd = [rate_tally(-5, 3), rate_tally(9, 3), rate_tally(1, -3), Tally(n=1, m=float("nan"), d=1, d_max=1)]
    for tally in [*absurd, Tally(n=1, m=float("inf"), d=float("inf"))]:
        tallies = {(name, policy.reward or "clicks"): tally for name in policy.variants}
        shares = policy.plan(Evidence(tallies)).shares
        assert all(0 <= share <= 1 for share in shares.values())


def test_a_decision_depends_on_the_occasion_alone(kind: type[Policy]) -> None:
    for plan in plans(example(kind)):
        assert [plan.decide(o) for o in occasions(200)] == [plan.decide(o) for o in occasions(200)]


def test_decisions_come_as_often_as_their_propensity_says(kind: type[Policy]) -> None:
    for plan in plans(example(kind)):
        decisions = [plan.decide(o) for o in occasions(COUNT)]
        propensities = {d.answering: d.propensity for d in decisions}
        assert all(d.propensity == propensities[d.answering] for d in decisions)
        for answering, count in Counter(d.answering for d in decisions).items():
            p = propensities[answering]
            assert 0 < p <= 1
            assert abs(count - COUNT * p) <= 4 * sqrt(COUNT * p * (1 - p))
        assert fsum(propensities.values()) == pytest.approx(1)


def test_the_propensity_of_a_single_answer_is_the_share(kind: type[Policy]) -> None:
    for plan in plans(example(kind)):
        for decision in map(plan.decide, occasions(200)):
            if len(decision.answering) == 1:
                assert decision.propensity == plan.shares[decision.answering[0]]
            assert not set(decision.answering) & set(decision.mirrored)


def test_where_units_are_counted_a_unit_keeps_its_variant(kind: type[Policy]) -> None:
    policy = example(kind)
    for plan in plans(policy):
        met = {(o.unit, plan.decide(o).answering) for o in occasions(1_000, per_unit=10)}
        assert (len(met) == 100) == policy.by_unit


def test_only_a_randomised_policy_leaves_the_answer_to_chance(kind: type[Policy]) -> None:
    policy = example(kind)
    assert (len({policy.plan(Evidence()).decide(o).answering for o in occasions(500)}) > 1) == policy.randomised


def test_another_salt_is_another_experiment(kind: type[Policy]) -> None:
    plan = example(kind).plan(Evidence())
    one = [plan.decide(o).answering for o in occasions(500, salt="one")]
    other = [plan.decide(o).answering for o in occasions(500, salt="other")]
    assert (one == other) == (not kind.randomised)


def test_a_request_without_a_unit_is_decided_as_well(kind: type[Policy]) -> None:
    for plan in plans(example(kind)):
        assert plan.decide(Occasion("route", None, "request")).answering


def test_a_plan_survives_being_stored(kind: type[Policy]) -> None:
    for plan in plans(example(kind)):
        assert decode_plan(json.loads(json.dumps(encode_plan(plan)))) == plan


def test_an_act_is_done_with_an_event_or_refused_in_a_sentence(kind: type[Policy]) -> None:
    policy = example(kind)
    baseline = policy.baseline or policy.variants[0]
    for verb in get_args(Verb):
        done = policy.act(START, Command(verb=verb, who="ann"), Findings(baseline=baseline), 1_000)
        if isinstance(done, Refused):
            assert len(done.why.split()) > 3
        else:
            assert replay(done.events) == done.standing
            assert done.standing.policy == policy.kind


def test_where_nothing_is_found_a_route_stays_or_begins(kind: type[Policy]) -> None:
    policy = example(kind)
    nothing = Findings(baseline=policy.baseline or policy.variants[0])
    moved = policy.advance(START, nothing, 1_000)
    assert (moved is not None) == policy.stepped
    if moved is not None:
        assert policy.plan(Evidence(), moved.standing) == policy.plan(Evidence())
        assert policy.advance(moved.standing, nothing, 2_000) is None


def test_what_a_guardrail_takes_out_of_a_policy_gets_nothing(kind: type[Policy]) -> None:
    policy = example(kind)
    baseline = policy.baseline or policy.variants[0]
    harm = tuple(Judged(metric="failures", variant=name, state="broken", action="rollback") for name in policy.variants)
    standing, others = START, [name for name in policy.variants if name != baseline]
    for _ in range(2):  # what moves in steps begins first
        moved = policy.advance(standing, Findings(baseline=baseline, guardrails=harm[1:]), 1_000)
        standing = standing if moved is None else moved.standing
    plan = held(policy.plan(Evidence(), standing), standing.held, baseline, policy.floor)
    assert not any(plan.shares.get(name) for name in others)
    assert not any(mirror.variant in others for mirror in getattr(plan, "mirrors", ()))
