"""A backend that does what a test says, byte for byte, and remembers what it was asked.

Rule: it speaks no HTTP of its own beyond finding where a request ends. One script runs for each connection; what the
script leaves unsaid does not happen.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.proxy.client.upstream import Upstream
from gateway.proxy.log.counters import Counts
from tests.gateway.proxy import builders
from tests.ports import free_port

HOST = [(b"Host", b"models.example")]
MEGABYTE = 2**20
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Received:
    """One request as it came: its head without the last empty line, and its body with the framing taken off."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        lines = self.head.split(b"\r\n")[1:]
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]


class Wire:
    """One connection to the backend, driven by the script."""

    def __init__(self, backend: Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._backend = backend
        self._reader = reader
        self._writer = writer

    @property
    def ended(self) -> bool:
        """True once the close of the connection was noticed."""
        return self._writer.is_closing() or self._reader.at_eof()

    async def head(self) -> bytes | None:
        """Return the next request's head, None when the other side has closed."""
        try:
            return (await self._reader.readuntil(b"\r\n\r\n"))[:-4]
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def request(self) -> Received | None:
        """Return the next request, None when the other side has closed within it or before."""
        head = await self.head()
        if head is None:
            return None
        request = Received(head, b"")
        try:
            if length := request.values(b"content-length"):
                request = Received(head, await self._reader.readexactly(int(length[0])))
            elif request.values(b"transfer-encoding") == [b"chunked"]:
                request = Received(head, b"".join([chunk async for chunk in self.chunks()]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self._backend.requests.append(request)
        return request

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the chunks of a request's body as they were sent; trailers are skipped."""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            pass

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, each in a packet of its own if the kernel allows it."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0.002 if len(pieces) > 1 else 0)

    async def slice(self, data: bytes, *, pause_seconds: float = 0.0) -> None:
        """Send byte by byte, each in a packet of its own if the kernel allows it."""
        for at in range(len(data)):
            self._writer.write(data[at : at + 1])
            await self._writer.drain()
            await asyncio.sleep(pause_seconds)

    def close(self) -> None:
        """End the connection in good order: what was sent arrives, and then the end."""
        self._writer.close()

    async def gone(self) -> None:
        """Return when the other side has closed, whatever it still sent."""
        try:
            while await self._reader.read(65_536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Break the connection: the other side gets a reset."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Wire], Awaitable[None]]


@dataclass
class Backend:
    """The backend, running. ``wires`` counts connections that were made, ``open`` those that are.

    Connections beyond ``limit`` are reset as soon as they are made.
    """

    port: int = 0
    limit: int = 2**16
    secure: bool = False
    socket: Path | None = None
    requests: list[Received] = field(default_factory=list)
    wires: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        if self.socket is not None:
            return f"unix:{self.socket}"
        # A name and not an address: what clients keep by host (cookies) they keep for names only.
        return f"{'https' if self.secure else 'http'}://localhost:{self.port}"


async def polite(wire: Wire) -> None:
    """Answer every request with 200 and "ok"."""
    while await wire.request() is not None:
        await wire.send(OK)


def says(*answers: bytes) -> Script:
    """Answer the requests of a connection with these bytes, one after the other, and close after the last."""

    async def script(wire: Wire) -> None:
        for answer in answers:
            if await wire.request() is None:
                return
            await wire.send(answer)

    return script


def stays(*answers: bytes) -> Script:
    """The same, but wait at the end until the other side closes."""

    async def script(wire: Wire) -> None:
        await says(*answers)(wire)
        await wire.gone()

    return script


@asynccontextmanager
async def backend(
    script: Script = polite,
    *,
    tls: ssl.SSLContext | None = None,
    path: Path | None = None,
    port: int = 0,
    sock: socket.socket | None = None,
) -> AsyncIterator[Backend]:
    """Run a backend on 127.0.0.1 and a port of its own (or this one), on the socket at ``path``, or on this one."""
    running = Backend(secure=tls is not None, socket=path)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.wires += 1
        running.open += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            wire = Wire(running, reader, writer)
            if running.open > running.limit:
                wire.reset()
            else:
                await script(wire)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except RuntimeError:
            if not writer.is_closing():  # else the client has left: so uvloop says it, once the transport is gone
                raise
        finally:
            running.open -= 1
            tasks.discard(task)
            writer.close()

    if sock is not None:
        server = await asyncio.start_server(serve, sock=sock)
        running.port = sock.getsockname()[1]
    elif path is None:
        server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=tls)
        running.port = server.sockets[0].getsockname()[1]
    else:
        server = await asyncio.start_unix_server(serve, path)
    try:
        yield running
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


def upstream(*backends: Backend | str, counts: Counts | None = None, **settings: object) -> Upstream:
    """Return the client side of these replicas, some of which may be urls without a listener."""
    urls = (b if isinstance(b, str) else b.url for b in backends)
    return Upstream(builders.backend("b", *urls, **settings), counts=counts)


def nowhere() -> str:
    """Return a url without a listener."""
    return f"http://127.0.0.1:{free_port()}"


async def get(up: Upstream, target: bytes = b"/", method: str = "GET", body: bytes = b"") -> bytes:
    """Call and return the whole body."""
    answer = await up.call(method, target, HOST, body)
    return await answer.read(MEGABYTE)
