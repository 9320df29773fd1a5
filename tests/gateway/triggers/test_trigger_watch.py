"""A trigger fires once: stored, told, and done, whoever looks, and whatever stops in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest
from sqlalchemy import select

from gateway.control.control import Control
from gateway.report.verdict_status import STATUSES as VERDICTS
from gateway.store import Store
from gateway.store.audit import listed
from gateway.store.schema.row_tables import outbox
from gateway.triggers import trigger_watch
from gateway.triggers.firing import ask_to_fire, read_triggers, store_advance
from gateway.triggers.trigger_history import history
from gateway.triggers.trigger_watch import TriggerWatch
from router.config.config import parse
from router.config.schema import json_schema
from router.triggers import conditions
from router.triggers.advance import AskedToFire, advance
from router.triggers.condition import Condition, ConditionJudged, Since
from router.triggers.conditions.verdict_is import STATUSES
from router.triggers.readings import TriggerReadings
from tests.gateway.control.builders import call
from tests.gateway.control.test_control import House, recording, until

FILE = """
schema_version = 1
[backends.a]
url = "http://127.0.0.1:1"
version = "1"
[backends.b]
url = "http://127.0.0.1:1"
version = "2"
[metrics.k]
kind = "label"
[sinks.lake]
kind = "cloudevents"
url = "http://127.0.0.1:1"
events = ["trigger", "rollout", "act"]
[sinks.hook]
kind = "webhook"
url = "https://127.0.0.1:1/"
allow_private = true
secret = "${HOOK}"
[routes.r]
path = "/r"
unit = "header:x-user"
prediction = "/k"
metrics = ["k"]
[routes.r.policy]
kind = "rollout"
stable = "a"
candidate = "b"
steps = [{ share = 0.5, hold = "1d", whole_days = false }, { share = 1.0, hold = "1d", whole_days = false }]
"""
RETRAIN = """
[triggers.retrain]
route = "r"
any = [{ kind = "request" }]
webhook = "hook"
freeze = "a"
pause = true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy(Condition):
    """Is met by whatever the test says."""

    kind = "toy"
    state: ClassVar[str] = "clear"
    fails: ClassVar[bool] = False
    size: int = 1

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        if Toy.fails:
            raise ArithmeticError("toys break")
        return ConditionJudged(Toy.state, "the toy says so")  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "CONDITIONS", (*conditions.CONDITIONS, Toy))
    monkeypatch.setattr(Toy, "state", "clear")
    monkeypatch.setattr(Toy, "fails", False)
    monkeypatch.setattr(trigger_watch, "LONGEST_MS", 0)  # each pass looks at all
    monkeypatch.setenv("HOOK", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def run(path: Path, config: str, story: Callable[[Control], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with recording(House(path, config).control()) as control:
            await until(lambda: control.queries.ready)
            await story(control)

    asyncio.run(whole())


async def decide(control: Control, watch: TriggerWatch | None = None) -> None:
    assert control.opened is not None
    assert control.in_force.config is not None
    if watch is None:
        await control.in_force.decide()
    else:
        await watch(control.opened, control.in_force.config, frozenset())


async def sent(control: Control) -> dict[str, list[dict[str, Any]]]:
    """What waits for each sink."""
    assert control.opened is not None
    async with control.opened.store.read() as connection:
        rows = (await connection.execute(select(outbox.c.sink, outbox.c.events).order_by(outbox.c.seq))).all()
    found: dict[str, list[dict[str, Any]]] = {}
    for sink, events in rows:
        found.setdefault(sink, []).extend(map(orjson.loads, bytes(events).split(b"\n")))
    return found


def shown(control: Control) -> list[str]:
    return [one["detail"] for one in control.event_log.newest if one["kind"] == "trigger"]


def test_a_request_fires_once_and_everything_follows(tmp_path: Path) -> None:
    async def story(control: Control) -> None:
        assert control.opened is not None
        store = control.opened.store
        await decide(control)
        assert shown(control) == []
        await ask_to_fire(store, "retrain", AskedToFire("ann", "fresh labels"))
        for _ in range(3):
            await decide(control)
        assert shown(control) == ["trigger retrain fired: ann asked for it: fresh labels"]
        stored = await read_triggers(store)
        assert (stored.asked, stored.standings["retrain"].owed, stored.standings["retrain"].fired) == ({}, (), 1)
        assert control.in_force.freezes.frozen == {"r": "a"}
        assert control.in_force._standings.by_route["r"].state == "paused"
        (hook,) = (await sent(control))["hook"]
        lake = [one for one in (await sent(control))["lake"] if one["type"] == "turnout.trigger"]
        assert [one["id"] for one in lake] == [hook["id"]]
        assert hook["data"]["cause"] == "request"
        assert hook["data"]["link"].endswith("/routes/r")
        async with store.read() as connection:
            entries = await listed(connection, 50, act="trigger")
        assert [(one.who, one.why) for one in entries] == [("ann", "fresh labels")]

    run(tmp_path, FILE + RETRAIN, story)


def test_two_who_look_at_once_fire_once(tmp_path: Path) -> None:
    """Of two nodes, or a node that lost the lease and has it again, the second finds that the standing moved."""

    async def story(control: Control) -> None:
        assert control.opened is not None
        store, frozen, config = control.opened.store, control.in_force.snapshot, control.in_force.config
        assert config is not None
        trigger = config.triggers["retrain"]
        seen = TriggerReadings(at_ms=5, route="r", epoch="e", variant="a", baseline="a", version="1")
        asked = AskedToFire("ann")
        await ask_to_fire(store, "retrain", asked)
        advanced = advance(trigger, None, seen, asked)
        both = [await store_advance(store, trigger, None, advanced, frozen.sinks, asked) for _ in range(2)]
        assert [len(one) for one in both] == [1, 0]
        assert len((await sent(control))["hook"]) == 1
        # It crashed before it froze and paused: the next look does that, and fires nothing.
        await decide(control)
        await decide(control)
        assert control.in_force.freezes.frozen == {"r": "a"}
        assert control.in_force._standings.by_route["r"].state == "paused"
        assert len((await sent(control))["hook"]) == 1

    run(tmp_path, FILE + RETRAIN, story)


def test_a_toy_condition_is_seen_everywhere(tmp_path: Path) -> None:
    """Adding a condition is one class and one name: the file, its schema, the watch and the test of it follow."""
    text = FILE + '[triggers.play]\nroute = "r"\nwebhook = "hook"\nany = [{ kind = "toy", size = 3 }]\n'
    config = parse(text, "turnout.toml")
    assert config.triggers["play"].any == (Toy(size=3),)
    assert "condition_toy" in json_schema()["$defs"]

    async def story(control: Control) -> None:
        assert control.opened is not None
        for state in ("clear", "met", "met", "clear", "met"):
            Toy.state = state
            await decide(control)
        assert len(shown(control)) == 2
        assert control.in_force.triggers.judged("play")[0].said == "the toy says so"
        found = await history(control.opened.store, control.in_force.snapshot, config.triggers["play"], 0, 10**7)
        assert (found["without_history"], found["fired"], found["unknown"]) == (["toy"], [], True)

    run(tmp_path, text, story)


def test_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    both = FILE + '[triggers.play]\nroute = "r"\nany = [{ kind = "toy" }]\n' + RETRAIN

    async def story(control: Control) -> None:
        assert control.opened is not None
        Toy.fails = True
        await ask_to_fire(control.opened.store, "retrain", AskedToFire("ann"))
        await decide(control)
        assert shown(control) == ["trigger retrain fired: ann asked for it"]
        Toy.fails, Toy.state = False, "met"
        await decide(control)
        assert len(shown(control)) == 2

    run(tmp_path, both, story)


def test_a_hundred_triggers_whose_routes_do_not_move_read_nothing_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("HOOK", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    monkeypatch.setattr(trigger_watch, "BUDGET_SECONDS", 60.0)
    each = '[triggers.t{0}]\nroute = "r"\nwebhook = "hook"\nany = [{{ kind = "labels", metric = "k", at_least = 9 }}]\n'
    read: list[str] = []
    ledger = Store.ledger

    async def counting(self: Store, route: str, epoch: str) -> Any:
        read.append(route)
        return await ledger(self, route, epoch)

    async def story(control: Control) -> None:
        assert control.in_force.config is not None
        monkeypatch.setattr(Store, "ledger", counting)
        watch = control.in_force.triggers
        await decide(control, watch)
        assert read == ["r"]  # once for all of them
        for _ in range(5):
            await decide(control, watch)
        assert read == ["r"]

    run(tmp_path, FILE + "".join(each.format(n) for n in range(100)), story)


def test_the_statuses_of_a_verdict_are_those_that_there_are() -> None:
    assert set(STATUSES) == set(VERDICTS)


def test_what_is_counted_by_the_hour_is_looked_back_on(tmp_path: Path) -> None:
    """The age of a version is known of the past: a version that served for two days fires after one."""
    text = FILE + '[triggers.old]\nroute = "r"\nwebhook = "hook"\nany = [{ kind = "age", at_least = "1d" }]\n'

    async def story(control: Control) -> None:
        assert control.opened is not None
        assert control.in_force.config is not None
        house = control.in_force.snapshot.routes["r"]
        of = {"epoch": house.epoch, "period": house.period, "revision": house.revision}
        made = [call(n, "a", by_unit=True, unit=f"u{n}", **of) for n in range(3)]
        journal.calls(*made)
        journal.beat(5_000)
        await control.opened.recorder.step()
        (first,) = {one.at_ms - one.at_ms % 3_600_000 for one in made}
        day = 86_400_000
        found = await history(
            control.opened.store,
            control.in_force.snapshot,
            control.in_force.config.triggers["old"],
            first,
            first + 2 * day,
        )
        assert [one["at_ms"] - first for one in found["fired"]] == [day]

    house = House(tmp_path, text)
    journal = house.journal

    async def whole() -> None:
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await story(control)

    asyncio.run(whole())
