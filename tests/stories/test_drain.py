"""The end of serving, and of one worker: accepted requests are answered, and other workers' clients notice nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.stories.backends import Asked, Backend
from tests.stories.harness import Turnout, eventually

pytestmark = pytest.mark.story

CONFIG = """
[backends.one]
url = "{url}"
version = "1"
[routes.answer]
path = "/answer"
policy = {{ kind = "single", variant = "one" }}
"""

HEAD = b"POST /answer%b HTTP/1.1\r\nhost: models.example\r\ncontent-length: 2\r\n\r\n{}"


@dataclass
class Caller:
    """One client that asks again and again, on one connection as long as that lasts, until ``over`` or refused."""

    port: int
    query: bytes = b""
    pause: float = 0.002
    over: bool = False
    local_port: int = 0
    connected: float = 0.0
    ids: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    #: When a request in flight broke, and when its connection had been made.
    broken: list[tuple[float, float]] = field(default_factory=list)
    refused: bool = False
    asking: bool = False

    async def run(self) -> None:
        while not self.over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.refused = True
                return
            self.connected = time.time()
            self.local_port = writer.get_extra_info("sockname")[1]
            try:
                while not self.over and await self._ask(reader, writer):
                    await asyncio.sleep(self.pause)
            except (OSError, asyncio.IncompleteReadError):
                self.broken.append((time.time(), self.connected))
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send one request; return whether the connection stays open."""
        if reader.at_eof():
            return False  # closed between two requests, as a server may
        self.asking = True
        writer.write(HEAD % self.query)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        await reader.readexactly(int(fields["content-length"]))
        self.asking = False
        self.statuses[int(head.split(" ")[1])] += 1
        if "turnout-prediction-id" in fields:
            self.ids.append(fields["turnout-prediction-id"])
        return fields.get("connection") != "close"


async def answer(asked: Asked) -> Any:
    await asyncio.sleep(1.5 if asked.target.endswith("long") else 0.02)
    return {"p": 7}


