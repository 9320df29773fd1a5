"""JSON Pointers, equality and identity of JSON values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.extract import MISSING, UNREADABLE, Pointer, decode_json, equal, pointer, text_of, writable

#: The document and the pointers of RFC 6901, section 5.
DOCUMENT: dict[str, Any] = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}

NOBODY: list[object] = [None, True, [], {}, MISSING, UNREADABLE]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", DOCUMENT),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_the_examples_of_the_standard_hold(text: str, found: object) -> None:
    assert Pointer(text).find(DOCUMENT) == found


@pytest.mark.parametrize(
    "text", ["/foo/2", "/foo/-", "/foo/01", "/foo/+1", "/foo/bar", "/nothing", "/foo/0/x", "/foo/٣"]
)
def test_what_is_not_there_is_missing(text: str) -> None:
    assert Pointer(text).find(DOCUMENT) is MISSING


def test_null_is_a_value_and_not_missing() -> None:
    assert Pointer("/a").find({"a": None}) is None


@pytest.mark.parametrize("text", ["foo", "/~", "/~2", "/a~", "/x" * 65])
def test_a_bad_pointer_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="must be a JSON Pointer"):
        Pointer(text)


@given(document=values, text=st.text(alphabet="/~01ab", max_size=8))
def test_finding_never_raises(document: object, text: str) -> None:
    try:
        compiled = pointer(text)
    except ValueError:
        return
    compiled.find(document)


@given(document=values, data=st.data())
def test_what_is_put_in_is_found_there_and_the_rest_stays(document: object, data: st.DataObject) -> None:
    places = list(_pointers(document))
    text, other = data.draw(st.sampled_from(places)), data.draw(st.sampled_from(places))
    before = json.dumps(document)
    copy = Pointer(text).replaced(document, "new")
    assert Pointer(text).find(copy) == "new"
    assert json.dumps(document) == before
    if not other.startswith(text) and not text.startswith(other):
        assert Pointer(other).find(copy) == Pointer(other).find(document)


def _pointers(document: object, prefix: str = "") -> list[str]:
    found = [prefix]
    items: list[tuple[str, object]] = []
    if isinstance(document, dict):
        items = [(name.replace("~", "~0").replace("/", "~1"), item) for name, item in document.items()]
    if isinstance(document, list):
        items = [(str(index), item) for index, item in enumerate(document)]
    for name, item in items:
        found += _pointers(item, f"{prefix}/{name}")
    return found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        (0, None, False),
        ("1", 1, False),
        ([1, {"a": 2}], [1.0, {"a": 2.0}], True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([True], [1], False),
        ([], {}, False),
        (2**53 + 1, float(2**53), False),
        (None, MISSING, False),
    ],
)
def test_numbers_are_equal_by_value_and_booleans_are_no_numbers(one: object, other: object, same: bool) -> None:
    assert equal(one, other) is same
    assert equal(other, one) is same


@given(value=values)
def test_every_value_equals_its_copy(value: object) -> None:
    assert equal(value, json.loads(json.dumps(value)))


def test_values_nested_deeper_than_python_recurses_are_compared() -> None:
    deep = decode_json(b"[" * 1000 + b"]" * 1000)
    assert equal(deep, decode_json(b"[" * 1000 + b"]" * 1000))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"NaN", b"[" * 5000])
def test_what_is_not_json_is_unreadable(body: bytes) -> None:
    assert decode_json(body) is UNREADABLE


@pytest.mark.parametrize(
    ("value", "text"),
    [("u", "u"), ("", None), (7, "7"), (7.0, "7"), (-0.5, "-0.5"), (1e22, "10000000000000000000000")]
    + [(nothing, None) for nothing in NOBODY],
)
def test_text_and_numbers_identify_and_nothing_else_does(value: object, text: str | None) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize(("depth", "expected"), [(1, True), (222, True), (223, False), (254, False), (1_000, False)])
def test_what_is_kept_can_be_shown_within_something_else(depth: int, expected: bool) -> None:
    assert writable(decode_json(b"[" * depth + b"]" * depth)) is expected


def test_what_cannot_be_written_at_all_is_not_kept() -> None:
    assert not writable("\ud800")
    assert not writable({"a": ["\ud800"]})
    assert not writable(2**70)
    assert all(map(writable, (None, 1, 0.5, "é", True, [], {})))
