"""Drain the journal into the store: read some lines, record them with everything that follows, in one transaction.

Rule: exactly once, however it is interrupted. Offsets, rows, tallies, statuses and the watermark are written together;
what memory knows beyond them is thrown away when a transaction fails; a segment is deleted only when all of it is safe
on the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.joiner import Joiner
from gateway.control.lines import Batch
from gateway.control.segments import Follower, Segments
from gateway.journal import PREDICTIONS, Segment
from gateway.ledger import UNKNOWN
from gateway.store import Store, bodies, calls, feedback, plans, positions, reason, tallies
from gateway.store.definitions import Definition, newly_defined
from gateway.store.moves import Moves, Told
from gateway.store.tallies import Remembered
from gateway.store.watermark import Writers
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Lines per transaction: so many that its fixed cost disappears, and so few that reports get their turn.
LINES: Final = 10_000

#: Predictions whose windows close, and events that are looked up, per transaction (and metric).
SWEEP: Final = 5_000

#: Until the next look at the journal. Where much comes, more of it at once is cheaper: units that come again are
#: written once, pages are filled, and workers are left alone meanwhile.
POLL_SECONDS: Final = 0.2
BUSY_POLL_SECONDS: Final = 1.0
BUSY_LINES_PER_SECOND: Final = 500
LONGEST_BACKOFF_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Known:
    """What memory holds of the store; only ever as of the last commit."""

    segments: Segments
    writers: Writers
    joiner: Joiner
    remembered: Remembered

    def due(self, dead: Collection[str]) -> bool:
        """Return whether there is something to do though nothing new was read."""
        waits = {name for name in dead if not self.writers[name].gone}
        return bool(self.joiner.unsettled or self.segments.forgotten() or self.segments.drained_writers(waits, {}))


class Recorder:
    """Records one journal into one store.

    ``run`` is the present supervisor's: writers of older ones are dead. ``tell`` hears of feedback statuses after each
    commit; ``follower`` of every call when it is read, and keeps a segment from being deleted before.
    """

    def __init__(
        self,
        store: Store,
        journal: Path,
        *,
        run: str | None = None,
        tell: Callable[[Iterable[Told]], None] = lambda _: None,
        follower: Follower | None = None,
        lines: int = LINES,
    ) -> None:
        self._store = store
        self._journal = journal
        self._run = run
        self._tell = tell
        self._follower = follower
        self._most = self._lines = lines
        self._known: _Known | None = None
        self._adopting: tuple[Snapshot, int] | None = None
        self._caught_up = monotonic()
        self._turn = asyncio.Lock()
        self._idle_steps = 0
        self._read, self._paused = 0, monotonic()  # lines since the last pause
        self._offsets: Mapping[str, int] = {}
        self._attempted: Mapping[str, int] = {}
        self._matured: set[str] = set()

    def lag(self) -> tuple[float, int]:
        """Return for how many seconds there was always something to record, and how many bytes of it."""
        found = Segments(self._journal, self._offsets)
        found.look(())
        waiting = found.undrained_bytes()
        return (monotonic() - self._caught_up if waiting else 0.0), waiting

    def take_matured(self) -> set[str]:
        """Return the routes whose mature tallies moved since the last time."""
        matured, self._matured = self._matured, set()
        return matured

    def adopt(self, snapshot: Snapshot, now_ms: int) -> None:
        """From now on judge predictions by this snapshot's metrics: done with the next step."""
        self._adopting = (snapshot, now_ms)

    async def run(self, stopping: asyncio.Event) -> None:
        """Record until ``stopping``. Trouble with the store is waited out: the journal keeps."""
        pause, failing = POLL_SECONDS, False
        while not stopping.is_set():
            try:
                more = await self.step()
                pause, failing = POLL_SECONDS, False
            except Exception as error:
                more = False
                if not failing:
                    logger.error("recording stopped, the journal keeps what comes: %s", reason(error))
                    logger.debug("recording stopped", exc_info=error)
                failing, pause = True, min(pause * 2, LONGEST_BACKOFF_SECONDS)
            if not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), max(pause, self._pause()))

    def _pause(self) -> float:
        """How long to wait for more, by how much came since the last time."""
        now = monotonic()
        busy = self._read > BUSY_LINES_PER_SECOND * (now - self._paused)
        self._read, self._paused = 0, now
        return BUSY_POLL_SECONDS if busy else POLL_SECONDS

    async def drain(self, timeout_seconds: float) -> bool:
        """Record what the journal holds, to its end; return whether that was reached in time."""
        deadline = monotonic() + timeout_seconds
        self._idle_steps = 0
        while self._idle_steps < 3:  # what is finished for good is known only at the second look
            if monotonic() >= deadline:
                return False
            try:
                await self.step()
            except Exception as error:
                logger.warning("the journal keeps what is not recorded yet: %s", reason(error))
                return False
        return True

    async def step(self) -> bool:
        """Record the next lines and whatever else is due; return whether there is more. Raises the store's trouble."""
        async with self._turn:
            try:
                return await self._step(self._lines)
            except Exception as error:
                if not _is_of_a_line(error):
                    raise
                return await self._isolate(error)

    async def aside(self, change: Callable[[], Awaitable[T]]) -> T:
        """Have somebody else change what is stored: nothing is recorded meanwhile, nor remembered from before."""
        async with self._turn:
            self._known = None
            return await change()

    async def _step(self, limit: int) -> bool:
        known, self._known = self._known or await self._load(), None  # until the commit
        dead = known.writers.dead(self._run)
        known.segments.look(dead)
        for name in known.segments.writers():
            known.writers.meet(name)
        batch, self._attempted, readings = await asyncio.to_thread(known.segments.read, limit, self._follower)
        if self._follower is not None:
            for reading in readings:
                self._follower.hear(reading.segment, reading.start, reading.end, batch.calls[reading.calls])
        more = False
        if self._attempted or self._adopting is not None or known.due(dead):
            more = await self._commit(known, batch, self._attempted, dead)
        self._known = known
        self._read += batch.lines
        self._idle_steps = 0 if batch.lines or more else self._idle_steps + 1
        if not known.segments.undrained_bytes():
            self._caught_up = monotonic()
        self._lines = min(self._most, max(1, self._lines * 2))
        await self._dispose(known.segments)
        return more or batch.lines >= limit

    async def _commit(self, known: _Known, batch: Batch, offsets: Mapping[str, int], dead: Collection[str]) -> bool:
        moves, adopting = Moves(), self._adopting
        async with self._store.begin() as connection:
            if adopting is not None:
                await _adopt(connection, known.joiner, *adopting)
            more = await _record(connection, known, batch, offsets, dead, moves)
        if self._adopting is adopting:
            self._adopting = None
        known.segments.offsets.update(offsets)
        self._offsets = dict(known.segments.offsets)
        self._matured |= moves.matured
        try:
            self._tell(moves.told)
        except Exception:
            logger.exception("what was recorded could not be told")
        return more

    async def _load(self) -> _Known:
        async with self._store.begin() as connection:
            if self._run is not None:
                await positions.forget_writers(connection, self._run)
            writers = await positions.read_writers(connection)
            segments = Segments(self._journal, await positions.read_offsets(connection))
            joiner = Joiner(
                await plans.read_definitions(connection),
                writers.watermark_ms,
                newest=await calls.newest(connection),
                farthest=await feedback.farthest(connection),
            )
        return _Known(segments, writers, joiner, Remembered())

    async def _dispose(self, segments: Segments) -> None:
        """Delete segments that are finished and recorded, once nothing can take the record back."""
        disposable = [segment for name, segment in segments.disposable() if not self._followed(name, segment)]
        if not disposable:
            return
        await self._store.settle()
        for segment in disposable:
            with suppress(FileNotFoundError):
                segment.path.unlink()

    def _followed(self, name: str, segment: Segment) -> bool:
        """Return whether somebody has yet to hear of what stands in a segment."""
        if self._follower is None or not name.startswith(PREDICTIONS):
            return False
        return self._follower.reached(segment) < segment.size

    async def _isolate(self, error: Exception) -> bool:
        """A batch could not be recorded: record smaller ones, down to the one line at fault, and skip that."""
        if self._lines > 1:
            logger.warning("a batch of %d lines could not be recorded, trying fewer: %s", self._lines, reason(error))
            self._lines = max(1, self._lines // 8)
            return True
        skipped = self._attempted
        await self._step(0)  # were it not the line's fault, this would fail too
        known = self._known
        if known is None or not skipped:
            raise error
        unrecordable = Moves()
        unrecordable.counts["unrecordable_lines"] += 1
        async with self._store.begin() as connection:
            await positions.write_offsets(connection, skipped)
            await tallies.apply(connection, unrecordable, known.remembered)
        known.segments.offsets.update(skipped)
        for name, end in skipped.items():
            logger.error("the line that ends at byte %d of %s cannot be recorded: %s", end, name, reason(error))
        return True


def _is_of_a_line(error: Exception) -> bool:
    """Return whether a line may be at fault, and not the store, whose trouble passes or needs a hand."""
    if isinstance(error, SQLAlchemyError):
        return isinstance(error, IntegrityError | DataError)
    return not isinstance(error, OSError)


async def _record(
    connection: AsyncConnection,
    known: _Known,
    batch: Batch,
    offsets: Mapping[str, int],
    dead: Collection[str],
    moves: Moves,
) -> bool:
    """Write a batch with all that follows from it; return whether more would follow at once."""
    joiner, writers = known.joiner, known.writers
    await joiner.record(connection, batch.calls, moves)
    await joiner.learn(connection, batch.events, moves)
    if batch.bodies:
        await bodies.write(connection, batch.bodies)
    for name, at_ms, bye in batch.marks:
        writers.meet(name)
        writers.mark(name, at_ms, bye=bye)
    streaming = {call.row.open_by for call in batch.calls if call.row.open_by is not None}
    for name in known.segments.drained_writers(set(dead) & {*writers.living(), *streaming}, offsets):
        await joiner.abandon(connection, name, moves)
        writers.bury(name)
    if batch.rejected:
        moves.tell(UNKNOWN, UNKNOWN, "rejected", batch.rejected)
    moves.counts.update(corrupt_lines=batch.corrupt, torn_lines=batch.torn)
    more, advanced = False, writers.advance()
    if advanced or joiner.unsettled:
        joiner.watermark_ms = writers.watermark_ms
        more = await joiner.settle(connection, moves, SWEEP)
    await tallies.apply(connection, moves, known.remembered)
    await positions.write_offsets(connection, offsets)
    await positions.write_writers(connection, writers.take_changed(), writers.watermark_ms if advanced else None)
    forgotten = known.segments.forgotten()
    await positions.forget_offsets(connection, forgotten)
    for name in forgotten:
        del known.segments.offsets[name]
    return more


async def _adopt(connection: AsyncConnection, joiner: Joiner, snapshot: Snapshot, now_ms: int) -> None:
    """Begin the definitions that are new with this snapshot."""
    for route in snapshot.routes.values():
        fresh = newly_defined(joiner.definitions, route.name, [snapshot.metrics[name] for name in route.metrics])
        if not fresh:
            continue
        youngest = await calls.latest_ms(connection, route.name)
        # A route without predictions has no past to preserve: what is known now holds for whatever will be read.
        since = 0 if youngest is None else max(now_ms, youngest + 1)
        for name, metric in fresh.items():
            definition = Definition(route.name, name, since, metric, closed_until=since)
            await plans.write_definition(connection, definition)
            joiner.definitions.append(definition)
            joiner.unsettled = True
