"""Events of a whole program: every answer and every label reaches the sink's receiver, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.gateway.sinks.builders import Receiver
from tests.stories.backends import Backend, fixed
from tests.stories.harness import Turnout, eventually

pytestmark = pytest.mark.story

CONFIG = """
[backends.one]
url = "{url}"
version = "1"
[backends.two]
url = "{url}"
version = "2"

[metrics.correct]
kind = "label"
mature = "arrival"

[routes.digits]
path = "/digits"
unit = "header:x-user-id"
prediction = "/answer"
metrics = ["correct"]
baseline = "one"
[routes.digits.policy]
kind = "ab"
shares = {{ one = 0.5, two = 0.5 }}

[sinks.lake]
kind = "cloudevents"
url = "{sink}"
timeout_ms = 2000
"""

SHIPPED = '\n[sinks.shipper]\nkind = "stdout"\nevents = ["decision", "outcome"]\n'


def account(program: Turnout, name: str = "lake") -> Mapping[str, Any]:
    """What became of a sink's events, which always adds up."""
    (found,) = [one for one in program.admin.get("/api/v1/sinks").json()["sinks"] if one["name"] == name]
    assert found["made"] == sum(found[end] for end in ("delivered", "refused", "dropped", "erased", "pending"))
    return dict(found)


def by_type(receiver: Receiver) -> Counter[str]:
    """How many different events of each kind came."""
    return Counter({one["id"]: one["type"].removeprefix("turnout.") for one in receiver.events}.values())


def asked(program: Turnout, users: range) -> list[str]:
    ids = []
    for user in users:
        answer = program.ask("/digits", {"n": user}, x_user_id=f"u{user}")
        ids.append(answer.headers["turnout-prediction-id"])
        label = {"prediction_id": ids[-1], "metric": "correct", "value": user % 2 + 7}
        assert program.feedback(label).status_code == 202
    return ids


def test_a_receiver_that_fails_and_a_controller_that_is_killed_cost_no_event(tmp_path: Path) -> None:
    receiver = Receiver()
    with Backend(fixed({"answer": 7})) as backend, Backend(receiver.answer) as there:
        with Turnout(tmp_path, CONFIG.format(url=backend.url, sink=there.url)) as program:
            ids = asked(program, range(20))
            eventually(lambda: by_type(receiver)["outcome"] == 20, "the first labels are delivered")
            receiver.status = 503
            ids += asked(program, range(20, 40))

            def in_trouble() -> bool:
                shown = account(program)
                return shown["trouble"] == "it answers 503" and bool(shown["pending"])

            eventually(in_trouble, "the trouble is shown")
            assert 'turnout_sink_ready{sink="lake"} 0.0' in program.metrics()
            (noted,) = [one for one in program.admin.get("/api/v1/events").json()["events"] if "sink" in one["kind"]]
            assert noted["detail"] == "sinks.lake: it answers 503; its events wait"
            (victim,) = program.controllers
            os.kill(victim, signal.SIGKILL)
            ids += asked(program, range(40, 60))  # answers and labels do not wait for the receiver
            receiver.status = 204

            def delivered() -> bool:
                found = by_type(receiver)
                return all(found[kind] >= 60 for kind in ("request", "decision", "response", "outcome"))

            eventually(delivered, "everything is delivered", seconds=30)
            program.wait_until_ready()

            def all_told() -> bool:
                shown = account(program)
                return bool(shown["pending"] == 0 and shown["delivered"] == shown["made"] == len(receiver.ids))

            eventually(all_told, "nothing waits, and what was made is what came")
        told_of = {one["subject"] for one in receiver.events if one["type"] == "turnout.response"}
        assert told_of == set(ids)
        statuses = Counter(one["data"]["status"] for one in receiver.events if one["type"] == "turnout.feedback")
        assert statuses["joined"] >= 60
        assert {one["data"]["unit"] for one in receiver.events if one["type"] == "turnout.request"} == {
            f"u{n}" for n in range(60)
        }


def test_standard_output_has_events_and_nothing_else(tmp_path: Path) -> None:
    """A log shipper reads it line by line, and each is one whole event; the last ones come before the program ends."""
    receiver = Receiver()
    with Backend(fixed({"answer": 7})) as backend, Backend(receiver.answer) as there:
        config = CONFIG.format(url=backend.url, sink=there.url) + SHIPPED
        out = tmp_path / "out.jsonl"
        with Turnout(tmp_path, config, stdout=out) as program:
            ids = asked(program, range(25))
            eventually(lambda: account(program, "shipper")["delivered"] >= 50, "they are delivered")
            ids += [program.ask("/digits", {}, x_user_id="last").headers["turnout-prediction-id"]]
        events = [orjson.loads(line) for line in out.read_bytes().splitlines()]
        assert Counter(one["type"] for one in events) == {"turnout.decision": 26, "turnout.outcome": 25}
        assert {one["subject"] for one in events} == set(ids)


def test_sinks_come_and_go_with_the_file(tmp_path: Path) -> None:
    receiver = Receiver()
    with Backend(fixed({"answer": 7})) as backend, Backend(receiver.answer) as there:
        config = CONFIG.format(url=backend.url, sink=there.url)
        with Turnout(tmp_path, config.partition("[sinks.lake]")[0]) as program:
            asked(program, range(3))
            eventually(lambda: program.report("digits")["feedback"].get("joined") == 3, "it is recorded")
            assert program.admin.get("/api/v1/sinks").json() == {"sinks": []}
            program.write(config)
            eventually(lambda: program.admin.get("/api/v1/sinks").json()["sinks"], "the sink is in force")
            ids = asked(program, range(3, 6))
            eventually(lambda: by_type(receiver)["outcome"] == 3, "later labels are delivered")
            assert {one["subject"] for one in receiver.events} == set(ids)
