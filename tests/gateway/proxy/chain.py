"""A raw client, a worker and a backend that records: the whole path of a request, byte for byte at both ends."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.snapshot import Gateway
from tests.gateway.proxy import builders, faults
from tests.gateway.proxy.faults import Received, Script, polite
from tests.gateway.proxy.payloads import PAYLOADS, Payload
from tests.gateway.proxy.raw import Client
from tests.gateway.proxy.stage import Stage, play, staged


@dataclass
class Chain:
    """The worker and the one backend behind it, which answers every path."""

    stage: Stage
    backend: faults.Backend

    @property
    def seen(self) -> list[Received]:
        """The whole requests that the backend got, in order."""
        return self.backend.requests

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.stage.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()

    async def ask(self, *pieces: bytes) -> bytes:
        """Send on a connection of its own, and read to the end."""
        async with self.client() as client:
            return await client.ask(*pieces)

    async def get(self, *fields: bytes, method: bytes = b"GET", target: bytes = b"/x") -> bytes:
        """Ask without a body on a connection of its own, and read to the end."""
        return await self.ask(b"\r\n".join((method + b" " + target + b" HTTP/1.1", b"Host: a", *fields, CLOSE)))


CLOSE = b"Connection: close\r\n\r\n"


@asynccontextmanager
async def chain(
    directory: Path,
    script: Script = polite,
    *,
    gateway: Gateway | None = None,
    backend: faults.Backend | None = None,
    **settings: Any,
) -> AsyncIterator[Chain]:
    """Run a worker in front of a backend with this script, or of one that runs; ``settings`` are the backend's."""
    if backend is None:
        async with (
            faults.backend(script) as running,
            chain(directory, gateway=gateway, backend=running, **settings) as c,
        ):
            yield c
        return
    cast = builders.snapshot(
        gateway or Gateway(),
        builders.backend("b", backend.url, **settings),
        builders.route("all", builders.only("b"), path="/*"),
    )
    # A folder of its own: a test may run one chain after another.
    async with staged(Path(tempfile.mkdtemp(dir=directory)), cast) as stage:
        yield Chain(stage, backend)


def hold(directory: Path, duty: int) -> None:
    """Send every payload of a duty through a worker, whole and cut in two, and check what comes of it."""

    async def main() -> None:
        async with chain(directory) as c:
            for payload in (payload for payload in PAYLOADS if payload.duty == duty):
                await _send(c, payload, payload.raw)
                middle = len(payload.raw) // 2
                await _send(c, payload, payload.raw[:middle], payload.raw[middle:])

    play(main())


async def _send(c: Chain, payload: Payload, *pieces: bytes) -> None:
    c.seen.clear()
    answers = (await c.ask(*pieces)).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    what = f"{payload.name}: {payload.raw[:300]!r}"
    assert statuses(answers) == payload.statuses, what
    assert tuple(request.line for request in c.seen) == payload.seen, what
    assert tuple(request.body for request in c.seen) == (payload.bodies or (b"",) * len(payload.seen)), what
    if payload.statuses[0] >= 400:
        assert values(answers, b"content-type") == [b"application/problem+json"], what
        assert values(answers, b"connection") == [b"close"], what


def statuses(answers: bytes) -> tuple[int, ...]:
    """Return the status of every answer among these bytes. Bodies must hold no status lines."""
    return tuple(int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers))


def parted(answer: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return an answer's status line, its other lines, and what follows its head."""
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    return line, fields, body


def values(answer: bytes, name: bytes) -> list[bytes]:
    """Return the values of a field of an answer, in order."""
    pairs = (line.partition(b":") for line in parted(answer)[1])
    return [value.strip() for key, _, value in pairs if key.lower() == name]
