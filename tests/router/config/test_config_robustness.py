"""Whatever its bytes, a file is read, or refused with a message."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import POLICIES
from router.config.config import Config, ConfigError, load, parse
from router.config.file import BACKEND, GATEWAY, MIRROR, ROUTE, metric_table, policy_table
from tests.router.builders import SMALL


def parses_or_refuses(text: str) -> Config | None:
    """Parse the text. The only exception may be ConfigError, with at least one diagnostic and its place."""
    try:
        return parse(text, "f")
    except ConfigError as error:
        said = error
    assert said.diagnostics
    assert all(diagnostic.line >= 1 and diagnostic.column >= 1 for diagnostic in said.diagnostics)
    assert str(said)
    return None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    with suppress(ConfigError):
        load(path, environ={})


@given(st.integers(0, len(SMALL)))
def test_a_half_written_file_is_read_or_refused(end: int) -> None:
    parses_or_refuses(SMALL[:end])


@given(st.integers(0, len(SMALL) - 1), st.text(min_size=1, max_size=3))
def test_a_damaged_file_is_read_or_refused(place: int, damage: str) -> None:
    parses_or_refuses(SMALL[:place] + damage + SMALL[place + 1 :])


EXAMPLE = (Path(__file__).parents[3] / "config.example.toml").read_text().split("\n")
SET = [number for number, line in enumerate(EXAMPLE) if "=" in line and not line.startswith("#")]
TABLES = (GATEWAY, BACKEND, metric_table(), ROUTE, MIRROR, *map(policy_table, POLICIES))
KEYS = sorted({name for table in TABLES for name in table.settings} | {'"a b"', '"@x"', "a.b", '""'})
VALUES = [
    "0",
    "1",
    "-1",
    "0.5",
    "nan",
    "inf",
    "1e400",
    "true",
    '""',
    '"v1"',
    '"a"',
    '"/a"',
    '"24h"',
    '"label"',
    '"header:a"',
    '"${A"',
    "[]",
    "{}",
    '[""]',
    "[[1]]",
    "[1,2]",
    "[{}]",
    "{a=1}",
    "{digits_svm=0.5}",
    "1979-05-27",
    "07:32:00",
    "9223372036854775808",
    '"canary"',
    '"thompson"',
    '"ab"',
    '"interleave"',
    '"shadow"',
    '"single"',
    '"digits_svm"',
    '"click"',
    '["click","click"]',
    "[{variant=1}]",
    '{kind="ab"}',
    '"/*"',
    '"/-/"',
    '"\\u0000"',
    "'''a'''",
]


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(SET), st.tuples(st.none() | st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=4
    )
)
def test_any_key_may_hold_anything(changes: dict[int, tuple[str | None, str]]) -> None:
    lines = list(EXAMPLE)
    for number, (key, value) in changes.items():
        lines[number] = f"{key or lines[number].partition('=')[0]} = {value}"
    parses_or_refuses("\n".join(lines))


OUTLANDISH = [
    "a." * 5_000 + "a = 1",
    "a = " + "[" * 5_000,
    "a = " + "{ a = " * 400,
    "a = " + "9" * 5_000,
    "[" + "a." * 3_000 + "a]",
    "a = 1\n" * 2,
    '"' + "a" * 10_000 + '" = 1',
    "routes" + ".a" * 40 + " = 1",
    "[routes.digits]\npolicy" + ".a" * 60 + " = 1",
    "routes = 1",
    "routes = { a = 1 }",
    "[[routes]]",
    "[[backends.a]]",
    "gateway = []",
    "metrics = { m = [] }",
    "\ufeff",
]


@pytest.mark.parametrize("text", OUTLANDISH, ids=range(len(OUTLANDISH)))
def test_outlandish_files_are_refused(text: str) -> None:
    assert parses_or_refuses(text) is None
