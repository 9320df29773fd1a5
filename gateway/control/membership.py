"""The fleet: several nodes on one PostgreSQL, and what each of them may write.

Theory of operation. Every node reads its own journal, and one node at a time records, joins and counts for all:

- A *node* is a data directory; its name is made at its first start and kept there. In the store, its journal's offsets
  and its writers have that name.
- One node holds the *lease* (``gateway.store.fleet.lease``). It records its own journal as a single node does. The
  others *ship* theirs: they write the lines as they are into the table ``intake``, with the offsets, in one
  transaction. The holder reads them there, and records them with all that follows in one transaction with their
  deletion. So a single process joins and counts, and may remember what it wrote, and each line is counted once.
- Every transaction of the holder begins with its fencing number, and every one about a journal with the life of its
  node. A process that slept or was cut off, and was replaced meanwhile, finds its number old and writes nothing.
- A node that becomes the holder first records what it had itself shipped before, then goes on in its journal: so a
  node's lines are always recorded in their order, and no heartbeat before the lines that it vouches for.
- A node writes into the store once a second that it is there. One that has been silent for ``ABSENT_MS`` no longer
  holds the watermark back; its lines come late when it is back, and are joined as all late lines are.
- Numbered plans (``gateway.store.fleet.publications``): the holder makes them, every node with the same configuration
  copies the newest. A revision is given once. A snapshot that a node compiles while the store is out of reach has no
  number (0) until the store is back.

Rule: a node knows of the others what the store says. With SQLite there is no fleet, and no ``Member``.
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

#: How often a node looks which node holds the lease, and a holder renews it though it has nothing to write.
LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class FleetView:
    """The fleet as one node sees it. ``config`` is the configuration that this node runs.

    ``cut_off_seconds`` is how long it has not reached the store, None while it does. ``holder`` is "" where no node
    holds the lease.
    """

    node: str
    holder: str
    config: str
    nodes: tuple[Node, ...]
    waiting_bytes: Mapping[str, int]
    cut_off_seconds: float | None

    @property
    def differing(self) -> tuple[Node, ...]:
        """The nodes that are present and run another configuration than the holder."""
        held = {node.name: node.config for node in self.nodes}.get(self.holder) or self.config
        return tuple(node for node in self.nodes if not node.absent and node.config and node.config != held)


class FleetWatch:
    """Notes each change in the fleet once in the event log."""

    def __init__(self, event_log: EventLog) -> None:
        self._event_log = event_log
        self._held = False
        self._cut_off = False
        self._differing: frozenset[tuple[str, str]] = frozenset()

    def look(self, view: FleetView, revision: int) -> bool:
        """Note what changed; return whether this node has just become the holder: then it must plan every route."""
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
    """This node's membership. From now on ``Store.change`` fails at every node but the holder of the lease."""

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
    def fencing(self) -> int | None:
        """The number under which this node holds the lease; None while it does not."""
        return self._fencing

    @property
    def alone(self) -> bool:
        """Whether no other node is present."""
        return not any(node.name != self.node and not node.absent for node in self._nodes)

    @property
    def present(self) -> Collection[str]:
        """The nodes whose heartbeats the watermark waits for."""
        return {node.name for node in self._nodes if not node.absent} | {self.node}

    def view(self, config: str) -> FleetView:
        """Return the fleet as this node saw it last."""
        silent = monotonic() - self._seen
        cut_off = silent if silent > 4 * LOOK_SECONDS + 1 else None
        return FleetView(self.node, self._holder, config, self._nodes, self._waiting, cut_off)

    async def keep_lease(self) -> bool:
        """Renew the lease, or take it if it is free; return whether this node holds it."""
        if monotonic() - self._looked < LOOK_SECONDS:
            return self.holds
        await self._free_locks()
        async with self._store.begin() as connection:
            if self._life is None:
                life = await nodes.begin_life(connection, self.node)
            else:
                life = self._life
                await nodes.ensure_newest_life(connection, self.node, life)
            found = await lease.read(connection)
            known = await nodes.all_nodes(connection)
            fencing = self._fencing if found.fencing == self._fencing else None
            if fencing is not None and found.left_ms < LEASE_MS * 2 // 3:
                await lease.fence(connection, fencing)
            elif fencing is None and not self._leaving and self._may_take(found, known):
                fencing = await lease.take(connection, self.node)
                found = await lease.read(connection)
            if fencing is not None:
                await _forget(connection, known)
            waiting = await shipped.waiting_bytes(connection)
        self._life, self._fencing = life, fencing
        self._holder = found.holder if found.left_ms >= 0 else ""
        self._nodes, self._waiting = tuple(known), waiting
        self._looked = self._seen = monotonic()
        return self.holds

    async def _free_locks(self) -> None:
        """End the transaction of a holder whose lease has expired: its locks would delay taking the lease."""
        if self._fencing is not None:
            return
        with suppress(DBAPIError):
            async with self._store.begin() as connection:
                if (await lease.read(connection)).left_ms < 0:
                    await lease.free_locks(connection)

    def _may_take(self, found: Lease, known: Collection[Node]) -> bool:
        """Whether to try and take the lease: its own at once, a free one unless it runs another configuration than
        most.

        The holder plans for its own configuration alone, so a node with an odd one waits two leases for the others.
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
        await self.fence_journal(connection)
        await lease.fence(connection, self._fencing)

    async def fence_journal(self, connection: AsyncConnection) -> None:
        """Begin a transaction about this node's journal. Raises Superseded."""
        await nodes.ensure_newest_life(connection, self.node, self._life or 0)

    async def report(self, connection: AsyncConnection, config: str, revision: int) -> None:
        """Write that this node is there, with its configuration and revision. Raises Superseded."""
        self._config = config
        if self._life is not None:
            await nodes.announce(connection, self.node, self._life, config, revision)
            self._seen = monotonic()

    async def shipped(self, limit: int) -> tuple[list[Chunk], bool]:
        """Return the oldest shipped lines, about ``limit`` of them, and whether lines of this node wait."""
        async with self._store.begin() as connection:
            waiting = await shipped.waiting_bytes(connection)
            return (await shipped.first(connection, limit) if waiting else []), self.node in waiting

    async def newest_shipped(self) -> int:
        """Return the number of the newest shipped chunk that waits, 0 where none does."""
        async with self._store.begin() as connection:
            return await shipped.newest(connection)

    def lose_lease(self) -> None:
        """Called when another node has taken the lease."""
        self._fencing, self._looked = None, -LOOK_SECONDS

    async def yield_lease(self) -> None:
        """Release the lease, for the first node that takes it, and do not take it again."""
        self._leaving = True
        fencing, self._fencing = self._fencing, None
        if fencing is not None:
            async with self._store.begin() as connection:
                await lease.release(connection, fencing)

    async def leave(self) -> None:
        """Leave the fleet: every line is recorded or shipped, and no node needs to wait for this one."""
        await self.yield_lease()
        if self._life is not None:
            async with self._store.begin() as connection:
                await nodes.leave(connection, self.node, self._life)


def name_of(data_dir: Path) -> str:
    """Return the name of this data directory's node; one is made and kept there if it has none. Raises OSError.

    The host's name is in it for people. A random part makes it unique: a host may have several nodes, or be a clone.
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


__all__ = ["ABSENT_MS", "LEASE_MS", "FleetView", "Member", "name_of"]
