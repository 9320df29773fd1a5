"""What a client, a backend and the journal get of requests that are turned away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from router.snapshot import Backend, Gateway, Route
from tests.gateway.proxy.builders import backend, metric, only, route, snapshot
from tests.gateway.proxy.stage import Asked, Model, play, read_answer, staged


def parts(model: Model, **gateway: Any) -> tuple[Gateway, Backend, Route, Any]:
    return (
        Gateway(admission="fixed", **gateway),
        backend("a", model.url),
        route("r", only("a"), metrics=("seen",)),
        metric("seen", "event"),
    )


async def held(asked: Asked) -> None:
    await asked.gone()


def test_one_too_many_gets_503_and_a_time_to_come_back_and_nothing_is_done_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(held) as model, staged(tmp_path, snapshot(*parts(model, max_in_flight=2))) as stage:
            waiting = [await stage.send("/r") for _ in range(2)]
            await stage.eventually(lambda: len(model.asked) == 2)
            got = await stage.ask("/r", b"x" * 1000)
            unmatched = await stage.ask("/nowhere")
            assert len(model.asked) == 2
            rows = len(stage.rows())
            for _, writer in waiting:
                writer.close()
            await stage.eventually(lambda: len(stage.rows()) == 2)
        assert (got.status, unmatched.status, rows) == (503, 503, 0)
        assert got.headers["retry-after"] == "1"
        assert got.headers["content-type"] == "application/problem+json"
        assert "turnout-prediction-id" not in got.headers
        assert got.json["detail"] == "the gateway is overloaded"
        assert {row["fault"] for row in stage.rows()} == {"client_gone"}
        assert stage.counters == {("shed", "max_in_flight"): 2}

    play(main())


def test_who_is_turned_away_keeps_the_connection_and_is_let_in_when_there_is_room(tmp_path: Path) -> None:
    """Clients open a dropped connection again at once, which costs more than any answer."""
    free = asyncio.Event()

    async def slow(asked: Asked) -> None:
        await free.wait()
        await asked.answer({"p": 7})

    async def main() -> None:
        async with Model(slow) as model, staged(tmp_path, snapshot(*parts(model, max_in_flight=1))) as stage:
            first = asyncio.create_task(stage.ask("/r"))
            await stage.eventually(lambda: model.asked)
            reader, writer = await stage.send("/r", b"abc")
            shed = await read_answer(reader)
            assert shed.status == 503
            assert shed.headers.get("connection") != "close"
            free.set()
            assert (await first).status == 200
            writer.write(b"POST /r HTTP/1.1\r\nhost: models.example\r\ncontent-length: 3\r\n\r\nabc")
            assert (await read_answer(reader)).status == 200
            writer.close()
        assert [len(asked.body) for asked in model.asked] == [0, 3]

    play(main())


def test_a_long_body_is_turned_away_before_it_is_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(held) as model, staged(tmp_path, snapshot(*parts(model, max_in_flight=1))) as stage:
            _, waiting = await stage.send("/r")
            await stage.eventually(lambda: model.asked)
            reader, writer = await stage.send("/r", headers={"content-length": "1000000"})
            got = await read_answer(reader)
            assert (got.status, got.headers["connection"]) == (503, "close")
            writer.close()
            reader, writer = await stage.send("/r", headers={"content-length": "1000", "expect": "100-continue"})
            assert (await read_answer(reader)).status == 503
            writer.close()
            waiting.close()

    play(main())


def test_health_and_feedback_are_answered_while_requests_are_turned_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(held) as model, staged(tmp_path, snapshot(*parts(model, max_in_flight=1))) as stage:
            _, waiting = await stage.send("/r")
            await stage.eventually(lambda: model.asked)
            assert (await stage.ask("/r")).status == 503
            assert (await stage.ask("/-/livez", method="GET")).status == 200
            assert (await stage.ask("/-/readyz", method="GET")).status == 200
            event = {"prediction_id": "0198b2c4-7a10-7cc3-98c4-dc0c0c07398f", "metric": "seen", "value": 1}
            assert (await stage.ask("/-/feedback", [event])).status == 202
            waiting.close()

    play(main())


def test_every_way_a_request_ends_gives_its_place_back(tmp_path: Path) -> None:
    async def behave(asked: Asked) -> None:
        if asked.target == "/r?dead":
            asked.writer.transport.abort()
        elif asked.target == "/r?silent":
            await asked.gone()
        else:
            await asked.answer({"p": 7})

    async def main() -> None:
        async with Model(behave) as model, staged(tmp_path, snapshot(*parts(model, max_in_flight=1))) as stage:
            for _ in range(3):
                assert (await stage.ask("/nowhere")).status == 404
                assert (await stage.ask("/r?dead")).status == 502
                assert (await stage.ask("/r", headers={"turnout-force-variant": "a"})).status == 403
                before = len(stage.rows())
                _, writer = await stage.send("/r?silent")
                await asyncio.sleep(0.02)
                writer.close()
                await stage.eventually(lambda: len(stage.rows()) > before)  # noqa: B023
                assert (await stage.ask("/r")).status == 200
        assert stage.counters == {}

    play(main())


@pytest.mark.parametrize("setting", ["adaptive", "off"])
def test_five_hundred_who_wait_for_a_slow_model_are_all_answered(tmp_path: Path, setting: Any) -> None:
    async def slow(asked: Asked) -> None:
        await asyncio.sleep(0.2)
        await asked.answer({"p": 7})

    async def main() -> None:
        async with Model(slow) as model:
            cast = (
                Gateway(admission=setting),
                backend("a", model.url, max_concurrency=500),
                route("r", only("a")),
            )
            async with staged(tmp_path, snapshot(*cast)) as stage:
                got = await asyncio.gather(*(stage.ask("/r") for _ in range(500)))
        assert {answer.status for answer in got} == {200}

    play(main())


def test_connections_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(held) as model, staged(tmp_path, snapshot(*parts(model, max_connections=1))) as stage:
            _, first = await stage.send("/r")
            await stage.eventually(lambda: model.asked)
            assert (await stage.ask("/r")).status == 503
            first.close()
            await stage.eventually(stage.rows)
        assert stage.counters == {("shed", "max_connections"): 1}

    play(main())
