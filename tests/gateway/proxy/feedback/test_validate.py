"""Reading feedback: what is taken, and what is said about what is not."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.feedback.validate import EventProblem, NotEvents, read_events
from router.records import Feedback, feedback_line
from tests.gateway.proxy.builders import metric, only, route, snapshot

NOW = 1_750_000_000_000

SNAPSHOT = snapshot(
    metric("correct"),
    metric("error", score="absolute_error"),
    metric("square", score="squared_error"),
    metric("share", score="percentage_error"),
    metric("clicked", "event"),
    metric("rating", "value", range=(1.0, 5.0)),
    metric("revenue", "value", fold="sum"),
    route("digits", only("a"), key="header:x-case"),
    route("search", only("a")),
)
WHOSE = {"prediction_id": "p1"}


def read(*entries: Any) -> tuple[list[Feedback], list[str]]:
    events, problems, _ = read_events(orjson.dumps(list(entries)), SNAPSHOT, NOW)
    return events, [problem.detail for problem in problems]


def problems_of(**fields: Any) -> list[str]:
    events, problems = read(fields)
    assert bool(events) != bool(problems)
    return problems


def test_one_object_is_one_event() -> None:
    body = orjson.dumps({**WHOSE, "metric": "correct", "value": 7})
    events, problems, count = read_events(body, SNAPSHOT, NOW)
    assert events == [Feedback(metric="correct", value=7, received_ms=NOW, prediction_id="p1")]
    assert (problems, count) == ([], 1)


def test_every_field_is_kept() -> None:
    events, problems = read(
        {
            "route": "digits",
            "key": 42,
            "metric": "clicked",
            "value": True,
            "item": 7,
            "event_id": "e1",
            "revision": 2,
            "occurred_at": "2025-06-01T12:00:00.250+02:00",
        }
    )
    assert problems == []
    assert events == [
        Feedback(
            metric="clicked",
            value=True,
            received_ms=NOW,
            route="digits",
            key="42",
            item="7",
            event_id="e1",
            revision=2,
            occurred_ms=1_748_772_000_250,
        )
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clicked", 0),
        ("clicked", 1),
        ("clicked", 1.0),
        ("clicked", False),
        ("rating", 1),
        ("rating", 4.5),
        ("correct", "cat"),
        ("correct", False),
        ("correct", ["a", "b"]),
        ("error", -2.5),
    ],
)
def test_a_value_of_the_metrics_kind_is_taken(name: str, value: object) -> None:
    assert problems_of(**WHOSE, metric=name, value=value) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("clicked", 2, 'metric "clicked" is an event: value must be 0, 1, true or false, got 2'),
        ("clicked", "1", 'metric "clicked" is an event: value must be 0, 1, true or false, got "1"'),
        ("rating", True, 'metric "rating": value must be a finite number, got true'),
        ("rating", "4", 'metric "rating": value must be a finite number, got "4"'),
        ("rating", 5.5, 'metric "rating": value must lie in [1, 5], got 5.5'),
        ("error", "4", 'metric "error": value must be a finite number, got "4"'),
        ("error", 1.1e15, 'metric "error": value must lie in [-1e+15, 1e+15], got 1100000000000000.0'),
        ("error", -1e30, 'metric "error": value must lie in [-1e+15, 1e+15], got -1e+30'),
        ("square", "not a number", 'metric "square": value must be a finite number, got "not a number"'),
        ("share", True, 'metric "share": value must be a finite number, got true'),
        ("share", 0, 'metric "share": value must not be 0, of which no error is a share, got 0'),
        ("correct", None, "value null takes back what was said before: give a revision higher than that had"),
        ("correct", "x" * 70_000, 'metric "correct": a label of more than 65,536 bytes'),
    ],
)
def test_a_value_of_another_kind_is_refused(name: str, value: object, said: str) -> None:
    assert problems_of(**WHOSE, metric=name, value=value) == [said]


@pytest.mark.parametrize("name", ["correct", "error", "clicked", "rating"])
def test_null_of_a_higher_revision_takes_back_what_was_said(name: str) -> None:
    events, problems = read({**WHOSE, "metric": name, "value": None, "revision": 1})
    assert problems == []
    assert [event.retracts for event in events] == [True]


def test_a_missing_value_is_not_null() -> None:
    assert problems_of(**WHOSE, metric="correct") == ["value is missing"]


@pytest.mark.parametrize(
    ("whose", "said"),
    [
        ({}, "prediction_id is missing (or route + key)"),
        ({"prediction_id": None}, "prediction_id is missing (or route + key)"),
        ({"prediction_id": ""}, 'prediction_id must be a text, got ""'),
        ({"prediction_id": 7}, "prediction_id must be a text, got 7"),
        (
            {"prediction_id": "p", "route": "digits", "key": "k"},
            "prediction_id and route + key are two ways to say whose feedback it is: give one",
        ),
        ({"route": "digits"}, "route needs a key: which of its predictions?"),
        ({"key": "k"}, "key needs a route: keys are looked up within one route"),
        ({"route": "digit", "key": "k"}, 'unknown route "digit", did you mean "digits"?'),
        (
            {"route": "search", "key": "k"},
            'route "search" declares no key: its predictions are found by prediction_id only',
        ),
        ({"route": "digits", "key": True}, "key must be a text or an integer, got true"),
    ],
)
def test_feedback_says_in_exactly_one_way_whose_it_is(whose: dict[str, Any], said: str) -> None:
    assert problems_of(**whose, metric="correct", value=1) == [said]


def test_an_unknown_metric_is_named_with_the_one_that_was_meant() -> None:
    assert problems_of(**WHOSE, metric="corect", value=1) == ['unknown metric "corect", did you mean "correct"?']
    assert problems_of(**WHOSE, value=1) == ["metric is missing"]


def test_an_unknown_field_is_named_with_the_one_that_was_meant() -> None:
    said = ['unknown field "ocurred_at", did you mean "occurred_at"?']
    assert problems_of(**WHOSE, metric="correct", value=1, ocurred_at="x") == said


def test_a_metric_that_adds_up_needs_an_event_id() -> None:
    """Without one, a repeated delivery would count twice."""
    said = 'metric "revenue" is folded by sum: event_id is required, or a repeat counts twice'
    assert problems_of(**WHOSE, metric="revenue", value=9.5) == [said]
    assert problems_of(**WHOSE, metric="revenue", value=9.5, event_id="e1") == []


@pytest.mark.parametrize("revision", [-1, 1.5, "1", True, None])
def test_a_revision_counts_from_zero(revision: object) -> None:
    assert problems_of(**WHOSE, metric="correct", value=1, revision=revision) == [
        f"revision must be an integer from 0, got {orjson.dumps(revision).decode()}"
    ]


@pytest.mark.parametrize(
    "text", ["2025-06-01T12:00:00Z", "2025-06-01 12:00:00.5-07:00", "2025-06-01t12:00:00.123456789z"]
)
def test_occurred_at_is_rfc_3339(text: str) -> None:
    assert problems_of(**WHOSE, metric="correct", value=1, occurred_at=text) == []


@pytest.mark.parametrize(
    "given", ["2025-06-01T12:00:00", "2025-06-01", "20250601T120000Z", "yesterday", 1748779200, ""]
)
def test_occurred_at_needs_date_time_and_zone(given: object) -> None:
    (said,) = problems_of(**WHOSE, metric="correct", value=1, occurred_at=given)
    assert said.startswith("occurred_at must be RFC 3339 with a zone, such as 2025-06-01T12:00:00Z, got")


def test_occurred_at_is_a_time_that_exists() -> None:
    (said,) = problems_of(**WHOSE, metric="correct", value=1, occurred_at="2025-02-30T12:00:00Z")
    assert said == 'occurred_at is no time, got "2025-02-30T12:00:00Z": day is out of range for month'


def test_a_clock_may_be_five_minutes_ahead_but_not_more() -> None:
    def at(ms: int) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms // 1000))

    assert problems_of(**WHOSE, metric="correct", value=1, occurred_at=at(NOW + 300_000)) == []
    (said,) = problems_of(**WHOSE, metric="correct", value=1, occurred_at=at(NOW + 301_000))
    assert said.endswith("lies in the future")


def test_every_problem_is_told_with_its_index() -> None:
    good = {**WHOSE, "metric": "correct", "value": 1}
    body = orjson.dumps([good, 7, {**good, "metric": "corect", "revision": -1}, good, {}])
    events, problems, count = read_events(body, SNAPSHOT, NOW)
    assert (len(events), count) == (2, 5)
    assert problems == [
        EventProblem(1, "an event must be an object, got 7"),
        EventProblem(2, 'unknown metric "corect", did you mean "correct"?'),
        EventProblem(2, "revision must be an integer from 0, got -1"),
        EventProblem(4, "prediction_id is missing (or route + key)"),
        EventProblem(4, "metric is missing"),
    ]


@pytest.mark.parametrize(
    ("body", "said", "count"),
    [
        (b"", "the body is not JSON: ", 1),
        (b"not json", "the body is not JSON: ", 1),
        (b'{"value": NaN}', "the body is not JSON: ", 1),
        (b'{"value": Infinity}', "the body is not JSON: ", 1),
        (b'{"value": 1e999}', "the body is not JSON: ", 1),
        (b'"text"', 'the body must be one event (an object) or an array of events, got "text"', 1),
        (b"[" + b"{}," * 1000 + b"{}]", "1,001 events in one body; at most 1,000 are taken", 1001),
    ],
)
def test_what_is_no_feedback_at_all_is_refused_whole(body: bytes, said: str, count: int) -> None:
    with pytest.raises(NotEvents) as refused:
        read_events(body, SNAPSHOT, NOW)
    assert str(refused.value).startswith(said)
    assert refused.value.count == count


def test_no_events_are_fine() -> None:
    assert read_events(b"[]", SNAPSHOT, NOW) == ([], [], 0)


def test_a_hostile_body_is_read_quickly() -> None:
    """Looking for a similar name is slow; a body full of mistakes must not keep the loop busy."""
    wrong = orjson.dumps([{f"x{i}-{j}": 1 for j in range(100)} for i in range(1000)])
    began = time.process_time()
    read_events(wrong, SNAPSHOT, NOW)
    assert time.process_time() - began < 1


def test_an_exposure_is_taken_where_a_route_asks_for_it() -> None:
    """The route of the prediction is known later; if no route requires exposure, the metric is a mistake."""
    assert problems_of(**WHOSE, metric="exposed", value=1) == ['unknown metric "exposed"']
    digits = replace(SNAPSHOT.routes["digits"], require_exposure=True, metrics=("correct",))
    asking = replace(SNAPSHOT, routes={"digits": digits})
    body = orjson.dumps([{**WHOSE, "metric": "exposed", "value": value} for value in (1, 2)])
    events, problems, _ = read_events(body, asking, NOW)
    assert [(one.metric, one.value) for one in events] == [("exposed", 1)]
    assert [problem.index for problem in problems] == [1]


plain = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.just("x" * 300)
)
nested = st.builds(
    lambda depth, inside, kind: (kind[0] * depth, inside, kind[1] * depth),
    st.sampled_from([1, 31, 200, 221, 222, 223, 252, 253, 254, 255, 400, 1_022, 1_024, 5_000]),
    st.sampled_from(["1", "", '"a"']),
    st.sampled_from([("[", "]"), ('{"a":', "}")]),
).map(lambda parts: parts[0] + (parts[1] or ("1" if "{" in parts[0] else "")) + parts[2])
written = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
values = nested | written.map(json.dumps) | st.sampled_from(['"\\ud800"', "1e999", "9" * 5_000])


@given(
    fields=st.dictionaries(
        st.sampled_from(
            ["prediction_id", "metric", "value", "item", "event_id", "revision", "occurred_at", "route", "?"]
        ),
        values,
        max_size=4,
    ),
    metric=st.sampled_from(["correct", "error", "clicked", "rating", "revenue", None]),
    alone=st.booleans(),
)
def test_any_json_is_events_that_can_be_written_or_is_refused_in_words(
    fields: dict[str, str], metric: str | None, alone: bool
) -> None:
    """A label that is taken can be written again inside another document: API, sinks and exports do that."""
    if metric is not None:
        fields = {"prediction_id": '"p1"', "event_id": '"e1"', **fields, "metric": f'"{metric}"'}
    entry = "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}"
    try:
        events, problems, count = read_events((entry if alone else f"[{entry}]").encode(), SNAPSHOT, NOW)
    except NotEvents:
        return
    assert count == 1
    assert bool(events) != bool(problems)
    for event in events:
        line = orjson.loads(feedback_line(event))
        for _ in range(20):
            line = {"within": line}
        orjson.dumps(line)
