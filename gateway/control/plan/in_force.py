"""The configuration and plans in force, and everything that changes them: an edit, evidence, the rest of the fleet.

Rule: one at a time changes the snapshot, and holds the turn while it does. What is published was validated and, where
there is a store, stored first. Nothing that fails here reaches a worker: it goes on with the last snapshot.

A decider makes every change that is not an edit: an entry of ``_deciders``, called about once a second, at the node
that may change what is stored. It reads evidence, stores its own state in ``Store.change``, and calls ``_put_in_force``
with the snapshot that follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol

from gateway.control.acts import Act, digest_of, owner_of
from gateway.control.agreement import FleetKey
from gateway.control.event_log import EventLog, now_ms
from gateway.control.membership import FleetWatch
from gateway.control.opened import Opened
from gateway.control.plan import edits
from gateway.control.plan.first import first
from gateway.control.plan.freezes import Freezes
from gateway.control.plan.planner import compiled, plan
from gateway.control.plan.publisher import Publisher
from gateway.control.plan.reload import read
from gateway.control.plan.stored_standings import StoredStandings
from gateway.control.plan.verdict_watch import VerdictWatch
from gateway.control.steer.steering import Doing, Known, NotHere, Steering
from gateway.files import assignment_key
from gateway.store import Store, reason, tokens
from gateway.store.audit import Entry
from gateway.triggers.trigger_watch import TriggerWatch
from policies.rollouts.standing import Moved, Refused
from router.compile import with_periods
from router.config.config import Config
from router.config.diagnostics import Diagnostic
from router.settings.slots import Filled
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)

DECIDE_SECONDS: Final = 1.0
#: How often it is looked at what fails fast: what is broken at five requests a second has to be out within two.
GLANCE_SECONDS: Final = 0.25
#: How often the newest plans of other nodes are looked for: so within a second they are in force everywhere.
STEP_SECONDS: Final = 0.5

#: Called with the open store, the file, and the routes whose mature tallies moved since the last call.
Decider = Callable[[Opened, Config, Set[str]], Awaitable[None]]


class OnReload(Protocol):
    """Called after each reload."""

    def __call__(self, *, ok: bool, at_ms: int) -> None: ...


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What came of reading the file again; ``revision`` is the one in force either way."""

    ok: bool
    revision: int
    problems: tuple[Diagnostic, ...] = ()


