"""The controller: what is in force, who changes it, and what is known of what happened.

Rule: one at a time changes the snapshot (a reload or the planner), and what is published was validated and, whenever
there is a store, stored first. Nothing that fails here reaches a worker: it goes on with the last snapshot.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.control.acts import Act, described, difference, digest_of, owner_of
from gateway.control.agreement import agreed
from gateway.control.cleanup import Retention, keep_sweeping
from gateway.control.erasure import Privacy
from gateway.control.event_log import MOST, EventLog, now_ms
from gateway.control.membership import Member, View, Watch, name_of
from gateway.control.plan.planner import evidence_of, plan
from gateway.control.plan.publisher import Publisher
from gateway.control.plan.reload import needs_restart
from gateway.control.progress import Progress
from gateway.control.record.recorder import Recorder
from gateway.control.record.tail import Tail
from gateway.files import assignment_key
from gateway.files.pseudonym import names_of
from gateway.files.published import SNAPSHOT, SnapshotFile, publish
from gateway.journal.reserve import Reserve, reserve_bytes
from gateway.journal.segments import JOURNAL, size_bytes
from gateway.sinks.sinks import Sinks
from gateway.store import Store, StoreError, password_in, reason
from gateway.store.counts.deltas import StatusDelta
from gateway.store.counts.ledger import Epoch, Ledger
from gateway.store.counts.read_ledgers import LedgerVersions
from gateway.store.fleet.publications import UNNUMBERED
from gateway.store.fleet.shared_key import newest as newest_key
from gateway.store.rows import calls
from gateway.store.rows.calls import StoredCall
from gateway.store.rows.export_batches import ExportBatch, exported
from policies.types import Evidence
from router.assignment import AssignmentKey
from router.compile import compile_snapshot, epoch_of, with_plans_of
from router.config.config import Config, ConfigError, load
from router.config.diagnostics import Diagnostic, locate
from router.config.findings import Finding
from router.snapshot import Sink, Snapshot

logger = logging.getLogger(__name__)

METRICS: Final = "metrics.sock"

PLAN_SECONDS: Final = 1.0
#: How often the newest plans of other nodes are looked for: so within a second they are in force everywhere.
STEP_SECONDS: Final = 0.5
TEND_SECONDS: Final = 1.0
#: How long sinks may take to be told the last of what happened.
TELL_SECONDS: Final = 3.0
LONGEST_BACKOFF_SECONDS: Final = 10.0
#: How far behind recording may be before an export pauses between portions, and for how long.
BEHIND_SECONDS: Final = 3.0
EXPORT_PAUSE_SECONDS: Final = 0.2


class Observer(Protocol):
    """Whoever counts what happens, for Prometheus."""

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


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What came of reading the file again; ``revision`` is the one in force either way."""

    ok: bool
    revision: int
    problems: tuple[Diagnostic, ...] = ()


