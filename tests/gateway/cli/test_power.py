"""power: what a route can decide, as a table and as JSON, by the API's own words."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from gateway.cli import run
from gateway.cli.exits import PROBLEM
from gateway.report.account import account_of
from gateway.report.planning import planning
from tests.gateway.admin.fake import Control, control
from tests.gateway.cli.running import admin_port, write_config


def asked(fake: Control, folder: Path, *arguments: str) -> int:
    with admin_port(fake) as address:
        return run(["power", *arguments, "-c", str(write_config(folder, admin=address))])


def test_days_and_effects_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(control(), tmp_path, "digits", "--effects", "0.02, 0.9", "--days", "7") == 0
    text = capsys.readouterr().out
    assert "new against old by correct, by asymptotic: " in text
    assert "no difference can be larger than 0.3" in text
    assert "within 7" in text
    assert "decided with a probability of 80%" in text


def test_as_json_it_is_what_the_api_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = control()
    assert asked(fake, tmp_path, "digits", "--json", "--days", "7") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == planning(account_of(fake.snapshot, fake.books["digits"]), [], [7.0])


def test_what_cannot_be_asked_for_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(control(), tmp_path, "digitz") == PROBLEM
    assert "digitz" in capsys.readouterr().err
    with admin_port(control()) as address:
        for wrong in ("0", "-1", "x", "nan", "inf", "1,,2", ",".join(["1"] * 21)):
            answer = httpx.get(f"http://{address}/api/v1/routes/digits/power", params={"effects": wrong})
            assert answer.status_code == 400
            assert "effects must be at most 20 numbers greater than 0" in answer.text
