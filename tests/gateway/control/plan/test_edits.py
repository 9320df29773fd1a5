"""Each configuration that came into force is in the audit log, with who and what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from gateway.control.acts import Act, owner_of
from gateway.control.control import Control
from gateway.control.plan.edits import last_editor
from gateway.control.registry.version_slots import Filling
from gateway.store import audit
from tests.gateway.control.plan.test_planner import CONFIG
from tests.gateway.control.test_control import House, recording, until


async def entries(control: Control) -> list[dict[str, Any]]:
    async with control.queries.store.read() as connection:
        assert (await audit.verify(connection)).wrong is None
        return [one.shown for one in reversed(await audit.listed(connection))]


async def editor(control: Control, route: str) -> str | None:
    async with control.queries.store.read() as connection:
        return await last_editor(connection, route)


def test_an_edit_is_stored_with_the_plans_that_follow_from_it(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()
            house.edit('path = "/s"', 'path = "/t"')
            await control.in_force.reload(Act("api", "ana, from 10.0.0.1", "ana"))
            started, edit = await entries(control)
            assert (started["act"], started["via"], started["who"]) == (
                "config_reloaded",
                "start",
                owner_of(house.config),
            )
            assert (edit["act"], edit["via"], edit["who"]) == ("config_reloaded", "api", "ana")
            assert edit["changed"] == 'routes.s.path: "/s" -> "/t"'
            assert edit["body"]["diff"] == ['routes.s.path: "/s" -> "/t"']
            assert edit["body"]["by"] == "ana, from 10.0.0.1"
            assert await control.in_force.reload(Act("api", "bo", "bo"))
            house.edit('path = "/t"', 'path = "t"')
            assert not (await control.in_force.reload()).ok
            assert len(await entries(control)) == 2, "what changes nothing is no edit"

    asyncio.run(story())


def test_who_edited_a_route_last_is_who_edited_it_or_its_backends(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()
            assert await editor(control, "s") == owner_of(house.config)
            house.edit('path = "/s"', 'path = "/t"')
            await control.in_force.reload(Act("api", who="ana"))
            house.edit('version = "1"\n[backends.b]', 'version = "2"\n[backends.b]')
            await control.in_force.reload(Act("api", who="bo"))
            touched = (await entries(control))[-1]["body"]["routes"]
            assert touched
            assert [await editor(control, name) for name in touched] == ["bo"] * len(touched)
            house.edit("[routes.s]", '[metrics.other]\nkind = "event"\nwindow = "1h"\n[routes.s]')
            await control.in_force.reload(Act("api", who="cy"))
            assert await editor(control, "s") in {"ana", "bo"}

    asyncio.run(story())


def test_an_edit_while_the_store_is_away_is_in_the_log_when_it_is_back(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()
            store = control.queries.store
            async with store.begin() as connection:
                await connection.execute(text("ALTER TABLE audit RENAME TO away"))
            house.edit('path = "/s"', 'path = "/t"')
            assert (await control.in_force.reload(Act("api", who="ana"))).ok
            assert control.in_force.snapshot.routes["s"].path == "/t"
            with pytest.raises(Exception, match="no such table"):
                await control.in_force.save()
            async with store.begin() as connection:
                await connection.execute(text("ALTER TABLE away RENAME TO audit"))
            await control.in_force.save()
            await control.in_force.save()
            assert [one["who"] for one in await entries(control)] == [owner_of(house.config), "ana"]

    asyncio.run(story())


def test_a_file_that_was_edited_before_the_start_is_in_the_log_once(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        for _ in range(2):
            async with recording(house.control()) as control:
                await until(lambda: control.queries.ready)
                await control.in_force.decide()
                assert len(await entries(control)) == 1
        house.edit('path = "/s"', 'path = "/t"')
        (tmp_path / "data" / "snapshot.json").unlink(missing_ok=True)  # as a supervisor that starts publishes anew
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()
            assert [one["via"] for one in await entries(control)] == ["start", "start"]

    asyncio.run(story())


def test_edits_tokens_and_slots_are_events_of_sinks(tmp_path: Path) -> None:
    """What the log has, another system may keep too."""
    slot = 'slot = { url = "http://models/{version}", hosts = ["models"] }'
    sink = '[sinks.siem]\nkind = "cloudevents"\nurl = "http://127.0.0.1:1/"\nevents = ["act"]\n'

    async def story() -> None:
        house = House(tmp_path, CONFIG.replace("[backends.b]", f"{slot}\n[backends.b]") + sink)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()
            await control.tokens.create("ci", "read", None, Act("api", "ana, from 10.0.0.1", "ana"))
            await control.tokens.revoke("ci", Act("api", who="ana"))
            await control.slots.fill(Filling("a", "7", "bo", "api", "retrained"))
            async with control.queries.store.read() as connection:
                rows = (await connection.execute(text("SELECT events FROM outbox ORDER BY seq"))).scalars().all()
            sent = [orjson.loads(line) for row in rows for line in bytes(row).split(b"\n")]
            assert {one["type"] for one in sent} == {"turnout.act"}
            said = [(one["data"]["change"], one["data"]["who"], one["data"]["via"]) for one in sent]
            assert said[-4:] == [
                ("token_created", "ana", "api"),
                ("token_revoked", "ana", "api"),
                ("slot_filled", "bo", "api"),
                ("config_reloaded", "bo", "registry"),
            ]
            assert sent[-2]["data"]["reason"] == "retrained"

    asyncio.run(story())
