"""Turnout's own gauges are written as the library would write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from gateway.admin.metrics.gauges import Gauges, exposition

FORMATS = ("", "application/openmetrics-text; version=1.0.0")
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@pytest.mark.parametrize("accept", FORMATS)
@given(values=st.dictionaries(st.tuples(NAMES, NAMES), st.floats(), max_size=5))
def test_a_gauge_is_written_as_the_library_writes_it(accept: str, values: dict[Any, float]) -> None:
    gauge, theirs = Gauges("turnout_x", 'Help: "a" and \\ or\nb.', ("variant", "route")), CollectorRegistry()
    theirs.register(gauge)
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
    text, content_type = exposition(CollectorRegistry(), [gauge], accept)
    encoder, expected = choose_encoder(accept)
    assert (text, content_type) == (encoder(theirs), expected)


def test_what_was_cleared_is_not_written() -> None:
    gauge = Gauges("turnout_x", "Help.", ("route",))
    gauge.labels("r").set(1)
    gauge.clear()
    assert "{" not in gauge.text(openmetrics=False)


def test_labels_must_be_those_that_are_declared() -> None:
    with pytest.raises(ValueError, match="turnout_x has the labels"):
        Gauges("turnout_x", "Help.", ("route",)).labels("r", "v")
