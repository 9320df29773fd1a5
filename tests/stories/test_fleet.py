"""Several `turnout serve` on one PostgreSQL: if nodes die or stall, each answer and each label counts once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from gateway.store.fleet.lease import LEASE_MS
from loadtests.postgresql import Server
from tests.gateway.sinks.builders import Receiver
from tests.stories.backends import Backend, fixed
from tests.stories.harness import Turnout, eventually, turnout
from tests.stories.users import Users

pytestmark = pytest.mark.story

CONFIG = """
[backends.one]
url = "{url}"
version = "1"
[backends.two]
url = "{url}"
version = "1"

[metrics.click]
kind = "event"
window = "2s"
missing = 0

[routes.r]
path = "/r"
metrics = ["click"]
[routes.r.policy]
kind = "thompson"
variants = ["one", "two"]
reward = "click"
"""

#: The time until another node has taken the lease: its expiry, and a poll.
TAKEN_SECONDS = LEASE_MS / 1000 + 5.0


class Nodes:
    """Three nodes, and the store between them."""

    def __init__(self, url: str, programs: Sequence[Turnout]) -> None:
        self.url = url
        self.programs = tuple(programs)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    def holder(self, among: Sequence[Turnout] | None = None) -> Turnout | None:
        """The node that itself says that it holds the lease."""
        for program in self.programs if among is None else among:
            seen = fleet(program)
            if seen["holder"] == seen["node"] and seen["cut_off_seconds"] is None:
                return program
        return None

    def settled(self, received: int, joined: int) -> bool:
        """Whether that many calls and events are recorded, and none of them is pending anywhere."""
        [(calls, events)] = self.ask("SELECT (SELECT count(*) FROM calls), (SELECT count(*) FROM feedback)")
        waiting = sum(node["waiting_bytes"] for node in fleet(self.programs[0])["nodes"])
        return bool(calls >= received and events >= joined and waiting == 0)


def fleet(program: Turnout) -> dict[str, Any]:
    found: dict[str, Any] = program.admin.get("/api/v1/fleet").raise_for_status().json()
    return found


@contextlib.contextmanager
def three(path: Path, url: str, backend: Backend) -> Iterator[Nodes]:
    programs = [node(path / name, url, CONFIG.format(url=backend.url)) for name in "abc"]
    with contextlib.ExitStack() as held:
        for program in programs:
            held.callback(program.close)
            program.start()  # all at the same moment, into an empty store
        for program in programs:
            program.wait_until_ready()
        nodes = Nodes(url, programs)
        eventually(nodes.holder, "a node holds the lease")
        yield nodes


def node(path: Path, url: str, config: str) -> Turnout:
    path.mkdir()
    return Turnout(path, config, gateway=f'store = "{url}"')


class Clicks:
    """Clicks on every second answer, sent to another node than the one that answered; remembers the accepted ones."""

    def __init__(self, programs: Sequence[Turnout]) -> None:
        self._bases = [program.traffic.base_url for program in programs]
        self._answered = 0
        self.taken: Counter[str] = Counter()

    async def __call__(self, client: httpx.AsyncClient, path: str, answer: httpx.Response) -> None:
        self._answered += 1
        if self._answered % 2:
            return
        prediction = answer.headers["turnout-prediction-id"]
        event = {"prediction_id": prediction, "metric": "click", "value": 1}
        url = self._bases[self._answered % len(self._bases)].join("/-/feedback")
        if (await client.post(url, json=event)).status_code == 202:
            self.taken[prediction] += 1


@contextlib.contextmanager
def load(nodes: Nodes, clicks: Clicks, *, rate: float) -> Iterator[list[Users]]:
    with contextlib.ExitStack() as held:
        yield [
            held.enter_context(Users(program.traffic.base_url, ("/r",), rate=rate, then=clicks))
            for program in nodes.programs
        ]


def kill(program: Turnout) -> None:
    """Kill all processes of a node, as the loss of its machine would."""
    assert program.process is not None
    below = program.pids()
    os.kill(program.process.pid, signal.SIGKILL)
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    program.process.wait()


def each_counts_once(nodes: Nodes, received: set[str], clicks: Clicks, *, within: float = 30.0) -> None:
    """Every answer and every click that was acknowledged is in the store, and in the tallies, once."""
    eventually(lambda: nodes.settled(len(received), len(clicks.taken)), "everything is recorded", seconds=within)
    rows = Counter(row[0] for row in nodes.ask("SELECT id FROM calls WHERE open_by IS NULL"))
    assert not received - rows.keys()
    assert set(rows.values()) == {1}
    labels = nodes.ask("SELECT target, status FROM feedback")
    assert not clicks.taken.keys() - {target for target, _ in labels}
    joined = {target for target, status in labels if status == "joined"}
    counted = nodes.ask("SELECT sum(n) FROM feedback_counts WHERE status = 'joined'")
    assert counted[0][0] == len(joined)
    live = nodes.ask("SELECT sum(m), sum(d) FROM tallies WHERE metric = 'click' AND phase = 'live'")
    closed = nodes.ask("SELECT sum(d) FROM tallies WHERE metric = 'click' AND phase = 'closed'")
    assert live[0][0] == len(joined)
    calls = nodes.ask("SELECT sum(d) FROM tallies WHERE metric = '@calls'")
    assert calls[0][0] == len(rows)
    assert closed[0][0] is None or closed[0][0] <= len(rows)


def revisions(nodes: Nodes) -> set[int]:
    return {fleet(program)["revision"] for program in nodes.programs}


def test_the_holder_is_killed_and_another_takes_over_and_nothing_counts_twice(
    tmp_path: Path, postgresql_url: str
) -> None:
    with Backend(fixed({})) as backend, three(tmp_path, postgresql_url, backend) as nodes:
        clicks = Clicks(nodes.programs)
        with load(nodes, clicks, rate=25) as users:
            time.sleep(4)
            dead = nodes.holder()
            assert dead is not None
            kill(dead)
            killed = time.monotonic()
            alive = [program for program in nodes.programs if program is not dead]
            eventually(lambda: nodes.holder(alive), "another node holds the lease", seconds=TAKEN_SECONDS)
            assert time.monotonic() - killed <= TAKEN_SECONDS
            time.sleep(1)
            dead.start()  # its journal was left on its disk
            dead.wait_until_ready()
            time.sleep(2)
        # Load has stopped: within two seconds every node is at the same revision, and it means the same plan.
        eventually(lambda: len(revisions(nodes)) == 1, "every node is at one revision", seconds=2, every=0.02)
        received = {prediction for one in users for prediction in one.received}
        assert len(received) > 200
        each_counts_once(nodes, received, clicks)
        assert max(revisions(nodes)) > 1  # plans were made, from the evidence of every node

        def the_same() -> bool:
            shown = [program.admin.get("/api/v1/config").json() for program in nodes.programs]
            plans = [
                (one["revision"], str(program.report("r")["variants"][0]["share"]))
                for one, program in zip(shown, nodes.programs, strict=True)
            ]
            return len(set(plans)) == 1

        eventually(the_same, "a revision is the same plan at every node")
        stored = nodes.ask("SELECT DISTINCT revision FROM calls JOIN kin ON kin.id = calls.kin")
        known = nodes.ask("SELECT DISTINCT revision FROM plans")
        assert {row[0] for row in stored} - {0} <= {row[0] for row in known}


def test_a_holder_that_slept_beyond_its_expiry_wakes_and_cannot_write(tmp_path: Path, postgresql_url: str) -> None:
    with Backend(fixed({})) as backend, three(tmp_path, postgresql_url, backend) as nodes:
        clicks = Clicks(nodes.programs)
        with load(nodes, clicks, rate=25) as users:
            time.sleep(2)
            sleeper = nodes.holder()
            assert sleeper is not None
            [controller] = sleeper.controllers
            os.kill(controller, signal.SIGSTOP)
            try:
                alive = [program for program in nodes.programs if program is not sleeper]
                eventually(lambda: nodes.holder(alive), "another node holds the lease", seconds=TAKEN_SECONDS)
                time.sleep(1)
                [(_, fencing)] = nodes.ask("SELECT holder, fencing FROM lease")
            finally:
                os.kill(controller, signal.SIGCONT)
            time.sleep(2)
        assert nodes.ask("SELECT holder, fencing FROM lease") == [(fleet(alive[0])["holder"], fencing)]
        eventually(lambda: fleet(sleeper)["holder"] != fleet(sleeper)["node"], "the sleeper knows")
        received = {prediction for one in users for prediction in one.received}
        each_counts_once(nodes, received, clicks)
        assert nodes.holder() is not sleeper


def test_a_node_with_another_config_is_named_everywhere(tmp_path: Path, postgresql_url: str) -> None:
    with Backend(fixed({})) as backend, three(tmp_path, postgresql_url, backend) as nodes:
        other = CONFIG.format(url=backend.url).replace('window = "2s"', 'window = "3s"')
        with node(tmp_path / "d", postgresql_url, other) as fourth:
            name = fleet(fourth)["node"]
            line = f"node {name} runs configuration {fleet(fourth)['config']}"
            for program in (*nodes.programs, fourth):
                eventually(lambda: line in program.admin.get("/readyz?verbose").text, "it is named")  # noqa: B023
                assert program.admin.get("/readyz").status_code == 200
                assert f'turnout_node_config_differs{{node="{name}"}} 1.0' in program.metrics()
                eventually(lambda: f"config_differs node {name} runs" in program.log(), "the log names it")  # noqa: B023
            numbers = [fleet(program)["revision"] for program in nodes.programs]
            assert fleet(fourth)["revision"] not in numbers  # a number is never given twice
            # Its file is corrected: it follows the others' plans.
            fourth.write(CONFIG.format(url=backend.url))
            eventually(lambda: fleet(fourth)["revision"] == fleet(nodes.programs[0])["revision"], "it agrees")
            eventually(lambda: "configuration" not in nodes.programs[0].admin.get("/readyz?verbose").text, "all agree")


def test_nodes_cut_off_from_the_store_go_on_and_say_so_and_catch_up(
    tmp_path: Path, postgresql_url: str, postgresql_server: Server
) -> None:
    with Backend(fixed({})) as backend, three(tmp_path, postgresql_url, backend) as nodes:
        clicks = Clicks(nodes.programs)
        with load(nodes, clicks, rate=15) as users:
            time.sleep(1)
            postgresql_server.stop()
            try:
                for program in nodes.programs:
                    eventually(lambda: "cut off" in program.admin.get("/readyz?verbose").text, "it says so")  # noqa: B023
                    said = program.admin.get("/readyz?verbose")
                    assert said.status_code == 503
                    assert "stays in force" in said.text
                    assert "turnout_store_cut_off_seconds 0.0" not in program.metrics()
                    assert program.traffic.get("/-/readyz").status_code == 200
                    # An edit is in force all the same, without a number until the store is back.
                nodes.programs[0].write(CONFIG.format(url=backend.url) + "floor = 0.1\n")
                eventually(lambda: fleet(nodes.programs[0])["revision"] == 0, "the edit is in force")
            finally:
                postgresql_server.start()
            for program in nodes.programs[1:]:
                program.write(CONFIG.format(url=backend.url) + "floor = 0.1\n")
            for program in nodes.programs:
                eventually(lambda: program.admin.get("/readyz").status_code == 200, "it is back", seconds=30)  # noqa: B023
        eventually(lambda: len(revisions(nodes)) == 1 and 0 not in revisions(nodes), "all agree", seconds=15)
        received = {prediction for one in users for prediction in one.received}
        assert not any(one.broken for one in users)
        assert all(one.statuses.keys() == {200} for one in users)
        each_counts_once(nodes, received, clicks)


BULK = """
[backends.one]
url = "{url}"
version = "1"

