"""A valid file that this installation cannot serve is refused before any process is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.process.configuration import load
from router.config.config import ConfigError
from tests.gateway.cli.running import write_config

POSTGRESQL = 'store = "postgresql://turnout@db/turnout"'


def test_a_store_whose_driver_is_not_installed_is_refused_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the journal would fill up while the controller fails again and again."""
    path = write_config(tmp_path, more=POSTGRESQL)
    assert load(path).gateway.store.startswith("postgresql:")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = (one for one in caught.value.diagnostics if one.severity == "error")
    assert path.read_text().splitlines()[problem.line - 1] == POSTGRESQL
    assert problem.message == "gateway.store: PostgreSQL needs psycopg, which is not installed"
    assert problem.hint == 'pip install "turnout[postgres]"'


def test_tracing_without_its_extra_is_refused_at_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise workers would be restarted again and again, and none would serve."""
    path = write_config(tmp_path, more="tracing = true")
    assert load(path).gateway.tracing
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = (one for one in caught.value.diagnostics if one.severity == "error")
    assert path.read_text().splitlines()[problem.line - 1] == "tracing = true"
    assert problem.message == "gateway.tracing: needs OpenTelemetry, which is not installed"
    assert problem.hint == 'pip install "turnout[tracing]"'
