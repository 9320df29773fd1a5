"""Replicas, waiting and repeats as a worker's clients and its journal see them."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from policies.plans import Weighted
from tests.gateway.proxy.builders import backend, only, route, snapshot
from tests.gateway.proxy.faults import nowhere
from tests.gateway.proxy.stage import Asked, Model, play, staged


async def ok(asked: Asked) -> None:
    await asked.answer({"p": 1})


def test_clients_do_not_notice_a_replica_that_is_gone_and_rows_say_which_calls_were_repeated(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(ok) as model:
            parts = (backend("a", nowhere(), model.url, eject_after=3), route("r", only("a")))
            async with staged(tmp_path, snapshot(*parts)) as stage:
                answers = [await stage.ask("/r", {"x": 1}) for _ in range(30)]
        assert {answer.status for answer in answers} == {200}
        rows = stage.rows("call")
        assert [row["id"] for row in rows] == [answer.id for answer in answers]
        assert Counter(row.get("retries", 0) for row in rows) == {0: 27, 1: 3}
        assert not any("fault" in row for row in rows)
        assert stage.counters["retries", "a", "refused"] == 3
        assert stage.counters["ejections", "a", nowhere_of(stage.counters), "connection"] == 1

    play(main())


def nowhere_of(counters: dict[tuple[str, ...], int]) -> str:
    """The replica that was ejected: a url without its scheme, as metrics name it."""
    (name,) = (labels[2] for labels in counters if labels[0] == "ejections")
    assert name.startswith("127.0.0.1:")
    return name


def test_a_call_that_fails_after_all_says_how_often_it_was_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        parts = (backend("a", nowhere(), nowhere(), nowhere(), retries=2), route("r", only("a")))
        async with staged(tmp_path, snapshot(*parts)) as stage:
            got = await stage.ask("/r", {"x": 1})
        (row,) = stage.rows("call")
        assert (got.status, got.json["fault"]) == (502, "refused")
        assert (row["fault"], row["retries"]) == ("refused", 2)

    play(main())


def test_load_and_failures_never_move_a_request_to_another_variant(tmp_path: Path) -> None:
    """What one variant cannot take would be judged as the other's."""

    async def main() -> None:
        async with Model(ok) as one, Model(ok) as two:
            shares = route("r", Weighted((("a", 0.5), ("b", 0.5))), unit="header:x-user")

            async def chosen(directory: Path, *replicas: str, **settings: int) -> list[tuple[str, int]]:
                directory.mkdir()
                parts = (backend("a", *replicas, **settings), backend("b", two.url), shares)
                async with staged(directory, snapshot(*parts)) as stage:
                    got = [await stage.ask("/r", headers={"x-user": str(n)}) for n in range(40)]
                rows = {row["id"]: row["variant"] for row in stage.rows("call")}
                return [(rows[answer.id], answer.status) for answer in got]

            well = await chosen(tmp_path / "well", one.url)
            full = await chosen(tmp_path / "full", one.url, max_concurrency=0, max_waiting=0)
            gone = await chosen(tmp_path / "gone", nowhere(), nowhere(), eject_after=1)
            assert {status for _, status in well} == {200}
            assert 10 < sum(variant == "a" for variant, _ in well) < 30
            assert full == [(variant, 503 if variant == "a" else 200) for variant, _ in well]
            assert gone == [(variant, 502 if variant == "a" else 200) for variant, _ in well]

    play(main())


def test_waiting_for_a_place_is_the_backends_time_and_not_the_gateways(tmp_path: Path) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def held(asked: Asked) -> None:
            await go.wait()
            await asked.answer()

        async with Model(held) as model:
            parts = (backend("a", model.url, max_concurrency=1), route("r", only("a")))
            async with staged(tmp_path, snapshot(*parts)) as stage:
                asking = [asyncio.create_task(stage.ask("/r")) for _ in range(2)]
                await stage.eventually(lambda: model.asked)
                await asyncio.sleep(0.4)
                go.set()
                assert [(await got).status for got in asking] == [200, 200]
            assert len(model.asked) == 2
        for row in stage.rows("call"):
            assert row["latency_ms"] > 300
            assert row["overhead_ms"] < row["latency_ms"] / 2

    play(main())


def test_who_waited_in_vain_is_told_to_come_again(tmp_path: Path) -> None:
    async def main() -> None:
        async def never(asked: Asked) -> None:
            await asked.gone()

        async with Model(never) as model:
            parts = (backend("a", model.url, max_concurrency=1, wait_timeout_ms=50), route("r", only("a")))
            async with staged(tmp_path, snapshot(*parts)) as stage:
                _, first = await stage.send("/r")
                await stage.eventually(lambda: model.asked)
                got = await stage.ask("/r")
                first.close()
        assert (got.status, got.headers["retry-after"], got.json["fault"]) == (503, "1", "overloaded")
        assert len(model.asked) == 1

    play(main())


def test_a_client_that_leaves_while_it_waits_leaves_the_line_and_a_row(tmp_path: Path) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def held(asked: Asked) -> None:
            await go.wait()
            await asked.answer()

        async with Model(held) as model:
            parts = (backend("a", model.url, max_concurrency=1, wait_timeout_ms=60_000), route("r", only("a")))
            async with staged(tmp_path, snapshot(*parts)) as stage:
                first = asyncio.create_task(stage.ask("/r"))
                await stage.eventually(lambda: model.asked)
                _, second = await stage.send("/r")
                second.close()
                await stage.eventually(lambda: stage.rows("call"))
                assert stage.rows("call")[0]["fault"] == "client_gone"
                go.set()
                assert (await first).status == 200
                assert (await stage.ask("/r")).status == 200
            assert len(model.asked) == 2

    play(main())


def test_an_answer_that_takes_too_long_as_a_whole_is_cut_and_logged_as_a_timeout(tmp_path: Path) -> None:
    async def main() -> None:
        async def drips(asked: Asked) -> None:
            await asked.start()
            while True:
                await asked.chunk(b"x")
                await asyncio.sleep(0.01)

        async with Model(drips) as model:
            parts = (backend("a", model.url, total_timeout_ms=200), route("r", only("a")))
            async with staged(tmp_path, snapshot(*parts)) as stage:
                got = await stage.ask("/r")
        assert (got.status, got.whole) == (200, False)
        (row,) = stage.rows("close")
        assert row["fault"] == "timeout"

    play(main())
