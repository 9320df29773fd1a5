"""References are read from headers, cookies, queries and bodies, and never raise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.extract import MISSING, UNREADABLE
from router.unit import reference
from tests.router.builders import RequestFacts, request


@pytest.mark.parametrize(
    ("text", "facts", "unit"),
    [
        ("header:X-User-Id", request(x_user_id=" u1 "), "u1"),
        ("header:x-user-id", request(), None),
        ("header:x-user-id", request(x_user_id=""), None),
        ("cookie:session", request(cookie='a=1; session="s 1"; session=2'), "s 1"),
        ("cookie:session", request(cookie="xsession=1; session"), None),
        ("cookie:Session", request(cookie="session=1"), None),
        ("query:user", request(query="a=1&user=u%201&user=2"), "u 1"),
        ("query:user", request(query="user=u+1"), "u 1"),
        ("query:us er", request(query="us%20er=1"), "1"),
        ("query:user", request(query="user"), None),
        ("query:user", request(query=""), None),
        ("query:user", request(query="user=%ff"), "\ufffd"),
    ],
)
def test_a_unit_is_read_from_where_the_reference_says(text: str, facts: RequestFacts, unit: str | None) -> None:
    assert reference(text).identity(facts) == unit


@pytest.mark.parametrize(
    ("body", "unit"),
    [({"user": {"id": "u1"}}, "u1"), ({"user": {"id": 7}}, "7"), ({"user": {"id": None}}, None), ({}, None)]
    + [(absent, None) for absent in (MISSING, UNREADABLE)],
)
def test_a_unit_in_the_body_is_pointed_at(body: object, unit: str | None) -> None:
    assert reference("body:/user/id").identity(request(), body) == unit


def test_a_header_that_came_twice_is_one_value() -> None:
    """Otherwise a client that repeats a header could be two units, or match two routes."""
    facts = RequestFacts("GET", "/", "", (("x-user-id", "a"), ("other", "c"), ("x-user-id", "b")))
    assert reference("header:x-user-id").identity(facts) == "a, b"


def test_a_feature_keeps_its_type_and_a_unit_becomes_text() -> None:
    size = reference("body:/size")
    assert size.read(request(), {"size": [1, 2]}) == [1, 2]
    assert size.identity(request(), {"size": [1, 2]}) is None


@pytest.mark.parametrize(
    "text", ["", "header", "header:", "header:a b", "cookie:", "cookie:a=b", "query:", "form:a", "body", "user"]
)
def test_a_bad_reference_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="must be header:NAME, cookie:NAME, query:NAME or body:/json/pointer"):
        reference(text)


def test_a_bad_pointer_in_a_reference_is_refused_as_a_pointer() -> None:
    with pytest.raises(ValueError, match="must be a JSON Pointer"):
        reference("body:user")


@given(query=st.text(), cookie=st.text(), name=st.sampled_from(["query:a", "cookie:a"]))
def test_reading_never_raises(query: str, cookie: str, name: str) -> None:
    reference(name).identity(request(query=query, cookie=cookie))
