"""The demo, shortened: it needs no input, adds up, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from gateway.demo.scenario import SCENES
from tests.stories.harness import TURNOUT, descendants, eventually

pytestmark = pytest.mark.story


def test_a_short_demo_ends_by_itself_and_adds_up(tmp_path: Path) -> None:
    """It is too short for verdicts, which depend on chance; the accounting does not."""
    file = tmp_path / "findings.json"
    run = subprocess.run(
        [*TURNOUT, "demo", "--for", "6s", "--rate", "80", "--json-file", str(file)],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    for words in ("/metrics", "/api/v1/routes", "What we found", "adds up", "accuracy", "The demo took"):
        assert words in run.stdout
    found = json.loads(file.read_text())
    assert [finding["route"] for finding in found["findings"]] == [scene.route for scene in SCENES]
    for finding in found["findings"]:
        assert all(balance["holds"] for balance in finding["balances"]), finding
    for route, account in found["accounts"].items():
        assert account["asked"] == len(account["prediction_ids"]) > 10, route
        assert account["refused_events"] == 0
        assert (account["failed"] > 0) == (route == "faulty") or route == "rollback"
        assert sum(found["reports"][route]["feedback"].values()) == account["events"] > 0
        if route in {"shadow", "canary", "ab"}:
            assert account["flickers"] == 0
    statuses = {
        s: sum(r["feedback"][s] for r in found["reports"].values()) for s in ("joined", "repeated", "corrected")
    }
    assert all(statuses.values()), statuses


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_ends_everything_it_started(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*TURNOUT, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        # Six models, the supervisor, a worker and the controller.
        started = eventually(
            lambda: found if len(found := [pid for pid, _ in descendants(process.pid)]) >= 9 else None,
            "everything is started",
            seconds=60,
        )
        time.sleep(1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
