"""Journal lines, read strictly."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.record.lines import Batch
from gateway.journal.seal import sealed
from gateway.store.rows import calls
from router.records import Prediction, feedback_line, fields_stored, mark_line
from tests.gateway.control.builders import T0, WRITER, call, event, keyed
from tests.router.journal_lines import call_line


def read(*lines: bytes) -> Batch:
    batch = Batch()
    batch.read([sealed(line.rstrip(b"\n") + b"\n", n)[:-1] for n, line in enumerate(lines)], WRITER)
    return batch


def as_json(prediction: Prediction) -> dict[str, Any]:
    """Return the fields of a prediction as JSON values."""
    content = asdict(prediction)
    return {**content, "items": None if content["items"] is None else list(content["items"])}


def test_what_was_written_is_what_is_read() -> None:
    made = call(1, prediction={"a": [None, 1.5]}, items=("x",), features={"f": 1}, unit="u", by_unit=True, retries=2)
    learned = [event(1, [1, 2], at=5, item="x"), keyed("k", None, at=6, revision=2)]
    batch = read(call_line(made), call_line(made, "open"), *map(feedback_line, learned), mark_line("bye", T0))
    finished, opened = batch.calls
    assert calls.as_json(finished) == {**as_json(made), "open": False}
    assert calls.as_json(opened) == {**as_json(made), "open": True}
    assert (finished.row.open_by, opened.row.open_by) == (None, WRITER)
    assert batch.events == learned
    assert batch.marks == [(WRITER, T0, True)]
    assert (batch.lines, batch.corrupt) == (5, 0)


@given(st.binary(max_size=40) | st.from_regex(rb'\A\{"line":"(call|beat|feedback|rejected)".{0,30}\}\Z'))
def test_nothing_a_line_can_hold_is_fatal(line: bytes) -> None:
    batch = read(line)
    assert batch.lines == 1
    assert batch.corrupt + len(batch.calls) + len(batch.events) + len(batch.marks) + batch.rejected >= 1


#: NUL is replaced: see below.
texts = st.text(st.characters(exclude_characters="\0"))
values = st.recursive(st.none() | st.booleans() | st.integers(-(2**64), 2**64) | texts, st.lists, max_leaves=3)


fields = st.sampled_from(["at_ms", "period", "role", "unit", "by_unit", "status", "fault", "items", "version"])


@given(field=fields, value=values)
def test_a_field_holds_its_own_type_or_the_line_is_corrupt(field: str, value: Any) -> None:
    content = orjson.loads(call_line(call(1)))
    try:
        line = orjson.dumps({**content, field: value})
    except (TypeError, UnicodeEncodeError):
        return
    batch = read(line)
    if batch.calls:
        kept = calls.as_json(batch.calls[0])[field]
        assert kept == value
        assert not isinstance(kept, int) or abs(kept) < 2**63


def test_nul_is_replaced_where_a_database_would_look_for_it() -> None:
    batch = read(call_line(call(1, unit="a\0b", prediction="a\0b", items=("x\0",))))
    [line] = batch.calls
    assert (line.row.unit, line.prediction, line.items) == ("a\ufffdb", "a\0b", ("x\ufffd",))


#: Each shared number and boolean, with a value that equals it and is of another type than the field's.
CONFUSED = [
    (one.name, {"whole": 1, "number": 1.0, "flag": True}[one.kind], value)
    for one in fields_stored("shared")
    for value in {"whole": (True, 1.0), "number": (True,), "flag": (1, 1.0)}.get(one.kind, ())
]


@pytest.mark.parametrize(("field", "met", "value"), CONFUSED)
def test_what_equals_a_field_that_was_met_before_is_not_taken_for_it(field: str, met: Any, value: Any) -> None:
    """In Python 1 equals 1.0 and True; what a line says must not depend on the lines before it."""
    line = orjson.dumps({**orjson.loads(call_line(call(1, propensity=1.0))), field: met})
    assert len(read(line).calls) == 1
    batch = read(orjson.dumps({**orjson.loads(line), field: value}))
    assert (batch.calls, batch.corrupt) == ([], 1)


def test_the_order_of_fields_means_nothing() -> None:
    line = call_line(call(1, unit="u", prediction=3, request_id="x"))
    turned = orjson.dumps(dict(reversed(orjson.loads(line).items())))
    assert read(line).calls == read(turned).calls
