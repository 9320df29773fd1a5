"""A worker: one process that carries traffic by the newest snapshot there is.

Rule: fail static. Once it serves, nothing but a signal stops it: without a controller, a store or a readable snapshot
it goes on with what it has. It reads ``snapshot.json``, appends to the journal, and sends its gauges once a second to
whoever listens; nothing here waits for anybody but clients and backends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import errno
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, Final

import orjson
import uvloop

from gateway.files import tls
from gateway.files.private import keep_private
from gateway.files.published import NEXT, SNAPSHOT, SnapshotFile
from gateway.files.secret import SecretMissing
from gateway.journal.appender import Appender
from gateway.journal.feedback_appender import FeedbackAppender
from gateway.journal.rolling import Rolling
from gateway.journal.segments import FEEDBACK, JOURNAL, PREDICTIONS, new_writer, next_writer, roll_bytes
from gateway.process import descriptors
from gateway.process.lifeline import watch_lifeline
from gateway.proxy.client.backends import Backends
from gateway.proxy.exchange.exchange import Exchange
from gateway.proxy.exchange.mirrors import Mirrors
from gateway.proxy.exchange.tracing import Tracing, exported
from gateway.proxy.feedback.feedback import OWN_PATHS, OwnPaths
from gateway.proxy.limits.admission import SAMPLE_SECONDS, Admission
from gateway.proxy.limits.newcomers import Newcomers
from gateway.proxy.log.counts import Counts
from gateway.proxy.log.predictions import Log, keep_synced
from gateway.proxy.server.edge import Edge
from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from gateway.proxy.wire.buffers import Buffers
from router.router import Router
from router.snapshot import Gateway, Snapshot

logger = logging.getLogger(__name__)

METRICS: Final = "metrics.sock"

#: Seconds between looks at the snapshot file.
_POLL_SECONDS: Final = 0.2
#: Seconds between heartbeats.
_BEAT_SECONDS: Final = 1.0
#: Seconds that mirrors get at least to finish when every client has its answer.
_MIRROR_DRAIN_SECONDS: Final = 1.0
#: What a datagram may hold, as far as the kernel allows: some hundred series for each of a hundred routes.
_DATAGRAM_BYTES: Final = 2**21
#: New objects that hold others, less those that are gone, between collections: a few megabytes at the most.
_COLLECTED_OBJECTS: Final = 10_000
#: Of mallopt(3): from which size on memory is the kernel's at once, and how much of what is free is kept at most.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_OWN_MAPPING_BYTES: Final = 2**22
_KEPT_BYTES: Final = 2**26
#: EX_CONFIG of sysexits.h: what is wrong is in the operator's files.
EXIT_CONFIG: Final = 78


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds."""
    return time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Post:
    """Where a worker stands: its data directory, the supervisor's run, and its slot among the workers.

    ``next``: its supervisor takes over from another, and has a snapshot of its own (``NEXT``) until that one has ended.
    """

    data_dir: Path
    run: str
    slot: int
    next: bool = False


