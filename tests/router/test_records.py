"""Journal lines are read back as what was written."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.records import VARIANT_FAULTS, Feedback, Prediction, feedback_line, mark_line
from tests.router.journal_lines import call_line, feedback_of, prediction_of

CALL = Prediction(
    id="p",
    at_ms=1,
    route="r",
    epoch="e",
    period=1,
    revision=1,
    variant="v",
    model="m",
    version="1",
    role="primary",
    reason="unit",
    propensity=0.5,
)

texts = st.text(max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=5,
)
predictions = st.builds(
    Prediction,
    id=texts,
    at_ms=st.integers(0, 2**52),
    route=texts,
    epoch=texts,
    period=st.integers(0, 2**52),
    revision=st.integers(0, 2**31),
    variant=texts,
    model=texts,
    version=texts,
    role=st.sampled_from(["primary", "shadow", "draft"]),
    reason=texts,
    propensity=st.none() | st.floats(0, 1),
    unit=st.none() | texts,
    by_unit=st.booleans(),
    key=st.none() | texts,
    features=st.none() | st.dictionaries(texts, json_values, max_size=2),
    forced=st.booleans(),
    status=st.none() | st.integers(100, 599),
    fault=st.none() | st.sampled_from(sorted(VARIANT_FAULTS)),
    predicted=st.booleans(),
    prediction=json_values,
    items=st.none() | st.lists(texts, max_size=3).map(tuple),
)


@given(predictions)
def test_a_prediction_is_read_back_from_its_line(prediction: Prediction) -> None:
    line = call_line(prediction)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert prediction_of(orjson.loads(line)) == prediction


events = st.builds(
    Feedback,
    metric=texts,
    value=json_values,
    received_ms=st.integers(0, 2**52),
    prediction_id=st.none() | texts,
    route=st.none() | texts,
    key=st.none() | texts,
    item=st.none() | texts,
    event_id=st.none() | texts,
    revision=st.integers(0, 2**52),
    occurred_ms=st.none() | st.integers(0, 2**52),
)


@given(events)
def test_an_event_is_read_back_from_its_line(feedback: Feedback) -> None:
    assert feedback_of(orjson.loads(feedback_line(feedback))) == feedback


def test_a_prediction_of_null_is_not_no_prediction() -> None:
    null = prediction_of(
        orjson.loads(call_line(Prediction(**{**_content(CALL), "predicted": True, "prediction": None})))
    )
    assert null.predicted
    assert null.prediction is None


@pytest.mark.parametrize("value", [False, 0, "", None, []])
def test_a_value_that_is_empty_is_written(value: object) -> None:
    assert "value" in orjson.loads(feedback_line(Feedback(metric="m", value=value, received_ms=1)))


def test_a_line_that_is_no_record_is_refused() -> None:
    for value in ({}, {"line": "call", "id": "p"}, {**_content(CALL), "more": 1}):
        with pytest.raises(ValueError, match="not a prediction"):
            prediction_of(value)
    with pytest.raises(ValueError, match="not a feedback event"):
        feedback_of({"line": "feedback"})


def test_marks_carry_their_time_and_counts() -> None:
    assert orjson.loads(mark_line("rejected", 5, events=3)) == {"line": "rejected", "at_ms": 5, "events": 3}


def test_a_variant_is_to_blame_for_its_own_failures_only() -> None:
    def failed(**content: Any) -> bool:
        return Prediction(**{**_content(CALL), **content}).failed

    assert not failed(status=200)
    assert not failed(status=404)
    assert failed(status=500)
    assert failed(fault="timeout")
    assert failed(status=200, served="v2")
    assert not failed(fault="client_gone")
    assert not failed(fault="dropped")


def test_events_are_the_same_by_event_id_or_by_who_metric_and_item() -> None:
    def identity(**content: Any) -> str:
        return Feedback(**{"metric": "m", "value": 1, "received_ms": 1, **content}).identity

    assert identity(prediction_id="p") == identity(prediction_id="p", value=2, received_ms=9, revision=3)
    assert identity(prediction_id="p") != identity(prediction_id="p", item="i")
    assert identity(prediction_id="p", event_id="e") == identity(route="r", key="k", event_id="e")
    assert identity(route="r", key="k") != identity(route="r", key="l")


def _content(prediction: Prediction) -> dict[str, Any]:
    return {name: getattr(prediction, name) for name in Prediction.__slots__}
