"""Drain the journal into the store: read some lines, record them with everything that follows, in one transaction.

Rule: exactly once, however it is interrupted. Offsets, rows, tallies, statuses and the watermark are written together;
what memory knows beyond them is discarded when a transaction fails; a segment is deleted only when all of it is safe on
the disk. Of several nodes, only the holder of the lease records; the others ship (``gateway.control.membership``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

from gateway.control.membership import Member
from gateway.control.progress import Progress
from gateway.control.record.committer import Committer
from gateway.control.record.drain import Follower, Read, Segments
from gateway.control.record.isolation import Isolation
from gateway.control.record.lines import Batch
from gateway.control.record.liveness import Liveness
from gateway.control.record.row_errors import is_of_a_row
from gateway.control.record.shipper import Shipper
from gateway.control.record.state import StoreState
from gateway.journal.quarantine import QUARANTINE, Quarantine
from gateway.journal.segments import PREDICTIONS, Segment
from gateway.store import Store, reason
from gateway.store.counts.deltas import StatusDelta
from gateway.store.fleet.lease import LeaseLost
from gateway.store.fleet.shipped import Chunk
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Lines per transaction: so many that a page of an index is written once for several of them, and so few that reports
#: get their turn. Only a recorder that catches up has as many: then a transaction takes a second or two.
LINES: Final = 20_000
#: The same while there is hardly any room for them on the disk.
SPARING_LINES: Final = 1_000

#: Predictions whose windows close, and events that are looked up, per transaction (and metric).
SWEEP: Final = 5_000

#: Seconds until the next look at the journal. Where many lines come, more of them at once is cheaper: units that come
#: again are written once, pages are filled, and workers keep the processor meanwhile.
POLL_SECONDS: Final = 0.2
BUSY_POLL_SECONDS: Final = 1.0
BUSY_LINES_PER_SECOND: Final = 500
LONGEST_BACKOFF_SECONDS: Final = 10.0


class Recorder:
    """Records one journal into one store.

    ``run`` is the present supervisor's: writers of older ones are dead. ``on_statuses`` and ``on_counts`` are called as
    ``Committer`` says. ``follower`` is handed every call when it is read, and keeps a segment from being deleted
    before. ``member`` is this node's part in the fleet, None where there is none.

    ``trouble`` is why nothing can be recorded at present. ``sparing`` says to go in small steps, each made durable,
    because there is hardly any room left for them.
    """

    def __init__(
        self,
        store: Store,
        journal: Path,
        *,
        run: str | None = None,
        on_statuses: Callable[[Iterable[StatusDelta]], None] = lambda _: None,
        on_counts: Callable[[Mapping[str, int]], None] = lambda _: None,
        follower: Follower | None = None,
        lines: int = LINES,
        member: Member | None = None,
    ) -> None:
        self._store = store
        self._run = run
        self._quarantine = Quarantine(journal.parent / QUARANTINE)
        self._follower = follower
        self._most = self._lines = lines
        self._member = member
        self._shipper = None if member is None else Shipper(store, member, journal, run, self._quarantine)
        self._committer = Committer(store, journal, run, member, on_statuses, on_counts)
        self._isolation = Isolation(self._committer)
        self._liveness = Liveness(journal, fleet=member is not None)
        self.trouble: Exception | None = None
        self.sparing = False
        self._turn = asyncio.Lock()
        self._idle_steps = 0
        self._lines_read, self._paused = 0, monotonic()  # lines since the last pause
        self._attempted = Read()

    def lag(self) -> tuple[float, int]:
        """Return for how many seconds there was always something to record, and how many bytes of it."""
        return self._liveness.lag()

    def progress(self) -> Progress:
        """Return how far recording is, and whether and why it is stalled."""
        return self._liveness.progress(self.trouble)

    @property
    def refused(self) -> int:
        """How many segments are left alone because this program cannot read them."""
        return len(self._liveness.refused)

    def take_matured(self) -> set[str]:
        """Return the routes whose mature tallies moved since the last call."""
        matured, self._committer.matured = self._committer.matured, set()
        return matured

    def adopt(self, snapshot: Snapshot, now_ms: int) -> None:
        """Judge predictions by this snapshot's metrics, and queue events for its sinks, from the next step on."""
        self._committer.adopt(snapshot, now_ms)

    async def run(self, stopping: asyncio.Event) -> None:
        """Record until ``stopping``. Trouble with the store is waited out: the journal keeps what comes."""
        pause = POLL_SECONDS
        while not stopping.is_set():
            try:
                more = await self.step()
                pause, self.trouble = POLL_SECONDS, None
            except Exception as error:
                more = False
                if self.trouble is None:
                    logger.error("recording stopped, the journal keeps what comes: %s", reason(error))
                    logger.debug("recording stopped", exc_info=error)
                self.trouble, pause = error, min(pause * 2, LONGEST_BACKOFF_SECONDS)
            if not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), max(pause, self._pause()))

    def _pause(self) -> float:
        """How long to wait for more, by how much came since the last pause."""
        now = monotonic()
        busy = self._lines_read > BUSY_LINES_PER_SECOND * (now - self._paused)
        self._lines_read, self._paused = 0, now
        return BUSY_POLL_SECONDS if busy else POLL_SECONDS

    async def drain(self, timeout_seconds: float) -> bool:
        """Record what the journal holds, to its end; return whether that was reached in time."""
        deadline = monotonic() + timeout_seconds
        self._idle_steps = 0
        while self._idle_steps < 3:  # that a segment is finished is known only at the second look
            if monotonic() >= deadline:
                return False
            try:
                await self.step()
            except Exception as error:
                logger.warning("the journal keeps what is not recorded yet: %s", reason(error))
                return False
            if self._shipper is not None and self._shipper.full:
                await asyncio.sleep(POLL_SECONDS)
        return True

    async def step(self) -> bool:
        """Record the next lines and whatever else is due; return whether there is more. Raises the store's trouble."""
        async with self._turn:
            if self._member is not None and not await self._member.keep_lease():
                return await self._ship()
            try:
                return await self._attempt(min(self._lines, SPARING_LINES) if self.sparing else self._lines)
            except LeaseLost as error:
                logger.warning("%s: from now on this node ships its journal", error)
                if self._member is not None:
                    self._member.lose_lease()
                return True

    async def exclusively(self, change: Callable[[], Awaitable[T]]) -> T:
        """Make a change to the store while nothing is recorded, and forget what memory knows of the store before it."""
        async with self._turn:
            self._committer.discard_state()
            return await change()

    async def _attempt(self, limit: int) -> bool:
        """Record up to ``limit`` lines, or find the row that cannot be recorded; return whether there is more."""
        try:
            return await self._step(limit, self._sweep())
        except Exception as error:
            if not is_of_a_row(error):
                raise
            await self._isolate(error)
            return True

    def _sweep(self) -> int:
        """To how much the watermark is applied: while a failing row is looked for, to no more than lines are read."""
        return SWEEP if self._lines >= self._most else min(SWEEP, self._lines)

    async def _isolate(self, error: Exception) -> None:
        """A batch could not be recorded: do less at a time, down to the one thing at fault, and set that aside.

        It may be the line that is read, or something that was stored long ago and is due now.
        """
        if self._lines > 1:
            logger.warning("a batch of %d lines could not be recorded, trying fewer: %s", self._lines, reason(error))
            self._lines = max(1, self._lines // 8)
            return
        try:
            await self._step(1, 0)
        except Exception as again:
            if not is_of_a_row(again):
                raise
            skipped = self._attempted
            if await self._isolation.set_unreadable_aside(skipped, again):
                return
            await self._step(0, 0)  # were it not the line's fault, this would fail too
            state = self._committer.state
            if state is None or not (skipped.offsets or skipped.taken):
                raise
            await self._isolation.set_line_aside(state, skipped, again)
        else:
            await self._isolation.set_due_work_aside()

    async def _ship(self) -> bool:
        """Ship the next lines to the holder of the lease; return whether there is more."""
        assert self._shipper is not None
        self._committer.state = None  # the holder writes now: what memory knows of the store is no longer so
        shipped, segments = await self._shipper.step(self._most)
        self._liveness.refused = segments.refused
        self._lines_read += shipped
        self._idle_steps = 0 if shipped or self._shipper.full else self._idle_steps + 1
        self._liveness.step_succeeded(segments, None)
        await self._dispose(segments)
        return self._shipper.more

    async def _step(self, limit: int, sweep: int) -> bool:
        """Record ``limit`` lines and apply the watermark to ``sweep`` rows, at most; return whether there is more."""
        if self._shipper is not None:
            self._shipper.forget()
        state = await self._committer.take_state()
        dead = state.writers.dead(self._run, state.prefix)
        ahead, state.ahead = state.ahead, None
        read = None if ahead is None else await ahead
        state.segments.look(dead)
        for name in state.segments.writers():
            state.writers.add(name)
        read = self._attempted = read or await self._read_next(state, limit)
        batch, self._liveness.refused = read.batch, state.segments.refused
        if self._follower is not None:
            for reading in read.readings:
                self._follower.receive(reading.segment, reading.start, reading.end, batch.calls[reading.calls])
        if read.unreadable:
            await asyncio.to_thread(self._quarantine.keep, read.unreadable)
        more = False
        if read.offsets or read.taken or self._committer.adopting or state.has_work(dead):
            ahead_of = read.more and limit > 0 and self._member is None and not self.sparing
            next_lines = (lambda: self._read_next(state, limit)) if ahead_of else None
            more = await self._committer.commit(state, read, dead, sweep, next_lines)
        self._quarantine.forget()
        self._committer.state = state
        self._lines_read += batch.lines
        self._idle_steps = 0 if batch.lines or more else self._idle_steps + 1
        self._liveness.step_succeeded(state.segments, state.writers)
        self._lines = min(self._most, max(1, self._lines * 2))
        if self.sparing and read.offsets:
            await self._store.make_durable()
        await self._dispose(state.segments)
        return more or read.more

    async def _read_next(self, state: StoreState, limit: int) -> Read:
        """Read lines of this node's journal and of what others shipped: each gets half, where both have much."""
        if self._member is None:
            return await asyncio.to_thread(state.segments.read, limit, self._follower)
        chunks, waits = await self._member.shipped((limit + 1) // 2) if limit else ([], False)
        # What this node itself shipped comes before what it reads: until that is recorded, nothing is read.
        most = 0 if waits else limit // 2 if chunks else limit
        read = await asyncio.to_thread(state.segments.read, most, self._follower)
        if chunks:
            read.taken = await asyncio.to_thread(_unpack, read.batch, chunks, limit)
            read.more |= read.batch.lines >= limit
        return read

    async def _dispose(self, segments: Segments) -> None:
        """Delete segments that are finished and recorded, once nothing can take the record back."""
        disposable = [segment for name, segment in segments.disposable() if not self._followed(name, segment)]
        if not disposable:
            return
        await self._store.make_durable()
        for segment in disposable:
            with suppress(FileNotFoundError):
                segment.path.unlink()

    def _followed(self, name: str, segment: Segment) -> bool:
        """Return whether the follower has not reached the end of a segment yet."""
        if self._follower is None or not name.startswith(PREDICTIONS):
            return False
        return self._follower.reached(segment) < segment.size


def _unpack(batch: Batch, chunks: Iterable[Chunk], limit: int) -> dict[int, int | None]:
    """Add what nodes shipped to a batch, up to ``limit`` lines in all; return how far each chunk was read."""
    taken: dict[int, int | None] = {}
    for chunk in chunks:
        lines = chunk.lines(max(0, limit - batch.lines))
        if not lines:
            break
        batch.read_shipped(lines, chunk.writer)
        until = chunk.taken + sum(len(line) + 1 for line in lines)
        taken[chunk.seq] = None if until >= len(chunk.content) else until
    return taken
