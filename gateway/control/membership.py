"""The fleet: several nodes on one PostgreSQL, and what each of them may write.

Theory of operation. Every node reads its own journal, and one node at a time makes something of what was read:

- A *node* is a data directory; its name is made at its first start and kept there. Its journal's offsets and its
  writers go by that name in the store.
- One node holds the *lease* (``gateway.store.lease``). It records its own journal as a single node does. The others
  *ship* theirs: lines as they are go into the table ``intake``, with the offsets, in one transaction. The holder takes
  them from there as if it had read them itself, and records them with all that follows, in one transaction with their
  deletion. So there is one who joins and counts, who may remember what it wrote, and each line is counted once.
- Every transaction of the holder begins with its fencing number, every one about a journal with the life of its node: a
  process that slept, or was cut off, and whose place was taken finds its number old and writes nothing.
- Who becomes the holder first records what it had itself shipped before, then goes on in its journal: so a node's lines
  are always recorded in their order, and its heartbeats never before what they vouch for.
- A node tells the others once a second that it is there. One that was not heard of for ``ABSENT_MS`` holds the
  watermark back no longer; what it has to tell when it comes back is late, which the join takes as it takes all that
  is late.
- Numbered plans (``gateway.store.publications``): the holder makes them, every node with the same configuration copies
  the newest. A revision is given once. What a node makes of its own file while the store is out of reach has no number
  (0) until it is back.

Rule: a node knows of the others what the store says. With SQLite there is no fleet, and nothing here is made.
"""

from __future__ import annotations

import secrets
import socket
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.event_log import EventLog
from gateway.files.regular import read_regular
from gateway.store import Store
from gateway.store.fleet import lease, nodes, shipped
from gateway.store.fleet.lease import LEASE_MS, Lease
from gateway.store.fleet.nodes import ABSENT_MS, FORGOTTEN_MS, Node
from gateway.store.fleet.shipped import Chunk

NAME: Final = "node"

#: How often a node looks who holds the lease, and a holder renews it though it has nothing to write.
LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class View:
    """The fleet as one node sees it. ``config`` is what it runs itself, ``cut_off_seconds`` since when it sees nothing.

    ``holder`` is "" where nobody holds the lease.
    """

    node: str
    holder: str
    config: str
    nodes: tuple[Node, ...]
    waiting_bytes: Mapping[str, int]
    cut_off_seconds: float | None

    @property
    def differing(self) -> tuple[Node, ...]:
        """The nodes that are there and run another configuration than the holder does."""
        held = {node.name: node.config for node in self.nodes}.get(self.holder) or self.config
        return tuple(node for node in self.nodes if not node.absent and node.config and node.config != held)


class Watch:
    """Notes what changes in the fleet, once each."""

    def __init__(self, event_log: EventLog) -> None:
        self._event_log = event_log
        self._held = False
        self._cut_off = False
        self._differing: frozenset[tuple[str, str]] = frozenset()

    def look(self, view: View, revision: int) -> bool:
        """Look at the fleet; return whether this node has just become the holder, and has everything to plan."""
        note = self._event_log.note
        cut_off = view.cut_off_seconds is not None
        if cut_off != self._cut_off:
            self._cut_off = cut_off
            stays = f"revision {revision} stays in force, and the journal keeps what comes"
            note("store_cut_off", None, stays) if cut_off else note("store_back", None, f"at revision {revision}")
        if cut_off:
            return False
        differing = frozenset((node.name, node.config) for node in view.differing)
        for name, config in sorted(differing - self._differing):
            note("config_differs", None, f"node {name} runs configuration {config}, the holder another")
        if self._differing and not differing:
            note("config_agrees", None, "every node runs the holder's configuration")
        self._differing = differing
        held, self._held = self._held, view.holder == view.node
        if self._held != held:
            note("lease_taken" if self._held else "lease_lost", None, f"node {view.node}; holder {view.holder or '-'}")
        return self._held and not held


