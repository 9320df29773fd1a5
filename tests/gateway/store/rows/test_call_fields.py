"""A call's fields are described once: whatever is in the table is read, stored, shown and exported.

The strategies and the checks here are made from the table, so that a field that is added is tested, too.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bulk.exports import schema_of
from gateway.control.record import lines as reading
from gateway.control.record.lines import Batch
from gateway.journal.seal import sealed
from gateway.sinks.cloudevents import events
from gateway.store import Store
from gateway.store.export_batches import exported
from gateway.store.rows import calls, shared_fields
from gateway.store.rows.calls import CallRow, Span
from gateway.store.rows.recorded import Recorded, RecordedCall
from gateway.store.rows.shared_fields import SharedFields
from gateway.store.schema import row_tables
from router.records import CALL_FIELDS, CallField, Prediction, fields_stored, stamp, stamped
from tests.gateway.control.builders import T0, WRITER, call, uuid
from tests.gateway.sinks.builders import sink

#: NUL is replaced where a database would look for it, and long texts are cut: both have tests of their own.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=4,
)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "text": texts,
    "whole": st.integers(0, 2**53),
    "number": st.floats(0, 1e9) | st.integers(0, 10**9),
    "flag": st.booleans(),
    "json": json_values,
    "object": st.dictionaries(texts, json_values, max_size=2),
    "texts": st.lists(texts, max_size=3),
}


def held(one: CallField) -> st.SearchStrategy[Any]:
    """What a field may hold."""
    value = st.sampled_from(sorted(one.words)) if one.words else KINDS[one.kind]
    return st.none() | value if one.null else value


contents = st.fixed_dictionaries({one.name: held(one) for one in CALL_FIELDS})


def line_of(content: dict[str, Any]) -> bytes:
    """Return the line that a worker writes: what many calls share first, defaults left out."""
    common = {one.name: content[one.name] for one in fields_stored("shared")}
    own = {one.name: content[one.name] for one in CALL_FIELDS if one.storage != "shared"}
    defaults = {one.name: one.default for one in CALL_FIELDS}
    return stamped(stamp(**common), {name: value for name, value in own.items() if value != defaults[name]})


async def passed_through(lines: Sequence[bytes]) -> dict[str, list[dict[str, Any]]]:
    """Return what the lines of a route "r" are in the view, in the exports, and in the CloudEvents."""
    batch = Batch()
    assert batch.read([sealed(line, n)[:-1] for n, line in enumerate(lines)], WRITER) == (len(lines), [])
    with tempfile.TemporaryDirectory() as folder:
        store = await Store.open("sqlite", Path(folder))
        try:
            async with store.change() as connection:
                await calls.write(connection, batch.calls)
                stored = [one for n in range(len(lines)) for one in (await calls.of(connection, [uuid(n)]))[uuid(n)]]
            shown = [await store.prediction(one.id) for one in stored]
            exports = {
                texts: b"".join([part.lines async for part in exported(store, Span("r", 0, 2**62), texts=texts)])
                for texts in (False, True)
            }
        finally:
            await store.close()
    return {
        "view": [one for each in shown for one in (each or {})["calls"]],
        "export": list(map(orjson.loads, exports[False].splitlines())),
        "texts": list(map(orjson.loads, exports[True].splitlines())),
        "events": [orjson.loads(one) for one in events(sink(), Recorded([RecordedCall(c, True) for c in stored]), T0)],
    }


@settings(max_examples=8)
@given(st.lists(contents, min_size=1, max_size=8))
def test_every_field_is_read_stored_shown_and_exported_with_its_value(made: list[dict[str, Any]]) -> None:
    for n, content in enumerate(made):
        content |= {"id": uuid(n), "at_ms": T0 + n, "route": "r"}
        if not content["predicted"]:
            content["prediction"] = None
    found = asyncio.run(passed_through(list(map(line_of, made))))
    whole = [{**content, "open": False} for content in made]
    assert found["view"] == whole
    assert found["export"] == [{**content, "outcomes": []} for content in whole]
    for content, row in zip(whole, found["texts"], strict=True):
        for one in CALL_FIELDS:
            kept = row[one.name]
            said_as_text = kept is not None and one.kind in {"json", "object"}
            assert (orjson.loads(kept) if said_as_text else kept) == content[one.name]
    # Nothing is said of a copy but what came of it.
    carried = {name for event in found["events"] for name in event["data"]} - {"prediction_id", "failed"}
    assert carried <= {one.name for one in CALL_FIELDS}
    for content in made:
        of_it = [event["data"] for event in found["events"] if event["subject"] == content["id"]]
        assert all(value == content[name] for data in of_it for name, value in data.items() if name in content)


def test_cloudevents_carry_every_field_but_those_that_stay_in_the_log() -> None:
    found = asyncio.run(passed_through([line_of({**defaults(), "id": uuid(0), "at_ms": T0, "route": "r"})]))
    carried = {name for event in found["events"] for name in event["data"]}
    assert {one.name for one in CALL_FIELDS} - carried == {"id", "at_ms", "traceparent", "wrong"}


ADDED = """
import asyncio, json
from typing import Annotated

