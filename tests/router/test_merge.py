"""Ranked answers become one list with attribution, or the first passes unchanged."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.plans import TeamDraft
from policies.types import Occasion
from router.extract import MISSING, UNREADABLE, decode_json
from router.merge import Merged, Reason, merge, placements

PLAN = TeamDraft(("a", "b"), "/result/hits", "/id", 3)
IDS = TeamDraft(("a", "b"), "", "", 3)


def occasion(request_id: str = "r1") -> Occasion:
    return Occasion("salt", "u", request_id)


def answer(*ids: object, **more: object) -> dict[str, Any]:
    """Return an answer in the form that PLAN points into, one item per id."""
    return {"took": 5, "result": {"hits": [{"id": item, "score": 1.5} for item in ids], **more}, "last": [1]}


def document(merged: Merged) -> Any:
    assert merged.body is not None
    return orjson.loads(merged.body)


def test_the_merged_list_stands_in_the_first_rankers_envelope() -> None:
    merged = merge(PLAN, occasion(), [answer("x", "y", "z", page=1), answer("p", "q", "r", page=2)])
    whole = document(merged)
    assert (merged.first, merged.reason) == (0, None)
    assert list(whole) == ["took", "result", "last"]
    assert whole["result"]["page"] == 1
    assert len(whole["result"]["hits"]) == 3
    assert all(item["score"] == 1.5 for item in whole["result"]["hits"])


def test_each_item_that_was_drafted_is_credited_to_who_drafted_it_in_the_order_shown() -> None:
    """The two top items come from a round in which each ranker takes one; the ranker drawn first takes the next."""
    merged = merge(PLAN, occasion(), [answer("x", "y", "z"), answer("p", "q", "r")])
    shown = [item["id"] for item in document(merged)["result"]["hits"]]
    ours, theirs = merged.items
    assert ours is not None
    assert theirs is not None
    assert sorted(ours + theirs) == sorted(shown)
    assert list(ours) == [item for item in shown if item in "xyz"]
    assert list(theirs) == [item for item in shown if item in "pqr"]


def test_the_coins_are_fresh_for_each_request() -> None:
    answers = [answer("x", "y", "z"), answer("p", "q", "r")]
    first = Counter(document(merge(PLAN, occasion(str(n)), answers))["result"]["hits"][0]["id"] for n in range(2_000))
    assert set(first) == {"x", "p"}
    assert abs(first["x"] - 1_000) < 4 * 2_000**0.5 / 2


def test_items_may_be_ids_and_the_answer_may_be_the_list() -> None:
    merged = merge(IDS, occasion(), [["x", "y", "z"], ["p", "q", "r"]])
    assert len(document(merged)) == 3


def test_ids_are_compared_as_text_and_shown_as_they_came() -> None:
    """7 and "7" are one item: it is shown once, as the ranker that placed it wrote it."""
    merged = merge(IDS, occasion(), [[7, 8], ["7", "8"]])
    shown = document(merged)
    assert sorted(map(str, shown)) == ["7", "8"]
    assert merged.items[0] is not None
    assert all(isinstance(item, str) for item in merged.items[0])


def test_a_ranker_without_an_answer_is_left_out_and_the_others_are_drafted() -> None:
    plan = TeamDraft(("a", "b", "c"), "", "", 2)
    merged = merge(plan, occasion(), [MISSING, ["x", "y", "z"], ["p", "q", "r"]])
    assert (merged.first, merged.items[0]) == (1, None)
    assert len(document(merged)) == 2
    assert [len(items or ()) for items in merged.items] == [0, 1, 1]


@pytest.mark.parametrize(
    ("answers", "first"), [([["x"], MISSING], 0), ([MISSING, ["p"]], 1), ([MISSING, UNREADABLE], 1)]
)
def test_a_single_answer_passes_as_it_is_and_nobody_is_credited(answers: list[object], first: int) -> None:
    assert merge(IDS, occasion(), answers) == Merged(first, None, (None, None))


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (UNREADABLE, "not_json"),
        ({"result": {}}, "no_list"),
        ([], "no_list"),
        ({"result": {"hits": {"0": 1}}}, "not_a_list"),
        ({"result": {"hits": None}}, "not_a_list"),
        (answer("p", None), "no_item_id"),
        (answer("p", ""), "no_item_id"),
        (answer("p", True), "no_item_id"),
        ({"result": {"hits": ["p"]}}, "no_item_id"),
    ],
)
def test_what_cannot_be_merged_leaves_the_first_answer_alone_and_says_why(second: object, reason: Reason) -> None:
    good = answer("x", "y", "z")
    assert merge(PLAN, occasion(), [good, second]) == Merged(0, None, (None, None), reason)
    assert merge(PLAN, occasion(), [second, good]) == Merged(0, None, (None, None), reason)


def test_an_answer_too_deep_to_be_written_again_is_left_alone() -> None:
    deep = {**answer("x", "y"), "deep": decode_json(b"[" * 600 + b"]" * 600)}
    assert merge(PLAN, occasion(), [deep, answer("p")]).reason == "too_deep"


def test_the_answers_are_not_changed() -> None:
    answers = [answer("x", "y", "z"), answer("p", "q", "r")]
    before = orjson.dumps(answers)
    merge(PLAN, occasion(), answers)
    assert orjson.dumps(answers) == before


@pytest.mark.parametrize("answers", [[], [["x"]], [MISSING, MISSING], [["x"], ["p"], ["q"]]])
def test_one_answer_per_ranker_is_asked_for_and_at_least_one_that_came(answers: list[object]) -> None:
    with pytest.raises(ValueError, match="answer"):
        merge(IDS, occasion(), answers)


def test_how_a_list_treated_its_rankers_by_hand() -> None:
    """Rounds x against p and y against q: x stood below, y above; c belongs to both, and z has no competitor."""
    found = placements({"b": ("p", "q"), "a": ("x", "y", "z")}, ("p", "x", "c", "y", "q", "z"))
    assert list(found) == [("a", "b", "@first", -1.0), ("a", "b", "@above", 0.0), ("a", "b", "@credited", 1.0)]
    three = placements({"a": ("x",), "b": ("p",), "c": ()}, ("x", "p"))
    assert list(three) == [("a", "b", "@first", 1.0), ("a", "b", "@above", 1.0)]
    assert list(placements({"a": (), "b": ()}, ("c",))) == [("a", "b", "@credited", 0.0)]


lists = st.lists(st.integers(0, 9) | st.sampled_from("abc"), max_size=8)


@given(one=lists, other=lists, length=st.integers(1, 6), request=st.integers())
def test_what_is_shown_is_what_came_and_nothing_twice(
    one: list[object], other: list[object], length: int, request: int
) -> None:
    plan = TeamDraft(("a", "b"), "", "", length)
    merged = merge(plan, occasion(str(request)), [one, other])
    shown = [str(item) for item in document(merged)]
    assert len(shown) == len(set(shown)) == min(length, len({str(item) for item in [*one, *other]}))
    assert set(shown) <= {str(item) for item in [*one, *other]}
    for items in merged.items:
        assert items is not None
        assert [item for item in shown if item in items] == list(items)
    assert not set(merged.items[0] or ()) & set(merged.items[1] or ())
