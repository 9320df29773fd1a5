"""Plans: what they decide, and that they survive being stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import sqrt
from typing import Any

import pytest

from policies.plans import CompetitivePairs, Mirror, TeamDraft, Weighted, decode_plan, encode_plan
from policies.types import Decision, Occasion
from tests.policies.examples import occasions

HALVES = (("a", 0.5), ("b", 0.5))
PLANS: list[Weighted | TeamDraft] = [
    Weighted((("a", 1.0),)),
    Weighted((("a", 0.1), ("b", 0.2), ("c", 0.7)), sticky=False),
    Weighted((("a", 0.0), ("b", 1.0)), mirrors=(Mirror("c", 0.1), Mirror("d", 1.0))),
    TeamDraft(("a", "b", "c"), "/outputs/0/data", "/id", 10),
    CompetitivePairs(("a", "b"), "/outputs/0/data", "/id", 10),
]


def test_one_variant_always_answers_and_no_chance_is_involved() -> None:
    assert Weighted((("a", 1.0),)).decide(Occasion("s", None, "r")) == Decision(("a",), (), 1.0, "only")


def test_a_sticky_unit_meets_one_variant_in_all_its_requests() -> None:
    plan = Weighted(HALVES)
    met = {(o.unit, plan.decide(o).answering) for o in occasions(1_000, per_unit=20)}
    assert len(met) == 50


def test_without_stickiness_each_request_is_a_fresh_chance() -> None:
    plan = Weighted(HALVES, sticky=False)
    met = {(o.unit, plan.decide(o).answering) for o in occasions(1_000, per_unit=20)}
    assert len(met) == 100


def test_a_request_without_a_unit_stands_in_for_one() -> None:
    decisions = [Weighted(HALVES).decide(Occasion("s", None, f"r-{i}")) for i in range(200)]
    assert {d.reason for d in decisions} == {"request"}
    assert {d.answering for d in decisions} == {("a",), ("b",)}


def test_the_reason_names_what_was_hashed() -> None:
    occasion = Occasion("s", "user-1", "r-1")
    assert Weighted(HALVES).decide(occasion).reason == "unit"
    assert Weighted(HALVES, sticky=False).decide(occasion).reason == "request"


def test_the_propensity_is_the_share_of_the_variant_that_answers() -> None:
    plan = Weighted((("a", 0.1), ("b", 0.9)))
    assert {(d.answering, d.propensity) for d in map(plan.decide, occasions(200))} == {(("a",), 0.1), (("b",), 0.9)}


def test_a_mirror_copies_its_share_and_always_the_same_units() -> None:
    plan = Weighted((("a", 1.0),), mirrors=(Mirror("b", 0.3),))
    copied = [o.unit for o in occasions(20_000, per_unit=2) if plan.decide(o).mirrored]
    assert abs(len(set(copied)) - 3_000) < 4 * sqrt(10_000 * 0.3 * 0.7)
    assert len(copied) == 2 * len(set(copied))


def test_mirrors_are_independent_of_each_other_and_of_who_answers() -> None:
    plan = Weighted(HALVES, mirrors=(Mirror("c", 0.5), Mirror("d", 0.5)))
    cells: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
    for decision in map(plan.decide, occasions(16_000)):
        cell = decision.answering, decision.mirrored
        cells[cell] = cells.get(cell, 0) + 1
    assert len(cells) == 8
    assert all(abs(count - 2_000) < 4 * sqrt(2_000 * 7 / 8) for count in cells.values())


def test_whoever_answers_gets_no_copy_as_well() -> None:
    plan = Weighted(HALVES, mirrors=(Mirror("a", 1.0),))
    assert {(d.answering, d.mirrored) for d in map(plan.decide, occasions(50))} == {(("a",), ()), (("b",), ("a",))}


@pytest.mark.parametrize(("share", "copied"), [(0.0, 0), (1.0, 50)])
def test_a_mirror_of_none_or_all_is_exact(share: float, copied: int) -> None:
    plan = Weighted((("a", 1.0),), mirrors=(Mirror("b", share),))
    assert sum(bool(plan.decide(o).mirrored) for o in occasions(50)) == copied


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_a_plan_survives_being_stored_as_json(plan: Weighted | TeamDraft) -> None:
    assert decode_plan(json.loads(json.dumps(encode_plan(plan)))) == plan


def test_a_plan_that_workers_do_not_know_is_refused_before_it_is_published() -> None:
    class Other:
        shares: Mapping[str, float] = {}

        def decide(self, occasion: Occasion) -> Decision:
            return Decision(("a",))

    with pytest.raises(TypeError, match="got Other"):
        encode_plan(Other())


WEIGHTED = encode_plan(PLANS[2])
DRAFT = encode_plan(PLANS[3])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"plan": "other"}, "plan: expected"),
        ({"plan": None}, "plan: expected str"),
        ({"weights": []}, "sum to 1"),
        ({"weights": [["a", 0.4], ["b", 0.5]]}, "sum to 1"),
        ({"weights": [["a", -0.5], ["b", 1.5]]}, "share in"),
        ({"weights": [["a", float("nan")], ["b", 1.0]]}, "share in"),
        ({"weights": [["a", True]]}, "share in"),
        ({"weights": [["a"]]}, "share in"),
        ({"weights": [["a", 0.5], ["a", 0.5]]}, "each variant once"),
        ({"weights": {"a": 1.0}}, "weights: expected list"),
        ({"sticky": 1}, "sticky: expected bool"),
        ({"mirrors": [["c", 2]]}, "mirrors"),
        ({"mirrors": None}, "mirrors"),
    ],
)
def test_a_damaged_weighted_plan_is_refused_by_name(damage: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        decode_plan({**WEIGHTED, **damage})


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"rankers": []}, "rankers"),
        ({"rankers": ["a", 1]}, "rankers"),
        ({"rankers": ["a", "a"]}, "each variant once"),
        ({"items": None}, "items: expected str"),
        ({"item_id": 3}, "item_id: expected str"),
        ({"length": 0}, "length"),
        ({"length": 2.5}, "length: expected int"),
        ({"length": True}, "length: expected int"),
        ({"plan": "competitive_pairs"}, "two names"),
    ],
)
def test_a_damaged_draft_is_refused_by_name(damage: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        decode_plan({**DRAFT, **damage})


@pytest.mark.parametrize("value", [{}, [], None, "weighted"])
def test_what_is_no_plan_at_all_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="plan: plan"):
        decode_plan(value)