async def readiness(port: int, found: list[int | None]) -> None:
    """Ask whether it is ready, on a new connection each time as a balancer does, until it is refused."""
    while None not in found:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            found.append(None)
            return
        with suppress(OSError, IndexError):
            writer.write(b"GET /-/readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            found.append(int((await reader.read()).split(b" ")[1]))
        writer.close()
        await asyncio.sleep(0.01)


async def soon(ask: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not ask():
            await asyncio.sleep(0.02)


def test_a_stop_under_load_breaks_no_request_that_was_taken_and_every_answer_has_its_row(tmp_path: Path) -> None:
    async def main(program: Turnout) -> list[Caller]:
        port = program.traffic.base_url.port or 0
        callers = [Caller(port) for _ in range(24)] + [Caller(port, b"?long") for _ in range(6)]
        running = [asyncio.create_task(caller.run()) for caller in callers]
        await soon(lambda: all(caller.statuses or caller.asking for caller in callers))
        await asyncio.sleep(0.3)
        ready: list[int | None] = []
        watching = asyncio.create_task(readiness(port, ready))
        await soon(lambda: ready)
        asked = time.time()
        assert await asyncio.to_thread(program.stop) == 0
        await asyncio.wait(running, timeout=10)
        await watching
        assert all(caller.refused for caller in callers)
        assert {status for caller in callers for status in caller.statuses} == {200}
        broken = [then - asked for caller in callers for then, connected in caller.broken if connected < asked]
        assert broken == [], "requests broke on connections from before"
        # Readiness fails first: a balancer sees it while requests are still accepted.
        assert (ready[0], ready[-1]) == (200, None)
        assert 503 in ready
        return callers

    with Backend(answer) as backend:
        with Turnout(tmp_path, CONFIG.format(url=backend.url), gateway="workers = 2") as program:
            callers = asyncio.run(main(program))
        received = [prediction for caller in callers for prediction in caller.ids]
        assert sum(caller.statuses[200] for caller in callers if caller.query) >= 6
        assert len(received) == len(set(received)) > 100
        stored = Counter(row["id"] for row in program.rows("SELECT id FROM predictions"))
        assert {prediction: stored[prediction] for prediction in received if stored[prediction] != 1} == {}


def test_a_stream_that_does_not_end_is_ended_at_the_deadline_and_the_exit_is_clean(tmp_path: Path) -> None:
    async def endless(asked: Asked) -> Any:
        async def parts() -> AsyncIterator[bytes]:
            while True:
                yield b"data: tick\n\n"
                await asyncio.sleep(0.02)

        return parts()

    async def main(program: Turnout) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", program.traffic.base_url.port)
        writer.write(HEAD % b"")
        head = await reader.readuntil(b"\r\n\r\n")
        stopping = asyncio.create_task(asyncio.to_thread(program.stop))
        body = b""
        with suppress(ConnectionError):
            while piece := await asyncio.wait_for(reader.read(65_536), 10):
                body += piece
        writer.close()
        assert await stopping == 0
        assert body.count(b"tick") > 10
        assert not body.endswith(b"0\r\n\r\n"), "a stream that was cut looks whole"
        return head

    with Backend(endless) as backend:
        gateway = "drain_timeout_ms = 1000"
        with Turnout(tmp_path, CONFIG.format(url=backend.url), gateway=gateway) as program:
            head = asyncio.run(main(program))
        (row,) = program.rows("SELECT id, fault FROM predictions")
        assert row["id"].encode() in head
        assert row["fault"] == "client_gone"


def owners(pids: list[int], port: int) -> dict[int, int]:
    """Return which process holds the other end of each connection to ``port``, by the client's port."""
    inodes: dict[str, int] = {}
    for pid in pids:
        for descriptor in (Path("/proc") / str(pid) / "fd").iterdir():
            with suppress(OSError):
                inodes[os.readlink(descriptor)] = pid
    found: dict[int, int] = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_, inode = line.split()[:10]
        pid_of = inodes.get(f"socket:[{inode}]")
        if pid_of is not None and int(local.rpartition(":")[2], 16) == port:
            found[int(remote.rpartition(":")[2], 16)] = pid_of
    return found


def test_a_worker_that_is_killed_takes_its_own_connections_and_no_others_and_is_replaced(tmp_path: Path) -> None:
    async def main(program: Turnout) -> list[Caller]:
        port = program.traffic.base_url.port or 0
        callers: list[Caller] = []
        running: list[asyncio.Task[None]] = []
        mine: dict[int, int] = {}
        workers = program.workers
        # The kernel chooses the worker that accepts: open enough connections that each worker has some.
        while min(Counter(dict.fromkeys(workers, 0) | Counter(mine.values())).values()) < 4:
            assert len(callers) < 400
            callers += (more := [Caller(port) for _ in range(8)])
            running += [asyncio.create_task(caller.run()) for caller in more]
            await soon(lambda: all(caller.statuses for caller in more))
            found = owners(workers, port)
            mine = {at: found[caller.local_port] for at, caller in enumerate(callers)}
        victim, other = workers
        answered = [sum(caller.statuses.values()) for caller in callers]
        await asyncio.sleep(0.1)  # reading /proc blocked this loop: some answers have arrived and are not read yet
        await soon(lambda: sum(caller.asking for at, caller in enumerate(callers) if mine[at] == victim) > 2)
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(
            eventually, lambda: len(set(program.workers) - {victim}) == 2, "a new worker is started"
        )
        await soon(lambda: all(sum(c.statuses.values()) > n + 5 for c, n in zip(callers, answered, strict=True)))
        for caller in callers:
            caller.over = True
        await asyncio.wait(running, timeout=10)
        assert other in program.workers
        assert {status for caller in callers for status in caller.statuses} == {200}
        broken = {at for at, caller in enumerate(callers) if caller.broken}
        assert broken, "nothing was under way in the worker that was killed"
        assert {mine[at] for at in broken} == {victim}
        return callers

    with (
        Backend(answer) as backend,
        Turnout(tmp_path, CONFIG.format(url=backend.url), gateway="workers = 2") as program,
    ):
        asyncio.run(main(program))
        assert program.stop() == 0
