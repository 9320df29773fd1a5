"""Secrets are named in a text, and filled in by the process that sends it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.settings.placeholders import Placeholder, fill, placeholders


def test_variables_and_files_are_named_in_order() -> None:
    assert placeholders("Bearer ${TOKEN}:${file:/run/secrets/a b}") == (
        Placeholder("env", "TOKEN"),
        Placeholder("file", "/run/secrets/a b"),
    )


def test_each_reference_is_filled_in_where_it_stands() -> None:
    assert (
        fill("a ${B} c ${file:d}", lambda placeholder: f"<{placeholder.source} {placeholder.name}>")
        == "a <env B> c <file d>"
    )


def test_a_doubled_dollar_stands_for_itself() -> None:
    assert placeholders("$${TOKEN}") == ()
    assert fill("$${TOKEN} $5 {x}", lambda placeholder: "s") == "${TOKEN} $5 {x}"


def test_what_is_filled_in_is_not_read_again() -> None:
    """A secret may contain anything, "${" too."""
    assert fill("${A}", lambda placeholder: "${B}") == "${B}"


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A", "${A B}", "${file:}", "${env:A}", "a ${${A}}"])
def test_a_bad_reference_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"must refer to a secret as"):
        placeholders(text)


@given(st.text(alphabet="${}Afile:/ "))
def test_what_names_its_secrets_can_be_filled_in(text: str) -> None:
    try:
        named = placeholders(text)
    except ValueError:
        return
    asked: list[Placeholder] = []
    fill(text, lambda placeholder: str(asked.append(placeholder)))  # type: ignore[func-returns-value]
    assert tuple(asked) == named
