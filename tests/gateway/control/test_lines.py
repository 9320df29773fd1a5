"""Journal lines, read strictly."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.lines import Batch, Call
from router.records import call_line, feedback_line, mark_line
from tests.gateway.control.builders import T0, WRITER, call, event, keyed


def read(*lines: bytes) -> Batch:
    batch = Batch()
    batch.read([line.rstrip(b"\n") for line in lines], WRITER)
    return batch


def test_what_was_written_is_what_is_read() -> None:
    made = call(1, prediction={"a": [None, 1.5]}, items=("x",), features={"f": 1}, unit="u", by_unit=True)
    told = [event(1, [1, 2], at=5, item="x"), keyed("k", None, at=6, revision=2)]
    batch = read(call_line(made), call_line(made, "open"), *map(feedback_line, told), mark_line("bye", T0))
    assert batch.calls == [Call("call", WRITER, made), Call("open", WRITER, made)]
    assert batch.events == told
    assert batch.marks == [(WRITER, T0, True)]
    assert (batch.lines, batch.corrupt) == (5, 0)


@given(st.binary(max_size=40) | st.from_regex(rb'\A\{"line":"(call|beat|feedback|rejected)".{0,30}\}\Z'))
def test_nothing_a_line_can_hold_is_fatal(line: bytes) -> None:
    batch = read(line)
    assert batch.lines == 1
    assert batch.corrupt + len(batch.calls) + len(batch.events) + len(batch.marks) + batch.rejected >= 1


values = st.recursive(st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.text(), st.lists, max_leaves=3)


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
        assert call_line(batch.calls[0].call)
        kept = getattr(batch.calls[0].call, field)
        assert not isinstance(kept, int) or abs(kept) < 2**63


def test_nul_is_replaced_where_a_database_would_look_for_it() -> None:
    batch = read(call_line(call(1, unit="a\0b", prediction="a\0b", items=("x\0",))))
    [line] = batch.calls
    assert (line.call.unit, line.call.prediction, line.call.items) == ("a\ufffdb", "a\0b", ("x\ufffd",))
