"""What the workers see of the replicas, in the API and on a route's page."""

from __future__ import annotations

import asyncio

import httpx

from gateway.admin.app import create, new_metrics
from tests.gateway.admin.fake import control
from tests.gateway.admin.samples import REPLICA, datagram


async def asked(path: str, *states: str) -> httpx.Response:
    """Ask for the path after one worker for each state has reported that it sees the replica in it."""
    fake = control()
    metrics = new_metrics(lambda: fake.snapshot)
    for slot, state in enumerate(states):
        report = datagram([], slot=slot)
        report["gauges"] = [["replicas", {"variant": "new", "replica": REPLICA, "state": state}, 1]]
        metrics.observe_datagram(report)
    transport = httpx.ASGITransport(create(fake.parts, metrics))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
        return await client.get(path)


def test_a_backend_shows_how_many_workers_see_each_replica_in_which_state() -> None:
    found = asyncio.run(asked("/api/v1/backends", "fit", "ejected", "ejected")).json()
    assert found["revision"] == 7
    (new,) = (backend for backend in found["backends"] if backend["name"] == "new")
    assert new == {
        "name": "new",
        "model": "digits",
        "version": "2.0.0",
        "waiting": 0,
        "replicas": [{"name": REPLICA, "fit": 1, "ejected": 2, "unhealthy": 0}],
    }


def test_a_routes_page_names_its_replicas_that_are_out_of_use_and_only_those() -> None:
    page = asyncio.run(asked("/routes/digits", "fit", "ejected", "unhealthy")).text
    assert f"new: {REPLICA} is ejected by 1 and unhealthy to 1 of 3 worker(s)" in page
    assert "out of use" not in asyncio.run(asked("/routes/digits", "fit", "fit")).text
