"""The store is never a precondition for traffic."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stories.backends import Backend, fixed
from tests.stories.harness import Turnout, eventually

pytestmark = pytest.mark.story

CONFIG = """
[backends.only]
url = "{url}"
version = "1"
[metrics.click]
kind = "event"
window = "2s"
[routes.r]
path = "/r"
metrics = ["click"]
[routes.r.policy]
kind = "single"
variant = "only"
"""


def test_traffic_is_answered_while_the_store_cannot_be_opened_and_its_rows_arrive_once_it_can(tmp_path: Path) -> None:
    """A directory stands where the database should be: nothing can open it, not even root."""
    with Backend(fixed({"ok": True})) as backend:
        program = Turnout(tmp_path, CONFIG.format(url=backend.url))
        obstacle = program.data_dir / "turnout.db"
        obstacle.mkdir(parents=True)
        program.start()
        try:
            program.wait_until_ready(store=False)
            answers = [program.ask("/r") for _ in range(20)]
            assert [answer.status_code for answer in answers] == [200] * 20
            ids = [answer.headers["turnout-prediction-id"] for answer in answers]
            told = program.feedback(*({"prediction_id": i, "metric": "click", "value": 1} for i in ids))
            assert told.status_code == 202
            assert program.admin.get("/readyz").status_code == 503
            assert "turnout_requests_total" in program.metrics()

            obstacle.rmdir()
            eventually(lambda: program.admin.get("/readyz").status_code == 200, "the store opens", seconds=15)
            eventually(lambda: all(program.prediction(i) for i in ids), "the rows arrive")
            eventually(lambda: program.report("r")["feedback"]["joined"] == 20, "and their feedback is joined")
            assert [program.ask("/r").status_code for _ in range(3)] == [200] * 3
        finally:
            program.close()
