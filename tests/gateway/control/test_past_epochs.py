"""Epochs that are over can be listed and opened, as they were."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from gateway.admin.app import create
from gateway.cli.report_tables import of_epochs
from gateway.control.control import Control
from tests.gateway.control.test_control import House, clicked, recording, shown, until


async def ask(control: Control, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(create(shown(control)))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
        return await client.get(path)


def test_a_past_epoch_is_listed_and_opened_as_it_was(tmp_path: Path) -> None:
    """The route is another policy by then, one of its variants is gone, and its metric means something else."""

    async def story() -> None:
        house = House(tmp_path)
        async with recording(house.control()) as control:
            await until(lambda: control.queries.ready)
            await control.in_force.decide()  # as it does about once a second: the plan and its epoch are stored
            first = control.in_force.snapshot.routes["r"].epoch
            clicked(house, control)
            assert control.opened is not None
            assert await control.opened.recorder.drain(20)
            present = (await ask(control, "/api/v1/routes/r")).json()
            before = '{ kind = "thompson", variants = ["a", "b"], reward = "click" }'
            house.edit(before, '{ kind = "single", variant = "a" }')
            house.edit("missing = 0", 'missing = 0\nwindow = "2h"')
            assert (await control.in_force.reload()).ok
            now = control.in_force.snapshot.routes["r"].epoch
            assert now != first

            listed = (await ask(control, "/api/v1/routes/r/epochs")).json()["epochs"]
            assert [(one["epoch"], one["present"], one["policy"]) for one in listed] == [
                (now, True, "single"),
                (first, False, "thompson"),
            ]
            assert of_epochs(listed) is not None
            past = (await ask(control, f"/api/v1/routes/r?epoch={first}")).json()
            assert (past["past"], past["policy"], past["epoch"]) == (True, "thompson", first)
            same: tuple[str, ...] = ("verdict", "variants", "definitions", "feedback")
            assert {name: stripped(past[name]) for name in same} == {name: stripped(present[name]) for name in same}
            assert (await ask(control, "/api/v1/routes/r")).json()["variants"][0]["predictions"] == 0

            page = (await ask(control, f"/routes/r?epoch={first}")).text
            assert "This epoch is over" in page
            assert f"<code>{first}</code>" in page
            assert f"?epoch={first}" in (await ask(control, "/routes/r")).text
            for path in ("/api/v1/routes/r?epoch=none", "/routes/r?epoch=none", "/api/v1/routes/none/epochs"):
                assert (await ask(control, path)).status_code == 404

    asyncio.run(story())


def stripped(value: Any) -> Any:
    """Without the fields that only the present epoch has: of open windows, and of the policy's beliefs."""
    if isinstance(value, dict):
        return {k: stripped(v) for k, v in value.items() if k not in _OF_THE_PRESENT}
    return [stripped(one) for one in value] if isinstance(value, list) else value


_OF_THE_PRESENT = {"oldest_pending_seconds", "p_best", "evidence", "sentence"}
