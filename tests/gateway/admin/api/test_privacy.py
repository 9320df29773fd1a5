"""The unit to erase or to show is named in a body, and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway.admin.app import create
from gateway.control.upkeep.erasure import NotDrained
from tests.gateway.admin.fake import Control, control


def posted(fake: Control, what: str, body: bytes) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(create(fake.parts), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
            return await client.post(f"/api/v1/privacy/{what}", content=body)

    return asyncio.run(main())


def test_the_units_that_are_named_are_erased() -> None:
    fake = control()
    answer = posted(fake, "erase", b'{"units": ["zeus", "hera"]}')
    assert (answer.status_code, answer.json(), fake.erased) == (200, {"calls": 2}, ["zeus", "hera"])


def test_what_is_known_comes_line_by_line() -> None:
    answer = posted(control(), "export", b'{"units": ["zeus"]}')
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text == '{"kind":"unit","unit":"zeus"}\n'


@pytest.mark.parametrize("body", [b"", b"[]", b'{"units": []}', b'{"units": [1]}', b'{"units": ["a", ""]}', b"{"])
@pytest.mark.parametrize("what", ["erase", "export"])
def test_a_body_that_names_no_unit_is_refused(what: str, body: bytes) -> None:
    fake = control()
    answer = posted(fake, what, body)
    assert (answer.status_code, fake.erased) == (422, [])


def test_a_body_that_has_no_end_is_not_read_to_it() -> None:
    assert posted(control(), "erase", b'{"units": ["' + b"x" * 2**20 + b'"]}').status_code == 413


@pytest.mark.parametrize("what", ["erase", "export"])
def test_a_failure_is_answered_without_the_unit(what: str, caplog: Any) -> None:
    """The message of a database driver holds the parameters of its statement."""
    fake = control()
    fake.fails = RuntimeError("no such column: zeus")
    answer = posted(fake, what, b'{"units": ["zeus"]}')
    assert (answer.status_code, "zeus" in answer.text + caplog.text) == (503, False)
    fake.fails = NotDrained("2 segments of the journal are not drained after 60 s")
    assert "2 segments" in posted(fake, what, b'{"units": ["zeus"]}').json()["detail"]
