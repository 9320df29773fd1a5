"""What is held out of a plan gets nothing, and nobody else's units move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.plans import CompetitivePairs, Mirror, TeamDraft, Weighted, held
from policies.rollouts.standing import Standing, decode_standing, encode_standing
from policies.types import Occasion

NAMES = ("a", "b", "c", "d")
HOLDS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["out", "floor"]))
WEIGHTS = st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any)


def weighted(parts: list[int]) -> Weighted:
    return Weighted(tuple((name, n / sum(parts)) for name, n in zip(NAMES, parts, strict=True)))


@given(WEIGHTS, HOLDS)
def test_shares_sum_to_one_and_who_is_out_gets_nothing(parts: list[int], holds: dict[str, str]) -> None:
    shares = held(weighted(parts), holds, "a", 0.01).shares
    assert sum(shares.values()) == pytest.approx(1)
    if len(holds) < len(NAMES):
        assert all(shares[name] == 0 for name, how in holds.items() if how == "out")
        assert all(shares[name] <= 0.01 for name, how in holds.items() if how == "floor")


@given(WEIGHTS, st.sets(st.sampled_from(NAMES), min_size=1, max_size=3))
def test_taking_variants_out_moves_no_unit_of_the_others(parts: list[int], out: set[str]) -> None:
    plan = weighted(parts)
    after = held(plan, dict.fromkeys(out, "out"), "a", 0.01)
    if not sum(share for name, share in plan.weights if name not in out):
        return  # then the baseline takes all
    for unit in map(str, range(200)):
        occasion = Occasion("salt", unit, unit)
        before = plan.decide(occasion).answering
        assert before[0] in out or after.decide(occasion).answering == before


def test_the_baseline_takes_over_where_the_others_had_nothing() -> None:
    plan = Weighted((("stable", 0.0), ("candidate", 1.0)), mirrors=(Mirror("candidate", 0.5), Mirror("x", 1.0)))
    after = held(plan, {"candidate": "out"}, "stable", 0.01)
    assert after == Weighted((("stable", 1.0), ("candidate", 0.0)), mirrors=(Mirror("x", 1.0),))


def test_where_every_variant_is_out_the_plan_stays() -> None:
    plan = weighted([1, 1, 1, 1])
    assert held(plan, dict.fromkeys(NAMES, "out"), "a", 0.01) == plan


def test_a_ranker_that_is_left_alone_answers_alone() -> None:
    pairs = CompetitivePairs(("a", "b"), "/hits", "/id", 10)
    assert held(pairs, {"b": "out"}, "a", 0.01) == Weighted((("a", 1.0),), sticky=False)
    three = TeamDraft(("a", "b", "c"), "/hits", "/id", 10)
    assert held(three, {"c": "out"}, "a", 0.01) == TeamDraft(("a", "b"), "/hits", "/id", 10)


@given(
    st.builds(
        Standing,
        number=st.integers(0, 10),
        state=st.sampled_from(["running", "paused", "rolled_back", "done"]),
        step=st.integers(0, 9),
        held=HOLDS,
        detail=st.dictionaries(st.text(), st.integers() | st.text()),
    )
)
def test_a_standing_survives_being_written(standing: Standing) -> None:
    assert decode_standing(encode_standing(standing)) == standing


@pytest.mark.parametrize("damaged", [{"number": "1"}, {"held": []}, {"step": True}, {"state": None}])
def test_a_damaged_standing_is_refused_and_the_field_is_named(damaged: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"standing: {next(iter(damaged))}: expected"):
        decode_standing(damaged)
