"""A worker in front of replicas in trouble: requests are answered in turn as a test says; after that all is well.

Rule: when a test is done, its pool is whole: nothing is under way in the worker, ``PLACES`` requests at once are all
with the backend, one more waits for a place, and all of them are answered. Every test that uses ``troubled`` asserts it
by leaving it.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router.snapshot import Gateway
from tests.gateway.proxy import builders, faults
from tests.gateway.proxy.faults import OK, Received, Wire
from tests.gateway.proxy.stage import Got, Stage, staged

#: What may be under way at once at the backend, unless a test says otherwise.
PLACES = 3

#: How one request is met.
Act = Callable[[Wire], Awaitable[None]]

#: Heads of answers, with nothing of their bodies. One of the long kind is passed on as it comes.
SHORT = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
ERROR = b"HTTP/1.1 500 Oh\r\ncontent-length: 3\r\n\r\nbad"


async def well(wire: Wire) -> None:
    await wire.send(OK)


def sends(*pieces: bytes) -> Act:
    """Answer with these bytes."""

    async def act(wire: Wire) -> None:
        await wire.send(*pieces)

    return act


def late(seconds: float, *pieces: bytes) -> Act:
    """Latency: the same after a while."""

    async def act(wire: Wire) -> None:
        await asyncio.sleep(seconds)
        await wire.send(*pieces)

    return act


def closes(*pieces: bytes, after_seconds: float = 0.0) -> Act:
    """Truncation, or slow close: send this much, wait, end the connection in good order."""

    async def act(wire: Wire) -> None:
        await wire.send(*pieces)
        await asyncio.sleep(after_seconds)
        wire.close()

    return act


def resets(*pieces: bytes) -> Act:
    """Send this much, then break the connection."""

    async def act(wire: Wire) -> None:
        await wire.send(*pieces)
        await asyncio.sleep(0.02)  # a reset overtakes what was not read yet
        wire.reset()

    return act


def stalls(*pieces: bytes) -> Act:
    """Send this much, and no more until the other side has closed."""

    async def act(wire: Wire) -> None:
        await wire.send(*pieces)
        await wire.gone()

    return act


def slices(data: bytes) -> Act:
    """Answer byte by byte."""

    async def act(wire: Wire) -> None:
        await wire.slice(data)

    return act


def drips(head: bytes, piece: bytes) -> Act:
    """Send a head and then a piece every ten milliseconds, as long as the other side is there."""

    async def act(wire: Wire) -> None:
        await wire.send(head)
        while not wire.ended:
            await wire.send(piece)
            await asyncio.sleep(0.01)

    return act


class Muster:
    """Requests that are held until they are let go; ``present`` counts those at the backend."""

    def __init__(self) -> None:
        self.present = 0
        self.over = asyncio.Event()

    async def __call__(self, wire: Wire) -> None:
        self.present += 1
        await self.over.wait()
        await wire.send(OK)


@dataclass
class Trouble:
    """A worker, the backend "a" of its route, and how that meets its requests: ``acts`` in turn, and then ``usual``."""

    stage: Stage
    replicas: tuple[faults.Backend, ...]
    acts: list[Act]
    places: int
    usual: Act = well
    cures: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    @property
    def seen(self) -> list[Received]:
        """The whole requests that reached the backend, replica by replica."""
        return [request for replica in self.replicas for request in replica.requests]

    @property
    def open(self) -> int:
        """How many connections the backend has open."""
        return sum(replica.open for replica in self.replicas)

    async def ask(self, body: object = b"", *, target: str = "/a", method: str = "POST", **headers: str) -> Got:
        return await self.stage.ask(target, body, method=method, headers=headers)

    async def saw(self, body: object = b"", *, method: str = "POST") -> str:
        """Ask, and return what the client saw."""
        return saw(await self.ask(body, method=method))

    def logged(self, *lines: str) -> list[tuple[str, int | None, str | None, int]]:
        """Return of each primary row: its line, status, fault and retries."""
        rows = [row for row in self.stage.rows(*lines) if row["role"] == "primary"]
        return [(row["line"], row.get("status"), row.get("fault"), row.get("retries", 0)) for row in rows]

    async def idle(self) -> None:
        """Wait until nothing is under way in the worker."""
        try:
            await self.stage.eventually(lambda: not self.stage.busy())
        except TimeoutError:
            assert not self.stage.busy()

    async def whole(self) -> None:
        """Check that every place of the pool is free, that there is no further one, and that the next requests work."""
        await self.idle()
        for cure in self.cures:
            await cure()
        upstream = self.stage.upstreams()["a"]
        self.acts.clear()
        self.usual = muster = Muster()
        asking = [asyncio.create_task(self.ask(b"after")) for _ in range(self.places + 1)]
        await self.stage.eventually(lambda: muster.present == self.places and len(upstream.waiting) == 1)
        assert upstream.in_flight == self.places
        muster.over.set()
        assert [saw(await got) for got in asking] == ["200 ok"] * (self.places + 1)
        await self.idle()
        await self.stage.eventually(lambda: self.open == sum(len(replica.links) for replica in upstream.replicas))
        assert self.open <= self.places
        one_row_each(self.stage)

    async def meet(self, wire: Wire) -> None:
        """The script of every replica."""
        while await wire.request() is not None:
            await (self.acts.pop(0) if self.acts else self.usual)(wire)


@asynccontextmanager
async def troubled(
    directory: Path,
    *acts: Act,
    replicas: int = 1,
    nowhere: int = 0,
    deaf: bool = False,
    cast: tuple[Any, ...] = (),
    route: dict[str, Any] | None = None,
    gateway: Gateway | None = None,
    **settings: Any,
) -> AsyncIterator[Trouble]:
    """Run a worker before this many replicas that answer, and urls without a listener.

    ``settings`` are the backend's, ``route`` those of its route, ``cast`` further backends and routes. A ``deaf``
    backend does not answer who connects, until it is cured at the end.
    """
    settings = {"max_concurrency": PLACES, "eject_after": 0, **settings}
    async with AsyncExitStack() as stack:
        script: list[Callable[[Wire], Awaitable[None]]] = []

        async def meet(wire: Wire) -> None:
            await script[0](wire)

        if deaf:
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            others = _crowd(sock)
            running: tuple[faults.Backend, ...] = ()
            urls = [f"http://127.0.0.1:{sock.getsockname()[1]}"]
        else:
            running = tuple([await stack.enter_async_context(faults.backend(meet)) for _ in range(replicas)])
            urls = [replica.url for replica in running]
        urls += [faults.nowhere() for _ in range(nowhere)]
        parts = (
            gateway or Gateway(),
            builders.backend("a", *urls, **settings),
            builders.route("a", **{"plan": builders.only("a"), **(route or {})}),
            *cast,
        )
        # A folder of its own: a test may run one worker after another.
        folder = Path(tempfile.mkdtemp(dir=directory))
        stage = await stack.enter_async_context(staged(folder, builders.snapshot(*parts)))
        trouble = Trouble(stage, running, list(acts), settings["max_concurrency"])
        script.append(trouble.meet)
        if deaf:

            async def cure() -> None:
                for other in others:
                    other.close()
                trouble.replicas = (await stack.enter_async_context(faults.backend(meet, sock=sock)),)
                await stage.eventually(lambda: not trouble.open)

            trouble.cures.append(cure)
        yield trouble
        await trouble.whole()


def _crowd(sock: socket.socket) -> list[socket.socket]:
    """Fill the backlog of a listener that accepts no connection: the kernel does not answer the next one."""
    others = []
    for _ in range(4):
        other = socket.socket()
        other.setblocking(False)
        other.connect_ex(sock.getsockname())
        others.append(other)
    return others


def saw(got: Got) -> str:
    """Return what a client saw: its status, the fault that was named or the body, and whether that broke off."""
    if got.headers.get("content-type") == "application/problem+json":
        return f"{got.status} {got.json.get('fault')}"
    return f"{got.status} {got.body.decode()}{'' if got.whole else ' (cut)'}"


def one_row_each(stage: Stage) -> None:
    """Check that no request has two primary rows, and that every stream that was opened was closed."""
    lines: dict[str, list[str]] = {}
    for row in stage.rows():
        if row["role"] == "primary":
            lines.setdefault(row["id"], []).append(row["line"])
    assert {tuple(found) for found in lines.values()} <= {("call",), ("open", "close")}
