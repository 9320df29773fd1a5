"""The controller: it opens the store, starts everything that goes on beside it, and stops it again.

Rule: it owns the tasks, and nothing else. What is in force is ``InForce``'s, what is read ``Queries``'. Without a store
everything goes on but recording, and the numbers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.control.access.named_tokens import Tokens
from gateway.control.command.perform import Commands
from gateway.control.datagrams import WorkerReports
from gateway.control.event_log import MOST, EventLog, now_ms
from gateway.control.membership import Member, name_of
from gateway.control.opened import Opened
from gateway.control.plan.in_force import InForce
from gateway.control.queries import Queries
from gateway.control.readiness import Readiness
from gateway.control.record.recorder import Recorder
from gateway.control.record.tail import Tail
from gateway.control.registry.version_slots import VersionSlots
from gateway.control.upkeep.audit_head import AuditHead
from gateway.control.upkeep.cleanup import Retention, keep_sweeping
from gateway.control.upkeep.erasure import Erasures
from gateway.control.upkeep.full_disk import FullDisk
from gateway.journal.segments import JOURNAL
from gateway.sinks.sinks import Sinks
from gateway.store import Store, StoreError, password_in, reason
from gateway.store.counts.deltas import StatusDelta
from gateway.store.rows.calls import StoredCall
from router.snapshot import Sink

logger = logging.getLogger(__name__)

#: How long sinks may take to deliver the last events.
DELIVER_SECONDS: Final = 3.0
LONGEST_BACKOFF_SECONDS: Final = 10.0


class Observer(Protocol):
    """Counts what happens, for Prometheus."""

    def observe_calls(self, calls: Sequence[StoredCall]) -> None: ...
    def observe_status(
        self,
        route: str,
        metric: str,
        status: str,
        n: int = 1,
        delay_seconds: float | None = None,
        variant: str | None = None,
    ) -> None: ...
    def observe_lines(self, met: Mapping[str, int]) -> None: ...
    def observe_datagram(self, datagram: Mapping[str, Any]) -> None: ...
    def observe_expired(self, kind: str, n: int) -> None: ...
    def observe_reload(self, *, ok: bool, at_ms: int) -> None: ...


class Control:
    """The parts of one node's controller. ``run`` is the supervisor's: writers of an earlier one are dead.

    Raises ConfigError if there is neither a usable config nor a snapshot to begin with, KeyUnusable if it would begin
    with a key that cannot be had, and OSError if the data directory cannot be used.
    """

    def __init__(self, config_path: Path, data_dir: Path, observer: Observer, run: str | None = None) -> None:
        journal = data_dir / JOURNAL
        self.event_log = EventLog()
        self.in_force = InForce(config_path, data_dir, self.event_log, observer.observe_reload)
        self.commands = Commands(self.in_force, self.event_log)
        self.queries = Queries(lambda: self.in_force.snapshot)
        self.readiness = Readiness(journal, lambda: self.in_force.identity, self.event_log)
        self.erasures = Erasures(journal, lambda: self.in_force.snapshot.gateway, self.event_log)
        self.workers = WorkerReports(lambda: self.in_force.snapshot.gateway, observer.observe_datagram, self.event_log)
        self.slots = VersionSlots(self.in_force, self.event_log)
        self.tokens = Tokens(self.in_force, self.workers, self.event_log)
        self.full_disk = FullDisk(
            journal, lambda: self.in_force.snapshot.gateway, lambda: self.readiness.lag()[1], self.event_log
        )
        self.tail = Tail(journal, observer.observe_calls)
        self.audit_head = AuditHead(data_dir, lambda: self.opened, self.event_log)
        self.opened: Opened | None = None
        self._data_dir = data_dir
        self._journal = journal
        self._observer = observer
        self._run = run
        self._tasks: list[asyncio.Task[None]] = []
        self._recording: asyncio.Task[None] | None = None
        self._delivering: asyncio.Task[None] | None = None

    def start(self, stopping: asyncio.Event) -> list[asyncio.Task[None]]:
        """Start everything that goes on until ``close``; recording ends with ``stopping``."""
        self._recording = asyncio.create_task(self.keep_recording(stopping))
        loops = (
            self.in_force.keep_deciding(),
            self.in_force.keep_in_step(),
            self.in_force.freezes.keep(),
            self.commands.relay.keep(),
            self.tail.run(),
            self.full_disk.keep_reserve(),
            self.readiness.keep_noting(),
            self.audit_head.keep(),
            self.tokens.keep(),
            self.slots.keep(),
        )
        self._tasks = [asyncio.create_task(loop) for loop in loops]
        return [*self._tasks, self._recording]

    async def keep_recording(self, stopping: asyncio.Event) -> None:
        """Open the store, however long that takes, and record until ``stopping``."""
        opened = await self._opened(stopping)
        if opened is None:
            return
        retention = Retention(
            opened.store,
            behind=lambda: self.readiness.lag()[1],
            on_expired=self._observer.observe_expired,
            exclusively=opened.recorder.exclusively,
        )
        sweeping = asyncio.create_task(keep_sweeping(retention, lambda: self.in_force.snapshot.gateway, now_ms))
        self._delivering = asyncio.create_task(opened.sinks.run())
        try:
            await opened.recorder.run(stopping)
        finally:
            sweeping.cancel()
            await asyncio.wait([sweeping])

    async def _opened(self, stopping: asyncio.Event) -> Opened | None:
        """Open the store, again and again until that succeeds; None if ``stopping`` comes first."""
        pause, noted = 0.25, ""
        while not stopping.is_set():
            try:
                return await self._open()
            except Exception as error:
                if str(error) != noted:
                    noted = str(error)
                    self.event_log.note("store_unavailable", None, f"{noted}; the journal keeps what comes")
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), pause)
                pause = min(pause * 2, LONGEST_BACKOFF_SECONDS)
        return None

    async def _open(self) -> Opened:
        gateway = self.in_force.snapshot.gateway
        store = await Store.open(gateway.store, self._data_dir, password=password_in(gateway.store_password_file))
        try:
            member = None if gateway.store == "sqlite" else Member(store, name_of(self._data_dir))
            if member is not None:
                await member.keep_lease()
            before = await store.recalled(MOST)
            recorder = Recorder(
                store,
                self._journal,
                run=self._run,
                on_statuses=self._observe_statuses,
                on_counts=self._observer.observe_lines,
                follower=self.tail,
                member=member,
            )
            opened = Opened(store, recorder, Sinks(store, self._sinks_to_deliver_to, self._note_sink), member)
            await self.in_force.open(opened)
        except Exception as error:
            await store.close()
            raise StoreError(f"the store cannot be read: {reason(error)}") from error
        for part in (self, self.queries, self.readiness, self.erasures, self.full_disk, self.tokens, self.slots):
            part.opened = opened
        self.event_log.recall(before)
        self.event_log.note("store_opened", None, gateway.store.partition("://")[0])
        return opened

    async def close(self, timeout_seconds: float) -> None:
        """End recording, record what the journal still holds, within the time, close the store, and end every task."""
        if self._recording is not None:
            await asyncio.gather(self._recording, return_exceptions=True)
        if self.opened is not None:
            await self._close(self.opened, timeout_seconds)
        await self._end_tasks()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _close(self, opened: Opened, timeout_seconds: float) -> None:
        store, recorder, member = opened.store, opened.recorder, opened.member
        if member is not None and not member.alone:
            with suppress(Exception):  # then it expires
                await member.yield_lease()
        drained = await recorder.drain(timeout_seconds)
        with suppress(OSError):
            await self.tail.step(at_once=True)  # or it keeps segments from being deleted
        if drained and await recorder.drain(1):
            with suppress(OSError):
                self.full_disk.drop()
        else:
            logger.warning("%d bytes of the journal are left for the next start", recorder.lag()[1])
        if self._delivering is not None:
            await opened.sinks.drain(DELIVER_SECONDS)
            self._delivering.cancel()
            await asyncio.wait([self._delivering])
        with suppress(Exception):
            await self.in_force.save()
        with suppress(Exception):
            await self.tokens.save_used()
        with suppress(Exception):
            await self.audit_head.step()
        await self._end_tasks()  # before the store is closed: they use it
        if member is not None:
            with suppress(Exception):
                await member.leave()
        # Readiness still answers how far recording came.
        for part in (self, self.queries, self.in_force, self.erasures, self.tokens, self.slots):
            part.opened = None
        await store.close()

    def _sinks_to_deliver_to(self) -> Mapping[str, Sink] | None:
        return self.in_force.snapshot.sinks if self.opened is not None and self.opened.holds else None

    def _note_sink(self, name: str, trouble: str | None) -> None:
        if trouble is None:
            self.event_log.note("sink_back", None, f"sinks.{name} takes events again")
        else:
            self.event_log.note("sink_unavailable", None, f"sinks.{name}: {trouble}; its events wait")

    def _observe_statuses(self, changed: Iterable[StatusDelta]) -> None:
        for one in changed:
            self._observer.observe_status(*one)
