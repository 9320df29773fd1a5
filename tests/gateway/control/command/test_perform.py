"""One function performs an act, whoever asks: checked against what was seen, done once, told everywhere."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from gateway.control.command.ask import VERBS, NotDone, decode, encode, read_ask
from gateway.store.schema.row_tables import outbox
from tests.gateway.control.command.rig import ANN, Rig, at_rig


def test_argo_4461_abort_after_promote_full_works(tmp_path: Path) -> None:
    """Argo Rollouts ignored an abort once a rollout had been promoted in full (#4461)."""

    async def story(rig: Rig) -> None:
        await rig.perform("promote")
        assert rig.route().plan.shares["b"] == 1.0
        done = await rig.perform("rollback", why="users complain")
        assert (rig.route().plan.shares["a"], rig.route().standing.state) == (1.0, "rolled_back")
        assert done.more["standing"]["state"] == "rolled_back"

    at_rig(tmp_path, story)


def test_argo_3721_a_manual_rollback_tells_event_sink_log_and_audit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Argo Rollouts sent no notification of a rollback by hand (#3721)."""

    async def story(rig: Rig) -> None:
        with caplog.at_level("INFO"):
            answer = await rig.post("s", verb="rollback", why="it looks odd", ticket="OPS-7")
        assert answer.status_code == 200, answer.text
        [event] = rig.events()
        assert (event["route"], event["author"], event["via"]) == ("s", "ann", "api")
        assert "ann rolled back" in event["detail"]
        assert any("act route=s" in record.message and "ann rolled back" in record.message for record in caplog.records)
        assert rig.control.opened is not None
        async with rig.control.opened.store.read() as connection:
            rows = await connection.execute(select(outbox.c.events).order_by(outbox.c.seq))
            sent = [orjson.loads(line) for (text,) in rows for line in text.splitlines()]
        sent = [one for one in sent if one.get("route") == "s"]
        assert [(one["type"], one["data"]["who"], one["data"]["reason"]) for one in sent] == [
            ("turnout.act", "ann", "it looks odd")
        ]
        [entry] = await rig.audit()
        assert (entry.who, entry.act, entry.route, entry.why) == ("ann", "rollback", "s", "it looks odd")
        assert orjson.loads(entry.body)["ticket"] == "OPS-7"

    at_rig(tmp_path, story)


def test_an_act_is_published_at_once_and_not_at_the_next_pass(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        before = rig.house.published()
        await rig.perform("rollback", "s")
        assert rig.house.published() > before
        assert rig.route("s").plan.shares == {"a": 1.0, "b": 0.0}

    at_rig(tmp_path, story)


def test_an_act_on_a_standing_that_moved_is_refused_with_what_moved(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        seen = rig.route().standing.number
        assert (await rig.post(verb="advance", saw=seen)).status_code == 200
        moved = rig.route().standing
        answer = await rig.post(verb="advance", saw=seen)
        assert answer.status_code == 409
        assert f"it is at number {moved.number} now" in answer.json()["detail"]
        assert answer.json()["moved"]
        assert answer.json()["standing"]["step"] == 1
        assert rig.route().standing == moved
        assert (await rig.post(verb="freeze", to="a", saw=seen)).status_code == 409
        assert (await rig.post(verb="freeze", to="a", saw=moved.number + 9)).status_code == 409
        assert rig.frozen == {}
        assert (await rig.post(verb="advance", saw=moved.number)).status_code == 200

    at_rig(tmp_path, story)


@pytest.mark.parametrize("verb", ["approve", "rollback", "freeze", "unfreeze"])
def test_a_dry_run_says_what_would_happen_and_writes_nothing(tmp_path: Path, verb: str) -> None:
    async def story(rig: Rig) -> None:
        to = {"to": "b"} if verb == "freeze" else {}
        if verb == "unfreeze":
            await rig.post(verb="freeze", to="b")
        before = rig.control.in_force.snapshot, rig.frozen, len(await rig.audit()), rig.events()
        answer = await rig.post(verb=verb, dry_run=True, **to)
        assert answer.status_code == 200, answer.text
        assert answer.json()["said"]
        assert (rig.control.in_force.snapshot, rig.frozen, len(await rig.audit()), rig.events()) == before
        answered = await rig.post(verb=verb, **to)
        assert answered.json()["said"] == answer.json()["said"]
        assert len(await rig.audit()) > before[2]

    at_rig(tmp_path, story)


def test_an_act_that_does_not_apply_is_refused_with_its_sentence(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        for route, body, status, said in (
            ("s", {"verb": "promote"}, 409, "has no steps"),
            ("r", {"verb": "resume"}, 409, "it is not paused"),
            ("r", {"verb": "unfreeze"}, 409, "r is not frozen"),
            ("r", {"verb": "freeze", "to": "c"}, 422, 'no variant is named "c"'),
            ("r", {"verb": "freeze"}, 422, "to is missing"),
            ("r", {"verb": "pause", "to": "a"}, 422, "to names a variant to freeze to"),
            ("r", {"verb": "abort"}, 422, "verb must be one of"),
            ("r", {"verb": "pause", "wy": "x"}, 422, 'unknown member "wy"'),
            ("q", {"verb": "pause"}, 404, 'no route is named "q"'),
            (None, {"verb": "pause", "all": True}, 422, "are about every route"),
            (None, {"verb": "freeze"}, 422, "are about every route"),
        ):
            answer = await rig.post(route, **body)
            assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
        assert (rig.events(), rig.frozen) == ([], {})

    at_rig(tmp_path, story)


def test_a_freeze_through_the_api_is_in_force_recorded_and_a_period_of_its_own(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        periods = [rig.route().period]
        answer = await rig.post(verb="freeze", to="b", why="a lies")
        assert (answer.status_code, answer.json()["recorded"], rig.frozen) == (200, True, {"r": "b"})
        periods.append(rig.route().period)
        assert (await rig.post(None, verb="unfreeze", all=True)).status_code == 200
        periods.append(rig.route().period)
        assert (rig.frozen, sorted(set(periods))) == ({}, periods)
        assert [one.act for one in await rig.audit()] == ["unfreeze", "freeze"]
        plan = rig.route().plan
        await rig.post(None, verb="freeze", all=True)
        assert rig.frozen == {"r": "a", "s": "a"}
        assert rig.route().plan == plan, "a freeze is no change of the plan"

    at_rig(tmp_path, story)


def test_an_act_on_a_frozen_route_says_that_it_is_frozen_all_the_same(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        await rig.perform("freeze", to="a")
        assert (await rig.perform("promote")).more["frozen"] == {"r": "a"}

    at_rig(tmp_path, story)


def test_freezing_needs_no_store(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        opened = rig.control.opened
        rig.control.in_force.opened = None
        answer = await rig.post(verb="freeze", to="b")
        assert (answer.status_code, answer.json()["recorded"], rig.frozen) == (200, False, {"r": "b"})
        refused = await rig.post(verb="pause")
        assert (refused.status_code, "freezing works without the store" in refused.json()["detail"]) == (503, True)
        rig.control.in_force.opened = opened
        await rig.control.in_force.freezes.step()
        assert [one.act for one in await rig.audit()] == ["freeze"]

    at_rig(tmp_path, story)


def test_an_act_goes_on_to_its_end_though_its_caller_hangs_up(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        asking = asyncio.create_task(rig.perform("rollback"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(5):
            while rig.route().standing.state != "rolled_back":
                await asyncio.sleep(0.01)
        assert len(await rig.audit()) == 1

    at_rig(tmp_path, story)


def test_where_a_route_stands_and_what_is_frozen_survive_a_restart(tmp_path: Path) -> None:
    async def first(rig: Rig) -> None:
        await rig.perform("advance")
        await rig.perform("freeze", "s", to="b")

    async def second(rig: Rig) -> None:
        assert (rig.route().standing.step, rig.frozen) == (1, {"s": "b"})
        assert {one.act for one in await rig.audit()} == {"advance", "freeze"}

    at_rig(tmp_path, first)
    at_rig(tmp_path, second)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
bodies = json | st.fixed_dictionaries(
    {"verb": st.sampled_from(VERBS) | json},
    optional=dict.fromkeys(("why", "saw", "to", "dry_run", "ticket", "all", "other"), json),
)


@settings(max_examples=40)
@given(bodies, st.none() | st.just("r"))
def test_any_body_is_an_ask_or_a_named_problem(body: Any, route: str | None) -> None:
    with contextlib.suppress(NotDone):
        ask = read_ask(body, route)
        assert decode(orjson.loads(orjson.dumps(encode(ask, ANN)))) == (ask, ANN)


def test_acts_are_counted_by_what_came_of_them(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        await rig.post("s", verb="rollback")
        await rig.post("s", verb="rollback")
        await rig.post("r", verb="freeze", to="a", dry_run=True)
        for _ in range(2):
            text = await rig.text("/metrics")
            counted = [line for line in text.splitlines() if line.startswith("turnout_acts_total")]
            assert counted == [
                'turnout_acts_total{result="done",verb="rollback",via="api"} 1.0',
                'turnout_acts_total{result="refused",verb="rollback",via="api"} 1.0',
                'turnout_acts_total{result="dry_run",verb="freeze",via="api"} 1.0',
            ]

    at_rig(tmp_path, story)
