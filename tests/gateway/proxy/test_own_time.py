"""A request's overhead is all of the gateway's own time, and none of a backend's or a client's.

Work that must count is made slow in the gateway; waits that must not count are made slow outside. Lower bounds are
exact on any machine; upper bounds leave room for a busy one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.plans import TeamDraft
from router.extract import decode_json
from router.merge import merge
from router.router import Router
from tests.gateway.proxy.builders import backend, only, route, snapshot
from tests.gateway.proxy.stage import Asked, Model, play, read_answer, staged

SLOW = 0.6
#: The most that the gateway may take itself while others take SLOW.
OWN_MS = 500


async def slow(asked: Asked) -> None:
    await asyncio.sleep(SLOW)
    await asked.answer({"p": 7, "items": ["a", "b"]})


async def failing(asked: Asked) -> None:
    await asyncio.sleep(SLOW)
    await asked.answer(status=500)


async def quick(asked: Asked) -> None:
    await asked.answer({"p": 7, "items": ["a", "b"]})


async def streaming(asked: Asked) -> None:
    await asyncio.sleep(SLOW)
    await asked.start()
    await asyncio.sleep(SLOW)
    await asked.chunk(b"x")
    asked.writer.write(b"0\r\n\r\n")


def sluggish(function: Callable[..., Any]) -> Callable[..., Any]:
    def delayed(*given: Any) -> Any:
        time.sleep(0.05)
        return function(*given)

    return delayed


def overheads(tmp_path: Path, model: Model, *parts: Any, body: object = b"") -> list[float]:
    """Ask once and return what the rows say."""
    found: list[float] = []

    async def main() -> None:
        async with model, staged(tmp_path, snapshot(*(part(model.url) for part in parts))) as stage:
            assert (await stage.ask("/r", body)).status == 200
            await stage.eventually(lambda: stage.rows("call", "close"))
        found.extend(row["overhead_ms"] for row in stage.rows("call", "close"))

    play(main())
    return found


@pytest.mark.parametrize("behave", [slow, streaming])
def test_the_time_of_a_backend_is_not_ours(tmp_path: Path, behave: Any) -> None:
    (own,) = overheads(tmp_path, Model(behave), lambda url: backend("a", url), lambda _: route("r", only("a")))
    assert 0 < own < OWN_MS


def test_the_times_of_rankers_side_by_side_count_once_and_merging_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.proxy.exchange.drafting.merge", sluggish(merge))
    plan = TeamDraft(("a", "b"), items="/items", item_id="", length=2)
    parts = (lambda url: backend("a", url), lambda url: backend("b", url), lambda _: route("r", plan))
    one, other = overheads(tmp_path, Model(slow), *parts)
    assert one == other
    # If both waits of SLOW were subtracted, nothing would be left.
    assert 50 <= one < OWN_MS


def test_a_fallbacks_time_is_not_ours_either(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(failing) as one, Model(slow) as two:
            cast = (backend("a", one.url), backend("b", two.url), route("r", only("a"), fallback="b"))
            async with staged(tmp_path, snapshot(*cast)) as stage:
                assert (await stage.ask("/r")).status == 200
        (row,) = stage.rows()
        assert row["served"] == "b"
        assert row["overhead_ms"] < OWN_MS

    play(main())


@pytest.mark.parametrize("settings", [{}, {"unit": "body:/user"}], ids=["passing through", "decided by"])
def test_waiting_for_the_clients_body_is_not_ours(tmp_path: Path, settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with Model(quick) as model:
            cast = (backend("a", model.url), route("r", only("a"), **settings))
            async with staged(tmp_path, snapshot(*cast)) as stage:
                reader, writer = await stage.send("/r", headers={"content-length": "12"})
                await asyncio.sleep(SLOW)
                writer.write(b'{"user":"u"}')
                assert (await read_answer(reader)).status == 200
                writer.close()
        (row,) = stage.rows()
        assert 0 < row["overhead_ms"] < OWN_MS

    play(main())


@pytest.mark.interpreted
def test_reading_the_clients_body_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.proxy.exchange.exchange.decode_json", sluggish(decode_json))
    parts = (lambda url: backend("a", url), lambda _: route("r", only("a"), unit="body:/user"))
    (own,) = overheads(tmp_path, Model(quick), *parts, body={"user": "u"})
    assert own >= 50


@pytest.mark.interpreted
def test_finding_the_route_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Router, "match", sluggish(Router.match))
    (own,) = overheads(tmp_path, Model(quick), lambda url: backend("a", url), lambda _: route("r", only("a")))
    assert own >= 50
