"""A controller with its store, and a client of its admin port: what acts are played on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.admin.app import create
from gateway.control.command.ask import Ask, Asker, Done
from gateway.control.control import Control
from gateway.files.overrides import frozen, read_overrides
from gateway.store.audit import Audited, listed, verify
from router.snapshot import Route
from tests.gateway.control.test_control import House, recording, shown, until

CONFIG = """
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
events = ["rollout", "act"]
[routes.r]
path = "/r"
unit = "header:x-user"
[routes.r.policy]
kind = "rollout"
stable = "a"
candidate = "b"
steps = [
  { share = 0.1, hold = "1h", approve = true },
  { share = 0.2, hold = "1h" },
  { share = 1.0, hold = "1h", whole_days = false },
]
[routes.s]
path = "/s"
policy = { kind = "canary", stable = "a", candidate = "b", share = 0.5 }
"""
ANN = Asker("ann", "api", "ann from 10.0.0.1")


class Rig:
    def __init__(self, house: House, control: Control, client: httpx.AsyncClient) -> None:
        self.house = house
        self.control = control
        self.client = client

    def route(self, name: str = "r") -> Route:
        return self.control.in_force.snapshot.routes[name]

    async def perform(self, verb: str, route: str | None = "r", **more: Any) -> Done:
        return await self.control.commands.perform(Ask(verb=verb, route=route, **more), ANN)

    async def post(self, route: str | None = "r", *, path: str | None = None, **body: Any) -> httpx.Response:
        where = "/api/v1/acts" if route is None else f"/api/v1/routes/{route}/acts"
        return await self.client.post(path or where, json=body, headers={"turnout-user": "ann"})

    async def get(self, path: str) -> Any:
        return (await self.client.get(path)).json()

    async def text(self, path: str) -> str:
        return (await self.client.get(path)).text

    @property
    def frozen(self) -> dict[str, str]:
        return frozen(read_overrides(self.house.data))

    def events(self, kind: str = "act") -> list[dict[str, Any]]:
        return [one for one in self.control.event_log.newest if one["kind"] == kind]

    async def audit(self) -> list[Audited]:
        """What people did to routes, in the audit log, the newest first."""
        assert self.control.opened is not None
        async with self.control.opened.store.read() as connection:
            assert (await verify(connection)).wrong is None
            return [one for one in await listed(connection) if one.route is not None and one.via != "controller"]


@asynccontextmanager
async def rig_of(path: Path, config: str = CONFIG) -> AsyncIterator[Rig]:
    house = House(path, config)
    async with recording(house.control()) as control:
        transport = httpx.ASGITransport(create(shown(control)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()
            yield Rig(house, control, client)


def at_rig(path: Path, story: Callable[[Rig], Awaitable[None]], config: str = CONFIG) -> None:
    """Play a story, whose controller decides only when it is told to."""

    async def run() -> None:
        async with rig_of(path, config) as rig:
            await story(rig)

    asyncio.run(run())
