"""The snapshot in force: it is stored, then published, and only then routed by.

Rule: a plan that decided anything can be found in the store under its route and revision. So plans are stored before
they are published. Where they cannot be, an operator's edit is published all the same and stored later.

Where there are several nodes (``gateway.control.membership``), revisions are numbered in the store: plans by the holder
of the lease, an edit by the first node that has it. Every node copies the highest revision of its own configuration.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.event_log import EventLog, now_ms
from gateway.control.membership import Member
from gateway.control.record.transaction import announce_entry
from gateway.files.published import SNAPSHOT, fingerprint, publish
from gateway.store import Store, StoreError, audit, reason
from gateway.store.audit import Entry
from gateway.store.counts import plans
from gateway.store.counts.reported import note_declared
from gateway.store.fleet import nodes, publications
from gateway.store.fleet.publications import UNNUMBERED, numbered, with_published
from router.compile import identity_of
from router.snapshot import NamedToken, Route, Snapshot

logger = logging.getLogger(__name__)

#: A moved plan is noted when a share has moved this far since the last note: a bandit's plan moves all the time.
NOTED_SHARE: Final = 0.05

#: Entries of the audit log that wait for the store; with more, the oldest are lost, and the log of the process says so.
MOST_UNAUDITED: Final = 1_000

#: How often a number is tried: each time, another node was given it at the same moment.
_ATTEMPTS: Final = 20


class Publisher:
    """Holds the snapshot in force and its place, ``data_dir/snapshot.json``."""

    def __init__(self, data_dir: Path, snapshot: Snapshot, event_log: EventLog) -> None:
        self.snapshot = snapshot
        self.store: Store | None = None
        self.member: Member | None = None
        self._identity = snapshot.source, identity_of(snapshot)
        self._path = data_dir / SNAPSHOT
        self._event_log = event_log
        self._unsaved = True
        #: Entries of the audit log that are not stored yet. More than so many are never waited for: reloads are rare.
        self._unaudited: deque[Entry] = deque(maxlen=MOST_UNAUDITED)
        self._newest_stored = 0
        self._published = _seen(self._path)
        #: Routes whose plans are in the store, as they are there.
        self._written: Mapping[str, Route] = {}
        self._noted: dict[str, Mapping[str, float]] = {
            name: route.plan.shares for name, route in snapshot.routes.items()
        }

    @property
    def next_revision(self) -> int:
        """The number of the next snapshot: higher than any before, also than those of a snapshot that was lost."""
        return UNNUMBERED if self.shared else max(self.snapshot.revision, self._newest_stored) + 1

    @property
    def shared(self) -> bool:
        """Whether numbers are given in a store that several nodes may have in common."""
        return self.snapshot.gateway.store != "sqlite"

    @property
    def identity(self) -> str:
        """The hash of what nodes that serve the same have in common."""
        if self._identity[0] != self.snapshot.source:
            self._identity = self.snapshot.source, identity_of(self.snapshot)
        return self._identity[1]

    async def begin(self, store: Store, member: Member | None = None) -> None:
        """Go on where this store's plans ended. Raises what the store raises."""
        async with store.read() as connection:
            self._newest_stored = await plans.newest_revision(connection)
        self.store, self.member = store, member

    async def put_in_force(self, fresh: Snapshot, entries: Sequence[Entry] = ()) -> None:
        """Store the plans, publish the snapshot, and switch to it. Raises OSError if it cannot be published.

        ``entries`` of the audit log are stored with the plans. Plans of the planner that cannot be stored are not
        published: raises what the store raises.
        """
        self._unsaved = True
        self.note_entries(entries)
        if self.store is not None:
            try:
                fresh = await self._stored(self.store, fresh)
                self._written = fresh.routes
            except Exception as error:
                if fresh.source == self.snapshot.source:
                    raise
                logger.error("plans could not be stored, they will be: %s", reason(error))
        await self._switch_to(fresh)

    async def put_tokens(self, tokens: tuple[NamedToken, ...]) -> None:
        """Publish the snapshot with these tokens. Its number stays. Raises OSError."""
        await self._switch_to(replace(self.snapshot, tokens=tokens))

    def note_entries(self, entries: Sequence[Entry]) -> None:
        """Have entries of the audit log stored with what is stored next."""
        if len(self._unaudited) + len(entries) > MOST_UNAUDITED:
            logger.error("the store is away for too long: edits are missing in the audit log")
        self._unaudited.extend(entries)

    async def keep_in_step(self) -> bool:
        """Copy the newest plans of this configuration if another node made them; return whether it did.

        A snapshot without a number gets one, and what is in force here is reported to the fleet. Raises what the store
        raises, and OSError if the snapshot cannot be published.
        """
        if self.store is None or self.member is None:
            return False
        if self.snapshot.revision == UNNUMBERED:
            await self.put_in_force(self.snapshot)
        async with self.store.read() as connection:
            newest = await publications.newest_of(connection, self.identity)
            found = await publications.read(connection, newest) if newest not in {0, self.snapshot.revision} else None
        if found is not None:
            await self._switch_to(with_published(self.snapshot, newest, found))
        async with self.store.begin() as connection:
            await self.member.report(connection, self.identity, self.snapshot.revision)
        return found is not None

    async def mend(self) -> None:
        """Publish again what is in force if its file is gone or changed: a worker that starts needs it.

        Raises OSError if it cannot be published.
        """
        if _seen(self._path) != self._published:
            await self._publish(self.snapshot)
            self._event_log.note("snapshot_mended", None, f"{self._path.name} was not as published; it is again")

    async def save(self, store: Store) -> None:
        """Store what could not be stored before."""
        if self._unsaved and not self.shared:
            async with store.read() as connection:
                taken = await plans.taken(connection, self.snapshot.routes.values())
            if taken:  # the snapshot was lost and begun anew, the store was not
                await self.put_in_force(_renumbered(self.snapshot, taken, self.next_revision))
            else:
                await self._store_plans(store, self.snapshot)
        unsaved, entries = self._event_log.unsaved(), len(self._unaudited)
        if unsaved or entries:
            async with store.begin() as connection:
                await plans.write_events(connection, unsaved)
                await self._append_entries(connection)
            self._event_log.saved(unsaved)
            self._audited(entries)

    async def _stored(self, store: Store, fresh: Snapshot) -> Snapshot:
        """Store the plans; return the snapshot to publish: another node's, if that was first."""
        if self.member is None:
            await self._store_plans(store, fresh)
            return fresh
        planned = fresh.source == self.snapshot.source and fresh.revision != self.snapshot.revision
        if planned and self.member.holds:
            async with store.change() as connection:
                return await self._number(connection, fresh, self.member.node)
        entries = len(self._unaudited)
        for _ in range(_ATTEMPTS):
            with suppress(IntegrityError):  # another node was given the number at the same moment
                agreed = await self._agreed(store, self.member, fresh)
                self._audited(entries)
                return agreed
        raise StoreError("others are given every number first")

    async def _agreed(self, store: Store, member: Member, fresh: Snapshot) -> Snapshot:
        """Return an edit as other nodes have it already, or with a new number if this node is the first."""
        identity = identity_of(fresh)
        async with store.begin() as connection:
            await member.fence_journal(connection)
            _, present = await publications.newest(connection)
            newest = await publications.newest_of(connection, identity)
            others = [
                node for node in await nodes.all_nodes(connection) if node.name != member.node and not node.absent
            ]
            if newest and (present == identity or any(node.config == identity for node in others)):
                agreed = with_published(fresh, newest, await publications.read(connection, newest))
            else:
                agreed = await self._number(connection, fresh, member.node)
            await self._append_entries(connection)
            return agreed

    async def _number(self, connection: AsyncConnection, fresh: Snapshot, node: str) -> Snapshot:
        newest, _ = await publications.newest(connection)
        fresh = numbered(fresh, max(newest, self._newest_stored, self.snapshot.revision) + 1)
        self._note_stored(*await self._write(connection, fresh))
        await publications.write(connection, fresh, identity_of(fresh), node, now_ms())
        return fresh

    async def _switch_to(self, fresh: Snapshot) -> None:
        await self._publish(fresh)
        self.snapshot = fresh
        self._note_plans()

    async def _publish(self, snapshot: Snapshot) -> None:
        await asyncio.to_thread(publish, self._path, snapshot)
        self._published = _seen(self._path)

    async def _store_plans(self, store: Store, snapshot: Snapshot) -> None:
        entries = len(self._unaudited)
        async with store.begin() as connection:
            written = await self._write(connection, snapshot)
            await self._append_entries(connection)
        self._audited(entries)
        self._newest_stored = max(self._newest_stored, snapshot.revision)
        self._unsaved, self._written = False, snapshot.routes
        self._note_stored(*written)

    async def _write(self, connection: AsyncConnection, snapshot: Snapshot) -> tuple[list[Route], list[str]]:
        """Store plans, and tests as they are declared; return the routes that begin an epoch or change a test late."""
        fresh = self._fresh(snapshot)
        began = await plans.write_plans(connection, fresh, now_ms())
        declared = [route for route in fresh if _declared(self._written.get(route.name)) != _declared(route)]
        return began, await note_declared(connection, declared, snapshot.backends, now_ms())

    async def _append_entries(self, connection: AsyncConnection) -> None:
        """Append what waits for it, at the end of a transaction; ``_audited`` follows its commit."""
        for entry in tuple(self._unaudited):
            await announce_entry(connection, entry, self.snapshot.sinks, now_ms())
        for entry in tuple(self._unaudited):
            await audit.append(connection, entry, now_ms())

    def _audited(self, entries: int) -> None:
        for _ in range(min(entries, len(self._unaudited))):
            self._unaudited.popleft()

    def _note_stored(self, began: Iterable[Route], late: Iterable[str]) -> None:
        for route in began:
            self._event_log.note("epoch_began", route.name, f"epoch {route.epoch}, {', '.join(route.variants)}")
        for name in late:
            said = "the declared test changed after values were known: in this epoch it promises nothing"
            self._event_log.note("test_changed", name, said)

    def _fresh(self, snapshot: Snapshot) -> list[Route]:
        """Return the routes whose plans may have to be stored: of a plan that moves every second, one of hundreds."""
        return [route for name, route in snapshot.routes.items() if self._written.get(name) is not route]

    def _note_plans(self) -> None:
        """Note plans whose shares moved noticeably."""
        for name, route in self.snapshot.routes.items():
            shares = route.plan.shares
            noted = self._noted.setdefault(name, shares)
            moved = max(
                (abs(shares.get(v, 0.0) - noted.get(v, 0.0)) for v in shares.keys() | noted.keys()), default=0.0
            )
            if moved >= NOTED_SHARE:
                self._noted[name] = shares
                listed = ", ".join(f"{variant} {share:.3f}" for variant, share in shares.items())
                self._event_log.note("plan_moved", name, f"revision {route.revision}: {listed}")


def _seen(path: Path) -> tuple[int, int, int] | None:
    """The published file's fingerprint; None where there is none."""
    with suppress(OSError):
        return fingerprint(path)
    return None


def _declared(route: Route | None) -> tuple[Any, ...] | None:
    """What a declaration holds for: a new version begins a period."""
    return None if route is None else (route.epoch, route.period, route.test)


def _renumbered(snapshot: Snapshot, routes: Iterable[str], revision: int) -> Snapshot:
    """Give these routes' plans another revision."""
    renamed = {name: replace(snapshot.routes[name], revision=revision) for name in routes}
    return replace(snapshot, revision=revision, routes={**snapshot.routes, **renamed})