class Worker:
    """Everything one worker holds, and how it starts, ticks, swaps and ends."""

    def __init__(self, post: Post) -> None:
        """Raises OSError or ValueError if there is no snapshot to begin with, or a secret cannot be read."""
        self._post = post
        self._next = SnapshotFile(post.data_dir / NEXT) if post.next else None
        self._file = SnapshotFile(post.data_dir / SNAPSHOT)
        snapshot = self._published()
        assert snapshot is not None
        gateway = snapshot.gateway
        self._router = Router(snapshot)
        self._counts = Counts()
        self._buffers = Buffers(gateway.max_buffer_bytes)
        self._backends = Backends(snapshot, self._counts, self._buffers)
        self._renewal = tls.Renewal(gateway, tls.context)  # before they are read: a change in between is seen
        context = tls.context(gateway)
        journal = post.data_dir / JOURNAL
        try:
            self.writer = next_writer(journal, post.run, post.slot, now_ms())
        except OSError:  # a journal that cannot be listed: its policy says what becomes of that
            self.writer = new_writer(post.run, post.slot, now_ms())
        for kind in (PREDICTIONS, FEEDBACK):
            with contextlib.suppress(OSError):
                (journal / kind).mkdir(parents=True, exist_ok=True)
        roll, feedback_roll = map(roll_bytes, (gateway.max_journal_bytes, gateway.max_feedback_journal_bytes))
        self._predictions = Appender(journal / PREDICTIONS, self.writer, roll_bytes=roll)
        self._feedback = FeedbackAppender(journal / FEEDBACK, self.writer, roll_bytes=feedback_roll)
        self._rolling = Rolling(journal)
        self._log = Log(self._predictions, self._feedback, journal, gateway, self._counts)
        self._mirrors = Mirrors(self._log, self._counts, gateway)
        self._admission = Admission(gateway, monotonic())
        self._tracing = Tracing(exported()) if gateway.tracing else None
        self._newcomers = Newcomers(gateway)
        self._exchange = Exchange(
            self._router,
            self._backends,
            self._mirrors,
            self._log,
            self._counts,
            self._admission,
            time_ns,
            self._tracing,
            self._newcomers,
        )
        self._own = OwnPaths(self._router, self._backends, self._feedback, self._log, self._counts, now_ms)
        self._oversized = False
        self._renewing: asyncio.Task[None] | None = None
        self._edge = Edge(self._handle, gateway, ssl=context, buffers=self._buffers)
        self._bound(snapshot)

    def _published(self) -> Snapshot | None:
        """Return the snapshot to go by if it is another than at the last look. Raises what SnapshotFile does."""
        if self._next is not None:
            with contextlib.suppress(FileNotFoundError):
                return self._next.read()
            self._next = None  # the supervisor before has ended
        return self._file.read()

    async def serve(self, sock: socket.socket, stop: asyncio.Event, ready: int | None = None) -> None:
        """Serve until ``stop``, then drain. That requests are taken is said by a byte to ``ready``."""
        stopped = threading.Event()
        syncing = threading.Thread(
            target=keep_synced,
            args=(self._predictions, self._sync_seconds, stopped, self._unsynced),
            name="journal",
            daemon=True,
        )
        self._loop = asyncio.get_running_loop()
        syncing.start()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as metrics:
            metrics.setblocking(False)
            metrics.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _DATAGRAM_BYTES)
            await self._edge.start(sock)
            if ready is not None:
                with contextlib.suppress(OSError):  # nobody waits for it any more
                    os.write(ready, b".")
            chores = [
                asyncio.create_task(_every(_POLL_SECONDS, self._poll)),
                asyncio.create_task(_every(_BEAT_SECONDS, lambda: self._beat(metrics))),
            ]
            self._sample_lag(monotonic())
            await stop.wait()
            self._own.ready = False
            # The chores go on meanwhile: a drain may take half a minute, and the watermark must move.
            loop = asyncio.get_running_loop()
            deadline = loop.time() + self._gateway.drain_timeout_ms / 1000
            try:
                await self._edge.drain(max(0.0, deadline - loop.time()))
            except TimeoutError:
                logger.error("connections are left after the drain")
            await self._mirrors.drain(max(_MIRROR_DRAIN_SECONDS, deadline - loop.time()))
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            self._lag_timer.cancel()
            await self._feedback.close()
            self._log.beat(now_ms())
            self._log.bye(now_ms())
            self._report(metrics)
        await self._backends.close()
        if self._tracing is not None:
            await self._tracing.close()
        stopped.set()
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._predictions.close)
        except OSError as error:
            logger.error("predictions may not survive a power loss: %s", error)

    @property
    def _gateway(self) -> Gateway:
        return self._router.snapshot.gateway

    def _bound(self, snapshot: Snapshot) -> None:
        """Bound clients by these settings, and connections by what there are descriptors for."""
        limit = descriptors.soft_limit()
        edge, gateway = self._edge, snapshot.gateway
        edge.told, room = descriptors.told(limit), descriptors.connections(gateway, snapshot.backends.values(), limit)
        if room < gateway.max_connections and room != edge.room:
            said = "at most %d connections, not max_connections = %d: of %d descriptors backends and journal need some"
            logger.warning(said, room, gateway.max_connections, limit)
        edge.room, edge.gateway = room, gateway

    def _sync_seconds(self) -> float:
        return self._gateway.journal_fsync_ms / 1000

    def _unsynced(self) -> None:
        """Hear from the thread that syncs; the journal belongs to the loop's."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._log.unsynced)

    def _handle(self, request: Request, response: Response) -> Coroutine[Any, Any, None]:
        return (self._own if request.path.startswith(OWN_PATHS) else self._exchange)(request, response)

    def _sample_lag(self, due: float) -> None:
        """Tell admission how late the loop is, and ask for the next look."""
        now = monotonic()
        self._admission.sample(max(0.0, now - due), now)
        loop = asyncio.get_running_loop()
        self._lag_timer = loop.call_later(SAMPLE_SECONDS, self._sample_lag, now + SAMPLE_SECONDS)

    def _poll(self) -> None:
        """Swap to the published snapshot if there is another; keep the present one if it cannot be used."""
        try:
            snapshot = self._published()
            if snapshot is None:
                self._refresh()
                return
            self._backends.swap(snapshot)
        except (OSError, ValueError) as error:
            if not isinstance(error, FileNotFoundError):
                self._counts.add("snapshot_errors")
                logger.error("snapshot refused, revision %d stays in force: %s", self._router.snapshot.revision, error)
            return
        # A bandit's plans move every few seconds; an operator's edit is worth a line.
        level = logging.DEBUG if snapshot.source == self._router.snapshot.source else logging.INFO
        self._router.swap(snapshot)
        self._log.swap(snapshot.gateway)
        self._mirrors.swap(snapshot.gateway)
        self._own.swap(snapshot.gateway)
        self._admission.swap(snapshot.gateway)
        self._newcomers.swap(snapshot.gateway)
        self._bound(snapshot)
        logger.log(level, "revision %d is in force", snapshot.revision)

    def _refresh(self) -> None:
        """Take over secrets and certificates that were changed in their files, as they are when they are rotated."""
        try:
            if self._backends.refresh():
                logger.info("secrets were read again")
        except SecretMissing as error:
            logger.error("secrets cannot be read again, those there are stay in force: %s", error)
        if self._edge.scheme == "http":
            return
        try:
            context = self._renewal.fresh(self._gateway)
        except (OSError, tls.Unusable) as error:
            logger.error("the certificate cannot be read again, the one there is stays in force: %s", error)
            return
        if context is not None:
            self._renewing = asyncio.get_running_loop().create_task(self._edge.renew(context))
            logger.info("the certificate was read again")

    def _beat(self, metrics: socket.socket) -> None:
        self._log.measure()
        if self._rolling.wanted():
            self._log.roll()
        self._log.beat(now_ms())
        self._report(metrics)

    def _report(self, metrics: socket.socket) -> None:
        """Send gauges and counters to the controller, if it is there."""
        gauges: list[tuple[str, dict[str, str], float]] = [
            ("in_flight", {"route": route}, number) for route, number in self._exchange.in_flight.items()
        ]
        gauges.append(("connections", {}, self._edge.connections))
        gauges.append(("connections_limit", {}, self._edge.max_connections))
        gauges.append(("buffer_bytes", {}, self._buffers.used))
        gauges += self._backends.gauges()
        if self._gateway.admission != "off":
            gauges.append(("in_flight_limit", {}, self._admission.limit))
        if self._post.slot == 0:  # gauges are added up, and the journal is one for all workers
            gauges.append(("journal_bytes", {}, self._log.journal_bytes))
        counters = self._counts.listed()
        if self._feedback.commits:
            counters.append(("feedback_commits", {}, self._feedback.commits))
        for reason, number in (("max_connections", self._edge.turned_away), ("max_buffer_bytes", self._edge.unheld)):
            if number:
                counters.append(("shed", {"reason": reason}, number))
        if self._edge.unread:
            counters.append(("slow_clients", {"reason": "unread"}, self._edge.unread))
        if self._buffers.evicted:
            counters.append(("slow_clients", {"reason": "memory"}, self._buffers.evicted))
        if self._edge.dropped_fields:
            counters.append(("dropped_fields", {}, self._edge.dropped_fields))
        datagram = orjson.dumps(
            {
                "writer": self.writer,
                "slot": self._post.slot,
                "pid": os.getpid(),
                "at_ms": now_ms(),
                "revision": self._router.snapshot.revision,
                "gauges": gauges,
                "counters": counters,
            }
        )
        try:
            metrics.sendto(datagram, str(self._post.data_dir / METRICS))
        except OSError as error:
            # Nobody listens, or not fast enough: the next one says as much, counters being cumulative.
            if error.errno == errno.EMSGSIZE and not self._oversized:
                self._oversized = True
                logger.error("gauges and counters do not fit a datagram of %d bytes", len(datagram))


async def run(post: Post, sock: socket.socket, ready: int | None = None) -> int:
    """Serve on ``sock`` until SIGTERM, SIGINT or the end of the supervisor; return the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watch_lifeline(stop.set)
    try:
        worker = Worker(post)
    except (OSError, ValueError) as error:
        logger.error("worker %d cannot start: %s", post.slot, error)
        sock.close()
        return EXIT_CONFIG
    _spare_collections()
    _keep_memory()
    await worker.serve(sock, stop, ready)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run a worker as the supervisor starts it: ``--fd N --data-dir D --run R --slot S``."""
    parser = argparse.ArgumentParser(prog="python -m gateway.proxy", description="One worker of turnout serve.")
    parser.add_argument("--fd", type=int, required=True, help="the inherited listening socket")
    parser.add_argument("--ready", type=int, help="an inherited descriptor: a byte there says that it serves")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--run", required=True, help="the supervisor's run, 12 hex digits")
    parser.add_argument("--slot", type=int, required=True, help="this worker's number, from 0")
    parser.add_argument("--next", action="store_true", help="the supervisor takes over from another")
    given = parser.parse_args(arguments)
    keep_private()
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)s worker={given.slot} %(message)s",
    )
    sock = socket.socket(fileno=given.fd)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(Post(given.data_dir, given.run, given.slot, given.next), sock, given.ready))


def _spare_collections() -> None:
    """Let the garbage collector leave alone what stays for good, and look rarely at what comes and goes.

    A request leaves no cycles (those that hold one another let go), so a collection finds next to nothing; with the
    default of 700 objects one ran every few dozen requests, and a full one stopped all of them for milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_OBJECTS, 10, 10)


def _keep_memory() -> None:
    """Let the C library keep freed memory for the next bodies, up to a bound, where it is one that can be told (glibc).

    With its defaults, bodies of a megabyte come from the kernel and go back to it, page by page: in the end as much
    time as passing them on.
    """
    with contextlib.suppress(OSError, AttributeError):
        tell = ctypes.CDLL(None).mallopt
        tell(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        tell(_M_TRIM_THRESHOLD, _KEPT_BYTES)


async def _every(seconds: float, chore: Callable[[], None]) -> None:
    """Do the chore now and every so often. A chore that fails is told of and done again."""
    while True:
        try:
            chore()
        except Exception:
            logger.exception("a chore of the worker failed")
        await asyncio.sleep(seconds)
