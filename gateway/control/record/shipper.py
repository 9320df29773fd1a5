"""Ship the journal of a node that does not hold the lease: lines as they are, into the store, for the holder to record.

Rule: only the seals are checked, and damaged lines go into this node's quarantine. Lines and offsets are written in one
transaction, which begins by checking the life of the node; a segment is deleted once that is committed. Only its own
node can know that a writer is dead and drained: it says so after the writer's last line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from gateway.control.membership import Member
from gateway.control.record.drain import Read, Segments
from gateway.control.record.lines import Batch
from gateway.journal.quarantine import Quarantine
from gateway.store import Store
from gateway.store.counts import positions
from gateway.store.counts.watermark import Writer, Writers
from gateway.store.fleet import shipped

_GONE: Final = b'{"line":"gone"}'


class ShippedBatch(Batch):
    """Lines to be shipped, by writer, in their order, without their seals; and counts of damaged lines."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[tuple[str, list[bytes]]] = []

    def _parse(self, text: bytes, writer: str) -> None:
        """Keep the line as it is, unread."""
        if not self.parts or self.parts[-1][0] != writer:
            self.parts.append((writer, []))
        self.parts[-1][1].append(text)

    def close(self, gone: Iterable[str], node: str) -> None:
        """Add the last lines: which writers are gone, and how many lines were damaged."""
        self.parts += [(one, [_GONE]) for one in gone]
        met = {"corrupt": self.corrupt, "torn": self.torn, "lost": self.lost}
        if any(met.values()):
            self.parts.append((node, [orjson.dumps({"line": "met", **met})]))


@dataclass(slots=True)
class _ShipperState:
    """What memory holds of the store, as of the last commit; ``gone`` are writers whose end was shipped."""

    segments: Segments
    writers: Writers
    gone: set[str] = field(default_factory=set)


class Shipper:
    """Ships one node's journal."""

    def __init__(self, store: Store, member: Member, journal: Path, run: str | None, quarantine: Quarantine) -> None:
        self._store = store
        self._member = member
        self._journal = journal
        self._run = run
        self._quarantine = quarantine
        self._state: _ShipperState | None = None
        #: Whether the last step left lines where they are, because too many wait in the store already.
        self.full = False
        #: Whether it left lines because it had as many as there may be at once.
        self.more = False

    def forget(self) -> None:
        """Forget the state: the store was changed since, by the recorder of this node."""
        self._state = None

    async def step(self, limit: int) -> tuple[int, Segments]:
        """Ship the next lines; return how many, and the segments as they then are. Raises the store's trouble."""
        state, self._state = self._state or await self._load(), None  # until the commit
        prefix = self._member.prefix
        dead = state.writers.dead(self._run, prefix)
        state.segments.look(dead)
        for name in state.segments.writers():
            state.writers.add(name)
        batch = ShippedBatch()
        self.full = self._member.view("").waiting_bytes.get(self._member.node, 0) > shipped.MOST_BYTES
        read = Read() if self.full else await asyncio.to_thread(state.segments.read, limit, None, batch)
        self.more = read.more
        if read.unreadable:
            await asyncio.to_thread(self._quarantine.keep, read.unreadable)
        gone = sorted(state.segments.drained_writers(dead - state.gone, read.offsets))
        batch.close(gone, prefix)
        forgotten, silent = state.segments.forgotten(), state.segments.silent()
        if batch.parts or read.offsets or forgotten or silent:
            async with self._store.begin() as connection:
                await self._member.fence_journal(connection)
                await shipped.add(connection, self._member.node, batch.parts)
                await positions.write_offsets(connection, read.offsets, prefix)
                await positions.write_numbers(connection, read.numbers, prefix)
                await positions.forget_offsets(connection, forgotten, prefix)
                await positions.forget_numbers(connection, silent, prefix)
            state.segments.recorded(read.offsets, read.numbers)
            state.gone.update(gone)
            for name in forgotten:
                del state.segments.offsets[name]
            for chain in silent:
                del state.segments.numbers[chain]
        self._quarantine.forget()
        self._state = state
        return batch.lines, state.segments

    async def _load(self) -> _ShipperState:
        prefix = self._member.prefix
        async with self._store.begin() as connection:
            await self._member.fence_journal(connection)
            offsets = await positions.read_offsets(connection, prefix)
            numbers = await positions.read_numbers(connection, prefix)
            segments = Segments(self._journal, offsets, numbers, prefix=prefix)
            names = {name for name in await positions.living(connection, prefix) if not name.endswith("/")}
        return _ShipperState(segments, Writers({name: Writer(0) for name in names}))
