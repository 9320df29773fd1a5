"""A config edit: validated whole, swapped whole, or refused whole with the old one in force."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.stories.backends import Backend, fixed
from tests.stories.harness import Turnout, eventually
from tests.stories.users import Users

pytestmark = pytest.mark.story

CONFIG = """
[backends.one]
url = "{one}"
version = "1"
[backends.two]
url = "{two}"
version = "2"
[routes.r]
path = "{path}"
expose_variant = true
[routes.r.policy]
kind = "single"
variant = "{variant}"
"""


def test_a_reload_swaps_a_good_file_whole_and_refuses_a_broken_one_whole(tmp_path: Path) -> None:
    """By file change, by SIGHUP to the supervisor and by POST: each time the same check, each time all or nothing."""
    with Backend(fixed({"from": 1})) as one, Backend(fixed({"from": 2})) as two:

        def config(variant: str, path: str = "/r") -> str:
            return CONFIG.format(one=one.url, two=two.url, variant=variant, path=path)

        with Turnout(tmp_path, config("one")) as program:
            assert program.process is not None

            def answered() -> str:
                answer = program.ask("/r")
                return str(answer.headers.get("turnout-variant", answer.status_code))

            assert answered() == "one"

            program.write(config("two"))
            eventually(lambda: answered() == "two", "a changed file is in force")

            broken = config("one").replace('kind = "single"', 'kind = "singel"') + "\nunknown = 1\n"
            program.write(broken)
            refused = program.admin.post("/-/reload")
            assert refused.status_code == 422
            assert refused.headers["content-type"] == "application/problem+json"
            assert "singel" in refused.text
            assert answered() == "two"
            os.kill(program.process.pid, signal.SIGHUP)
            time.sleep(1)
            assert answered() == "two"
            assert "refused" in program.admin.get("/api/v1/events").text

            program.write(config("one", path="/elsewhere"))
            reloaded = program.admin.post("/-/reload")
            assert reloaded.status_code == 200, reloaded.text
            eventually(lambda: answered() == "404", "the old path is gone")
            assert program.ask("/elsewhere").headers["turnout-variant"] == "one"

            program.write(config("two"))
            os.kill(program.process.pid, signal.SIGHUP)
            eventually(lambda: answered() == "two", "SIGHUP reloads")
            assert program.stop() == 0


def test_a_reload_drops_no_request(tmp_path: Path) -> None:
    """Requests in flight keep the snapshot they began with."""
    with (
        Backend(fixed({"from": 1})) as backend,
        Turnout(
            tmp_path, CONFIG.format(one=backend.url, two=backend.url, variant="one", path="/r"), gateway="workers = 2"
        ) as program,
    ):
        with Users(program.traffic.base_url, ("/r",), rate=80) as users:
            for variant in ("two", "one", "two", "one"):
                time.sleep(0.5)
                program.write(CONFIG.format(one=backend.url, two=backend.url, variant=variant, path="/r"))
                assert program.admin.post("/-/reload").status_code == 200
        assert users.broken == 0
        assert set(users.statuses) == {200}