class Control:
    """Holds the snapshot in force and the store, and keeps both.

    Raises ConfigError if there is neither a usable config nor a snapshot to begin with, KeyUnusable if it would begin
    with a key that cannot be had, and OSError if the data directory cannot be used.
    """

    def __init__(self, config_path: Path, data_dir: Path, run: str | None = None) -> None:
        self.config_path = config_path
        self.data_dir = data_dir
        self.journal = data_dir / JOURNAL
        self.observer: Observer | None = None
        self.event_log = EventLog()
        self.workers: dict[str, Mapping[str, Any]] = {}
        self.recorder: Recorder | None = None
        self.tail = Tail(self.journal, self._observe_calls)
        self._run = run
        self._reserve = Reserve(self.journal)
        self._closing = False
        self._store: Store | None = None
        self._started = time.monotonic()
        self._turn = asyncio.Lock()
        self._to_plan: set[str] = set()
        self._reloads: set[asyncio.Task[ReloadResult]] = set()
        self._erasures: set[asyncio.Task[Mapping[str, int]]] = set()
        self.config: Config | None = None
        self._key_number = 0  # of the store's assignment key that was looked at last
        self._publisher = Publisher(data_dir, self._begin(), self.event_log)
        self._member: Member | None = None
        self._watch = Watch(self.event_log)
        self._sinks: Sinks | None = None
        self._telling: asyncio.Task[None] | None = None

    @property
    def snapshot(self) -> Snapshot:
        """What is in force."""
        return self._publisher.snapshot

    @property
    def current(self) -> bool:
        """Whether what is in force was made of the file and the assignment key as they are."""
        try:
            gateway = self.snapshot.gateway if self.config is None else self.config.gateway
            key = assignment_key.find(gateway, self.data_dir, self.snapshot)
        except assignment_key.KeyUnusable:
            return False  # a reload says why
        return self.config is not None and self.snapshot.source == (self.config.hash, "" if key is None else key.name)

    @property
    def store_ready(self) -> bool:
        return self._store is not None

    @property
    def fleet(self) -> View | None:
        """The nodes that share the store as this one sees them, None where there is no store to share."""
        return None if self._member is None else self._member.view(self._publisher.identity)

    @property
    def refused_segments(self) -> int:
        """How many segments of the journal are left alone because they are not to be read by this program."""
        return self.recorder.refused if self.recorder is not None else 0

    @property
    def events(self) -> Iterable[Mapping[str, Any]]:
        """What happened, the oldest first."""
        return self.event_log.newest

    def lag(self) -> tuple[float, int]:
        """Return how far the store is behind the journal: seconds, and bytes."""
        if self.recorder is None:
            waiting = 0
            with suppress(OSError):  # no descriptors, or a journal that cannot be listed
                waiting = size_bytes(self.journal)
            return (time.monotonic() - self._started if waiting else 0.0), waiting
        return self.recorder.lag()

    def progress(self) -> Progress:
        """Return how far recording is, and whether and why it is stalled."""
        if self.recorder is not None:
            return self.recorder.progress()
        stalled, _ = self.lag()
        return Progress(stalled or time.monotonic() - self._started, "the store is not open", oldest_seconds=stalled)

    async def ledger(self, route: str) -> Ledger:
        """Return what is counted of a route in its present epoch. Raises KeyError, or what the store raises."""
        return (await self.ledgers([route]))[route]

    async def ledgers(self, routes: Collection[str]) -> Mapping[str, Ledger]:
        """Return what is counted of routes in their present epochs. Raises KeyError, or what the store raises."""
        places = {(route, self.snapshot.routes[route].epoch) for route in routes}
        if self._store is None:
            return {place[0]: Ledger(*place) for place in places}
        return {place[0]: ledger for place, ledger in (await self._store.ledgers(places)).items()}

    async def ledger_versions(self) -> LedgerVersions:
        """Return what says whether a ledger that was read before is still so. Raises what the store raises."""
        return LedgerVersions({}, None) if self._store is None else await self._store.ledger_versions()

    async def epochs(self, route: str) -> Sequence[Mapping[str, Any]]:
        """Return a route's epochs, the one that began last first. Raises what the store raises."""
        return [] if self._store is None else await self._store.epochs(route)

    async def past(self, route: str, epoch: str) -> tuple[Epoch, Ledger] | None:
        """Return what a route was in an epoch and what is counted of it; None if it had no such."""
        found = None if self._store is None else await self._store.epoch(route, epoch)
        if found is None or self._store is None:
            return None
        return found, await self._store.ledger(route, epoch)

    async def prediction(self, prediction_id: str) -> Mapping[str, Any] | None:
        """Return a prediction's calls, feedback and outcomes; None if it is not recorded."""
        return await self._store.prediction(prediction_id) if self._store is not None else None

    async def erase(self, units: Sequence[str], act: Act | None = None) -> Mapping[str, int]:
        """Erase units everywhere, though the caller may stop waiting; return how much was erased.

        ``act`` says who wants it.
        Raises NotDrained, StoreError, what the store raises, and OSError or ValueError for a key file.
        """
        privacy = self._privacy()
        names = [name for unit in units for name in names_of(unit, self.snapshot.gateway.unit_key_file)]
        task = asyncio.ensure_future(privacy.erase(names))
        self._erasures.add(task)
        task.add_done_callback(self._erasures.discard)
        erased = await asyncio.shield(task)
        told = f"{len(units)} unit{'s' * (len(units) != 1)} erased: " + ", ".join(
            f"{n} {what.replace('_', ' ')}" for what, n in erased.items()
        )
        act = act or Act("api")
        self.event_log.note("units_erased", None, told, via=act.via, author=act.author)
        return erased

    def known(self, unit: str) -> AsyncIterator[Mapping[str, Any]]:
        """Yield everything that is stored of a unit. Raises as ``erase``."""
        return self._privacy().known(unit, names_of(unit, self.snapshot.gateway.unit_key_file))

    async def exported(self, route: str, since_ms: int, until_ms: int, *, texts: bool) -> AsyncIterator[ExportBatch]:
        """Yield a route's calls of [since, until) with their outcomes, by the portion; ``texts`` as in the store.

        Raises KeyError if the route is neither served nor was ever, StoreError, and what the store raises.
        """
        if self._store is None:
            raise StoreError("the store is not open yet")
        if route not in self.snapshot.routes:
            async with self._store.read() as connection:
                if await calls.latest_ms(connection, route) is None:
                    raise KeyError(route)
        async for portion in exported(self._store, calls.Span(route, since_ms, until_ms), texts=texts):
            yield portion
            if self.recorder is not None and self.recorder.lag()[0] > BEHIND_SECONDS:
                await asyncio.sleep(EXPORT_PAUSE_SECONDS)  # recording wants the interpreter more

    def _privacy(self) -> Privacy:
        if self._store is None or self.recorder is None:
            raise StoreError("the store is not open yet")
        return Privacy(self._store, self.recorder, self.journal, self._member)

    async def account(self) -> Mapping[tuple[str, str, str], int]:
        """Return how many feedback events there are by route, metric and status."""
        return await self._store.account() if self._store is not None else {}

    async def orphans(self, route: str | None, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return feedback without a prediction, of one route or of all, the newest first."""
        return await self._store.orphans(route, limit) if self._store is not None else ()

    async def set_aside(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return what could not be recorded or settled, the newest first."""
        return await self._store.set_aside(limit) if self._store is not None else ()

    async def sinks(self) -> Sequence[Mapping[str, Any]]:
        """Return each sink of the snapshot, and what became of the events that were made for it."""
        return [] if self._sinks is None else await self._sinks.shown(self.snapshot.sinks, now_ms())

    async def reload(self, act: Act | None = None) -> ReloadResult:
        """Read the file again: in force as a whole, or refused as a whole, though the caller may stop waiting.

        ``act`` says who wants it; without it, whoever wrote the file does.
        """
        task = asyncio.ensure_future(self._reload(act or Act("edit", owner_of(self.config_path))))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        return await asyncio.shield(task)

    async def _reload(self, act: Act) -> ReloadResult:
        async with self._turn:
            by = {
                "via": act.via,
                "author": act.author,
                "file_sha256": await asyncio.to_thread(digest_of, self.config_path),
            }
            problems: tuple[Diagnostic, ...]
            try:
                config = await asyncio.to_thread(load, self.config_path)
                problems = needs_restart(self.snapshot.gateway, config.gateway, self.config_path)
                key = assignment_key.find(config.gateway, self.data_dir, self.snapshot)
            except ConfigError as error:
                problems = error.diagnostics
            except assignment_key.KeyUnusable as error:
                finding = Finding(("gateway", "assignment_key_file"), f"gateway.assignment_key_file: {error}")
                problems = locate([finding], "", str(self.config_path))
            if problems:
                return self._refused(problems, self.snapshot.revision, **by)
            was, known = self.snapshot, self.config
            self.config = config
            fresh = await self._compiled(config, key)
            if replace(fresh, revision=self.snapshot.revision) == self.snapshot:
                told = f"revision {self.snapshot.revision} stays in force"
                self.event_log.note("config_unchanged", None, told, **by)
            else:
                await self._put_in_force(fresh)
                changed = await asyncio.to_thread(_changed, was, known, self.snapshot, config)
                told = f"revision {self.snapshot.revision} is in force"
                if fresh.config != was.config or fresh.assignment == was.assignment:
                    self.event_log.note("config_reloaded", None, told, **by, diff=changed)
                if fresh.assignment != was.assignment:
                    told = f"key {was.assignment or '-'} until now, {fresh.assignment or '-'} from now on: units move"
                    author = owner_of(Path(config.gateway.assignment_key_file or self.data_dir / assignment_key.FILE))
                    self.event_log.note("assignment_changed", None, told, via=act.via, author=author)
            self._to_plan |= fresh.routes.keys()
            if self.observer is not None:
                self.observer.observe_reload(ok=True, at_ms=now_ms())
            return ReloadResult(True, self.snapshot.revision, config.warnings)

    async def plan(self) -> None:
        """Make new plans where mature tallies moved, and put them in force."""
        async with self._turn:
            await self._publisher.mend()
            if self._store is None or self.recorder is None or self.config is None:
                return
            await self._publisher.save(self._store)
            if self._member is not None and not self._member.holds:
                return  # it is the holder's to plan; should this node be, then all there is
            # Of all the others the plan does not follow the evidence.
            adaptive = {name for name, route in self.config.routes.items() if route.policy.adaptive}
            self._to_plan |= self.recorder.take_matured() & adaptive
            routes, self._to_plan = self._to_plan, set()
            if not routes:
                return
            try:
                revision = self._publisher.next_revision
                planned = await plan(self.snapshot, self.config, routes, self._store.evidence, revision)
                for route, reason in planned.failures.items():
                    self.event_log.note("plan_failed", route, f"{reason}; its last plan stays in force")
                if planned.snapshot is not self.snapshot:
                    await self._put_in_force(planned.snapshot)
            except Exception:
                self._to_plan |= routes
                raise

    async def keep_planning(self) -> None:
        """Plan about once a second, for ever."""
        failing = False
        while True:
            await asyncio.sleep(PLAN_SECONDS)
            try:
                await self.plan()
                failing = False
            except Exception as error:
                if not failing:
                    logger.error("no plans can be made, the last ones stay in force: %s", reason(error))
                    logger.debug("no plans can be made", exc_info=error)
                failing = True

    async def keep_in_step(self) -> None:
        """Go by the newest plans of the fleet, for ever."""
        while True:
            await asyncio.sleep(STEP_SECONDS)
            if self._member is None:
                continue
            try:
                if await self._took_key():
                    await self.reload()
                async with self._turn:
                    await self._publisher.keep_in_step()
            except Exception as error:
                logger.debug("not in step with the fleet", exc_info=error)
            if self._watch.look(self._member.view(self._publisher.identity), self.snapshot.revision):
                self._to_plan |= self.snapshot.routes.keys()

    async def _took_key(self) -> bool:
        """Take the fleet's assignment key if it is another than this node's; return whether it was."""
        if self._store is None or self._member is None or self.snapshot.gateway.assignment_key_file is not None:
            return False
        async with self._store.read() as connection:
            held = await newest_key(connection)
        if held is not None and held.number == self._key_number:
            return False
        own = assignment_key.kept_in(self.data_dir)
        if held is None and own is not None:
            held = await agreed(self._store, own)
        if held is None:
            return False
        if held.secret != own:
            await asyncio.to_thread(assignment_key.keep, self.data_dir, held.secret)
        self._key_number = held.number
        return AssignmentKey(held.secret).name != self.snapshot.assignment

    async def keep_recording(self, stopping: asyncio.Event) -> None:
        """Open the store, however long that takes, and record until ``stopping``."""
        pause, told = 0.25, ""
        while self._store is None and not stopping.is_set():
            try:
                await self._open_store()
            except Exception as error:
                if str(error) != told:
                    told = str(error)
                    self.event_log.note("store_unavailable", None, f"{told}; the journal keeps what comes")
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), pause)
                pause = min(pause * 2, LONGEST_BACKOFF_SECONDS)
        if self.recorder is not None and self._store is not None:
            retention = Retention(
                self._store, behind=lambda: self.lag()[1], tell=self._expired, aside=self.recorder.aside
            )
            sweeping = asyncio.create_task(keep_sweeping(retention, lambda: self.snapshot.gateway, now_ms))
            self._sinks = Sinks(self._store, self._sinks_to_tell, self._note_sink)
            self._telling = asyncio.create_task(self._sinks.run())
            try:
                await self.recorder.run(stopping)
            finally:
                sweeping.cancel()
                await asyncio.wait([sweeping])

    async def keep_watch(self) -> None:
        """Note when recording stalls and when it goes on again, for ever."""
        stalled = 0
        while True:
            await asyncio.sleep(TEND_SECONDS)
            if self.recorder is None:
                continue  # which is noted by who opens the store
            now = self.recorder.progress()
            if now.stalled:
                stalled += 1
                if stalled == 2:
                    what = f"{now.trouble}: {now.detail[:200]}" if now.detail else now.trouble
                    self.event_log.note("recording_stalled", None, f"{what}; the journal keeps what comes")
            else:
                if stalled > 1:
                    self.event_log.note("recording_resumed", None, "what waited in the journal is being recorded")
                stalled = 0

    async def keep_reserve(self) -> None:
        """See about once a second that the journal can be drained when the disk is full, for ever."""
        failing = False
        while True:
            try:
                await self.tend_reserve()
                failing = False
            except Exception as error:
                if not failing:
                    logger.warning("no room on the disk can be held in reserve: %s", error)
                failing = True
            await asyncio.sleep(TEND_SECONDS)

    async def tend_reserve(self) -> None:
        """Give up the reserve if the disk is full, or make it again. Raises OSError."""
        if self._closing or self.snapshot.gateway.store != "sqlite" or not self.journal.exists():
            return  # a store elsewhere needs no room here
        before = self._reserve.spent
        await asyncio.to_thread(self._tend_reserve)
        spent = self._reserve.spent
        if self.recorder is not None:
            self.recorder.sparing = spent
        if spent and not before:
            self.event_log.note("disk_full", None, "the journal is drained first; until then it is full for workers")
        elif before and not spent:
            self.event_log.note("disk_has_room", None, "the journal is drained, workers may write again")

    def _tend_reserve(self) -> None:
        trouble = self.recorder.trouble if self.recorder is not None else None
        if trouble is None or not self._reserve.release(trouble):
            size = reserve_bytes(self.snapshot.gateway.max_journal_bytes)
            self._reserve.tend(size, drained=not self.lag()[1])

    async def close(self, timeout_seconds: float) -> None:
        """Record what the journal still holds, within the time, and close the store."""
        if self._member is not None and not self._member.alone:
            with suppress(Exception):  # then it expires
                await self._member.yield_lease()
        if self.recorder is not None:
            drained = await self.recorder.drain(timeout_seconds)
            with suppress(OSError):
                await self.tail.step(at_once=True)  # lets go of what it still reads, to be deleted
            if drained and await self.recorder.drain(1):
                self._closing = True
                with suppress(OSError):
                    self._reserve.drop()
            else:
                logger.warning("%d bytes of the journal are left for the next start", self.recorder.lag()[1])
        if self._sinks is not None and self._telling is not None:
            await self._sinks.drain(TELL_SECONDS)
            self._telling.cancel()
            await asyncio.wait([self._telling])
        if self._store is not None:
            with suppress(Exception):
                await self._publisher.save(self._store)
            if self._member is not None:
                with suppress(Exception):
                    await self._member.leave()
            store, self._store = self._store, None
            await store.close()

    def hear(self, datagram: dict[str, Any]) -> None:
        """Take in what a worker says of itself."""
        writer = str(datagram.get("writer"))
        if writer not in self.workers:
            self.event_log.note("worker_started", None, f"worker {datagram.get('slot')}, pid {datagram.get('pid')}")
        # The newest is last; those that were not heard of for longest are forgotten.
        self.workers.pop(writer, None)
        self.workers[writer] = datagram
        while len(self.workers) > 4 * max(1, self.snapshot.gateway.workers):
            del self.workers[next(iter(self.workers))]
        if self.observer is not None:
            self.observer.observe_datagram(datagram)

    def _begin(self) -> Snapshot:
        """The snapshot that is published, or the file's own where there is none."""
        published: Snapshot | None = None
        try:
            published = SnapshotFile(self.data_dir / SNAPSHOT).read()
        except FileNotFoundError:
            pass
        except ValueError as error:
            logger.warning("the last snapshot cannot be read, plans begin anew: %s", error)
        try:
            config = load(self.config_path)
        except ConfigError as error:
            if published is None:
                raise
            self._refused(error.diagnostics, published.revision)
            return published
        if published is not None:
            if published.config == config.hash:
                self.config = config
            return published  # an edit made in the meantime is taken over by the first reload
        self.config = config
        revision = 1 if config.gateway.store == "sqlite" else UNNUMBERED
        key = assignment_key.begin(config.gateway, self.data_dir, None)
        first = compile_snapshot(
            config, previous=None, evidence=lambda route, epoch: Evidence(), now_ms=now_ms(), revision=revision, key=key
        )
        publish(self.data_dir / SNAPSHOT, first)
        return first

    async def _open_store(self) -> None:
        gateway = self.snapshot.gateway
        password = password_in(gateway.store_password_file)
        store = await Store.open(gateway.store, self.data_dir, password=password)
        try:
            member = None if gateway.store == "sqlite" else Member(store, name_of(self.data_dir))
            if member is not None:
                await member.attend()
            before = await store.recalled(MOST)
            await self._publisher.begin(store, member)
        except Exception as error:
            await store.close()
            raise StoreError(f"the store cannot be read: {reason(error)}") from error
        recorder = Recorder(
            store,
            self.journal,
            run=self._run,
            on_statuses=self._observe_statuses,
            on_counts=self._observe_lines,
            follower=self.tail,
            member=member,
        )
        recorder.adopt(self.snapshot, now_ms())
        self._store, self.recorder, self._member = store, recorder, member
        self.event_log.recall(before)
        self._to_plan |= self.snapshot.routes.keys()
        self.event_log.note("store_opened", None, gateway.store.partition("://")[0])

    async def _compiled(self, config: Config, key: AssignmentKey | None) -> Snapshot:
        """The snapshot of a config, by the evidence there is; without a store, plans that need not change stay."""
        evidence: dict[tuple[str, str], Evidence] = {}
        known = False
        if self._store is not None:
            with suppress(Exception):  # the store's trouble is no reason to refuse an edit
                places = {(name, epoch_of(config, route)) for name, route in config.routes.items()}
                for place, ledger in (await self._store.evidence(places)).items():
                    evidence[place] = evidence_of(ledger, config.metrics)
                known = True
        fresh = await asyncio.to_thread(
            compile_snapshot,
            config,
            previous=self.snapshot,
            evidence=lambda route, epoch: evidence.get((route, epoch), Evidence()),
            now_ms=now_ms(),
            revision=self._publisher.next_revision,
            key=key,
        )
        return fresh if known else with_plans_of(self.snapshot, fresh)

    async def _put_in_force(self, fresh: Snapshot) -> None:
        before = self.snapshot
        await self._publisher.put_in_force(fresh)
        if self.recorder is not None and fresh.config != before.config:
            self.recorder.adopt(fresh, now_ms())

    def _refused(self, problems: tuple[Diagnostic, ...], stays: int, **by: Any) -> ReloadResult:
        errors = [problem for problem in problems if problem.severity == "error"]
        first = errors[0].headline if errors else ""
        count = f"{len(errors)} problem{'s' * (len(errors) != 1)}"
        self.event_log.note("config_refused", None, f"{count}; revision {stays} stays in force; {first}", **by)
        if self.observer is not None:
            self.observer.observe_reload(ok=False, at_ms=now_ms())
        return ReloadResult(False, stays, problems)

    def _sinks_to_tell(self) -> Mapping[str, Sink] | None:
        ours = self._store is not None and (self._member is None or self._member.holds)
        return self.snapshot.sinks if ours else None

    def _note_sink(self, name: str, trouble: str | None) -> None:
        if trouble is None:
            self.event_log.note("sink_back", None, f"sinks.{name} takes events again")
        else:
            self.event_log.note("sink_unavailable", None, f"sinks.{name}: {trouble}; its events wait")

    def _observe_calls(self, came: Sequence[StoredCall]) -> None:
        if self.observer is not None:
            self.observer.observe_calls(came)

    def _observe_lines(self, met: Mapping[str, int]) -> None:
        if self.observer is not None:
            self.observer.observe_lines(met)

    def _expired(self, kind: str, n: int) -> None:
        if self.observer is not None:
            self.observer.observe_expired(kind, n)

    def _observe_statuses(self, changed: Iterable[StatusDelta]) -> None:
        if self.observer is not None:
            for one in changed:
                self.observer.observe_status(*one)


def _changed(before: Snapshot, of: Config | None, after: Snapshot, config: Config) -> list[str]:
    """What an edit changed; a policy's own settings can be compared only where both files are known."""
    known = of is not None and of.hash == before.config
    return difference(described(before, of if known else None), described(after, config if known else None))
