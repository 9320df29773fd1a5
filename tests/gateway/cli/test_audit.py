"""``turnout audit`` reads the log beside a running gateway and says where it was altered; so does the API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from gateway.admin.app import create
from gateway.cli import run
from gateway.cli.exits import PROBLEM, USAGE
from gateway.control.control import Control
from gateway.control.upkeep.audit_head import AuditHead
from gateway.store import Store, audit
from gateway.store.audit import HEAD_FILE, Audited, Entry
from gateway.store.schema.migrations import VERSION
from tests.gateway.cli.running import write_config
from tests.gateway.control.builders import T0
from tests.gateway.control.test_control import House, recording, shown, until


def entry(number: int) -> Entry:
    return Entry(who="ana", via="api", act="pause", route="digits", changed=f"step {number}", why="a\nlook")


async def append(store: Store, *entries: Entry) -> list[Audited]:
    async with store.begin() as connection:
        return [await audit.append(connection, one, T0) for one in entries]


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert run(["audit", *arguments]) == code
    out = capsys.readouterr()
    return json.loads(out.out) if "--json" in arguments else out.out + out.err


def test_the_log_is_listed_and_checked_while_the_store_is_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    data = tmp_path / "data"

    async def story() -> None:
        store = await Store.open("sqlite", data)
        written = await append(store, entry(1), entry(2), entry(3))

        def ask(*arguments: str, code: int = 0) -> Any:
            return said(capsys, *arguments, "-c", str(config), code=code)

        listed = await asyncio.to_thread(ask, "list")
        assert "pause digits: step 3 (a\\nlook), by ana (api)" in listed
        assert [one["number"] for one in await asyncio.to_thread(ask, "list", "--json", "--limit", "2")] == [3, 2]
        assert await asyncio.to_thread(ask, "list", "--json", "--route", "nosuch") == []
        head = f"3:{written[-1].hash}"
        assert head in await asyncio.to_thread(ask, "verify")
        assert await asyncio.to_thread(ask, "verify", "--json", "--head", head) == {
            "ok": True,
            "entries": 3,
            "head": head,
            "wrong": None,
            "at": None,
        }
        assert "64 hex digits" in await asyncio.to_thread(lambda: ask("verify", "--head", "3:x", code=USAGE))
        async with store.begin() as connection:
            await connection.execute(text("UPDATE audit SET who = 'bo' WHERE number = 2"))
        found = await asyncio.to_thread(lambda: ask("verify", "--json", code=PROBLEM))
        assert (found["ok"], found["at"], found["entries"]) == (False, 2, 1)
        assert "entry 2 was altered" in await asyncio.to_thread(lambda: ask("verify", code=PROBLEM))
        await store.close()

    asyncio.run(story())


def test_a_store_that_is_missing_or_of_another_version_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    assert "the store's tables are empty" in said(capsys, "verify", "-c", str(config), code=PROBLEM)

    async def older() -> None:
        store = await Store.open("sqlite", tmp_path / "data")
        async with store.begin() as connection:
            await connection.execute(text(f"UPDATE schema_version SET version = {VERSION - 1}"))
        await store.close()

    asyncio.run(older())
    assert "the store's tables are behind" in said(capsys, "list", "-c", str(config), code=PROBLEM)


def test_a_node_knows_the_head_when_the_last_entries_are_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is not written over by what is left of the log."""
    config, data = write_config(tmp_path), tmp_path / "data"

    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()
            store = control.queries.store
            await append(store, entry(1))
            await control.audit_head.step()
            before = (data / HEAD_FILE).read_text()
            assert before.startswith("2:")
            async with store.begin() as connection:
                await connection.execute(text("DELETE FROM audit WHERE number = 2"))
                await connection.execute(
                    text("UPDATE audit_head SET number = 1, hash = (SELECT hash FROM audit WHERE number = 1)")
                )
            await append(store, entry(2), entry(3))
            await control.audit_head.step()
            await AuditHead(data, lambda: control.opened, control.event_log).step()
            assert (data / HEAD_FILE).read_text() == before
            assert [one["kind"] for one in control.event_log.newest].count("audit_altered") == 2

    asyncio.run(story())
    write_config(tmp_path)
    found = said(capsys, "verify", "--json", "-c", str(config), code=PROBLEM)
    assert (found["at"], found["wrong"][:34]) == (2, "entry 2 is not the one that was kn")


def test_the_api_lists_the_log_page_by_page(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()
            await append(control.queries.store, *map(entry, range(1, 5)))
            async with client(control) as http:
                first = (await http.get("/api/v1/audit?limit=3")).json()
                assert [one["number"] for one in first["entries"]] == [5, 4, 3]
                second = (await http.get(f"/api/v1/audit?limit=3&before={first['before']}")).json()
                assert ([one["number"] for one in second["entries"]], second["before"]) == ([2, 1], None)
                assert (await http.get("/api/v1/audit?route=digits&act=pause")).json()["entries"][-1]["number"] == 2
                assert (await http.get("/api/v1/audit?before=x")).status_code == 400
                assert (await http.get("/api/v1/audit?limit=0")).status_code == 400

    asyncio.run(story())


def client(control: Control) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(create(shown(control))), base_url="http://127.0.0.1:9090")
