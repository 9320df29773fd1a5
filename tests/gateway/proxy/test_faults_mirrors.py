"""Faults of mirrors, through a whole worker: they change nothing for the client, its variant or its pool.

Rule: as in ``test_faults_backends``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from policies.plans import Mirror, Weighted
from router.snapshot import Gateway
from tests.gateway.proxy import faults
from tests.gateway.proxy.builders import backend
from tests.gateway.proxy.faults import OK, Wire, nowhere
from tests.gateway.proxy.stage import Got, play, read_answer
from tests.gateway.proxy.trouble import (
    CHUNKED,
    LONG,
    SHORT,
    Act,
    Muster,
    Trouble,
    closes,
    drips,
    resets,
    saw,
    sends,
    stalls,
    troubled,
)

MIRRORED: dict[str, Any] = {"plan": Weighted((("a", 1.0),), mirrors=(Mirror("s", 1.0),))}
HUGE = b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 3_000_000


def again(act: Act) -> faults.Script:
    """Answer every request like this."""

    async def script(wire: Wire) -> None:
        while await wire.request() is not None:
            await act(wire)

    return script


def shadows(t: Trouble) -> list[tuple[int | None, str | None]]:
    return [(row.get("status"), row.get("fault")) for row in t.stage.rows() if row["role"] == "shadow"]


def before(
    tmp_path: Path, shadow: str, *, gateway: Gateway | None = None, **settings: Any
) -> AbstractAsyncContextManager[Trouble]:
    """A worker that copies every request to the backend at this url."""
    cast = (backend("s", shadow, **{"timeout_ms": 200, "idle_timeout_ms": 200, "eject_after": 0, **settings}),)
    return troubled(tmp_path, cast=cast, route=MIRRORED, gateway=gateway)


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (stalls(), (None, "timeout")),
        (resets(), (None, "reset")),
        (closes(SHORT + b"abc"), (None, "incomplete")),
        (sends(b"nonsense\r\n\r\n"), (None, "protocol")),
        (closes(CHUNKED + b"3\r\nabc\r\n"), (200, "incomplete")),
        (stalls(LONG + b"abc"), (200, "timeout")),
        (drips(CHUNKED, b"1\r\nx\r\n"), (None, "timeout")),
        (sends(HUGE), (200, None)),
    ],
)
def test_f14_whatever_a_shadow_does_the_client_has_its_answer_and_the_shadow_its_row(
    tmp_path: Path, act: Act, expected: tuple[int | None, str | None]
) -> None:
    async def main() -> None:
        gateway = Gateway(mirror_timeout_ms=500)
        async with faults.backend(again(act)) as shadow, before(tmp_path, shadow.url, gateway=gateway) as t:
            assert [await t.saw(b"x") for _ in range(3)] == ["200 ok"] * 3
            await t.idle()
            assert t.logged() == [("call", 200, None, 0)] * 3
            assert shadows(t) == [expected] * 3
            assert "mirror_drops" not in {key[0] for key in t.stage.counted()}

    play(main())


def test_f14_a_shadow_that_is_down_costs_a_row_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with before(tmp_path, nowhere()) as t:
            assert [await t.saw(b"x") for _ in range(3)] == ["200 ok"] * 3
            await t.idle()
            assert shadows(t) == [(None, "refused")] * 3

    play(main())


def test_f14_a_shadow_that_hangs_is_capped_and_its_copies_do_not_wait(tmp_path: Path) -> None:
    async def main() -> None:
        hang = Muster()
        async with faults.backend(again(hang)) as shadow:
            settings = {"timeout_ms": 10_000, "max_concurrency": 2}
            async with before(tmp_path, shadow.url, gateway=Gateway(mirror_max_body_bytes=1000), **settings) as t:
                assert [await t.saw(b"x") for _ in range(10)] == ["200 ok"] * 10
                assert await t.saw(b"x" * 1001) == "200 ok"
                await t.stage.eventually(lambda: hang.present == 2)
                assert t.stage.busy() == {"calls to s+": 4, "copies": 2, "pending": 2}  # the calls, and its replica's
                hang.over.set()
                await t.idle()
                assert Counter(shadows(t)) == {(None, "overloaded"): 8, (None, "dropped"): 1, (200, None): 2}
                assert t.stage.counted() == {("mirror_drops", "a", "s", "body_too_large"): 1}

    play(main())


def test_f14_copies_beyond_the_cap_are_dropped_and_counted_while_all_clients_are_answered(tmp_path: Path) -> None:
    async def main() -> None:
        hang, gateway = Muster(), Gateway(mirror_max_concurrency=4)
        async with (
            faults.backend(again(hang)) as shadow,
            before(tmp_path, shadow.url, gateway=gateway, timeout_ms=10_000) as t,
        ):
            assert [await t.saw(b"x") for _ in range(20)] == ["200 ok"] * 20
            await t.stage.eventually(lambda: hang.present == 4)
            hang.over.set()
            await t.idle()
            assert Counter(shadows(t)) == {(None, "dropped"): 16, (200, None): 4}
            assert t.stage.counted() == {("mirror_drops", "a", "s", "full"): 16}

    play(main())


@pytest.mark.parametrize("streamed", [False, True])
def test_f15_with_a_shadow_and_a_repeat_the_variant_gets_the_bytes_it_would_get_without(
    tmp_path: Path, streamed: bool
) -> None:
    """A refused replica makes the call go out again, while a copy takes the same body."""
    body = bytes(range(256)) * 1_200

    async def sent(shadow: str | None) -> list[tuple[bytes, bytes]]:
        cast = () if shadow is None else (backend("s", shadow),)
        settings: dict[str, Any] = {"route": MIRRORED} if shadow else {}
        async with troubled(tmp_path, cast=cast, nowhere=1, **settings) as t:
            told = [saw(await (ask_in_pieces(t, body) if streamed else t.ask(body))) for _ in range(12)]
            assert told == ["200 ok"] * 12
            retries = sum(row[3] for row in t.logged())
            assert t.stage.counted().get(("retries", "a", "refused"), 0) == retries
            assert retries
            return [(request.head, request.body) for request in t.seen]

    async def main() -> None:
        async with faults.backend(again(sends(OK))) as shadow:
            with_shadow = await sent(shadow.url)
            copies = [request.body for request in shadow.requests]
        assert with_shadow == await sent(None)
        assert {received for _, received in with_shadow} == {body}
        assert copies[:12] == [body] * 12

    play(main())


async def ask_in_pieces(t: Trouble, body: bytes) -> Got:
    """Send a body in chunks, with pauses in which the worker handles what it has."""
    reader, writer = await t.stage.send("/a", headers={"transfer-encoding": "chunked", "content-length": ""})
    third = len(body) // 3
    for at in range(0, len(body), third):
        piece = body[at : at + third]
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
        await asyncio.sleep(0.005)
    writer.write(b"0\r\n\r\n")
    got = await read_answer(reader)
    writer.close()
    return got
