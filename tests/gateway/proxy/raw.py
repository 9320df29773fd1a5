"""An edge on a real socket, and a client that sends bytes to it and reads bytes from it."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop

from gateway.proxy.server.edge import Edge, Handler
from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from router.snapshot import Gateway


def play(main: Coroutine[Any, Any, None]) -> None:
    """Run a test on uvloop, as the product runs, for at most 20 seconds."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main, 20))


@dataclass
class Seen:
    """A handler that remembers every request and its body, and answers 200 "ok"."""

    requests: list[Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, request: Request, response: Response) -> None:
        self.requests.append(request)
        self.bodies.append(await request.body())
        response.send(200, [], b"ok")


@dataclass
class Client:
    """One raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, each in a packet of its own as far as one can tell."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.002 if len(pieces) > 1 else 0)

    async def answer(self) -> bytes:
        """Read one answer with a declared length, whole."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length: "):
                return head + await self.reader.readexactly(int(line[16:]))
        return head

    async def rest(self) -> bytes:
        """Read to the end; a reset ends it too."""
        pieces = []
        try:
            while piece := await self.reader.read(65_536):
                pieces.append(piece)
        except ConnectionResetError:
            pieces.append(b"<reset>")
        return b"".join(pieces)

    async def ask(self, *pieces: bytes) -> bytes:
        """Send, and read to the end."""
        await self.send(*pieces)
        return await self.rest()


@dataclass
class Served:
    """An edge that is served."""

    edge: Edge
    port: int
    tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        name = None if self.tls is None else "localhost"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname=name)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()

    async def ask(self, *pieces: bytes) -> bytes:
        """Send on a connection of its own, and read to the end."""
        async with self.client() as client:
            return await client.ask(*pieces)


@asynccontextmanager
async def served(
    handler: Handler,
    *,
    server_tls: ssl.SSLContext | None = None,
    client_tls: ssl.SSLContext | None = None,
    **limits: int,
) -> AsyncIterator[Served]:
    """Serve a handler; ``limits`` are settings of the gateway."""
    edge = Edge(handler, Gateway(**limits), ssl=server_tls)  # type: ignore[arg-type]
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await edge.start(sock)
    try:
        yield Served(edge, port, client_tls)
    finally:
        await edge.drain(0.2)


async def until(claim: Callable[[], object], *, seconds: float = 5.0) -> None:
    """Wait until the claim is true."""
    async with asyncio.timeout(seconds):
        while not claim():
            await asyncio.sleep(0.005)


def status(answer: bytes) -> int:
    """Return the status of the first answer among these bytes, 0 if there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def heads(answers: bytes) -> int:
    """Return how many answers begin in these bytes."""
    return len(re.findall(rb"HTTP/1\.1 \d{3} ", answers))
