"""A worker in this process, on a real socket, between real backends and a client: the stage that tests play on.

Rule: nothing is faked. The worker reads a snapshot file and writes a journal; tests look at what it answered, at what
the backends saw, and at the lines in the journal.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import uvloop

from gateway.files.published import SNAPSHOT, publish
from gateway.journal.segments import FEEDBACK, JOURNAL, PREDICTIONS
from gateway.proxy.client.upstream import Upstream
from gateway.proxy.worker import METRICS, Post, Worker
from router.snapshot import Snapshot
from tests.gateway.journals import texts

RUN = "000000000001"


def play(main: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine as a worker runs: on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main, 30))


@dataclass
class Asked:
    """A request as a backend or a client's peer saw it; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self, body: object = b"", *, status: int = 200, **headers: str) -> None:
        """Answer whole; what is not bytes goes out as JSON. ``x_a="1"`` is sent as ``x-a: 1``, an empty one is not."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        await self.writer.drain()

    async def start(self, **headers: str) -> None:
        """Begin an answer whose length is not known: chunked."""
        lines = ["HTTP/1.1 200 OK", "transfer-encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def gone(self) -> None:
        """Return when the other side has closed the connection."""
        while await self.reader.read(1024):
            pass


Behaviour = Callable[[Asked], Awaitable[None]]


class Model:
    """A model server on a port of its own, whose behaviour a test chooses."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked: list[Asked] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (asked := await read_request(reader, writer)) is not None:
                self.asked.append(asked)
                await self.behave(asked)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked | None:
    """Return the next request, or None when the connection ends."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = b""
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif "chunked" in headers.get("transfer-encoding", ""):
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    return Asked(method, target, headers, body, reader, writer)


@dataclass
class Got:
    """An answer as a client read it. ``whole`` is False when the connection broke before the end."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["turnout-prediction-id"]


@dataclass
class Stage:
    """One worker under test: its directory, its port, what makes it stop, and itself, where it is of this process."""

    directory: Path
    port: int
    worker: Worker | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    counters: dict[tuple[str, ...], int] = field(default_factory=dict)

    async def ask(
        self, target: str, body: object = b"", *, method: str = "POST", headers: dict[str, str] | None = None
    ) -> Got:
        """Send one request on a connection of its own and return the answer."""
        reader, writer = await self.send(
            target, body, method=method, headers={"connection": "close", **(headers or {})}
        )
        try:
            return await read_answer(reader)
        finally:
            writer.close()

    async def send(
        self, target: str, body: object = b"", *, method: str = "POST", headers: dict[str, str] | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send one request and return the open connection."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        given = {"host": "models.example", "content-length": str(len(content)), **(headers or {})}
        if given["content-length"] == "":
            del given["content-length"]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + content)
        await writer.drain()
        return reader, writer

    def lines(self, kind: str = PREDICTIONS) -> list[dict[str, Any]]:
        """Every line in the journal, heartbeats left out."""
        found = map(orjson.loads, texts(self.directory / JOURNAL / kind))
        return [line for line in found if line["line"] != "beat"]

    def rows(self, *lines: str) -> list[dict[str, Any]]:
        """The rows of calls, of these kinds of lines only ("call", "close", "open"); else of all three."""
        return [line for line in self.lines() if line["line"] in (lines or ("call", "open", "close"))]

    def beats(self) -> list[int]:
        """The watermarks, in order."""
        found = map(orjson.loads, texts(self.directory / JOURNAL / PREDICTIONS))
        return [line["at_ms"] for line in found if line["line"] == "beat"]

    def feedback(self) -> list[dict[str, Any]]:
        return self.lines(FEEDBACK)

    def counted(self) -> dict[tuple[str, ...], float]:
        """The counters as they are now, by (name, label values…)."""
        assert self.worker is not None
        return {(name, *labels.values()): number for name, labels, number in self.worker._counts.samples()}

    def upstreams(self) -> dict[str, Upstream]:
        """The client side of every backend by its variant's name; that of its copies by the name with a ``+``."""
        assert self.worker is not None
        current = self.worker._backends.current
        answering = {name: current.answering(name) for name in current.backends}
        return answering | {f"{name}+": current.mirroring(name) for name in current.backends}

    def busy(self) -> dict[str, int]:
        """What is under way in the worker, by what it is; nothing, when it is idle."""
        worker = self.worker
        assert worker is not None
        numbers = {
            "connections": worker._edge.connections,
            "handlers": len(worker._edge.fibers),
            "copies": len(worker._mirrors),
            "pending": len(worker._log.pending),
            "requests": sum(worker._exchange.in_flight.values()),
            "admitted": worker._admission.in_flight,
        }
        for name, upstream in self.upstreams().items():
            numbers[f"calls to {name}"] = upstream.in_flight + sum(r.in_flight for r in upstream.replicas)
            numbers[f"waiting for {name}"] = len(upstream.waiting)
            numbers[f"repeats to {name}"] = upstream._retrying
        return {name: number for name, number in numbers.items() if number}

    async def eventually(self, ask: Callable[[], object], *, seconds: float = 5.0) -> None:
        """Wait until ``ask`` says something true."""
        async with asyncio.timeout(seconds):
            while not ask():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def staged(directory: Path, snapshot: Snapshot) -> AsyncIterator[Stage]:
    """Run a worker by this snapshot; when it has ended, ``counters`` holds its last ones by (name, label values…)."""
    publish(directory / SNAPSHOT, snapshot)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as metrics, socket.create_server(("127.0.0.1", 0)) as sock:
        metrics.bind(str(directory / METRICS))
        metrics.setblocking(False)
        worker = Worker(Post(directory, RUN, 0))
        stage = Stage(directory, sock.getsockname()[1], worker)
        serving = asyncio.create_task(worker.serve(sock.dup(), stage.stop))
        try:
            yield stage
        finally:
            stage.stop.set()
            await serving
            while True:
                try:
                    datagram = orjson.loads(metrics.recv(65536))
                except BlockingIOError:
                    break
                stage.counters = {(name, *labels.values()): n for name, labels, n in datagram["counters"]}


async def read_answer(reader: asyncio.StreamReader) -> Got:
    """Read one answer to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body, whole = b"", True
    try:
        if "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        elif "chunked" in headers.get("transfer-encoding", ""):
            while size := int(await reader.readline() or b"x", 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.read()
    except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
        body += getattr(error, "partial", b"")
        whole = False
    return Got(int(first.split(" ")[1]), headers, body, whole)
