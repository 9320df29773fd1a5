"""The example is valid, and shows every key and every policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from policies import POLICIES
from router.config.config import Config, load, parse
from router.config.file import (
    ALERT,
    BACKEND,
    COMMON,
    FILE,
    GATEWAY,
    GUARDRAIL,
    MIRROR,
    ROUTE,
    metric_table,
    policy_table,
)
from router.config.tables import Table, nested
from router.snapshot import Gateway

EXAMPLE = Path(__file__).parents[3] / "config.example.toml"
TABLES = (ALERT, FILE, GATEWAY, BACKEND, metric_table(), MIRROR, GUARDRAIL, ROUTE, *map(policy_table, POLICIES))


def within(table: Table) -> Iterator[Table]:
    """Yield a table and those inside it."""
    yield table
    for setting in table.settings.values():
        if setting.made is not None:
            yield from within(nested(setting.made))


def example() -> Config:
    return load(EXAMPLE, environ={})


def test_it_is_valid_and_nothing_in_it_is_doubtful() -> None:
    assert example().warnings == ()


def test_it_shows_every_policy() -> None:
    assert {route.policy.kind for route in example().routes.values()} == {policy.kind for policy in POLICIES}


@pytest.mark.parametrize(
    "key", sorted({name for outer in TABLES for table in within(outer) for name in table.settings})
)
def test_it_shows_every_key(key: str) -> None:
    assert re.search(rf"(^|[\s#{{.\[]){key}( = |\]|\.)", EXAMPLE.read_text(), re.MULTILINE), key


def test_what_is_commented_out_can_be_put_in() -> None:
    """A line behind "# " shows either the default or a valid value."""
    text = re.sub(r"^# (\w+ = )", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    config = parse(text, "turnout.toml")
    assert config.gateway.tls_client_ca_file == "/etc/turnout/clients.pem"
    assert config.backends["digits_forest"].request_headers[0] == ("authorization", "Bearer ${DIGITS_TOKEN}")
    shown = {name for name in GATEWAY.settings if re.search(rf"^# {name} = ", EXAMPLE.read_text(), re.MULTILINE)}
    for name in shown:
        if not name.endswith("_file"):
            assert getattr(config.gateway, name) == getattr(Gateway(), name), name


def test_salt_is_the_one_setting_that_every_policy_shares() -> None:
    assert list(COMMON) == ["salt"]
