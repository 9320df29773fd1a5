"""The recorder's transactions on the store, and what their commits change in memory.

Rule: a transaction begins by taking the state, and puts it back once it is committed. Where it fails the state is
discarded, and the next transaction loads it from the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.control.membership import Member
from gateway.control.record.drain import Read
from gateway.control.record.state import StoreState, load_state
from gateway.control.record.transaction import begin_definitions, queue_events, write_batch
from gateway.store import Store
from gateway.store.counts.deltas import Deltas, StatusDelta
from gateway.store.rows.recorded import Recorded
from router.snapshot import Sink, Snapshot

logger = logging.getLogger(__name__)


class Committer:
    """Commits batches. ``state`` is None where the store has to be read again.

    After each commit ``on_statuses`` is called with the feedback statuses that changed and ``on_counts`` with what was
    wrong with lines. ``matured`` are the routes whose mature tallies moved.
    """

    def __init__(
        self,
        store: Store,
        journal: Path,
        run: str | None,
        member: Member | None,
        on_statuses: Callable[[Iterable[StatusDelta]], None],
        on_counts: Callable[[Mapping[str, int]], None],
    ) -> None:
        self.store = store
        self._journal = journal
        self._run = run
        self._member = member
        self._on_statuses = on_statuses
        self._on_counts = on_counts
        self.state: StoreState | None = None
        self.matured: set[str] = set()
        self.sinks: Mapping[str, Sink] = {}
        self._adopting: tuple[Snapshot, int] | None = None
        self._full: set[str] = set()  # sinks that have no room for new events

    def adopt(self, snapshot: Snapshot, now_ms: int) -> None:
        """Judge predictions by this snapshot's metrics, and queue events for its sinks, from the next commit on."""
        self._adopting = (snapshot, now_ms)
        self.sinks = snapshot.sinks

    @property
    def adopting(self) -> bool:
        """Whether a snapshot waits for the next commit."""
        return self._adopting is not None

    async def current_state(self) -> StoreState:
        """Return the state as of the last commit."""
        return self.state or await load_state(self.store, self._journal, self._run, self._member)

    async def take_state(self) -> StoreState:
        """Return the state as of the last commit, for a transaction that puts it back when it is committed."""
        state, self.state = await self.current_state(), None
        return state

    def discard_state(self) -> None:
        """Forget the state: another one than the recorder changes the store."""
        if self.state is not None:
            self.state.discard()
        self.state = None

    async def commit(
        self,
        state: StoreState,
        read: Read,
        dead: Collection[str],
        limit: int,
        read_ahead: Callable[[], Coroutine[Any, Any, Read]] | None,
    ) -> bool:
        """Commit a batch with all that follows from it; return whether the watermark allows more at once.

        ``read_ahead`` is begun just before the commit, and ends up in the state.
        """
        deltas, adopting = self.new_deltas(state, Recorded(bodies=read.batch.bodies)), self._adopting
        dropped: Mapping[str, int] = {}
        try:
            async with self.store.change() as connection:
                if adopting is not None:
                    deltas.touched |= await begin_definitions(connection, state.joiner, *adopting)
                present = None if self._member is None else self._member.present
                more = await write_batch(connection, state, read, dead, deltas, present, limit)
                if deltas.recorded is not None:
                    dropped = await queue_events(connection, deltas.recorded, self.sinks)
                state.segments.recorded(read.offsets, read.numbers)
                if read_ahead is not None:
                    # A commit is the one long wait in which nothing else wants the interpreter.
                    state.ahead = asyncio.create_task(read_ahead())
        except BaseException:
            state.discard()
            raise
        if self._adopting is adopting:
            self._adopting = None
        self.committed(deltas, dropped)
        return more

    def new_deltas(self, state: StoreState, recorded: Recorded) -> Deltas:
        """Return empty deltas, which collect what is recorded where there are sinks."""
        return Deltas(recorded if self.sinks else None, state.finer_since_ms)

    def committed(self, deltas: Deltas, dropped: Mapping[str, int]) -> None:
        """Report what was committed; ``dropped`` are events that found no room, by sink."""
        self.matured |= deltas.matured
        for name, n in dropped.items():
            if n and name not in self._full:
                logger.warning("sinks.%s has max_pending_bytes waiting: new events are dropped, and counted", name)
            (self._full.add if n else self._full.discard)(name)
        try:
            self._on_statuses(deltas.statuses)
            self._on_counts(deltas.counts)
        except Exception:
            logger.exception("what was recorded could not be reported")
