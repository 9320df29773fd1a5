"""The table of a verdict's statuses: whatever shows a status shows each of them."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import get_args

from gateway.cli.report_tables import STYLES
from gateway.report.verdict_status import STATUSES, Status

PAGE = Path(__file__).parents[3] / "docs/explanation/verdict.md"


def test_the_table_has_each_status_once() -> None:
    assert sorted(STATUSES) == sorted(get_args(Status))


def test_the_page_about_verdicts_says_what_each_status_means() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(status, meaning.of_comparison, meaning.of_route) for status, meaning in STATUSES.items()]


def test_the_alerts_name_statuses_that_exist() -> None:
    rules = files("gateway.dashboards").joinpath("rules.yaml").read_text()
    named = re.findall(r'turnout_verdict\{status="(\w+)"\}', rules)
    assert sorted(named) == ["failing", "invalid", "worse"]
    assert set(named) <= set(STATUSES)


def test_the_console_and_the_terminal_have_a_style_for_each_status() -> None:
    css = files("gateway.admin").joinpath("static", "console.css").read_text()
    assert {status for status in STATUSES if re.search(rf"^[^{{]*\.{status}\b", css, re.MULTILINE)} == set(STATUSES)
    assert STYLES.keys() == STATUSES.keys()
