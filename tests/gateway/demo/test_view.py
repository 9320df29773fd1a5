"""What the demo prints: lines where there is no terminal, one table where there is."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from gateway.demo import run
from gateway.demo.findings import find
from gateway.demo.view import DemoProgress, findings_text, screen
from tests.gateway.demo.test_findings import REPORTS, SCENE, TRUTH, accounts


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=160, color_system=None, _environ={})


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def progress() -> DemoProgress:
    found = {route: replace(account, failed=1) for route, account in accounts(ab=7).items()}
    return DemoProgress("traffic", 60.0, found, done=12.3)


def test_without_a_terminal_a_line_says_how_far_it_is(progress: DemoProgress) -> None:
    out = console(terminal=False)
    with screen(out) as showing:
        showing.show(progress)
    assert shown(out) == "traffic:  12 of 60 s · 24 answers, 8 failures, 7 labels and clicks sent back\n"


def test_without_a_terminal_a_line_comes_every_five_seconds_and_with_each_phase(progress: DemoProgress) -> None:
    out = console(terminal=False)
    with screen(out) as showing:
        for progress.done in (0.0, 1.0, 4.9, 5.1, 9.9, 10.0):
            showing.show(progress)
        progress.phase = "closing windows"
        showing.show(progress)
    assert len(shown(out).splitlines()) == 4


def test_a_terminal_shows_every_route_before_its_first_report_and_after(progress: DemoProgress) -> None:
    out = console(terminal=True)
    with screen(out) as showing:
        showing.show(progress)
        progress.reports.update(REPORTS)
        showing.show(progress)
    for word in (*SCENE, "digits_v1", "search_pixels", "12 of 60 s"):
        assert word in shown(out)


def test_the_last_page_says_what_does_not_add_up() -> None:
    out = console(terminal=False)
    moved = {"rollout": ["after 10 s: step 1 is passed"], "rollback": []}
    out.print(findings_text(find(REPORTS, accounts(canary=1), TRUTH), moved))
    said = shown(out)
    assert "after 10 s: step 1 is passed" in said
    assert "nothing moved" in said
    assert said.count("DOES NOT ADD UP") == 1
    assert "digits_v3 is better than digits_v2" in said


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    out = console(terminal=False)
    assert run(console=out) == 1
    assert 'pip install "turnout[demo]"' in shown(out)


@pytest.mark.parametrize(("seconds", "rate"), [(0.0, 10.0), (10.0, 0.0), (-1.0, 10.0), (float("nan"), 10.0)])
def test_a_demo_of_nothing_is_refused(seconds: float, rate: float) -> None:
    assert run(seconds, rate, console=console(terminal=False)) == 1
