"""Copies: each one is sent or counted, each leaves a row, and the client never notices."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from gateway.files.published import SNAPSHOT, publish
from policies.plans import Mirror, Weighted
from router.snapshot import Backend, Gateway, Route, RouteMirror
from tests.gateway.proxy.builders import backend, only, route, snapshot
from tests.gateway.proxy.stage import Asked, Model, Stage, play, staged


async def seven(asked: Asked) -> None:
    await asked.answer({"p": 7})


async def eight(asked: Asked) -> None:
    await asked.answer({"p": 8})


async def silent(asked: Asked) -> None:
    await asked.gone()


def parts(one: Model, two: Model, **settings: Any) -> tuple[Backend, Backend, Route]:
    plan = Weighted((("a", 1.0),), mirrors=(Mirror("b", 1.0),))
    return backend("a", one.url), backend("b", two.url, **settings), route("r", plan, prediction="/p")


def shadows(stage: Stage) -> list[dict[str, Any]]:
    return [row for row in stage.rows() if row["role"] == "shadow"]


def test_a_copy_is_the_same_request_with_a_mark_and_leaves_a_row_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(seven) as one, Model(eight) as two, staged(tmp_path, snapshot(*parts(one, two))) as stage:
            got = await stage.ask("/r?x=1", {"q": 1}, headers={"turnout-mirror": "spoofed"})
            await stage.eventually(lambda: len(stage.rows()) == 2)
        assert got.json == {"p": 7}
        (original,), (copy,) = one.asked, two.asked
        assert (copy.method, copy.target, copy.body) == (original.method, original.target, original.body)
        assert copy.headers == {**original.headers, "turnout-mirror": "1"}
        rows = {row["role"]: row for row in stage.rows()}
        assert (rows["primary"]["prediction"], rows["shadow"]["prediction"]) == (7, 8)
        assert rows["shadow"]["id"] == rows["primary"]["id"] == got.id
        assert rows["shadow"]["at_ms"] == rows["primary"]["at_ms"]
        assert (rows["shadow"]["variant"], rows["shadow"]["reason"], rows["shadow"]["propensity"]) == (
            "b",
            "mirror",
            None,
        )

    play(main())


def test_the_client_does_not_wait_for_a_copy(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Model(seven) as one,
            Model(silent) as two,
            staged(tmp_path, snapshot(*parts(one, two, timeout_ms=300, idle_timeout_ms=100))) as stage,
        ):
            async with asyncio.timeout(0.25):
                await stage.ask("/r", {"q": 1})
            await stage.eventually(lambda: shadows(stage))
        assert shadows(stage)[0]["fault"] == "timeout"

    play(main())


def test_a_client_that_leaves_takes_no_copy_with_it(tmp_path: Path) -> None:
    async def late(asked: Asked) -> None:
        await asyncio.sleep(1.2)
        await asked.answer({"p": 8})

    async def main() -> None:
        async with Model(silent) as one, Model(late) as two, staged(tmp_path, snapshot(*parts(one, two))) as stage:
            _, writer = await stage.send("/r", {"q": 1})
            await stage.eventually(lambda: two.asked)
            writer.close()
            await stage.eventually(lambda: len(stage.rows()) == 2)
        rows = {row["role"]: row for row in stage.rows()}
        assert rows["primary"]["fault"] == "client_gone"
        assert (rows["shadow"]["status"], rows["shadow"]["prediction"]) == (200, 8)

    play(main())


def test_a_copy_that_fails_is_its_variants_failure_and_nobody_elses(tmp_path: Path) -> None:
    async def dead(asked: Asked) -> None:
        asked.writer.transport.abort()

    async def main() -> None:
        async with Model(seven) as one, Model(dead) as two, staged(tmp_path, snapshot(*parts(one, two))) as stage:
            assert (await stage.ask("/r")).status == 200
            await stage.eventually(lambda: shadows(stage))
        (row,) = shadows(stage)
        assert (row["fault"], row.get("status")) == ("reset", None)

    play(main())


def test_a_long_answer_to_a_copy_is_taken_to_its_end_and_not_kept(tmp_path: Path) -> None:
    async def long(asked: Asked) -> None:
        await asked.start()
        for _ in range(30):
            await asked.chunk(b"x" * 100_000)
        asked.writer.write(b"0\r\n\r\n")

    async def main() -> None:
        async with Model(seven) as one, Model(long) as two, staged(tmp_path, snapshot(*parts(one, two))) as stage:
            await stage.ask("/r")
            await stage.eventually(lambda: shadows(stage))
        assert "fault" not in shadows(stage)[0]
        assert stage.counters == {("extraction_failures", "r", "b"): 1}

    play(main())


def test_a_body_too_long_to_copy_is_dropped_counted_and_listed(tmp_path: Path) -> None:
    body = b"x" * 1001

    async def main() -> None:
        bound = Gateway(mirror_max_body_bytes=1000)
        async with (
            Model(seven) as one,
            Model(eight) as two,
            staged(tmp_path, snapshot(bound, *parts(one, two))) as stage,
        ):
            assert (await stage.ask("/r", body)).status == 200
            chunked = {"transfer-encoding": "chunked", "content-length": ""}
            reader, writer = await stage.send("/r", headers=chunked)
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            await reader.readuntil(b'{"p":7}')
            writer.close()
            # The longest body that is copied, to the byte.
            assert (await stage.ask("/r", body[:-1])).status == 200
            await stage.eventually(lambda: two.asked)
        assert [len(asked.body) for asked in one.asked] == [1001, 1001, 1000]
        assert [len(asked.body) for asked in two.asked] == [1000]
        assert [row.get("fault") for row in shadows(stage)] == ["dropped", "dropped", None]
        assert stage.counters == {("mirror_drops", "r", "b", "body_too_large"): 2}

    play(main())


def test_more_copies_than_may_be_under_way_are_dropped_counted_and_listed(tmp_path: Path) -> None:
    free = asyncio.Event()

    async def held(asked: Asked) -> None:
        await free.wait()
        await asked.answer({"p": 8})

    async def main() -> None:
        async with (
            Model(seven) as one,
            Model(held) as two,
            staged(tmp_path, snapshot(Gateway(mirror_max_concurrency=20), *parts(one, two))) as stage,
        ):
            await asyncio.gather(*(stage.ask("/r") for _ in range(25)))
            free.set()
            await stage.eventually(lambda: len(shadows(stage)) == 25)
        faults = [row.get("fault") for row in shadows(stage)]
        assert (faults.count("dropped"), faults.count(None)) == (5, 20)
        assert stage.counters == {("mirror_drops", "r", "b", "full"): 5}

    play(main())


def test_copies_have_limits_of_their_own(tmp_path: Path) -> None:
    """A variant that answers clients must not lose its places to copies, and copies must not lose theirs to clients."""
    free = asyncio.Event()

    async def held(asked: Asked) -> None:
        if "turnout-mirror" in asked.headers:
            await free.wait()
        await asked.answer({"p": 7})

    async def main() -> None:
        async with Model(held) as one:
            cast = (
                backend("a", one.url),
                backend("b", one.url, max_concurrency=1),
                route("r", Weighted((("a", 1.0),), mirrors=(Mirror("b", 1.0),))),
                route("s", only("b")),
            )
            async with staged(tmp_path, snapshot(*cast)) as stage:
                await stage.ask("/r")
                await stage.ask("/r")
                await stage.eventually(lambda: shadows(stage))
                assert shadows(stage)[0]["fault"] == "overloaded"
                assert (await stage.ask("/s")).status == 200
                free.set()

    play(main())


def test_a_routes_own_mirror_is_copied_for_its_methods_only(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(seven) as one, Model(eight) as two:
            mirror = RouteMirror(variant="b", share=1.0, methods=("POST",))
            cast = (backend("a", one.url), backend("b", two.url), route("r", only("a"), mirrors=(mirror,)))
            async with staged(tmp_path, snapshot(*cast)) as stage:
                await stage.ask("/r", method="PUT")
                await stage.ask("/r", method="POST")
        assert [asked.method for asked in two.asked] == ["POST"]

    play(main())


def test_copies_under_way_at_the_end_are_finished_and_those_too_late_are_listed(tmp_path: Path) -> None:
    async def late(asked: Asked) -> None:
        if asked.target == "/r?late":
            await asyncio.sleep(0.2)
            await asked.answer({"p": 8})
        else:
            await asked.gone()

    async def main() -> None:
        async with Model(seven) as one, Model(late) as two:
            cast = snapshot(Gateway(drain_timeout_ms=500), *parts(one, two))
            async with staged(tmp_path, cast) as stage:
                await stage.ask("/r?late")
                await stage.ask("/r?never")
                await stage.eventually(lambda: len(two.asked) == 2)
        assert sorted(row.get("fault", "") for row in shadows(stage)) == ["", "dropped"]
        assert stage.counters == {("mirror_drops", "r", "b", "draining"): 1}

    play(main())


def test_a_copy_has_a_total_however_steadily_its_answer_drips(tmp_path: Path) -> None:
    """A stream to a client may last for ever, but a copy's row holds back the watermark."""

    async def drip(asked: Asked) -> None:
        await asked.start()
        while True:
            await asked.chunk(b"x")
            await asyncio.sleep(0.01)

    async def main() -> None:
        bound = Gateway(mirror_timeout_ms=100)
        async with (
            Model(seven) as one,
            Model(drip) as two,
            staged(tmp_path, snapshot(bound, *parts(one, two))) as stage,
        ):
            assert (await stage.ask("/r")).status == 200
            await stage.eventually(lambda: shadows(stage))
            assert shadows(stage)[0]["fault"] == "timeout"
            assert shadows(stage)[0]["latency_ms"] >= 98  # the loop's clock counts milliseconds

    play(main())


def test_new_bounds_are_in_force_without_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with Model(seven) as one, Model(eight) as two, staged(tmp_path, snapshot(*parts(one, two))) as stage:
            await stage.ask("/r")
            await stage.eventually(lambda: shadows(stage))
            bound = Gateway(mirror_max_concurrency=0)
            publish(tmp_path / SNAPSHOT, snapshot(bound, *parts(one, two), revision=4))

            async def dropped() -> None:
                while shadows(stage)[-1].get("fault") != "dropped":
                    await stage.ask("/r")

            await asyncio.wait_for(dropped(), 5)

    play(main())
