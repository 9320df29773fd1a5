"""A problem is shown with its place, its line, a caret and a hint."""

from __future__ import annotations

import orjson
import pytest

from policies.types import Path
from router.config.config import ConfigError, parse
from router.config.diagnostics import Diagnostic, as_json, locate, render
from router.config.findings import Finding, did_you_mean, dotted, listed, shown
from tests.router.builders import diagnostics_of

FIVE = """\
schema_version = 1

[backends.ranker_v1]
url = "http://127.0.0.1:9001"
version = "1"

[backends.ranker_v2]
url = "http://127.0.0.1:9002"
version = 2

[metrics.click]
kind = "event"
window = "30 min"

[routes.search]
path = "/search"
unit = "header:x-user-id"
metrics = ["clik"]
fallback = "ranker_v3"

[routes.search.policy]
kind = "canary"
stable = "ranker_v1"
canry = "ranker_v2"
share = 5.0
"""

RENDERED = """\
turnout.toml:9:11: error: backends.ranker_v2.version must be text in quotes, got 2
    9 | version = 2
      |           ^ write "2"
turnout.toml:13:10: error: metrics.click.window must be a duration such as "500ms", "30s", "24h" or "7d", got "30 min"
   13 | window = "30 min"
      |          ^^^^^^^^
turnout.toml:18:12: error: routes.search.metrics[0]: unknown metric "clik"
   18 | metrics = ["clik"]
      |            ^^^^^^ did you mean "click"?
turnout.toml:19:12: error: routes.search.fallback: unknown backend "ranker_v3"
   19 | fallback = "ranker_v3"
      |            ^^^^^^^^^^^ did you mean "ranker_v2"?
turnout.toml:24:1: error: routes.search.policy: unknown setting "canry"
   24 | canry = "ranker_v2"
      | ^^^^^ did you mean "candidate"?
turnout.toml:25:9: error: routes.search.policy.share must lie in [0, 1], got 5.0
   25 | share = 5.0
      |         ^^^"""


def test_mistakes_are_listed_all_at_once_with_line_column_quote_caret_and_hint() -> None:
    with pytest.raises(ConfigError) as refused:
        parse(FIVE, "turnout.toml")
    assert render(refused.value.diagnostics) == str(refused.value) == RENDERED


def test_as_json_says_the_same_to_programs() -> None:
    first = as_json(diagnostics_of(FIVE))[0]
    assert first == {
        "file": "turnout.toml",
        "line": 9,
        "column": 11,
        "path": "backends.ranker_v2.version",
        "message": "backends.ranker_v2.version must be text in quotes, got 2",
        "hint": 'write "2"',
        "severity": "error",
    }
    assert orjson.loads(orjson.dumps(first)) == first


def drawn(text: str, path: Path, at: str = "value") -> list[str]:
    """Return the quoted line and the line of carets that a finding at this path gets."""
    diagnostic = locate([Finding(path, "m", at=at)], text, "f")[0]  # type: ignore[arg-type]
    return str(diagnostic).split("\n")[1:]


@pytest.mark.parametrize(
    ("text", "path", "at", "line", "carets"),
    [
        ('a = { b = 1, "c d".e = [2, { f = 3 }] }', ("a", "c d", "e", 1, "f"), "value", 1, "3"),
        ('a = { b = 1, "c d".e = [2] }', ("a", "c d"), "key", 1, '"c d"'),
        ("a.b.c = 1", ("a", "b"), "key", 1, "b"),
        ("a.b.c = 1", ("a", "b", "x"), "table", 1, "b"),
        ("[a.b]\nc = 1", ("a", "b", "x"), "table", 1, "[a.b]"),
        ("[a.b]\nc = 1", ("a",), "table", 1, "[a.b]"),
        ("[a.b]\n[a]\nc = 1", ("a",), "table", 2, "[a]"),
        ("[a.'b c']\n", ("a", "b c"), "key", 1, "'b c'"),
        ("[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 3", ("a", 1, "b"), "value", 4, "2"),
        ("[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 3", ("a", 1, "c", "d"), "value", 6, "3"),
        ("[[a]]\nb = 1\n[[a]]\nb = 2", ("a", 1, "x"), "table", 3, "[[a]]"),
        ("a = [\n  1, # one\n  2,\n]", ("a", 1), "value", 3, "2"),
        ('"é" = "ü" # x', ("é",), "value", 1, '"ü"'),
        ("a = 1\r\nb = 2\r\n", ("b",), "value", 2, "2"),
    ],
)
def test_each_way_to_write_a_setting_is_found(text: str, path: Path, at: str, line: int, carets: str) -> None:
    diagnostic = locate([Finding(path, "m", at=at)], text, "f")[0]  # type: ignore[arg-type]
    quoted = diagnostic.quoted or ""
    assert diagnostic.line == line
    assert quoted[diagnostic.column - 1 : diagnostic.column - 1 + diagnostic.width] == carets


