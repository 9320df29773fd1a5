"""A trigger of a whole program fires once, and its webhook arrives though the receiver was down at first."""

from __future__ import annotations

import base64
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.stories.backends import Backend, fixed
from tests.stories.harness import Turnout, eventually, turnout

pytestmark = pytest.mark.story

SECRET = "whsec_" + base64.b64encode(b"a secret of twenty-four bytes").decode()
DOCUMENT = Path(__file__).parents[2] / "docs/how-to/trigger.md"
CONFIG = """
[backends.one]
url = "{url}"
version = "7"
[metrics.correct]
kind = "label"
mature = "arrival"
[routes.digits]
path = "/digits"
prediction = "/answer"
metrics = ["correct"]
policy = {{ kind = "single", variant = "one" }}
[sinks.hook]
kind = "webhook"
url = "http://127.0.0.1:{port}/"
allow_private = true
timeout_ms = 2000
secret = "${{file:{secret}}}"
[triggers.retrain]
route = "digits"
any = [{{ kind = "labels", metric = "correct", at_least = 10 }}]
webhook = "hook"
"""


def command(program: Turnout, *arguments: str) -> Any:
    done = turnout(*arguments, "--json", "-c", str(program.file))
    assert done.returncode == 0, done.stderr
    return orjson.loads(done.stdout)


def tries(program: Turnout) -> list[dict[str, Any]]:
    return list(program.admin.get("/api/v1/sinks/hook/deliveries").json()["deliveries"])


def trigger(program: Turnout) -> dict[str, Any]:
    (one,) = program.admin.get("/api/v1/triggers").json()["triggers"]
    return dict(one)


def label(program: Turnout, n: int) -> None:
    for _ in range(n):
        id_ = program.ask("/digits", {}).headers["turnout-prediction-id"]
        assert program.feedback({"prediction_id": id_, "metric": "correct", "value": 7}).status_code == 202


def test_a_receiver_that_is_down_at_first_gets_every_firing_once(tmp_path: Path) -> None:
    """The receiver is the one of the documents; it verifies signatures, and ignores an id that it has had."""
    (tmp_path / "secret").write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Backend(fixed({"answer": 7})) as backend:
        config = CONFIG.format(url=backend.url, port=port, secret=tmp_path / "secret")
        with Turnout(tmp_path, config) as program:
            eventually(lambda: trigger(program)["conditions"][0]["said"], "it was looked at")
            label(program, 10)
            failed = eventually(lambda: tries(program), "it was tried", seconds=20)
            assert failed[-1]["status"] is None
            (source,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
            env = {**os.environ, "RETRAIN_SECRET": SECRET, "PORT": str(port)}
            receiver = subprocess.Popen([sys.executable, "-c", source], env=env, stdout=subprocess.PIPE, text=True)
            try:
                delivered = eventually(
                    lambda: [one for one in tries(program) if one["status"] == 204],
                    "it is delivered",
                    seconds=30,
                )
                assert {one["event"] for one in failed} == {one["event"] for one in delivered}
                command(program, "trigger", "fire", "retrain", "--why", "by hand")
                eventually(lambda: trigger(program)["fired"] == 2, "it fired again")
                eventually(lambda: len({one["event"] for one in tries(program)}) == 2, "that is sent too")
            finally:
                receiver.kill()
                said, _ = receiver.communicate()
            events = program.admin.get("/api/v1/events").json()["events"]
            assert len([one for one in events if one["kind"] == "trigger"]) == 2
            looked_back = program.admin.get("/api/v1/triggers/retrain/test").json()
            assert (looked_back["without_history"], looked_back["fired"]) == ([], [])  # its hour is not over
            shown = program.admin.get("/api/v1/sinks/hook/dead").json()
            assert shown == {"sink": "hook", "dead": []}
            assert program.admin.post("/api/v1/sinks/hook/replay").json() == {"sink": "hook", "replayed": 0}
            assert program.admin.post("/api/v1/sinks/hook/enable").json() == {"sink": "hook", "was_disabled": False}
            assert program.admin.post("/api/v1/sinks/hok/enable").status_code == 404
            assert program.admin.post("/api/v1/triggers/retran/fire").status_code == 404
            assert program.admin.get("/api/v1/triggers/retrain/test?since=x").status_code == 400
            assert program.admin.post("/api/v1/triggers/retrain/fire", json={"why": 1}).status_code == 422
    lines = said.splitlines()
    assert lines[0].startswith("retrain one 7: 10 predictions have a new value of correct, of 10")
    assert "by hand" in lines[1]
    assert len(lines) == 2
