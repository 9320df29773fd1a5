"""Who changed what stays listed: automatic events never displace it."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run
from gateway.control.acts import Act, described, difference, owner_of
from gateway.control.event_log import MOST, EventLog
from gateway.store import LoggedEvent, Store
from gateway.store.counts import plans
from tests.gateway.admin.fake import ask, control
from tests.gateway.cli.running import admin_port, write_config
from tests.gateway.control.test_control import House, recording, until
from tests.router.builders import changed, config_of, snapshot_of, with_policy


def test_an_edit_says_who_made_it_and_what_it_changed(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            house.edit('path = "/s"', 'path = "/t"\nheaders = { x-stage = "hush" }')
            house.edit('version = "1"\n[backends.b]', 'version = "2"\nclient_errors = "fail"\n[backends.b]')
            house.edit("[backends.b]", '[backends.c]\nurl = "http://127.0.0.1:3"\nversion = "1"\n[backends.b]')
            result = await control.in_force.reload(Act("signal", "alice"))
            assert result.ok, result.problems
            [edit] = [one for one in control.event_log.newest if one["kind"] == "config_reloaded"]
            assert (edit["author"], edit["via"]) == ("alice", "signal")
            assert edit["file_sha256"] == sha256(house.config.read_bytes()).hexdigest()
            assert {
                "+ backends.c",
                'backends.a.client_errors: "pass" -> "fail"',
                'backends.a.version: "1" -> "2"',
                'routes.s.path: "/s" -> "/t"',
            } <= set(edit["diff"])
            assert "hush" not in str(edit)
            assert any(line.startswith("routes.s.headers") for line in edit["diff"])
            house.edit('path = "/t"', 'path = "t"')
            assert not (await control.in_force.reload()).ok
            refused = control.event_log.newest[-1]
            assert (refused["kind"], refused["author"], refused["via"]) == (
                "config_refused",
                owner_of(house.config),
                "edit",
            )
            await control.in_force.decide()
            stored = [one.shown for one in await control.queries.store.events()]
            assert edit in stored

    asyncio.run(story())


def test_a_policys_own_settings_are_compared_by_the_files(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        house.edit('kind = "single", variant = "a"', 'kind = "canary", stable = "a", candidate = "b", share = 0.05')
        async with recording(house.control()) as control:
            house.edit("share = 0.05", "share = 0.2")
            assert (await control.in_force.reload()).ok
            [edit] = [one for one in control.event_log.newest if one["kind"] == "config_reloaded"]
            assert edit["diff"] == ["routes.s.policy.share: 0.05 -> 0.2"]

    asyncio.run(story())


def test_an_edit_of_steps_is_a_line_for_each_key() -> None:
    before = with_policy(
        '{ kind = "rollout", stable = "v1", candidate = "v2", steps = [{ share = 0.1, hold = "1h" }, { share = 1.0 }] }'
    )
    after = changed(before, ("share = 0.1", "share = 0.2, units = 5"))
    was, now = (described(snapshot_of(text), config_of(text)) for text in (before, after))
    assert difference(was, now) == [
        "routes.digits.policy.steps[0].share: 0.1 -> 0.2",
        "routes.digits.policy.steps[0].units: unset -> 5",
    ]


def test_a_table_that_is_new_or_gone_is_one_line() -> None:
    before = {"backends.a.url": "1", "backends.a.path": "2", "gateway.admin": "x"}
    after = {"backends.b.url": "1", "backends.b.path": "2", "gateway.admin": "x", "gateway.workers": "2"}
    assert difference(before, after) == ["- backends.a", "+ backends.b", "gateway.workers: unset -> 2"]
    many = {f"gateway.k{number:03}": "1" for number in range(300)}
    assert difference({"gateway.admin": "x"}, many)[-1] == "and 201 more"


def test_plans_that_move_each_second_are_one_entry_of_their_route(caplog: pytest.LogCaptureFixture) -> None:
    event_log = EventLog()
    event_log.note("config_reloaded", None, "by somebody", author="alice")
    event_log.note("worker_started", None, "worker 0")
    with caplog.at_level("INFO"):
        for revision in range(10_000):
            event_log.note("plan_moved", "r", f"revision {revision}")
        event_log.note("plan_moved", "s", "revision 7")
    assert [(one["kind"], one["route"], one.get("times")) for one in event_log.newest] == [
        ("config_reloaded", None, None),
        ("worker_started", None, None),
        ("plan_moved", "r", 10_000),
        ("plan_moved", "s", 1),
    ]
    moved = event_log.newest[2]
    assert moved["detail"] == "revision 9999"
    assert moved["since_ms"] <= moved["at_ms"]
    assert [one.kind for one in event_log.unsaved()] == ["config_reloaded", "worker_started"]
    assert sum("plan_moved route=r" in line for line in caplog.messages) == 1


def test_what_people_did_has_room_of_its_own() -> None:
    event_log = EventLog()
    event_log.note("config_reloaded", None, "first")
    for number in range(3 * MOST):
        event_log.note("worker_started", None, str(number))
    kept = event_log.newest
    assert (kept[0]["detail"], len(kept)) == ("first", MOST + 1)


def test_a_restart_recalls_what_people_did_from_under_what_an_earlier_version_stored(tmp_path: Path) -> None:
    """Each plan that moved was a row: a day of them is 86,400, and 500 rows were recalled."""

    async def story() -> list[dict[str, Any]]:
        store = await Store.open("sqlite", tmp_path)
        try:
            rows = [LoggedEvent(1, "config_reloaded", None, "long ago")]
            rows += [LoggedEvent(2 + n, "plan_moved", "r", str(n)) for n in range(5_000)]
            rows += [LoggedEvent(9_000, "worker_started", None, "worker 0")]
            async with store.begin() as connection:
                await plans.write_events(connection, rows)
            event_log = EventLog()
            event_log.note("store_opened", None, "sqlite")
            event_log.recall(await store.recalled(MOST))
            return event_log.newest
        finally:
            await store.close()

    assert [one["kind"] for one in asyncio.run(story())] == ["config_reloaded", "worker_started", "store_opened"]


def test_events_are_shown_with_who_and_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = control()
    edit = {"author": "alice", "via": "edit", "file_sha256": "ab" * 32, "diff": ["routes.r.path: 1 -> 2"]}
    moved = {"times": 40, "since_ms": 1_000}
    fake.events = [
        {"at_ms": 1_000, "kind": "config_reloaded", "route": None, "detail": "revision 2 is in force", **edit},
        {"at_ms": 2_000, "kind": "plan_moved", "route": "digits", "detail": "revision 3", **moved},
        *({"at_ms": 3_000, "kind": "worker_started", "route": None, "detail": str(n)} for n in range(600)),
    ]
    assert ask(fake, "/api/v1/events").json()["events"][-1]["diff"] == edit["diff"]
    page = ask(fake, "/events").text
    for said in ("alice", "abababababab", "routes.r.path: 1 -&gt; 2"):
        assert said in page
    fake.events = fake.events[:2]
    assert "40 times since" in ask(fake, "/events").text
    with admin_port(fake) as address:
        config = str(write_config(tmp_path, admin=address))
        assert run(["events", "-c", config]) == 0
        text = capsys.readouterr().out
        assert run(["events", "digits", "--json", "-c", config]) == 0
        as_json = capsys.readouterr().out
        assert run(["events", "nosuch", "-c", config]) == 1
    assert 'no route is named "nosuch"' in capsys.readouterr().err
    assert "by alice (edit), file abababababab" in text
    assert "routes.r.path: 1 -> 2" in text
    assert "digits: revision 3 (40 times since" in text
    assert '"times":40' in as_json.replace(" ", "").replace("\n", "")


def test_an_act_at_the_admin_port_says_who_asked_for_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\nhush\n")
    fake = control(admin_token_file=str(token))
    sent = {"authorization": "Bearer hush", "turnout-user": "alice"}
    assert ask(fake, "/-/reload", method="POST", headers=sent).status_code == 200
    who = "token 2 of admin_token_file"
    assert fake.acts == [Act("api", f"alice by the command line, {who}, from 127.0.0.1", who)]
    assert ask(fake, "/-/reload", method="POST", headers={**sent, "turnout-user": "a" * 100}).status_code == 200
    assert fake.acts[1] == Act("api", f"{who}, from 127.0.0.1", who)