def test_a_value_of_several_lines_is_underlined_on_its_first() -> None:
    assert drawn('a = """x\ny"""', ("a",)) == ['    1 | a = """x', "      |     ^^^^"]


def test_carets_stand_under_the_value_after_tabs_and_wide_characters() -> None:
    assert drawn("\ta = 1", ("a",)) == ["    1 | \ta = 1", "      | \t    ^"]
    assert drawn('"漢" = 1', ("漢",)) == ['    1 | "漢" = 1', "      |        ^"]


def test_a_long_line_is_quoted_around_the_place() -> None:
    quoted, carets = drawn(f"a = [{'1, ' * 200}'x', {'1, ' * 200}]", ("a", 200))
    assert len(quoted) < 140
    assert quoted[carets.index("^") : carets.rindex("^") + 1] == "'x'"


def test_a_setting_that_is_not_in_the_text_is_reported_at_what_encloses_it() -> None:
    assert locate([Finding(("a", "b", "c"), "m")], "[a]\n[d]", "f")[0].line == 1
    assert locate([Finding(("x",), "m")], "\n[a]", "f")[0].line == 1


def test_the_line_of_a_secret_is_not_quoted() -> None:
    url = '[gateway]\nstore = "postgresql://turnout:hunter2@db/turnout"\n'
    said = diagnostics_of(url)
    assert said[0].path == "gateway.store"
    assert "hunter2" not in render(said) + orjson.dumps(as_json(said)).decode()


def test_control_characters_reach_no_terminal() -> None:
    assert "\x1b" not in render(diagnostics_of("a = \x1b[31m1"))
    assert "\x1b" not in render(diagnostics_of('"\\u001b[31m" = 1'))


def test_nothing_is_looked_up_when_there_is_nothing_to_report() -> None:
    assert locate([], "this is [ no TOML", "f") == ()


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a = ", 1, 4, "not valid TOML: invalid value"),
        ("a = 1\nb == 2", 2, 4, "not valid TOML: invalid value"),
        ("[routes.x\n", 1, 10, "not valid TOML: expected ']' at the end of a table declaration"),
        ("x = [1,\n2\n\n", 2, 2, "not valid TOML: unclosed array"),
        ("a = 1\nb = 2\na = 3\n", 3, 1, "not valid TOML: this was set before, and a value is set once"),
        ("[a]\nx = 1\n[b]\n[a]\n", 4, 1, "not valid TOML: a is declared twice"),
        ("a = 1\n[a]\nb = 1\n", 2, 1, "not valid TOML: this was set before, and a value is set once"),
        ("a = 1\x00", 1, 6, "not valid TOML: expected newline or end of document after a statement"),
        ("a = 1979-13-01", 1, 9, "not valid TOML: expected newline or end of document after a statement"),
    ],
)
def test_what_is_not_toml_is_refused_at_its_place(text: str, line: int, column: int, message: str) -> None:
    (said,) = diagnostics_of(text)
    assert (said.line, said.column, said.message) == (line, column, message)


def test_a_headline_fits_a_log() -> None:
    said = Diagnostic("f", 3, 4, "a", "a is wrong", hint="try b", quoted="x = 1", width=5)
    assert said.headline == "f:3:4: error: a is wrong"
    assert str(said).count("\n") == 2


def test_names_and_values_are_shown_in_an_operators_way() -> None:
    assert dotted(("routes", "a b", "mirrors", 0, "share")) == 'routes."a b".mirrors[0].share'
    values: list[object] = ["x", 1, 1.5, True, [], [1], {}, 10**5000]
    assert [shown(value) for value in values] == [
        '"x"',
        "1",
        "1.5",
        "true",
        "an empty list",
        "a list",
        "a table",
        "a very large number",
    ]
    assert shown("x" * 10_000) == '"' + "x" * 59 + '…"'
    assert listed(["a"]) == '"a"'


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("canry", 'did you mean "candidate"?'),
        ("shares", 'did you mean "share"?'),
        ("zzz", 'there is "candidate" and "share"'),
    ],
)
def test_a_hint_names_what_was_probably_meant(word: str, hint: str) -> None:
    assert did_you_mean(word, ["candidate", "share"]) == hint


def test_a_hint_does_not_list_many_names() -> None:
    assert did_you_mean("zzz", [f"name_{number}" for number in range(20)]) is None
