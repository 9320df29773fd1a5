"""``kill -9`` under load: what a client received is in the store, once, whichever process died meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.stories.backends import Asked, Backend
from tests.stories.harness import Turnout, eventually
from tests.stories.users import Users

pytestmark = pytest.mark.story

CONFIG = """
[backends.one]
url = "{url}"
version = "1"
[backends.two]
url = "{url}"
version = "2"

[metrics.click]
kind = "event"
window = "3s"

[routes.answer]
path = "/answer"
unit = "header:x-user-id"
metrics = ["click"]
mirrors = [{{ variant = "two", share = 0.5 }}]
[routes.answer.policy]
kind = "canary"
stable = "one"
candidate = "two"
share = 0.3

[routes.search]
path = "/search"
unit = "header:x-user-id"
metrics = ["click"]
[routes.search.policy]
kind = "interleave"
rankers = ["one", "two"]
items = "/items"
length = 4
"""

ROLES = {"/answer": {"primary": 1}, "/search": {"draft": 2}}


async def items(asked: Asked) -> Any:
    """Ten items in an order that depends on the request, slowly enough that some are always under way."""
    await asyncio.sleep(0.03)
    found = [f"i{number}" for number in range(10)]
    random.Random(asked.body).shuffle(found)
    return {"items": found}


def test_every_answer_that_was_received_is_stored_once_though_workers_and_controller_are_killed(tmp_path: Path) -> None:
    """Every further row has its reason: a copy, a client that left, a failure, or a worker that died at that moment."""
    with Backend(items) as backend, Turnout(tmp_path, CONFIG.format(url=backend.url), gateway="workers = 2") as program:
        with Users(program.traffic.base_url, ("/answer", "/search"), rate=60) as users:
            killed: list[tuple[int, float]] = []
            for victims in ("workers", "controllers", "workers", "controllers"):
                time.sleep(1.2)
                before = eventually(lambda: getattr(program, victims), f"there are {victims}")  # noqa: B023
                os.kill(before[0], signal.SIGKILL)
                killed.append((before[0], time.time()))
                eventually(
                    lambda: len(set(getattr(program, victims)) - {before[0]}) == len(before),  # noqa: B023
                    f"a new one of the {victims} is started",
                )
            time.sleep(1.5)
        received = users.received
        assert len(received) > 50  # as many as a busy machine lets through
        assert users.broken < 50
        assert set(users.statuses) == {200}

        program.wait_until_ready()
        newest = max(received)
        eventually(lambda: program.prediction(newest), "the last answer is stored", seconds=15)
        assert program.stop() == 0
        _check(program, received)


def _check(program: Turnout, received: dict[str, str]) -> None:
    stored: dict[str, Counter[str]] = {}
    further: Counter[str] = Counter()
    for row in program.rows("SELECT id, role, fault, status, variant FROM predictions"):
        if row["role"] == "shadow":
            further["mirror"] += 1
        elif row["id"] in received:
            stored.setdefault(row["id"], Counter())[row["role"]] += 1
        else:
            further[row["fault"] or "its worker died while the answer left"] += 1
    wrong = {i: stored.get(i) for i, path in received.items() if stored.get(i) != Counter(ROLES[path])}
    assert not wrong, f"{len(wrong)} of {len(received)} answers: {list(wrong.items())[:3]}"
    print("further rows:", dict(further))  # noqa: T201  # part of what the story tells
    # Requests that were under way in one of the two workers that were killed: at 60 a second and a few milliseconds
    # each there is hardly one.
    assert further["its worker died while the answer left"] <= 4
    assert set(further) <= {"mirror", "client_gone", "incomplete", "its worker died while the answer left"}
