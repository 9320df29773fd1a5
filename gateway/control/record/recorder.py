"""Drain the journal into the store: read some lines, record them with everything that follows, in one transaction.

Rule: exactly once, however it is interrupted. Offsets, rows, tallies, statuses and the watermark are written together;
what memory knows beyond them is thrown away when a transaction fails; a segment is deleted only when all of it is safe
on the disk. Of several nodes, only the one that holds the lease records; the others ship (``gateway.control.fleet``).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time_ns
from typing import Final, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.join.joiner import Joiner
from gateway.control.join.recount import recount
from gateway.control.membership import Member
from gateway.control.progress import FLEET_WATERMARK_SECONDS, STEP_SECONDS, WATERMARK_SECONDS, Progress
from gateway.control.record.drain import Follower, Read, Segments
from gateway.control.record.lines import Batch
from gateway.control.record.quarantine import QUARANTINE, Quarantine
from gateway.control.record.shipper import Shipper
from gateway.journal.segments import PREDICTIONS, Segment
from gateway.sinks.cloudevents import events
from gateway.store import Store, reason
from gateway.store.counts import plans, positions, tallies
from gateway.store.counts.definitions import Definition, newly_defined
from gateway.store.counts.deltas import Deltas, StatusDelta
from gateway.store.counts.ledger import UNKNOWN
from gateway.store.counts.tallies import TallyCache
from gateway.store.counts.watermark import Writers
from gateway.store.fleet import shipped
from gateway.store.fleet.lease import LeaseLost
from gateway.store.fleet.shipped import Chunk
from gateway.store.rows import bodies, calls, feedback_events, outbox, set_aside_items
from gateway.store.rows.recorded import Recorded
from gateway.store.rows.set_aside_items import SetAside
from router.exposure import exposure
from router.extract import identifier
from router.snapshot import Sink, Snapshot

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Lines per transaction: so many that a page of an index is written once for several of them, and so few that reports
#: get their turn. Only who catches up has as many: then a transaction takes a second or two.
LINES: Final = 20_000
#: The same while there is hardly any room for them on the disk.
SPARING_LINES: Final = 1_000

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
    tally_cache: TallyCache

    #: What comes next, read while the database is busy with what came before.
    ahead: asyncio.Task[Read] | None = None

    #: Comes before the names of this node's segments and writers in the store, where there are several nodes.
    prefix: str = ""

    def forget(self) -> None:
        """Be thrown away."""
        if self.ahead is not None:
            self.ahead.cancel()

    def due(self, dead: Collection[str]) -> bool:
        """Return whether there is something to do though nothing new was read."""
        waits = {name for name in dead if not self.writers[name].gone}
        return bool(self.joiner.work_due or self.segments.forgotten() or self.segments.drained_writers(waits, {}))


class Recorder:
    """Records one journal into one store.

    ``run`` is the present supervisor's: writers of older ones are dead. After each commit ``on_statuses`` is called
    with the feedback statuses that changed and ``on_counts`` with what was wrong with lines. ``follower`` is handed
    every call when it is read, and keeps a segment from being deleted before. ``member`` is this node's part in the
    fleet, None where there is none.

    ``trouble`` is why nothing can be recorded at present. ``sparing`` says to go in small steps, each settled, because
    there is hardly any room left for them.
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
        self._journal = journal
        self._run = run
        self._on_statuses = on_statuses
        self._on_counts = on_counts
        self._quarantine = Quarantine(journal.parent / QUARANTINE)
        self._follower = follower
        self._most = self._lines = lines
        self.trouble: Exception | None = None
        self.sparing = False
        self._known: _Known | None = None
        self._adopting: tuple[Snapshot, int] | None = None
        self._sinks: Mapping[str, Sink] = {}
        self._full: set[str] = set()  # sinks that have no room for what is new
        self._caught_up = monotonic()
        self._turn = asyncio.Lock()
        self._idle_steps = 0
        self._read, self._paused = 0, monotonic()  # lines since the last pause
        self._offsets: Mapping[str, int] = {}
        self._attempted = Read()
        self._refused: Mapping[str, str] = {}
        self._waiting_bytes = 0
        #: When a step last succeeded; when the watermark last moved, or no writer was waited for; and where it was.
        self._went = self._moved = monotonic()
        self._committed = False
        self._watermark_ms: int | None = None
        self._matured: set[str] = set()
        self._member = member
        self._shipper = None if member is None else Shipper(store, member, journal, run, self._quarantine)

    def lag(self) -> tuple[float, int]:
        """Return for how many seconds there was always something to record, and how many bytes of it."""
        found = Segments(self._journal, self._offsets)
        found.refuse(self._refused)
        try:
            found.look(())
        except OSError:  # no descriptors, or a journal that cannot be listed: then what was so the last time
            waiting = self._waiting_bytes
        else:
            waiting = self._waiting_bytes = found.undrained_bytes()
        return (monotonic() - self._caught_up if waiting else 0.0), waiting

    def progress(self) -> Progress:
        """Return how far recording is, and whether and why it is stalled."""
        now, (oldest, waiting) = monotonic(), self.lag()
        trouble, detail, since = "", "", now
        if self.trouble is not None:
            cause = getattr(self.trouble, "orig", None) or self.trouble
            trouble, detail, since = f"recording fails ({type(cause).__name__})", reason(self.trouble), self._went
        elif waiting and now - self._went > STEP_SECONDS:
            trouble, since = "recording does not go on, though lines wait", self._went
        elif now - self._moved > (WATERMARK_SECONDS if self._member is None else FLEET_WATERMARK_SECONDS):
            trouble, since = "the watermark stands still, so that no window closes", self._moved
        age = None if self._watermark_ms is None else max(0.0, time_ns() / 1e9 - self._watermark_ms / 1e3)
        return Progress(now - since, trouble, detail, age, oldest, now - self._went if self._committed else None)

    def _progressed(self, known: _Known | None) -> None:
        """Take in that a step ended well; ``known`` is None where the watermark is not this node's to move."""
        now = self._went = monotonic()
        self._committed = True
        if known is None or known.writers.watermark_ms != self._watermark_ms or not known.writers.living():
            self._moved = now
        self._watermark_ms = None if known is None else known.writers.watermark_ms

    @property
    def refused(self) -> int:
        """How many segments are left alone because they are not to be read by this program."""
        return len(self._refused)

    def take_matured(self) -> set[str]:
        """Return the routes whose mature tallies moved since the last time."""
        matured, self._matured = self._matured, set()
        return matured

    def adopt(self, snapshot: Snapshot, now_ms: int) -> None:
        """From now on judge predictions by this snapshot's metrics, and tell its sinks: done with the next step."""
        self._adopting = (snapshot, now_ms)
        self._sinks = snapshot.sinks

    async def run(self, stopping: asyncio.Event) -> None:
        """Record until ``stopping``. Trouble with the store is waited out: the journal keeps."""
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
            if self._shipper is not None and self._shipper.full:
                await asyncio.sleep(POLL_SECONDS)
        return True

    async def step(self) -> bool:
        """Record the next lines and whatever else is due; return whether there is more. Raises the store's trouble."""
        async with self._turn:
            if self._member is not None and not await self._member.attend():
                return await self._ship()
            try:
                return await self._attempt(min(self._lines, SPARING_LINES) if self.sparing else self._lines)
            except LeaseLost as error:
                logger.warning("%s: from now on this node ships its journal", error)
                if self._member is not None:
                    self._member.lost()
                return True

    async def _attempt(self, limit: int) -> bool:
        """Record up to ``limit`` lines, or find the row that cannot be recorded; return whether there is more."""
        try:
            return await self._step(limit, self._sweep())
        except Exception as error:
            if not is_of_a_row(error):
                raise
            return await self._isolate(error)

    def _sweep(self) -> int:
        """Return how much to settle at a time: while a failing row is looked for, no more than lines are read."""
        return SWEEP if self._lines >= self._most else min(SWEEP, self._lines)

    async def aside(self, change: Callable[[], Awaitable[T]]) -> T:
        """Have somebody else change what is stored: nothing is recorded meanwhile, nor remembered from before."""
        async with self._turn:
            if self._known is not None:
                self._known.forget()
            self._known = None
            return await change()

    async def _ship(self) -> bool:
        """Leave the next lines to whoever holds the lease; return whether there is more."""
        assert self._shipper is not None
        self._known = None  # others write now: what memory knows of the store is no longer so
        lines, segments = await self._shipper.step(self._most)
        self._offsets, self._refused = dict(segments.offsets), segments.refused
        self._read += lines
        self._idle_steps = 0 if lines or self._shipper.full else self._idle_steps + 1
        if not segments.undrained_bytes():
            self._caught_up = monotonic()
        self._progressed(None)
        await self._dispose(segments)
        return self._shipper.more

    async def _read_next(self, known: _Known, limit: int) -> Read:
        """Read lines of this node's journal and of what others shipped: each gets half, where both have much."""
        if self._member is None:
            return await asyncio.to_thread(known.segments.read, limit, self._follower)
        chunks, waits = await self._member.shipped((limit + 1) // 2) if limit else ([], False)
        # What this node itself shipped comes before what it reads: until that is recorded, nothing is read.
        most = 0 if waits else limit // 2 if chunks else limit
        read = await asyncio.to_thread(known.segments.read, most, self._follower)
        if chunks:
            read.taken = await asyncio.to_thread(_unpack, read.batch, chunks, limit)
            read.more |= read.batch.lines >= limit
        return read

    async def _step(self, limit: int, sweep: int) -> bool:
        if self._shipper is not None:
            self._shipper.forget()
        known, self._known = self._known or await self._load(), None  # until the commit
        dead = known.writers.dead(self._run, known.prefix)
        ahead, known.ahead = known.ahead, None
        read = None if ahead is None else await ahead
        known.segments.look(dead)
        for name in known.segments.writers():
            known.writers.meet(name)
        read = self._attempted = read or await self._read_next(known, limit)
        batch, self._refused = read.batch, known.segments.refused
        if self._follower is not None:
            for reading in read.readings:
                self._follower.hear(reading.segment, reading.start, reading.end, batch.calls[reading.calls])
        if read.unreadable:
            await asyncio.to_thread(self._quarantine.keep, read.unreadable)
        more = False
        if read.offsets or read.taken or self._adopting is not None or known.due(dead):
            more = await self._commit(known, read, dead, limit, sweep)
        self._quarantine.forget()
        self._known = known
        self._progressed(known)
        self._read += batch.lines
        self._idle_steps = 0 if batch.lines or more else self._idle_steps + 1
        if not known.segments.undrained_bytes():
            self._caught_up = monotonic()
        self._lines = min(self._most, max(1, self._lines * 2))
        if self.sparing and read.offsets:
            await self._store.make_durable()
        await self._dispose(known.segments)
        return more or read.more

    async def _commit(self, known: _Known, read: Read, dead: Collection[str], limit: int, sweep: int) -> bool:
        deltas, adopting = Deltas(Recorded(bodies=read.batch.bodies) if self._sinks else None), self._adopting
        dropped: Mapping[str, int] = {}
        try:
            async with self._store.change() as connection:
                if adopting is not None:
                    deltas.touched |= await _adopt(connection, known.joiner, *adopting)
                present = None if self._member is None else self._member.present
                more = await _record(connection, known, read, dead, deltas, present, sweep)
                if deltas.news is not None:
                    dropped = await _leave(connection, deltas.news, self._sinks)
                known.segments.recorded(read.offsets, read.numbers)
                if read.more and limit > 0 and self._member is None and not self.sparing:
                    # A commit is the one long wait in which nothing else wants the interpreter.
                    known.ahead = asyncio.create_task(self._read_next(known, limit))
        except BaseException:
            known.forget()
            raise
        if self._adopting is adopting:
            self._adopting = None
        self._offsets = dict(known.segments.offsets)
        self._committed_as(deltas, dropped)
        return more

    def _committed_as(self, deltas: Deltas, dropped: Mapping[str, int]) -> None:
        """Tell what was committed; ``dropped`` are events that found no room, by sink."""
        self._matured |= deltas.matured
        for name, n in dropped.items():
            if n and name not in self._full:
                logger.warning("sinks.%s has max_pending_bytes waiting: new events are dropped, and counted", name)
            (self._full.add if n else self._full.discard)(name)
        try:
            self._on_statuses(deltas.statuses)
            self._on_counts(deltas.counts)
        except Exception:
            logger.exception("what was recorded could not be told")

    async def _load(self) -> _Known:
        try:
            async with self._store.change() as connection:
                await recount(connection)
        except Exception as error:
            if not is_of_a_row(error):
                raise
            logger.error("what is not finite cannot be counted again: %s", reason(error))
        async with self._store.change() as connection:
            prefix = ""
            if self._member is not None:
                prefix = self._member.prefix
                await positions.forget_writers_elsewhere(connection, prefix)
            if self._run is not None:
                await positions.forget_writers(connection, self._run, prefix)
            writers = await positions.read_writers(connection)
            offsets = await positions.read_offsets(connection, prefix)
            numbers = await positions.read_numbers(connection, prefix)
            segments = Segments(self._journal, offsets, numbers, prefix=prefix)
            joiner = Joiner(
                await plans.read_definitions(connection),
                writers.watermark_ms,
                newest=await calls.newest(connection),
                farthest=await feedback_events.farthest(connection),
                aside=await set_aside_items.predictions(connection),
            )
            await joiner.look(connection)
        return _Known(segments, writers, joiner, TallyCache(), prefix=prefix)

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
        """Return whether somebody has yet to hear of what stands in a segment."""
        if self._follower is None or not name.startswith(PREDICTIONS):
            return False
        return self._follower.reached(segment) < segment.size

    async def _isolate(self, error: Exception) -> bool:
        """A batch could not be recorded: do less at a time, down to the one thing at fault, and set that aside.

        It may be the line that is read, or something that was stored long ago and is due now.
        """
        if self._lines > 1:
            logger.warning("a batch of %d lines could not be recorded, trying fewer: %s", self._lines, reason(error))
            self._lines = max(1, self._lines // 8)
            return True
        try:
            await self._step(1, 0)
        except Exception as again:
            if not is_of_a_row(again):
                raise
            await self._set_line_aside(again)
        else:
            await self._do_due_work_singly()
        return True

    async def _set_line_aside(self, error: Exception) -> None:
        """Set aside what cannot be read of that which the line is about or, where there is none, the line itself."""
        skipped, deltas = self._attempted, Deltas()
        about = {call.id for call in skipped.batch.calls}
        about |= {event.prediction_id for event in skipped.batch.events if event.prediction_id is not None}
        async with self._store.change() as connection:
            unreadable = await feedback_events.unreadable(connection, about)
        if unreadable:
            return await self._set_aside(unreadable, error)
        await self._step(0, 0)  # were it not the line's fault, this would fail too
        known = self._known
        if known is None or not (skipped.offsets or skipped.taken):
            raise error
        deltas.counts["unrecordable_lines"] += 1
        places = [f"byte {end} of {name}" for name, end in skipped.offsets.items()] or ["a shipped line"]
        for _ in skipped.batch.events:
            deltas.status(UNKNOWN, UNKNOWN, "set_aside")
        async with self._store.change() as connection:
            await positions.write_offsets(connection, skipped.offsets, known.prefix)
            await positions.write_numbers(connection, skipped.numbers, known.prefix)
            await shipped.take(connection, skipped.taken)
            await set_aside_items.note(
                connection,
                [
                    SetAside(_now_ms(), "line", place, None if one is None else identifier(one), reason(error))
                    for place in places
                    for one in about or (None,)
                ],
            )
            await tallies.apply(connection, deltas, known.tally_cache)
        known.segments.recorded(skipped.offsets, skipped.numbers)
        self._committed_as(deltas, {})
        for place in places:
            logger.error("the line that ends at %s cannot be recorded: %s", place, reason(error))
        return None

    async def _do_due_work_singly(self) -> None:
        """Settle the first of everything that is due, each by itself, and set aside the one that cannot be."""
        known = self._known or await self._load()
        for piece in known.joiner.pieces():
            hand: list[int | str] = []
            error = await self._try_first(piece, hand)
            if error is None:
                continue
            if len(hand) > 1:  # predictions of one millisecond, of which not all need be at fault
                hand = [one for one in hand if await self._try_first(piece, [], of=one) is not None] or hand
            return await self._set_aside(hand, error)
        return None

    async def _try_first(
        self, piece: Definition | None, hand: list[int | str], of: int | str | None = None
    ) -> Exception | None:
        """Settle the first event or predictions of a piece, which are added to ``hand``; return why that fails.

        With ``of`` it is only tried, with that prediction alone, and undone.

        Raises what is the store's trouble.
        """
        known, self._known = self._known or await self._load(), None
        deltas = Deltas(Recorded() if self._sinks else None)
        dropped: Mapping[str, int] = {}
        try:
            async with self._store.change() as connection:
                if of is not None and piece is not None:
                    known.joiner.aside |= {str(one) for one in await known.joiner.first(connection, piece)} - {str(of)}
                await known.joiner.apply_watermark_to_first(connection, deltas, piece, hand)
                if deltas.news is not None:
                    dropped = await _leave(connection, deltas.news, self._sinks)
                await tallies.apply(connection, deltas, known.tally_cache)
                if of is not None:
                    raise _Tried
        except _Tried:
            return None
        except Exception as error:
            known.forget()
            if not is_of_a_row(error) or not (hand or of):
                raise
            return error
        self._known = known
        self._committed_as(deltas, dropped)
        return None

    async def _set_aside(self, found: Sequence[int | str], error: Exception) -> None:
        """Set stored events (by number) and predictions (by id) aside."""
        self._known, deltas = None, Deltas()
        noted = list[SetAside]()
        async with self._store.change() as connection:
            for one in found:
                if isinstance(one, int):
                    target = await set_aside_items.event(connection, one, deltas)
                    noted.append(SetAside(_now_ms(), "event", str(one), target, reason(error)))
                    deltas.counts["unsettled_events"] += 1
                else:
                    noted.append(SetAside(_now_ms(), "prediction", one, one, reason(error)))
                    deltas.counts["unsettled_predictions"] += 1
            await set_aside_items.note(connection, noted)
            await tallies.apply(connection, deltas, TallyCache())
        self._committed_as(deltas, {})
        for was in noted:
            logger.error("%s %s cannot be settled and is set aside: %s", was.kind, was.identity, reason(error))


class _Tried(Exception):
    """Undoes what was only tried."""


#: SQLite's codes of what is wrong with a row: too big, a constraint, a type, a number of bounds.
_SQLITE_ROW: Final = frozenset({18, 19, 20, 25})
#: PostgreSQL's classes of errors that are the store's trouble, and pass or need a hand: connections, authorisation,
#: transactions, names that are not there, resources, locks, operators, the system, and itself.
_POSTGRESQL_TROUBLE: Final = frozenset(
    {"08", "0A", "25", "28", "2D", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0", "HV", "XX"}
)


def is_of_a_row(error: Exception) -> bool:
    """Return whether a row may be at fault, and not the store, whose trouble passes or needs a hand.

    Whatever class an error is of: that an index cannot hold a text is to PostgreSQL an error of operation. A lease that
    was lost and memory that was not to be had say nothing of a row.
    """
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
        return isinstance(error.orig, Exception) and is_of_a_row(error.orig)
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return False
        state = getattr(error.orig, "sqlstate", None)
        if state is not None:
            return str(state)[:2] not in _POSTGRESQL_TROUBLE
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is not None:
            return code & 0xFF in _SQLITE_ROW
        # The driver refused a value before it asked the database.
        return type(error.orig).__name__ in {"DataError", "OverflowError"}
    return not isinstance(error, SQLAlchemyError | OSError | sqlite3.Error | LeaseLost | MemoryError)


def _now_ms() -> int:
    return time_ns() // 1_000_000


async def _record(
    connection: AsyncConnection,
    known: _Known,
    read: Read,
    dead: Collection[str],
    deltas: Deltas,
    present: Collection[str] | None,
    sweep: int,
) -> bool:
    """Write a batch with all that follows from it; return whether more would follow at once."""
    joiner, writers, batch, offsets = known.joiner, known.writers, read.batch, read.offsets
    for name in batch.writers:
        writers.meet(name)
    await joiner.record(connection, batch.calls, deltas)
    await joiner.learn(connection, batch.events, deltas)
    if batch.bodies:
        await bodies.write(connection, batch.bodies)
    for name, at_ms, bye in batch.marks:
        writers.meet(name)
        writers.mark(name, at_ms, bye=bye)
        if bye and name in batch.writers:
            batch.gone.append(name)  # what was shipped is in order: nothing of it can come after its last line
    streaming = {call.row.open_by for call in batch.calls if call.row.open_by is not None}
    for name in known.segments.drained_writers(set(dead) & {*writers.living(), *streaming}, offsets):
        await joiner.abandon(connection, name, deltas)
        writers.bury(name)
    for name in batch.gone:
        await joiner.abandon(connection, name, deltas)
        writers.bury(name)
    if batch.rejected:
        deltas.status(UNKNOWN, UNKNOWN, "rejected", batch.rejected)
    deltas.counts.update(corrupt_lines=batch.corrupt, torn_lines=batch.torn, lost_lines=batch.lost)
    more, advanced = False, writers.advance(present)
    if advanced or joiner.work_due:
        joiner.watermark_ms = writers.watermark_ms
        more = await joiner.apply_watermark(connection, deltas, sweep)
    await tallies.apply(connection, deltas, known.tally_cache)
    await positions.write_offsets(connection, offsets, known.prefix)
    await positions.write_numbers(connection, read.numbers, known.prefix)
    await shipped.take(connection, read.taken)
    await positions.write_writers(connection, writers.take_changed(), writers.watermark_ms if advanced else None)
    forgotten = known.segments.forgotten()
    await positions.forget_offsets(connection, forgotten, known.prefix)
    for name in forgotten:
        del known.segments.offsets[name]
    silent = known.segments.silent()
    await positions.forget_numbers(connection, silent, known.prefix)
    for name in silent:
        del known.segments.numbers[name]
    return more


async def _leave(connection: AsyncConnection, news: Recorded, sinks: Mapping[str, Sink]) -> Mapping[str, int]:
    """Leave for sinks what there is to tell; return how many events found no room, for those that were told any."""
    now_ms = time_ns() // 1_000_000
    made = {
        name: (await asyncio.to_thread(list, events(sink, news, now_ms)), sink.max_pending_bytes)
        for name, sink in sinks.items()
    }
    return await outbox.add(connection, made, now_ms)


def _unpack(batch: Batch, chunks: Iterable[Chunk], limit: int) -> dict[int, int | None]:
    """Add what nodes shipped to a batch, as many lines as there may be in all; return how far that leads."""
    taken: dict[int, int | None] = {}
    for chunk in chunks:
        lines = chunk.lines(max(0, limit - batch.lines))
        if not lines:
            break
        batch.hear(lines, chunk.writer)
        until = chunk.taken + sum(len(line) + 1 for line in lines)
        taken[chunk.seq] = None if until >= len(chunk.content) else until
    return taken


async def _adopt(connection: AsyncConnection, joiner: Joiner, snapshot: Snapshot, now_ms: int) -> set[str]:
    """Begin the definitions that are new with this snapshot; return the routes that have any."""
    begun = set()
    for route in snapshot.routes.values():
        metrics = [snapshot.metrics[name] for name in route.metrics]
        if route.require_exposure:
            metrics.append(exposure(metrics))
        fresh = newly_defined(joiner.definitions, route.name, metrics, route.key_rule)
        if not fresh:
            continue
        begun.add(route.name)
        youngest = await calls.latest_ms(connection, route.name)
        # A route without predictions has no past to preserve: what is known now holds for whatever will be read.
        since = 0 if youngest is None else max(now_ms, youngest + 1)
        for name, metric in fresh.items():
            definition = Definition(route.name, name, since, metric, closed_until=since, key_rule=route.key_rule)
            await plans.write_definition(connection, definition)
            joiner.definitions.append(definition)
            joiner.work_due = True
    return begun