from router import records

RARE = records.StoredAs("rare", since="0.2.0")
records.CALL_FIELDS += (
    records.call_field("colour", Annotated[str | None, RARE], None),
    records.call_field("tags", Annotated[tuple[str, ...] | None, RARE], None),
)

from tests.gateway.store.rows.test_call_fields import T0, columns, defaults, line_of, passed_through, uuid

common = {**defaults(), "route": "r"}
lines = [
    line_of({**common, "id": uuid(0), "at_ms": T0, "colour": "red", "tags": ["a", "b"]}),
    line_of({**common, "id": uuid(1), "at_ms": T0 + 1}),
]
print(json.dumps({**asyncio.run(passed_through(lines)), "parquet": columns()}))
"""


def defaults() -> dict[str, Any]:
    """The content of a call that says no more than it must."""
    least = {name: getattr(call(0), name) for name in (f.name for f in fields(Prediction))}
    return {one.name: least[one.name] if one.default is MISSING else one.default for one in CALL_FIELDS}


def columns() -> list[str]:
    pyarrow = pytest.importorskip("pyarrow")
    return [f"{one.name} {one.type}" for one in schema_of(pyarrow)]


def test_a_rare_field_is_added_in_one_place() -> None:
    found = orjson.loads(subprocess.run([sys.executable, "-c", ADDED], check=True, capture_output=True).stdout)
    for rows in (found["view"], found["export"], found["texts"]):
        assert [(row["colour"], row["tags"]) for row in rows] == [("red", ["a", "b"]), (None, None)]
    responses = [event["data"] for event in found["events"] if event["type"] == "turnout.response"]
    assert [(data["colour"], data["tags"]) for data in responses] == [("red", ["a", "b"]), (None, None)]
    assert {"colour string", "tags list<item: string>"} <= set(found["parquet"])


def test_a_field_that_came_later_has_a_default() -> None:
    """Lines that were written before lack it."""
    first = {one.name for one in CALL_FIELDS if one.since == "0.1.0"}
    assert {one.name for one in CALL_FIELDS if one.default is MISSING} <= first


def test_what_calls_share_are_the_shared_fields_of_the_table() -> None:
    hints = get_type_hints(SharedFields)
    assert tuple(one.name for one in fields(SharedFields) if one.init) == shared_fields.NAMES
    table = get_type_hints(Prediction)
    assert {name: hints[name] for name in shared_fields.NAMES} == {name: table[name] for name in shared_fields.NAMES}


#: SQLAlchemy's name of a column's type.
COLUMNS = {"text": "TEXT", "whole": "BIGINT", "number": "FLOAT", "flag": "BOOLEAN", "json": "TEXT"}


def test_a_column_is_as_its_field_is_in_the_table() -> None:
    def described(table: Any, *left_out: str) -> list[tuple[str, str, bool]]:
        return [(one.name, str(one.type), bool(one.nullable)) for one in table.c if one.name not in left_out]

    assert described(row_tables.shared_values, "id") == [
        (one.name, COLUMNS[one.kind], one.null) for one in fields_stored("shared")
    ]
    # What was predicted is NULL where nothing was, and so ``predicted`` needs no column.
    own = [
        (one.name, COLUMNS[one.kind], one.null or one.name == "prediction")
        for one in fields_stored("own")
        if one.name != "predicted"
    ]
    assert described(row_tables.calls, "kin", "route", "more", "open_by") == own
    assert len(CallRow._fields) == len(row_tables.calls.c)
    renamed = {"shared_number": "kin"}
    assert [renamed.get(name, name) for name in CallRow._fields] == [one.name for one in row_tables.calls.c]


def test_what_is_unpacked_for_speed_is_all_of_the_table() -> None:
    """A row goes from its line to the store by position, for ``python -m loadtests.recorder``."""
    content = {one.name: one for one in CALL_FIELDS}
    assert reading._OWN(content) == fields_stored("own")
    numbers = {one.name for one in fields_stored("shared") if one.kind in {"whole", "number", "flag"}}
    assert {one.name for one in reading._CONFUSABLE(content)} == numbers