class InForce:
    """Holds the snapshot in force and the file it was made of, and changes both.

    ``config`` is that file, None while only the snapshot is known. Raises what ``first`` raises.
    """

    def __init__(self, config_path: Path, data_dir: Path, event_log: EventLog, on_reload: OnReload) -> None:
        self.config_path = config_path
        self.data_dir = data_dir
        self.opened: Opened | None = None
        begun = first(config_path, data_dir)
        self.config = begun.config
        self._event_log = event_log
        self._on_reload = on_reload
        self._publisher = Publisher(data_dir, begun.snapshot, event_log)
        if begun.problems:
            self._note_refused(begun.problems)
        #: The slots that are filled, as last seen in the store; until then, as they were published.
        self._slots: Mapping[str, Filled] = begun.snapshot.slots
        self._fleet_key = FleetKey(data_dir)
        self._watch = FleetWatch(event_log)
        self.freezes = Freezes(data_dir, event_log, lambda: self.opened, lambda: self.snapshot)
        self._turn = asyncio.Lock()
        self._to_plan: set[str] = set()  # routes whose plans may not follow their evidence, or where they stand
        self._standings = StoredStandings()
        self.steering = Steering(lambda: self.snapshot, lambda: self._standings.by_route, self._settle)
        self.triggers = TriggerWatch(event_log, lambda: self.snapshot, self.freezes.act, self._known, self._settle)
        self._reloads: set[asyncio.Task[ReloadResult]] = set()
        self._deciders: tuple[Decider, ...] = (
            self._begin_periods,
            self._plan,
            VerdictWatch(event_log, lambda: self.snapshot, self.steering.learn),
            self.steering,
            self.triggers,
        )

    @property
    def snapshot(self) -> Snapshot:
        """What is in force."""
        return self._publisher.snapshot

    @property
    def identity(self) -> str:
        """The hash of what nodes that serve the same configuration have in common."""
        return self._publisher.identity

    @property
    def current(self) -> bool:
        """Whether what is in force was made of the file and the assignment key as they are."""
        try:
            gateway = self.snapshot.gateway if self.config is None else self.config.gateway
            key = assignment_key.find(gateway, self.data_dir, self.snapshot)
        except assignment_key.KeyUnusable:
            return False  # a reload says why
        return self.config is not None and self.snapshot.source == (self.config.hash, "" if key is None else key.name)

    async def open(self, opened: Opened) -> None:
        """Go on where the store's plans ended, and plan every route by its evidence. Raises what the store raises."""
        await self._publisher.begin(opened.store, opened.member)
        opened.recorder.adopt(self.snapshot, now_ms())
        await self._note_begun(opened)
        self.opened = opened
        self._plan_all()

    async def _note_begun(self, opened: Opened) -> None:
        """Have the audit log say so if this node was started with another file than it had."""
        digest = await asyncio.to_thread(digest_of, self.config_path)
        async with opened.store.read() as connection:
            entry = await edits.begun(connection, self.snapshot, self.config_path, digest, self.data_dir)
        if entry is not None:
            self._publisher.note_entries((entry,))

    async def save(self) -> None:
        """Store what could not be stored before. Raises what the store raises."""
        if self.opened is not None:
            await self._publisher.save(self.opened.store)

    async def reload(self, act: Act | None = None) -> ReloadResult:
        """Read the file again: it is put in force as a whole, or refused as a whole.

        A reload goes on to its end though its caller stops waiting. ``act`` says who asked for it; without it, the
        owner of the file is named.
        """
        task = asyncio.ensure_future(self._reload(act or Act("edit", owner_of(self.config_path))))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        return await asyncio.shield(task)

    async def _reload(self, act: Act) -> ReloadResult:
        async with self._turn:
            digest = await asyncio.to_thread(digest_of, self.config_path)
            by = {"via": act.via, "author": act.author, "file_sha256": digest}
            found = await asyncio.to_thread(read, self.config_path, self.data_dir, self.snapshot, self._slots)
            if isinstance(found, tuple):
                self._note_refused(found, **by)
                self._on_reload(ok=False, at_ms=now_ms())
                return ReloadResult(False, self.snapshot.revision, found)
            config, was, of = found.config, self.snapshot, self.config
            self.config = config
            store = None if self.opened is None else self.opened.store
            fresh = await compiled(config, found.key, was, store, self._publisher.next_revision)
            if replace(fresh, revision=was.revision) == was:
                stays = f"revision {was.revision} stays in force"
                self._event_log.note("config_unchanged", None, stays, **by)
            else:
                edit = edits.FileEdit(was, of, fresh, config, act, digest)
                entries = await asyncio.to_thread(edits.entries, edit, self.data_dir)
                await self._put_in_force(fresh, entries)
                self._note_edit(was, act, by, entries)
            self._plan_all()
            self._on_reload(ok=True, at_ms=now_ms())
            return ReloadResult(True, self.snapshot.revision, config.warnings)

    def _note_edit(self, was: Snapshot, act: Act, by: dict[str, Any], entries: Sequence[Entry]) -> None:
        for one in entries:
            if one.act == edits.EDITED:
                in_force = f"revision {self.snapshot.revision} is in force"
                self._event_log.note(one.act, None, in_force, **by, diff=one.body["diff"])
            else:
                self._event_log.note(one.act, None, one.changed, via=act.via, author=one.who)

    def _note_refused(self, problems: tuple[Diagnostic, ...], **by: Any) -> None:
        errors = [problem for problem in problems if problem.severity == "error"]
        headline = errors[0].headline if errors else ""
        count = f"{len(errors)} problem{'s' * (len(errors) != 1)}"
        said = f"{count}; revision {self.snapshot.revision} stays in force; {headline}"
        self._event_log.note("config_refused", None, said, **by)

    async def take_tokens(self, store: Store) -> None:
        """Put the tokens in force that are valid in the store. Raises what the store raises, and OSError."""
        async with self._turn:
            async with store.read() as connection:
                found = await tokens.in_force(connection, now_ms())
            if found != self.snapshot.tokens:
                await self._publisher.put_tokens(found)

    async def take_slots(self, found: Mapping[str, Filled]) -> None:
        """Lay the slots that are filled over the file, if that is news. Raises OSError."""
        if found == self._slots:
            return
        new = [one for name, one in found.items() if one != self._slots.get(name)]
        who = max(new, key=lambda one: one.at_ms).who if new else None
        before, self._slots = self._slots, found
        try:
            await self.reload(Act("registry", who, who))
        except BaseException:
            self._slots = before  # the next look tries again
            raise

    async def decide(self) -> None:
        """Have each decider look at what is new, and put in force what it decides.

        One that fails does not stop the others. Raises what the first of them raised.
        """
        async with self._turn:
            await self._publisher.mend()
            opened, config = self.opened, self.config
            if opened is None or config is None:
                return
            await self._publisher.save(opened.store)
            if not opened.holds:
                return  # a node that becomes the holder plans every route then
            if await self._standings.read(opened):
                self._plan_all()
                await self._standings.read(opened)
            matured, failure = opened.recorder.take_matured(), None
            for decider in self._deciders:
                try:
                    await decider(opened, config, matured)
                except Exception as error:
                    failure = failure or error
            if failure is not None:
                raise failure

    async def freeze(self, variants: Mapping[str, str | None], **of: str) -> bool:
        """Freeze each route to its variant (None: unfreeze it), here at once and soon at every node.

        Return whether the store has it; if not, it will. ``of`` are who, why and via. Raises OSError if the node's file
        cannot be written: then nothing changed.
        """
        recorded = await self.freezes.act(variants, **of)
        with suppress(Exception):  # the next pass does it
            async with asyncio.timeout(DECIDE_SECONDS), self._turn:
                if self.opened is not None and self.config is not None and self.opened.holds:
                    await self._begin_periods(self.opened, self.config, frozenset())
        return recorded

    async def _begin_periods(self, opened: Opened, config: Config, matured: Set[str]) -> None:
        """Begin a period of each route that was frozen or unfrozen: what comes after is compared by itself."""
        fresh = with_periods(self.snapshot, self.freezes.acted_ms, now_ms(), self._publisher.next_revision)
        if fresh is not self.snapshot:
            await self._put_in_force(fresh)

    async def _plan(self, opened: Opened, config: Config, matured: Set[str]) -> None:
        """Make new plans where mature tallies moved."""
        # The plan of a policy that does not adapt follows from the file alone.
        adaptive = {name for name, route in config.routes.items() if route.policy.adaptive}
        self._to_plan |= matured & adaptive
        routes, self._to_plan = self._to_plan, set()
        if not routes:
            return
        try:
            revision = self._publisher.next_revision
            standings = self._standings.by_route if self._standings.known else None  # then as they are in force
            planned = await plan(self.snapshot, config, routes, opened.store.evidence, revision, standings)
            for route, why in planned.failures.items():
                self._event_log.note("plan_failed", route, f"{why}; its last plan stays in force")
            if planned.snapshot is not self.snapshot:
                await self._put_in_force(planned.snapshot)
        except Exception:
            self._to_plan |= routes
            raise

    async def act(self, route: str, doing: Doing, via: str) -> Moved | Refused:
        """Let a person's act move a route: ``doing`` is given what is known of it, and nothing moves it meanwhile.

        Raises KeyError without such a route, NotHere at a node that may not change what is stored, and what the store
        raises: then nothing was done.
        """
        async with self._turn:
            moved = doing(await self._known(route))
            if isinstance(moved, Moved):
                await self._move({route: moved}, via)
                try:
                    await self._follow_standings()
                except Exception as error:  # it is done all the same: the next pass puts it in force
                    logger.error("where %s stands is stored, and not in force yet: %s", route, reason(error))
            return moved

    async def known(self, route: str) -> Known:
        """Return what an act on a route would be judged by. Raises what ``act`` raises."""
        async with self._turn:
            return await self._known(route)

    async def _known(self, route: str) -> Known:
        opened, config = self.opened, self.config
        if opened is None or config is None:
            raise NotHere("the store is not open yet")
        if not opened.holds:
            raise NotHere("another node of the fleet holds the lease: ask there")
        await self._standings.read(opened)
        return await self.steering.known(opened, config, route)

    async def _settle(self, moves: Mapping[str, Moved]) -> None:
        """Store moves, and put in force what follows; if that cannot be published, the next pass does it."""
        await self._move(moves, "controller")
        await self._follow_standings()

    async def _move(self, moves: Mapping[str, Moved], via: str) -> None:
        if self.opened is None:
            raise NotHere("the store is not open yet")
        self._to_plan |= moves.keys()
        self._event_log.show(await self._standings.move(self.opened.store, moves, self.snapshot.sinks, via))

    async def _follow_standings(self) -> None:
        """Plan the routes that moved: a plan follows from where its route stands in the store."""
        if self.opened is not None and self.config is not None:
            await self._plan(self.opened, self.config, frozenset())

    def _plan_all(self) -> None:
        """Plan every route in the next pass, as it stands in the store then."""
        self._standings.forget()
        self._to_plan |= self.snapshot.routes.keys()

    async def keep_deciding(self) -> None:
        """Decide about once a second, and glance at what fails fast meanwhile, for ever."""
        failing, decided = False, 0.0
        while True:
            await asyncio.sleep(GLANCE_SECONDS)
            try:
                if monotonic() - decided < DECIDE_SECONDS:
                    await self.glance()
                    continue
                decided = monotonic()
                await self.decide()
                failing = False
            except Exception as error:
                if not failing:
                    logger.error("no plans can be made, the last ones stay in force: %s", reason(error))
                    logger.debug("no plans can be made", exc_info=error)
                failing = True

    async def glance(self) -> None:
        """Take out what fails fast. Raises what the store raises."""
        async with self._turn:
            opened, config = self.opened, self.config
            if opened is not None and config is not None and opened.holds and self._standings.known:
                await self.steering.glance(opened, config)

    async def keep_in_step(self) -> None:
        """Put the newest plans and the key of the fleet in force, for ever."""
        while True:
            await asyncio.sleep(STEP_SECONDS)
            member = None if self.opened is None else self.opened.member
            if member is None:
                continue
            try:
                if await self._takes_fleet_key():
                    await self.reload()
                async with self._turn:
                    await self._publisher.keep_in_step()
            except Exception as error:
                logger.debug("not in step with the fleet", exc_info=error)
            if self._watch.look(member.view(self.identity), self.snapshot.revision):
                self._plan_all()

    async def _takes_fleet_key(self) -> bool:
        """Take over the fleet's assignment key if it is new; return whether the snapshot is of another key."""
        if self.opened is None or self.snapshot.gateway.assignment_key_file is not None:
            return False
        key = await self._fleet_key.fetch(self.opened.store)
        return key is not None and key.name != self.snapshot.assignment

    async def _put_in_force(self, fresh: Snapshot, entries: Sequence[Entry] = ()) -> None:
        before = self.snapshot
        await self._publisher.put_in_force(fresh, entries)
        if self.opened is not None and fresh.config != before.config:
            self.opened.recorder.adopt(fresh, now_ms())