class Member:
    """This node's part in the fleet. From now on the store lets nobody change what only the holder may."""

    def __init__(self, store: Store, node: str) -> None:
        self.node = node
        self.prefix = f"{node}/"
        self._store = store
        store.guard = self.fence
        self._life: int | None = None
        self._fencing: int | None = None
        self._leaving = False
        self._looked = -LOOK_SECONDS
        self._seen = monotonic()
        self._holder = self._config = ""
        self._nodes: tuple[Node, ...] = ()
        self._waiting: Mapping[str, int] = {}

    def __repr__(self) -> str:
        return f"Member({self.node}, life {self._life}, fencing {self._fencing})"

    @property
    def holds(self) -> bool:
        """Whether this node held the lease when it last looked; only ``fence`` knows whether it still does."""
        return self._fencing is not None

    @property
    def alone(self) -> bool:
        """Whether there is no other node."""
        return not any(node.name != self.node and not node.absent for node in self._nodes)

    @property
    def present(self) -> Collection[str]:
        """The nodes whose word the watermark waits for."""
        return {node.name for node in self._nodes if not node.absent} | {self.node}

    def view(self, config: str) -> View:
        """Return what there is to show."""
        silent = monotonic() - self._seen
        cut_off = silent if silent > 4 * LOOK_SECONDS + 1 else None
        return View(self.node, self._holder, config, self._nodes, self._waiting, cut_off)

    async def attend(self) -> bool:
        """Look at the fleet, take the lease if it is free; return whether this node holds it."""
        if monotonic() - self._looked < LOOK_SECONDS:
            return self.holds
        await self._free_locks()
        async with self._store.begin() as connection:
            if self._life is None:
                life = await nodes.enter(connection, self.node)
            else:
                life = self._life
                await nodes.still(connection, self.node, life)
            found = await lease.look(connection)
            known = await nodes.known(connection)
            fencing = self._fencing if found.fencing == self._fencing else None
            if fencing is not None and found.left_ms < LEASE_MS * 2 // 3:
                await lease.fence(connection, fencing)
            elif fencing is None and not self._leaving and self._may_take(found, known):
                fencing = await lease.take(connection, self.node)
                found = await lease.look(connection)
            if fencing is not None:
                await _forget(connection, known)
            waiting = await shipped.waiting_bytes(connection)
        self._life, self._fencing = life, fencing
        self._holder = found.holder if found.left_ms >= 0 else ""
        self._nodes, self._waiting = tuple(known), waiting
        self._looked = self._seen = monotonic()
        return self.holds

    async def _free_locks(self) -> None:
        """End a sleeping holder's transaction, lest taking its place waits for it, as it does where engines cannot."""
        if self._fencing is not None:
            return
        with suppress(DBAPIError):
            async with self._store.begin() as connection:
                if (await lease.look(connection)).left_ms < 0:
                    await lease.free_locks(connection)

    def _may_take(self, found: Lease, known: Collection[Node]) -> bool:
        """Whether to try and take the lease: what was this node's at once, what is free after those that are more.

        Whoever holds it plans for its own configuration alone, so a node with another than most lets them go first.
        """
        if found.holder == self.node:
            return True
        configs = Counter(node.config for node in known if node.config and not node.absent and node.name != self.node)
        [(_, most)] = configs.most_common(1) or [("", 0)]
        odd = self._config != "" and configs[self._config] + 1 < most
        return found.left_ms < (-2 * LEASE_MS if odd else 0)

    async def fence(self, connection: AsyncConnection) -> None:
        """Begin a transaction of the holder. Raises LeaseLost or Superseded."""
        if self._fencing is None:
            raise lease.LeaseLost("this node does not hold the lease")
        await self.own(connection)
        await lease.fence(connection, self._fencing)

    async def own(self, connection: AsyncConnection) -> None:
        """Begin a transaction about this node's journal. Raises Superseded."""
        await nodes.still(connection, self.node, self._life or 0)

    async def say(self, connection: AsyncConnection, config: str, revision: int) -> None:
        """Tell the others that this node is there, and what it routes by. Raises Superseded."""
        self._config = config
        if self._life is not None:
            await nodes.say(connection, self.node, self._life, config, revision)
            self._seen = monotonic()

    async def shipped(self, limit: int) -> tuple[list[Chunk], bool]:
        """Return what nodes shipped first, about ``limit`` lines of it, and whether anything of this node waits."""
        async with self._store.begin() as connection:
            waiting = await shipped.waiting_bytes(connection)
            return (await shipped.first(connection, limit) if waiting else []), self.node in waiting

    async def newest_shipped(self) -> int:
        """Return the number of what was shipped last and waits, 0 where nothing does."""
        async with self._store.begin() as connection:
            return await shipped.newest(connection)

    def lost(self) -> None:
        """Know that the lease is another's."""
        self._fencing, self._looked = None, -LOOK_SECONDS

    async def yield_lease(self) -> None:
        """Give the lease to whoever takes it first, and take it no more."""
        self._leaving = True
        fencing, self._fencing = self._fencing, None
        if fencing is not None:
            async with self._store.begin() as connection:
                await lease.release(connection, fencing)

    async def leave(self) -> None:
        """Be no member any more: everything is told, and nobody has to wait for this node."""
        await self.yield_lease()
        if self._life is not None:
            async with self._store.begin() as connection:
                await nodes.leave(connection, self.node, self._life)


def name_of(data_dir: Path) -> str:
    """Return the name of the node that this data directory is, made and kept there if it has none. Raises OSError.

    The host's name is in it for people; chance makes it one's own, for hosts may hold several, or be made of one image.
    """
    path = data_dir / NAME
    try:
        name = read_regular(path).decode(errors="replace").strip()
    except FileNotFoundError:
        name = ""
    if not name:
        host = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname())[:48] or "node"
        name = f"{host}-{secrets.token_hex(3)}"
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(f"{name}\n")
        fresh.replace(path)
    return name.replace("/", "-")


async def _forget(connection: AsyncConnection, known: Collection[Node]) -> None:
    for node in known:
        if node.silent_ms > FORGOTTEN_MS:
            await nodes.forget(connection, node.name)


__all__ = ["ABSENT_MS", "LEASE_MS", "Member", "View", "name_of"]
