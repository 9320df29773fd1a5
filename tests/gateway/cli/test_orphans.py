"""feedback orphans: labels that found no prediction, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run
from tests.gateway.admin.fake import Control, control
from tests.gateway.cli.running import admin_port, write_config

ORPHAN: dict[str, Any] = {
    "prediction_id": None,
    "route": "digits",
    "key": "loan-17",
    "metric": "correct",
    "value": 7,
    "received_ms": 1_760_000_000_000,
    "given_up_ms": 1_760_000_005_000,
}


def asked(fake: Control, folder: Path, *arguments: str) -> int:
    with admin_port(fake) as address:
        return run(["feedback", "orphans", *arguments, "-c", str(write_config(folder, admin=address))])


def test_each_orphan_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = control()
    fake.orphaned = [ORPHAN]
    assert asked(fake, tmp_path, "--route", "digits") == 0
    [row] = [line for line in capsys.readouterr().out.splitlines() if "loan-17" in line]
    assert row.split() == ["2025-10-09", "08:53:20", "loan-17", "digits", "correct", "7", "2025-10-09", "08:53:25"]


def test_no_orphans_are_good_news(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(control(), tmp_path) == 0
    assert capsys.readouterr().out.startswith("no orphans")


def test_as_json_they_are_what_the_api_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = control()
    fake.orphaned = [ORPHAN]
    assert asked(fake, tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == [ORPHAN]