[metrics.correct]
kind = "label"
window = "1h"

[routes.r]
path = "/r"
unit = "header:x-user-id"
key = "body:/loan"
prediction = "/answer"
metrics = ["correct"]
capture = {{ request = ["/loan"] }}
policy = {{ kind = "single", variant = "one" }}

[sinks.lake]
kind = "cloudevents"
url = "{sink}"
"""


def test_what_one_node_receives_is_known_at_every_other(tmp_path: Path, postgresql_url: str) -> None:
    """Bodies, labels by the file, export, sinks and erasing, at nodes of which at most one holds the lease."""
    receiver = Receiver()
    with Backend(fixed({"answer": 7})) as backend, Backend(receiver.answer) as there, contextlib.ExitStack() as held:
        text = BULK.format(url=backend.url, sink=there.url)
        programs = [node(tmp_path / name, postgresql_url, text) for name in "ab"]
        for program in programs:
            held.enter_context(program)
        nodes = Nodes(postgresql_url, programs)
        holder = eventually(nodes.holder, "a node holds the lease")
        (other,) = [program for program in programs if program is not holder]
        ids = [
            program.ask("/r", {"loan": f"loan-{n}"}, x_user_id=f"user-{n}").headers["turnout-prediction-id"]
            for n in range(20)
            for program in (programs[n % 2],)
        ]
        labels = tmp_path / "labels.csv"
        labels.write_text("key,value\n" + "".join(f"loan-{n},7\n" for n in range(20)))
        done = turnout("feedback", "import", str(labels), "--metric", "correct", "--route", "r", "-c", str(other.file))
        assert done.returncode == 0, done.stderr

        def joined() -> bool:
            return nodes.ask("SELECT count(*) FROM feedback WHERE status = 'joined'") == [(20,)]

        # A key is looked up once everything before the event is recorded from both nodes.
        eventually(joined, "labels sent to one node are joined by the other", seconds=20)
        found = other.prediction(ids[0])
        assert found is not None
        assert found["captured"]["request"] == {"/loan": "loan-0"}
        for number, program in enumerate(programs):
            file = tmp_path / f"{number}.jsonl"
            assert turnout("export", str(file), "--route", "r", "-c", str(program.file)).returncode == 0
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            assert {row["id"] for row in rows} == set(ids)

        def delivered() -> bool:
            subjects = Counter(one["subject"] for one in receiver.events if one["type"] == "turnout.outcome")
            return set(subjects) == set(ids)

        eventually(delivered, "the holder sends the sink events of both nodes' requests")
        first = turnout("privacy", "erase", "--unit", "user-3", "-c", str(other.file), seconds=90)
        assert first.returncode == 1
        assert "ask the holder" in first.stderr
        last = turnout("privacy", "erase", "--unit", "user-3", "-c", str(holder.file), seconds=90)
        assert last.returncode == 0, last.stderr
        for program in programs:
            assert program.prediction(ids[3]) is None
            assert program.prediction(ids[4]) is not None
