"""A body that is still arriving is teed: the primary gets each piece as it comes, whatever a mirror does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.proxy.worker import now_ms
from policies.plans import Mirror, Weighted
from router.snapshot import Gateway
from tests.gateway.proxy.builders import backend, route, snapshot
from tests.gateway.proxy.exchange.test_mirrors import eight, shadows, silent
from tests.gateway.proxy.stage import Asked, Behaviour, Model, Stage, play, staged

#: The first piece is as long as what a call begins with.
PIECES = (b"a" * 65_600, b"b" * 800, b"c" * 900)
CHUNKED = {"transfer-encoding": "chunked", "content-length": ""}


class Pieces:
    """A model that records the pieces of a body as they come, and answers when the body is whole."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.whole = False
        self.marked = False
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Pieces]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            self.marked = b"turnout-mirror" in head
            if b"transfer-encoding: chunked" in head:
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    self.received += (await reader.readexactly(size + 2))[:-2]
                await reader.readline()
            else:
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                while len(self.received) < length:
                    self.received += await reader.readexactly(min(100, length - len(self.received)))
            self.whole = True
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n" + b'{"p":7}')
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass
        finally:
            writer.close()


def cast(one: Pieces, mirror_url: str, **settings: Any) -> tuple[Any, ...]:
    plan = Weighted((("a", 1.0),), mirrors=(Mirror("b", 1.0),))
    a, b = backend("a", f"http://127.0.0.1:{one.port}"), backend("b", mirror_url, **settings)
    return a, b, route("r", plan, prediction="/p")


@asynccontextmanager
async def mirrored(
    tmp_path: Path, behave: Behaviour, *gateway: Gateway, **settings: Any
) -> AsyncIterator[tuple[Pieces, Model, Stage]]:
    async with (
        Pieces().serving() as one,
        Model(behave) as two,
        staged(tmp_path, snapshot(*gateway, *cast(one, two.url, **settings))) as stage,
    ):
        yield one, two, stage


async def upload(stage: Stage, one: Pieces, *, chunked: bool) -> bytes:
    """Send the pieces, each only once the primary has the one before; return the answer."""
    size = sum(map(len, PIECES))
    reader, writer = await stage.send("/r", headers=CHUNKED if chunked else {"content-length": str(size)})
    sent = 0
    for piece in PIECES:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        sent += len(piece)
        await stage.eventually(lambda: len(one.received) == sent)  # noqa: B023
    if chunked:
        assert not one.whole
        writer.write(b"0\r\n\r\n")
    answer = await asyncio.wait_for(reader.readuntil(b'{"p":7}'), 5)
    writer.close()
    return answer


@pytest.mark.parametrize("chunked", [False, True])
def test_the_primary_has_each_piece_before_the_client_sends_the_next(tmp_path: Path, chunked: bool) -> None:
    """A long upload, or one that never ends, must not wait for a mirror."""

    async def main() -> None:
        async with mirrored(tmp_path, eight) as (one, two, stage):
            assert b" 200 " in await upload(stage, one, chunked=chunked)
            await stage.eventually(lambda: len(stage.rows()) == 2)
        assert bytes(one.received) == two.asked[0].body == b"".join(PIECES)
        assert not one.marked
        assert two.asked[0].headers["turnout-mirror"] == "1"
        assert two.asked[0].headers["content-length"] == str(len(one.received))
        assert shadows(stage)[0]["prediction"] == 8

    play(main())


async def dead(asked: Asked) -> None:
    asked.writer.transport.abort()


async def unread(asked: Asked) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("behave", [silent, dead, unread])
def test_a_mirror_that_hangs_or_dies_changes_nothing_of_an_upload(tmp_path: Path, behave: Behaviour) -> None:
    async def main() -> None:
        async with mirrored(tmp_path, behave, Gateway(mirror_timeout_ms=200)) as (one, _, stage):
            assert b" 200 " in await upload(stage, one, chunked=True)
            assert bytes(one.received) == b"".join(PIECES)
            await stage.eventually(lambda: shadows(stage))
        assert shadows(stage)[0]["fault"] in ("timeout", "reset")

    play(main())


def test_nobody_at_the_mirrors_address_changes_nothing_of_an_upload(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Pieces().serving() as one,
            staged(tmp_path, snapshot(*cast(one, "http://127.0.0.1:1"))) as stage,
        ):
            assert b" 200 " in await upload(stage, one, chunked=False)
            await stage.eventually(lambda: shadows(stage))
        assert shadows(stage)[0]["fault"] == "refused"

    play(main())


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_longer_than_is_copied_passes_whole_and_its_copy_is_dropped(tmp_path: Path, chunked: bool) -> None:
    async def main() -> None:
        async with mirrored(tmp_path, eight, Gateway(mirror_max_body_bytes=1000)) as (one, two, stage):
            assert b" 200 " in await upload(stage, one, chunked=chunked)
        assert bytes(one.received) == b"".join(PIECES)
        assert two.asked == []
        assert [row["fault"] for row in shadows(stage)] == ["dropped"]
        assert stage.counters == {("mirror_drops", "r", "b", "body_too_large"): 1}

    play(main())


def test_an_upload_that_the_client_gives_up_is_no_copy(tmp_path: Path) -> None:
    """Otherwise half a request would count against a variant that was never called."""

    async def main() -> None:
        async with mirrored(tmp_path, eight) as (one, two, stage):
            _, writer = await stage.send("/r", PIECES[0], headers={"content-length": "100000"})
            await stage.eventually(lambda: len(one.received) == len(PIECES[0]))
            writer.close()
            await stage.eventually(lambda: len(stage.rows()) == 2)
        assert two.asked == []
        assert sorted((row["role"], row["fault"]) for row in stage.rows()) == [
            ("primary", "client_gone"),
            ("shadow", "dropped"),
        ]
        assert stage.counters == {("mirror_drops", "r", "b", "body_cut"): 1}

    play(main())


def test_the_watermark_waits_for_a_copy_that_begins_after_its_primary_has_answered(tmp_path: Path) -> None:
    """Otherwise its row would be of a time for which windows have closed."""
    free = asyncio.Event()

    async def both_ways(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        await free.wait()
        while b"0\r\n\r\n" not in await reader.read(4096):
            pass
        writer.write(b"0\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(both_ways, "127.0.0.1", 0)
        one = Pieces()
        one.port = server.sockets[0].getsockname()[1]
        async with Model(eight) as two, staged(tmp_path, snapshot(*cast(one, two.url))) as stage:
            reader, writer = await stage.send("/r", b"%x\r\n" % len(PIECES[0]) + PIECES[0] + b"\r\n", headers=CHUNKED)
            await reader.readuntil(b"1\r\nx\r\n")
            answered = now_ms()
            await stage.eventually(lambda: [at for at in stage.beats() if at], seconds=3)
            beats = len(stage.beats())
            await stage.eventually(lambda: len(stage.beats()) > beats + 1, seconds=4)
            assert max(stage.beats()) <= answered
            free.set()
            writer.write(b"0\r\n\r\n")
            await reader.readuntil(b"0\r\n\r\n")
            await stage.eventually(lambda: shadows(stage))
            writer.close()
        assert two.asked[0].body == PIECES[0]
        server.close()

    play(main())
