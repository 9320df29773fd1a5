"""Routes move by what is known of them: stored, told and published, each once."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from gateway.admin.api.reports import Reports
from gateway.control.control import Control
from gateway.control.plan.publisher import Publisher
from gateway.control.steer import route_findings, steering
from gateway.control.steer.moves import store_moves
from gateway.control.steer.steering import Known, NotHere
from gateway.store.audit import listed, verify
from gateway.store.schema.row_tables import outbox
from gateway.store.standings import read_standing
from policies.rollouts.history import replay
from policies.rollouts.standing import Command, Moved, Refused, Standing, decode_standing
from tests.gateway.control.builders import call, event
from tests.gateway.control.test_control import House, recording, until

BACKENDS = """
schema_version = 1
[backends.a]
url = "http://127.0.0.1:1"
version = "1"
[backends.b]
url = "http://127.0.0.1:1"
version = "1"
[sinks.lake]
kind = "cloudevents"
url = "http://127.0.0.1:1"
events = ["rollout"]
[routes.r]
path = "/r"
unit = "header:x-user"
"""
ROLLOUT = (
    BACKENDS
    + """
[routes.r.policy]
kind = "rollout"
stable = "a"
candidate = "b"
steps = [
  { share = 0.5, hold = "1ms", units = 20, whole_days = false },
  { share = 1.0, hold = "1h", whole_days = false },
]
"""
)
CANARY = (
    BACKENDS
    + """
[routes.r.policy]
kind = "canary"
stable = "a"
candidate = "b"
share = 0.5
[[routes.r.guardrails]]
metric = "failures"
worse_by = 0.01
action = "rollback"
"""
)

LABELLED = ROLLOUT.replace(
    "[routes.r]", '[metrics.correct]\nkind = "value"\nmature = "arrival"\nrange = [0, 1]\n[routes.r]', 1
).replace(
    'unit = "header:x-user"',
    'unit = "header:x-user"\nmetrics = ["correct"]\nguardrails = [{ metric = "correct", worse_by = 0.1 }]',
)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known is looked up in each pass, however long that takes; and calls are as of more than ten seconds."""
    for name in ("EVERY_SECONDS", "REST"):
        monkeypatch.setattr(steering, name, 0)
    monkeypatch.setattr(route_findings, "lasting", lambda *_: True)


class Rig:
    """A controller whose deciders are called by the test, and a journal that it reads."""

    def __init__(self, house: House, control: Control) -> None:
        self.house, self.control = house, control
        self.numbers = iter(range(1, 100_000))

    @property
    def route(self) -> Any:
        return self.control.in_force.snapshot.routes["r"]

    async def serve(self, calls: int, failed: int = 0, variants: str = "ab", **more: Any) -> dict[int, str]:
        """Have each variant answer so many calls of different units, of which b fails some, and record them.

        Return the variant of each call, by its number.
        """
        served = dict[int, str]()
        of = {"epoch": self.route.epoch, "period": self.route.period, "revision": self.route.revision, **more}
        for number in range(calls):
            for variant in variants:
                n = next(self.numbers)
                served[n] = variant
                status = 500 if variant == "b" and number < failed else 200
                self.house.journal.calls(call(n, variant, by_unit=True, unit=f"u{n}", status=status, **of))
        self.house.journal.beat(next(self.numbers) + 2_000)
        assert self.control.opened is not None
        await self.control.opened.recorder.step()
        return served

    async def decide(self) -> None:
        await asyncio.sleep(0.005)
        await self.control.in_force.decide()

    @property
    def said(self) -> list[str]:
        """What the route did, as the list of events shows it."""
        newest = self.control.event_log.newest
        return [one["change"] for one in newest if one["kind"] in ("rollout", "act") and one["route"] == "r"]

    async def stored(self) -> Standing:
        assert self.control.opened is not None
        async with self.control.opened.store.read() as connection:
            found = await read_standing(connection, "route", "r")
        return Standing() if found is None else decode_standing(found.body)

    async def replayed(self) -> Standing:
        """What the stored events lead to."""
        assert self.control.opened is not None
        events = await self.control.opened.store.events(100)
        moves = [one.shown["move"] for one in reversed(events) if one.kind in ("rollout", "act")]
        return replay(moves)


