"""The admin port asks the parts of a controller as they are: nothing describes them a second time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import orjson
import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from gateway.admin import app
from gateway.admin.api.api import API
from gateway.admin.api.reports import from_store
from gateway.admin.console.console import Console
from tests.gateway.control.test_control import House, recording, shown, until


class WithCounts(API):
    def routes(self) -> list[Route]:
        return [*API.routes(self), Route("/api/v1/counts", self.counts)]

    async def counts(self, request: Request) -> Response:
        return Response(orjson.dumps(await from_store(self.controller.queries, lambda ask: ask.store.counts())))


class WithLag(Console):
    def routes(self) -> list[Route]:
        return [*Console.routes(self), Route("/lag", self.lag)]

    async def lag(self, request: Request) -> Response:
        return HTMLResponse(f"{self.controller.readiness.lag()[1]} bytes wait")


def test_an_endpoint_or_a_page_is_a_route_and_its_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each asks what the admin port has not shown before, of the store and of the controller."""
    monkeypatch.setattr(app, "API", WithCounts)
    monkeypatch.setattr(app, "Console", WithLag)

    async def story() -> None:
        async with recording(House(tmp_path).control()) as control:
            await until(lambda: control.readiness.lag()[1] == 0 and control.queries.ready)
            transport = httpx.ASGITransport(app.create(shown(control)))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
                assert (await client.get("/api/v1/counts")).json() == {}
                assert (await client.get("/lag")).text == "0 bytes wait"

    asyncio.run(story())
