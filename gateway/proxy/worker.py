"""A worker: one process that carries traffic by the newest snapshot there is.

Rule: fail static. Once it serves, nothing but a signal stops it: without a controller, a store or a readable snapshot
it goes on with what it has. It reads ``snapshot.json`` and ``overrides.json``, appends to the journal, and sends its
gauges to the controller once a second; it waits for clients and backends only, never for the control plane.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, Final

import orjson

from gateway.files import tls
from gateway.files.overrides import OverridesFile, frozen
from gateway.files.published import NEXT, SNAPSHOT, SnapshotFile
from gateway.files.secret import SecretMissing
from gateway.journal.appender import Appender
from gateway.journal.feedback_appender import FeedbackAppender
from gateway.journal.rolling import Rolling
from gateway.journal.segments import FEEDBACK, JOURNAL, PREDICTIONS, new_writer, next_writer, roll_bytes
from gateway.process import descriptors
from gateway.proxy.client.backends import Backends
from gateway.proxy.exchange.exchange import Exchange
from gateway.proxy.exchange.mirrors import Mirrors
from gateway.proxy.exchange.tracing import Tracing, exported
from gateway.proxy.feedback.feedback import OWN_PATHS, OwnPaths
from gateway.proxy.limits.admission import SAMPLE_SECONDS, Admission
from gateway.proxy.limits.new_units import NewUnits
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.predictions import Log, keep_synced
from gateway.proxy.log.worker_series import (
    BUFFER_BYTES,
    CONNECTIONS,
    CONNECTIONS_LIMIT,
    DROPPED_FIELDS,
    FEEDBACK_COMMITS,
    IN_FLIGHT,
    IN_FLIGHT_LIMIT,
    JOURNAL_BYTES,
    OVERRIDE_ERRORS,
    SHED,
    SLOW_CLIENTS,
    SNAPSHOT_ERRORS,
)
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


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds."""
    return time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Post:
    """What the supervisor passes to a worker: its data directory, the supervisor's run, and its slot among the workers.

    ``next``: its supervisor takes over from another one, and has a snapshot of its own (``NEXT``) until the other ends.
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
        self._overrides, self._override_trouble = OverridesFile(post.data_dir), ""
        self._counts = Counts()
        self._buffers = Buffers(gateway.max_buffer_bytes)
        self._backends = Backends(snapshot, self._counts, self._buffers)
        self._renewal = tls.Renewal(gateway, tls.context)  # before they are read: a change in between is seen
        context = tls.context(gateway)
        self._open_journal(gateway)
        self._mirrors = Mirrors(self._log, self._counts, gateway)
        self._admission = Admission(gateway, monotonic())
        self._new_units = NewUnits(gateway)
        self._tracing = Tracing(exported()) if gateway.tracing else None
        self._exchange = Exchange(
            self._router,
            self._backends,
            self._mirrors,
            self._log,
            self._counts,
            self._admission,
            time_ns,
            self._new_units,
            self._tracing,
        )
        self._own = OwnPaths(self._router, self._backends, self._feedback, self._log, self._counts, time_ns)
        self._oversized = False
        self._renewing: asyncio.Task[None] | None = None
        self._edge = Edge(self._handle, gateway, ssl=context, buffers=self._buffers)
        self._bound(snapshot)
        self._look_at_overrides()

    def _open_journal(self, gateway: Gateway) -> None:
        """Set up what writes this worker's segments; the first line of each kind makes its first segment."""
        journal, post = self._post.data_dir / JOURNAL, self._post
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

    def _published(self) -> Snapshot | None:
        """Return the published snapshot if it has changed since the last call. Raises what SnapshotFile does."""
        if self._next is not None:
            with contextlib.suppress(FileNotFoundError):
                return self._next.read()
            self._next = None  # the supervisor before has ended
        return self._file.read()

    async def serve(self, sock: socket.socket, stop: asyncio.Event, ready: int | None = None) -> None:
        """Serve until ``stop``, then drain. Once requests are taken, a byte is written to ``ready``."""
        self._loop = asyncio.get_running_loop()
        stopped = threading.Event()
        syncing = (self._predictions, self._sync_seconds, stopped, self._unsynced)
        threading.Thread(target=keep_synced, args=syncing, name="journal", daemon=True).start()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as metrics:
            metrics.setblocking(False)
            metrics.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _DATAGRAM_BYTES)
            await self._edge.start(sock)
            if ready is not None:
                with contextlib.suppress(OSError):  # the supervisor does not wait for it any more
                    os.write(ready, b".")
            chores = [
                asyncio.create_task(_every(_POLL_SECONDS, self._look_at_overrides)),
                asyncio.create_task(_every(_POLL_SECONDS, self._poll)),
                asyncio.create_task(_every(_BEAT_SECONDS, lambda: self._beat(metrics))),
            ]
            self._sample_lag(monotonic())
            await stop.wait()
            self._own.ready = False
            await self._drain()
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
            await self._loop.run_in_executor(None, self._predictions.close)
        except OSError as error:
            logger.error("predictions may not survive a power loss: %s", error)

    async def _drain(self) -> None:
        """Wait for the requests and then the copies under way, for ``drain_timeout_ms``.

        The chores go on meanwhile: it may take half a minute, and the watermark must move.
        """
        deadline = self._loop.time() + self._gateway.drain_timeout_ms / 1000
        try:
            await self._edge.drain(max(0.0, deadline - self._loop.time()))
        except TimeoutError:
            logger.error("connections are left after the drain")
        await self._mirrors.drain(max(_MIRROR_DRAIN_SECONDS, deadline - self._loop.time()))

    @property
    def _gateway(self) -> Gateway:
        return self._router.snapshot.gateway

    def _bound(self, snapshot: Snapshot) -> None:
        """Apply the limits on clients, and bound connections by the descriptors that this process may open."""
        limit = descriptors.soft_limit()
        edge, gateway = self._edge, snapshot.gateway
        edge.most_refused = descriptors.refused(limit)
        room = descriptors.connections(gateway, snapshot.backends.values(), limit)
        if room < gateway.max_connections and room != edge.room:
            said = "at most %d connections, not max_connections = %d: of %d descriptors backends and journal need some"
            logger.warning(said, room, gateway.max_connections, limit)
        edge.room, edge.gateway = room, gateway

    def _sync_seconds(self) -> float:
        return self._gateway.journal_fsync_ms / 1000

    def _unsynced(self) -> None:
        """Called from the fsync thread when a sync has failed. Only the event loop may touch the journal."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._log.unsynced)

    def _handle(self, request: Request, response: Response) -> Coroutine[Any, Any, None]:
        return (self._own if request.path.startswith(OWN_PATHS) else self._exchange)(request, response)

    def _sample_lag(self, due: float) -> None:
        """Tell admission how late the loop is, and schedule the next sample."""
        now = monotonic()
        self._admission.sample(max(0.0, now - due), now)
        loop = asyncio.get_running_loop()
        self._lag_timer = loop.call_later(SAMPLE_SECONDS, self._sample_lag, now + SAMPLE_SECONDS)

    def _poll(self) -> None:
        """Swap to the published snapshot if there is a new one; keep the present one if the new one cannot be used."""
        try:
            snapshot = self._published()
            if snapshot is None:
                self._refresh()
                return
            self._backends.swap(snapshot)
        except (OSError, ValueError) as error:
            if not isinstance(error, FileNotFoundError):
                self._counts.add(SNAPSHOT_ERRORS)
                logger.error("snapshot refused, revision %d stays in force: %s", self._router.snapshot.revision, error)
            return
        # A bandit's plans move every few seconds; an operator's edit is worth a line.
        level = logging.DEBUG if snapshot.source == self._router.snapshot.source else logging.INFO
        self._router.swap(snapshot)
        self._log.swap(snapshot.gateway)
        self._mirrors.swap(snapshot.gateway)
        self._own.swap(snapshot)
        self._admission.swap(snapshot.gateway)
        self._new_units.swap(snapshot.gateway)
        self._bound(snapshot)
        logger.log(level, "revision %d is in force", snapshot.revision)

    def _look_at_overrides(self) -> None:
        """Freeze what a person froze since the last look; keep what is frozen if the file cannot be used."""
        try:
            found = self._overrides.read()
        except (OSError, ValueError) as error:
            self._counts.add(OVERRIDE_ERRORS)
            if str(error) != self._override_trouble:
                self._override_trouble = str(error)
                logger.error("overrides refused, those that were read before stay in force: %s", error)
            return
        if found is None:
            return
        self._override_trouble = ""
        wanted = frozen(found)
        if wanted == self._router.overrides:
            return
        if ignored := self._router.freeze(wanted):
            logger.warning("ignored in overrides, being no routes or not with this variant: %s", ", ".join(ignored))
        logger.info("frozen: %s", ", ".join(f"{name} to {to}" for name, to in wanted.items()) or "nothing")

    def _refresh(self) -> None:
        """Read secrets and certificates again whose files have changed, as they do when they are rotated."""
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
        gauges = [IN_FLIGHT.sample(number, route=route) for route, number in self._exchange.in_flight.items()]
        gauges.append(CONNECTIONS.sample(self._edge.connections))
        gauges.append(CONNECTIONS_LIMIT.sample(self._edge.max_connections))
        gauges.append(BUFFER_BYTES.sample(self._buffers.used))
        gauges += self._backends.gauges()
        if self._gateway.admission != "off":
            gauges.append(IN_FLIGHT_LIMIT.sample(self._admission.limit))
        if self._post.slot == 0:  # gauges are added up, and the journal is one for all workers
            gauges.append(JOURNAL_BYTES.sample(self._log.journal_bytes))
        counted = [
            FEEDBACK_COMMITS.sample(self._feedback.commits),
            SHED.sample(self._edge.turned_away, reason="max_connections"),
            SHED.sample(self._edge.unheld, reason="max_buffer_bytes"),
            SLOW_CLIENTS.sample(self._edge.unread, reason="unread"),
            SLOW_CLIENTS.sample(self._buffers.evicted, reason="memory"),
            DROPPED_FIELDS.sample(self._edge.dropped_fields),
        ]
        counters = self._counts.samples() + [sample for sample in counted if sample[2]]
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
            # No controller reads it, or not fast enough. Counters are cumulative, so the next datagram makes up for it.
            if error.errno == errno.EMSGSIZE and not self._oversized:
                self._oversized = True
                logger.error("gauges and counters do not fit a datagram of %d bytes", len(datagram))


async def _every(seconds: float, chore: Callable[[], None]) -> None:
    """Do the chore now and again after each pause. A failure is logged, and the chore done again."""
    while True:
        try:
            chore()
        except Exception:
            logger.exception("a chore of the worker failed")
        await asyncio.sleep(seconds)