def run(path: Path, config: str, story: Any) -> None:
    async def whole() -> None:
        house = House(path, config)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await story(Rig(house, control))

    asyncio.run(whole())


def test_a_rollout_goes_on_when_its_step_has_all_it_waits_for(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        await rig.decide()
        assert (rig.said, rig.route.standing.step) == (["started"], 0)
        assert rig.route.plan.shares == {"a": 0.5, "b": 0.5}
        await rig.serve(10)
        await rig.decide()
        assert rig.said == ["started"]
        await rig.serve(15)
        await rig.decide()
        assert rig.said == ["started", "step_passed"]
        assert rig.route.plan.shares == {"b": 1.0}
        assert rig.route.period >= rig.route.standing.since_ms > 0
        await rig.decide()
        assert rig.said == ["started", "step_passed"]
        assert await rig.stored() == rig.route.standing == await rig.replayed()

    run(tmp_path, ROLLOUT, story)


def test_measured_value_is_in_the_log(tmp_path: Path) -> None:
    """Argo Rollouts #2658: the log says that a metric failed, and not what was measured."""

    async def story(rig: Rig) -> None:
        await rig.decide()
        await rig.serve(300, failed=60)
        await rig.decide()
        [one] = [one for one in rig.control.event_log.newest if one.get("change") == "rolled_back"]
        assert "fails 20.0% of its 300 calls" in one["detail"]
        [judged] = [each for each in one["move"]["evidence"]["guardrails"] if each["metric"] == "failures"][:1]
        assert (judged["state"], judged["value"], judged["bound"]) == ("broken", pytest.approx(0.2), 0.01)
        assert judged["low"] > 0.01
        assert rig.route.plan.shares == {"a": 1.0}

    run(tmp_path, ROLLOUT, story)


def test_current_percentage_is_visible(tmp_path: Path) -> None:
    """GrowthBook #5098: nobody sees how far a ramp is, and fears the jump."""

    async def story(rig: Rig) -> None:
        clock, events = itertools.count(step=2), rig.control.event_log
        reports = Reports(
            rig.control.in_force, rig.control.queries, clock=lambda: next(clock), events=lambda: events.newest
        )
        await rig.decide()
        await rig.serve(8, at_ms=time.time_ns() // 1_000_000)
        await rig.serve(4, variants="a", at_ms=time.time_ns() // 1_000_000)
        said = (await reports.one("r"))["rollout"]
        assert (said["number"], said["state"], said["step"], said["of"]) == (1, "running", 0, 2)
        assert said["share"]["b"] == {"set": 0.5, "actual": 0.4}
        assert [one["condition"] for one in said["waits_for"]] == ["units"]
        assert said["waits_for"][0]["sentence"].startswith("8 of 20 units")
        assert [one["change"] for one in said["events"]] == ["started"]
        assert (await reports.all())[0]["rollout"]["share"]["b"] == {"set": 0.5, "actual": 0.4}

    run(tmp_path, ROLLOUT, story)


def test_failures_before_the_analysis_raise_an_alert(tmp_path: Path) -> None:
    """Flagger #1663: a candidate that fails before any analysis began rolls back without an alert."""

    async def story(rig: Rig) -> None:
        await rig.decide()
        await rig.serve(8, failed=8)
        await rig.control.in_force.glance()
        assert rig.said == ["started", "rolled_back"]
        [one] = [one for one in rig.control.event_log.newest if one.get("change") == "rolled_back"]
        assert one["detail"].startswith("rolled back to a: b failed every one of its 8 calls since the step began")
        told = await delivered(rig)
        assert [(event["type"], event["data"]["change"]) for event in told] == [
            ("turnout.rollout", "started"),
            ("turnout.rollout", "rolled_back"),
        ]
        assert told[1]["data"]["sentence"] == one["detail"]
        assert len({event["id"] for event in told}) == 2

    run(tmp_path, ROLLOUT, story)


def test_labels_that_come_after_the_promotion_take_it_back(tmp_path: Path) -> None:
    """They are about answers of the step before, whose cohort matures while the candidate answers everyone."""

    async def story(rig: Rig) -> None:
        await rig.decide()
        first = await rig.serve(60)
        await rig.decide()
        assert rig.route.plan.shares == {"b": 1.0}
        await rig.serve(20, variants="b")
        for number, variant in first.items():
            rig.house.journal.events(event(number, 0 if variant == "b" else 1, at=number + 2_000, metric="correct"))
        await rig.serve(1, variants="b")
        await rig.decide()
        assert rig.said == ["started", "step_passed", "rolled_back"]
        assert rig.route.plan.shares == {"a": 1.0}
        [one] = [one for one in rig.control.event_log.newest if one.get("change") == "rolled_back"]
        assert "its mean correct is 0, a's 1: worse by more than 0.1" in one["detail"]

    run(tmp_path, LABELLED, story)


async def delivered(rig: Rig) -> list[dict[str, Any]]:
    """The events that wait for the sink."""
    assert rig.control.opened is not None
    async with rig.control.opened.store.read() as connection:
        rows = await connection.execute(select(outbox.c.events).where(outbox.c.sink == "lake").order_by(outbox.c.seq))
        return [orjson.loads(line) for (lines,) in rows for line in bytes(lines).split(b"\n")]


def test_a_guardrail_takes_a_variant_out_of_any_policy_until_there_is_another_version(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        await rig.decide()
        assert rig.route.standing == Standing()
        await rig.serve(300, failed=60)
        await rig.decide()
        assert rig.said == ["held"]
        assert rig.route.plan.shares == {"a": 1.0, "b": 0.0}
        rig.house.edit(
            '[backends.b]\nurl = "http://127.0.0.1:1"\nversion = "1"',
            '[backends.b]\nurl = "http://127.0.0.1:1"\nversion = "2"',
        )
        assert (await rig.control.in_force.reload()).ok
        assert rig.route.plan.shares == {"a": 0.5, "b": 0.5}
        await rig.decide()
        assert rig.said == ["held", "freed"]
        assert await rig.stored() == rig.route.standing == await rig.replayed()

    run(tmp_path, CANARY, story)


def test_a_move_that_was_stored_and_not_published_is_published_next_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(self: Publisher, *fresh: object) -> None:
        raise OSError("no space left")

    async def story(rig: Rig) -> None:
        await rig.decide()
        await rig.serve(300, failed=60)
        with monkeypatch.context() as full:
            full.setattr(Publisher, "put_in_force", failing)
            with pytest.raises(OSError, match="no space"):
                await rig.decide()
        assert (await rig.stored()).state == "rolled_back"
        assert rig.route.plan.shares == {"a": 0.5, "b": 0.5}
        await rig.decide()
        assert rig.route.plan.shares == {"a": 1.0}
        await rig.decide()
        assert rig.said == ["started", "rolled_back"]
        assert await rig.replayed() == await rig.stored()
        assert rig.control.opened is not None
        async with rig.control.opened.store.read() as connection:
            acts = await listed(connection)
            assert (await verify(connection)).wrong is None
        assert [(one.who, one.via, one.act) for one in acts][:2] == [
            ("turnout", "controller", "rolled_back"),
            ("turnout", "controller", "started"),
        ]

    run(tmp_path, ROLLOUT, story)


def test_after_a_restart_routes_stand_where_they_stood(tmp_path: Path) -> None:
    async def first(rig: Rig) -> None:
        await rig.decide()
        await rig.serve(300, failed=60)
        await rig.decide()

    async def second(rig: Rig) -> None:
        await rig.decide()
        assert rig.said == ["started", "rolled_back"]
        assert rig.route.plan.shares == {"a": 1.0}
        assert await rig.stored() == rig.route.standing == await rig.replayed()

    run(tmp_path, ROLLOUT, first)
    (tmp_path / "data" / "snapshot.json").unlink()
    run(tmp_path, ROLLOUT, second)


def test_an_act_moves_a_route_and_one_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        await rig.decide()

        async def act(verb: Any) -> Moved | Refused:
            command = Command(verb=verb, who="ada", why="because")
            return await rig.control.in_force.act(
                "r", lambda known: known.policy.act(known.standing, command, known.findings, known.now_ms), "api"
            )

        assert isinstance(await act("resume"), Refused)
        assert rig.said == ["started"]
        assert isinstance(await act("promote"), Moved)
        assert rig.route.plan.shares == {"b": 1.0}
        [newest] = [one for one in rig.control.event_log.newest if one.get("change") == "promoted"]
        assert (newest["kind"], newest["author"], newest["via"], newest["move"]["reason"]) == (
            *("act", "ada", "api"),
            "because",
        )
        assert await rig.stored() == rig.route.standing == await rig.replayed()

    run(tmp_path, ROLLOUT, story)


def test_a_move_of_a_standing_that_moved_meanwhile_changes_nothing(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        await rig.decide()
        known = await rig.control.in_force.known("r")
        moved = known.policy.act(known.standing, Command(verb="pause", who="ada"), known.findings, known.now_ms)
        assert isinstance(moved, Moved)
        assert rig.control.opened is not None
        store = rig.control.opened.store
        await store_moves(store, {"r": moved}, {}, 1, "api")
        with pytest.raises(Exception, match="route r moved meanwhile: its standing has number 2 now"):
            await store_moves(store, {"r": moved}, {}, 1, "api")
        assert [one.kind for one in await store.events() if one.route == "r"].count("act") == 1

    run(tmp_path, ROLLOUT, story)


def test_a_node_that_takes_over_goes_on_where_the_store_says_the_route_stands(
    tmp_path: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder before stored a move, and was gone before it published what follows."""
    config = ROLLOUT.replace("schema_version = 1", f'schema_version = 1\ngateway = {{ store = "{postgresql_url}" }}')

    async def failing(self: Publisher, *fresh: object) -> None:
        raise OSError("gone")

    async def begin(path: Path) -> Rig:
        path.mkdir()
        house = House(path, config)
        control = await held.enter_async_context(recording(house.control()))
        await until(lambda: control.queries.ready)
        await control.in_force._publisher.keep_in_step()
        return Rig(house, control)

    held = AsyncExitStack()

    async def story() -> None:
        async with held:
            one = await begin(tmp_path / "one")
            two = await begin(tmp_path / "two")
            await one.decide()
            await two.decide()
            assert (one.said, two.said) == (["started"], [])
            with pytest.raises(NotHere, match="another node of the fleet holds the lease"):
                await two.control.in_force.known("r")
            with monkeypatch.context() as gone:
                gone.setattr(Publisher, "put_in_force", failing)
                assert isinstance(await one.control.in_force.act("r", roll_back, "api"), Moved)
            assert one.control.opened is not None
            assert one.control.opened.member is not None
            await one.control.opened.member.yield_lease()
            await until(lambda: two.control.opened is not None and two.control.opened.holds)
            assert two.route.plan.shares == {"a": 0.5, "b": 0.5}
            await two.decide()
            assert (two.route.standing.state, two.route.plan.shares) == ("rolled_back", {"a": 1.0})
            assert await one.control.in_force._publisher.keep_in_step()
            assert one.route == two.route
            assert await two.stored() == two.route.standing == await two.replayed()

    asyncio.run(story())


def roll_back(known: Known) -> Moved | Refused:
    command = Command(verb="rollback", who="ada")
    return known.policy.act(known.standing, command, known.findings, known.now_ms)
