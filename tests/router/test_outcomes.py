"""The value of calls under a metric, computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from router.outcomes import Value, changes, compared, counted, in_time, inapplicable, state, values
from router.records import Feedback, Outcome, Prediction
from router.snapshot import Metric

AT = 1_000_000


def call(variant: str = "a", **more: Any) -> Prediction:
    content: dict[str, Any] = {
        "id": "p",
        "at_ms": AT,
        "route": "r",
        "epoch": "e",
        "period": 1,
        "revision": 1,
        "variant": variant,
        "model": "m",
        "version": "1",
        "role": "primary",
        "reason": "unit",
        "propensity": 0.5,
        "status": 200,
    }
    return Prediction(**{**content, **more})


def predicted(value: Any, variant: str = "a", **more: Any) -> Prediction:
    return call(variant, predicted=True, prediction=value, **more)


def drafted(variant: str, *items: str, shown: str | None = None) -> Prediction:
    return call(variant, role="draft", items=items, shown=None if shown is None else tuple(shown))


def event(value: Any, *, item: str | None = None, event_id: str | None = None, ms: int = AT + 1) -> Feedback:
    return Feedback(metric="k", value=value, received_ms=ms, prediction_id="p", item=item, event_id=event_id)


def metric(kind: str = "label", **more: Any) -> Metric:
    score = "match" if kind == "label" else None
    content: dict[str, Any] = {
        "name": "k",
        "kind": kind,
        "score": score,
        "better": "higher",
        "window_ms": 1_000,
        "mature": "window",
        "missing": None,
        "fold": "any" if kind == "event" else "last",
        "range": None,
        "definition": "d",
    }
    return Metric(**{**content, **more})


def worth(*args: Any, closed: bool = True) -> dict[tuple[str, str], float | None]:
    """The mature values by (variant, against)."""
    return {(v.variant, v.against): v.mature for v in values(*args, closed=closed)}


def test_a_label_scores_each_call_against_its_own_prediction() -> None:
    calls = [predicted(7), predicted(8, "s", role="shadow")]
    assert worth(calls, [event(7.0)], metric()) == {("a", ""): 1.0, ("s", ""): 0.0, ("s", "a"): -1.0}


def test_null_is_a_prediction_and_none_is_none() -> None:
    assert worth([predicted(None)], [event(7)], metric()) == {("a", ""): 0.0}
    assert worth([call()], [event(7)], metric()) == {}


def test_null_is_no_truth_but_takes_back_what_was_said() -> None:
    assert worth([predicted(None)], [event(None)], metric()) == {}


def test_a_click_on_a_fallbacks_answer_is_credited_to_nobody() -> None:
    """The variant that failed did not earn it, and the fallback was not drawn."""
    calls, clicks = [call(fault="timeout", served="b")], metric("event", missing=0.0)
    assert inapplicable(calls, event(1), clicks) == "fallback_answered"
    assert worth(calls, [event(1)], clicks) == worth(calls, [], clicks) == {}
    assert state(calls, [event(1)], clicks, closed=False) == state(calls, [], clicks, closed=True) == "excluded"
    rankers = [drafted("a"), drafted("b")]
    assert (
        inapplicable([replace(one, served="c") for one in rankers], event(1, item="x"), clicks) == "fallback_answered"
    )


def test_a_label_judges_a_variant_whose_fallback_answered_by_what_it_did_itself() -> None:
    calls, label = [call(fault="timeout", served="b")], metric()
    assert inapplicable(calls, event(7), label) is None
    assert worth(calls, [event(7)], label) == {("a", ""): 0.0}


def test_an_exposure_is_about_whichever_answer_was_shown() -> None:
    calls, exposed = [call(fault="timeout", served="b")], metric("event", name="exposed")
    assert inapplicable(calls, event(1)._replace(metric="exposed"), exposed) is None
    assert worth(calls, [event(1)], exposed) == {("a", ""): 1.0}


@pytest.mark.parametrize("failure", [{"fault": "timeout"}, {"status": 503}, {"served": "b"}])
def test_a_failed_primary_scores_zero_under_match_and_nothing_as_an_error(failure: dict[str, Any]) -> None:
    """An absolute error of 0 would be a perfect score for a model that gave no answer."""
    failed = predicted(7, **failure)
    assert worth([failed], [event(7)], metric()) == {("a", ""): 0.0}
    assert worth([failed], [event(7)], metric(score="absolute_error")) == {}


def test_a_client_that_left_is_nobodys_failure() -> None:
    assert worth([call(fault="client_gone", status=None)], [event(7)], metric()) == {}


def test_a_failed_shadow_leaves_its_pair_incomplete() -> None:
    calls = [predicted(7), call("s", role="shadow", fault="timeout", status=None)]
    assert worth(calls, [event(7)], metric()) == {("a", ""): 1.0}


def test_a_shadow_is_paired_with_a_primary_that_failed() -> None:
    calls = [call(fault="timeout", status=None), predicted(7, "s", role="shadow")]
    assert worth(calls, [event(7)], metric())[("s", "a")] == 1.0


@pytest.mark.parametrize(
    ("prediction", "label", "error"),
    [(2.5, 4, 1.5), (4, 2.5, 1.5), (True, 1, None), (1, True, None), ("4", 4, None), (4, None, None)],
)
def test_absolute_error_is_between_numbers_only(prediction: Any, label: Any, error: float | None) -> None:
    found = worth([predicted(prediction)], [event(label)], metric(score="absolute_error"))
    assert found == ({} if error is None else {("a", ""): error})


def test_events_and_values_credit_only_what_the_client_saw() -> None:
    calls = [predicted(7), predicted(7, "s", role="shadow")]
    assert worth(calls, [event(1)], metric("event")) == {("a", ""): 1.0}
    assert worth(calls, [event(2.5)], metric("value")) == {("a", ""): 2.5}


@pytest.mark.parametrize(
    ("fold", "value"),
    [("first", 4.0), ("last", 0.5), ("sum", 7.5), ("mean", 2.5), ("any", 1.0), ("max", 4.0)],
)
def test_several_events_fold_into_one_value(fold: str, value: float) -> None:
    events = [
        event(3, event_id="y", ms=AT + 2),
        event(4, event_id="z", ms=AT + 1),
        event(0.5, event_id="z2", ms=AT + 2),
    ]
    for order in (events, events[::-1]):
        assert worth([call()], order, metric("value", fold=fold)) == {("a", ""): value}


def test_the_largest_of_negative_values_is_negative() -> None:
    events = [event(-3, event_id="x"), event(-1, event_id="y")]
    assert worth([call()], events, metric("value", fold="max")) == {("a", ""): -1.0}


def test_sums_do_not_depend_on_the_order() -> None:
    events = [event(x, event_id=str(i)) for i, x in enumerate((1e16, 1.0, -1e16, 0.1))]
    forward = worth([call()], events, metric("value", fold="sum"))
    assert forward == worth([call()], events[::-1], metric("value", fold="sum")) == {("a", ""): 1.1}


def test_a_cap_cuts_what_the_events_of_a_call_add_up_to() -> None:
    spent = metric("value", fold="sum", missing=0.0, cap=200.0)
    for events, value in [((150, 20), 170.0), ((150, 80), 200.0), ((), 0.0), ((-5,), -5.0), ((10**9, -(10**9)), 0.0)]:
        found = worth([call()], [event(one, event_id=str(one)) for one in events], spent)
        assert found == {("a", ""): value}


def test_nothing_is_mature_before_the_window_closes() -> None:
    found = values([predicted(7)], [event(7)], metric(), closed=False)
    assert [(v.live, v.mature) for v in found] == [(1.0, None)]


def test_on_arrival_what_came_is_mature_at_once_and_what_is_missing_waits_for_the_close() -> None:
    eager = metric("event", mature="arrival", missing=0.0)
    assert worth([call()], [event(1)], eager, closed=False) == {("a", ""): 1.0}
    assert worth([call()], [], eager, closed=False) == {}
    assert worth([call()], [], eager) == {("a", ""): 0.0}


def test_a_missing_event_counts_for_answers_and_never_for_shadows() -> None:
    calls = [predicted(7), predicted(7, "s", role="shadow")]
    found = values(calls, [], metric(missing=0.0), closed=True)
    assert [(v.variant, v.live, v.mature) for v in found] == [("a", 0.0, 0.0)]


def test_an_event_that_cannot_be_scored_is_not_a_missing_one() -> None:
    assert worth([call()], [event(7)], metric(missing=0.0)) == {}


def test_forced_and_dropped_calls_have_no_value() -> None:
    assert worth([predicted(7, forced=True)], [event(7)], metric(missing=0.0)) == {}
    dropped = call("s", role="shadow", fault="dropped", status=None)
    assert worth([predicted(7), dropped], [event(7)], metric()) == {("a", ""): 1.0}


def test_a_merged_answer_credits_the_ranker_of_the_item_and_pairs_the_rankers() -> None:
    calls = [drafted("a", "x", "y"), drafted("b", "z")]
    found = worth(calls, [event(1, item="y")], metric("event"))
    assert found == {("a", ""): 1.0, ("a", "b"): 1.0, ("b", "a"): -1.0}


def test_the_pair_compares_the_sum_over_items_and_a_rankers_own_value_folds_its_events() -> None:
    calls = [drafted("a", "x", "y"), drafted("b", "z")]
    clicks = [event(1, item="x"), event(1, item="y"), event(1, item="z")]
    found = worth(calls, clicks, metric("event"))
    assert found == {("a", ""): 1.0, ("b", ""): 1.0, ("a", "b"): 1.0, ("b", "a"): -1.0}


def test_equal_credit_is_a_tie_and_no_credit_is_no_vote() -> None:
    calls = [drafted("a", "x"), drafted("b", "z")]
    assert worth(calls, [event(1, item="x"), event(1, item="z")], metric("event"))[("a", "b")] == 0.0
    assert worth(calls, [event(1, item="elsewhere"), event(1)], metric("event")) == {}


def test_a_missing_click_counts_for_each_ranker_and_makes_no_vote() -> None:
    calls = [drafted("a", "x"), drafted("b", "z")]
    assert worth(calls, [event(1, item="x")], metric("event", missing=0.0)) == {
        ("a", ""): 1.0,
        ("b", ""): 0.0,
        ("a", "b"): 1.0,
        ("b", "a"): -1.0,
    }


def test_a_ranker_that_played_alone_wins_nothing() -> None:
    alone = [drafted("a", "x"), call("b", role="draft", fault="timeout", status=None)]
    assert worth(alone, [event(1, item="x")], metric("event")) == {("a", ""): 1.0}


def test_three_rankers_are_paired_both_ways() -> None:
    calls = [drafted("a", "x"), drafted("b", "y"), drafted("c", "z")]
    found = worth(calls, [event(1, item="y")], metric("event"))
    pairs = {pair: value for pair, value in found.items() if pair[1]}
    assert pairs == {
        ("a", "b"): -1.0,
        ("a", "c"): 0.0,
        ("b", "a"): 1.0,
        ("b", "c"): 1.0,
        ("c", "a"): 0.0,
        ("c", "b"): -1.0,
    }


@pytest.mark.parametrize(
    ("clicked", "vote"),
    [
        ("x", 1.0),
        ("z", -1.0),
        ("xp", 0.0),
        ("xpy", 1.0),
        ("xyp", 1.0),
        ("xz", 0.0),
        ("c", 0.0),
        ("cp", -1.0),
        ("w", 0.0),
    ],
)
def test_each_round_is_won_by_the_ranker_whose_item_got_the_event(clicked: str, vote: float) -> None:
    """Rounds x against p and y against z; c belongs to both, and w filled the list."""
    calls = [drafted("a", "x", "y", shown="xpczyw"), drafted("b", "p", "z")]
    found = worth(calls, [event(1, item=item) for item in clicked], metric("event"))
    assert (found["a", "b"], found["b", "a"]) == (vote, -vote)


def test_a_value_decides_its_round_and_no_other() -> None:
    """The sums of values, 9 against 4, would prefer the ranker that lost two rounds of three."""
    calls = [drafted("a", *"xyz", shown="xpyqzr"), drafted("b", *"pqr")]
    spent = [event(value, item=item) for item, value in zip("xpqr", (9, 0, 2, 2), strict=True)]
    assert worth(calls, spent, metric("value"))["a", "b"] == -1.0


def test_a_ranker_that_left_the_draft_is_compared_by_the_rounds_before() -> None:
    calls = [drafted("a", *"xyz", shown="xpqyrz"), drafted("b", "p"), drafted("c", "q", "r")]
    found = worth(calls, [event(1, item="y"), event(1, item="z")], metric("event"))
    assert {pair: vote for pair, vote in found.items() if pair[1]} == {
        ("a", "b"): 0.0,
        ("b", "a"): 0.0,
        ("a", "c"): 1.0,
        ("c", "a"): -1.0,
        ("b", "c"): 0.0,
        ("c", "b"): 0.0,
    }


def test_an_event_on_an_item_of_no_ranker_counts_as_a_tie_and_one_that_was_not_shown_cannot_count() -> None:
    calls = [drafted("a", "x", shown="cxz"), drafted("b", "z")]
    assert [inapplicable(calls, event(1, item=item), metric("event")) for item in "cxe"] == [
        None,
        None,
        "item_not_shown",
    ]


def test_the_window_includes_its_end_and_what_came_before_its_prediction() -> None:
    """Clocks differ: an event that names a prediction by its id cannot have happened before it."""
    assert in_time(AT + 1_000, AT, metric())
    assert not in_time(AT + 1_001, AT, metric())
    assert in_time(AT - 50, AT, metric())


def test_coverage_counts_what_could_have_a_value() -> None:
    shadow = call("s", role="shadow")
    assert counted(shadow, metric())
    assert not counted(shadow, metric("event"))
    assert not counted(replace(shadow, fault="dropped"), metric())
    assert counted(call(fault="timeout"), metric("value"))
    assert not counted(call(forced=True), metric())


def test_a_shadow_agrees_when_both_predicted_the_same() -> None:
    primary = predicted(7)
    agreeing, other = predicted(7.0, "s", role="shadow"), predicted(8, "t", role="shadow")
    silent, failed = call("u", role="shadow"), predicted(7, "v", role="shadow", status=500)
    assert agreed([agreeing, other, silent, failed, primary]) == [(agreeing, 1.0), (other, 0.0)]
    assert agreed([agreeing, call()]) == []
    assert agreed([agreeing]) == []


def agreed(calls: Sequence[Prediction]) -> list[tuple[Prediction, float]]:
    return [(shadow, value) for shadow, found in compared(calls) for one, value in found if one.key == "agreement"]


def test_a_change_is_what_was_and_what_is() -> None:
    before = [Value("a", "1", "primary", "", 1.0, None), Value("b", "1", "primary", "", 1.0, 1.0)]
    after = [Value("a", "1", "primary", "", 1.0, 1.0), Value("b", "1", "primary", "", 1.0, 1.0)]
    assert [(v.variant, live, mature) for v, live, mature in changes(before, after)] == [
        ("a", Outcome(1.0, 1.0), Outcome(None, 1.0))
    ]
    assert [(v.variant, live, mature) for v, live, mature in changes(after[:1], [])] == [
        ("a", Outcome(1.0, None), Outcome(1.0, None))
    ]
