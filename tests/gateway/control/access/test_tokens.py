"""A token that is made or revoked anywhere counts at every node at once, and changes nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.admin.app import create
from gateway.control.access.named_tokens import LOOK_SECONDS
from gateway.control.acts import Act
from gateway.control.control import Control
from gateway.files.published import SNAPSHOT, SnapshotFile
from gateway.store import audit
from router.settings.tokens import NamedToken, hashed
from router.snapshot import decode, encode
from tests.gateway.control.plan.test_planner import CONFIG
from tests.gateway.control.test_control import House, recording, shown, until

ASKING = CONFIG + "\n[gateway]\nadmin_token_required = true\n"


def published(house: House) -> list[str]:
    found = SnapshotFile(house.data / SNAPSHOT).read()
    assert found is not None
    return [token.name for token in found.tokens]


@asynccontextmanager
async def running(control: Control) -> AsyncIterator[Control]:
    """A controller that records, keeps in step with its fleet, and takes tokens."""
    async with recording(control), AsyncExitStack() as held:
        for loop in (control.tokens.keep(), control.in_force.keep_in_step()):
            task = asyncio.create_task(loop)
            held.callback(task.cancel)
        await until(lambda: control.queries.ready)
        yield control


async def ask(control: Control, method: str, path: str, token: str = "", **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    transport = httpx.ASGITransport(create(shown(control)))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
        return await client.request(method, path, headers=headers, **more)


def test_tokens_are_made_listed_used_and_revoked_at_the_admin_port(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path, ASKING)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            root = (await control.tokens.create("root", "admin", None, Act("start", "ana"))).token
            made = await ask(
                control, "POST", "/api/v1/tokens", root, json={"name": "ci", "scope": "read", "expires": "90d"}
            )
            ci = made.json()
            assert (ci["name"], ci["scope"], ci["state"], ci["token"][:16]) == ("ci", "read", "valid", ci["prefix"])
            assert ci["expires_ms"] - ci["made_ms"] == pytest.approx(90 * 86_400_000, abs=1_000)
            assert published(house) == ["ci", "root"]
            assert (await ask(control, "GET", "/api/v1/events", ci["token"])).status_code == 200
            assert (await ask(control, "GET", "/api/v1/tokens", ci["token"])).status_code == 403
            await control.tokens.save_used()
            listed = await ask(control, "GET", "/api/v1/tokens", root)
            assert ci["token"] not in listed.text
            assert hashed(ci["token"].encode()) not in listed.text
            used = {one["name"]: one["used_ms"] for one in listed.json()["tokens"]}
            assert all(at_ms % 60_000 == 0 and 0 <= time.time() * 1000 - at_ms < 120_000 for at_ms in used.values())
            assert (await ask(control, "DELETE", "/api/v1/tokens/ci", root)).json()["state"] == "revoked"
            assert (await ask(control, "GET", "/api/v1/events", ci["token"])).status_code == 401
            again = await ask(control, "DELETE", "/api/v1/tokens/ci", root)
            assert (again.status_code, again.json()["detail"]) == (
                404,
                'no token is named "ci"; there are root',
            )
            async with control.queries.store.read() as connection:
                entries = [(one.act, one.who) for one in await audit.listed(connection) if "token" in one.act]
            assert entries == [
                ("token_revoked", "token root"),
                ("token_created", "token root"),
                ("token_created", "ana"),
            ]

    asyncio.run(story())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"name": "a"}',
        b'{"name": 1, "scope": "read"}',
        b'{"name": "a", "scope": "read", "expires": 90}',
        b'{"name": "a", "scope": "read", "expires": "90 days"}',
        b'{"name": "a", "scope": "read", "extra": 1}',
        b'{"name": "a", "scope": "everything"}',
        b'{"name": "\\u0000", "scope": "read"}',
        b'{"name": "a"' + b" " * 70_000,
    ],
)
def test_what_is_no_token_is_refused_with_its_reason(tmp_path: Path, body: bytes) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            refused = await ask(control, "POST", "/api/v1/tokens", content=body)
            assert refused.status_code in {413, 422}
            assert len(refused.json()["detail"]) > 20
            assert await control.tokens.listed() == []

    asyncio.run(story())


def test_every_node_takes_a_token_over_and_stays_in_step(tmp_path: Path, postgresql_url: str) -> None:
    """Tokens alone change neither the fleet's identity nor a revision: or nodes would disagree."""
    assert LOOK_SECONDS <= 1, "with a worker's look at the snapshot, within two seconds"

    async def story() -> None:
        config = f'{ASKING}store = "{postgresql_url}"\n'
        for name in "ab":
            (tmp_path / name).mkdir()
        first, second = House(tmp_path / "a", config), House(tmp_path / "b", config)
        async with running(first.control()) as a, running(second.control()) as b:
            await until(lambda: a.in_force.snapshot.revision == b.in_force.snapshot.revision != 0)
            before = [(one.in_force.identity, one.in_force.snapshot.revision) for one in (a, b)]
            made = await a.tokens.create("ci", "read", None, Act("api", "ana"))
            await until(lambda: b.in_force.snapshot.tokens != ())
            assert published(second) == ["ci"]
            assert (await ask(b, "GET", "/api/v1/events", made.token)).status_code == 200
            await b.tokens.revoke("ci", Act("api", "bo"))
            assert published(second) == []
            await until(lambda: a.in_force.snapshot.tokens == ())
            assert published(first) == []
            assert (await ask(a, "GET", "/api/v1/events", made.token)).status_code == 401
            assert [(one.in_force.identity, one.in_force.snapshot.revision) for one in (a, b)] == before

    asyncio.run(story())


def test_tokens_are_still_known_after_a_restart_without_the_store_and_after_an_edit(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path, ASKING)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            made = await control.tokens.create("ci", "admin", None, Act("api", "ana"))
            house.edit('path = "/s"', 'path = "/t"')
            assert (await control.in_force.reload()).ok
            assert published(house) == ["ci"]
        alone = house.control()  # its store is never opened
        assert (await ask(alone, "GET", "/api/v1/config", made.token)).status_code == 200
        assert (await ask(alone, "GET", "/api/v1/config")).status_code == 401
        with suppress(Exception):
            await alone.close(1)

    asyncio.run(story())


def test_a_worker_s_count_that_grows_is_a_use(tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.tokens.create("web", "feedback", None, Act("api", "ana"))
            minute = 1_800_000_000_000
            for at_ms, count in ((minute, 0), (minute + 60_000, 3), (minute + 180_000, 3)):
                counters = [["feedback_token_uses", {"token": "web"}, count], ["broken"]]
                control.workers.receive({"writer": "w", "at_ms": at_ms, "counters": counters})
                await control.tokens.save_used()
            (found,) = await control.tokens.listed()
            assert found.used_ms == minute + 60_000

    asyncio.run(story())


def test_a_snapshot_keeps_its_tokens_when_it_is_read_again() -> None:
    token = NamedToken(name="ci", scope="operate", sha256=hashed(b"x"), expires_ms=5)
    snapshot = decode(b'{"format":1,"revision":1,"config":"c","gateway":{},"backends":[],"metrics":[],"routes":[]}')
    assert snapshot.tokens == ()
    assert decode(encode(replace(snapshot, tokens=(token,)))).tokens == (token,)
