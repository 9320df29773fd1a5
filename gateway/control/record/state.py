"""What the recorder holds in memory of the store: positions in the journal, writers, the joiner and cached tally rows.

Rule: only ever as of the last commit. After a transaction that failed it is discarded, and loaded anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gateway.control.join.joiner import Joiner
from gateway.control.join.recount import recount
from gateway.control.membership import Member
from gateway.control.record.drain import Read, Segments
from gateway.control.record.row_errors import is_of_a_row
from gateway.store import Store, reason
from gateway.store.counts import plans, positions
from gateway.store.counts.deltas import FINER_SINCE
from gateway.store.counts.tallies import TallyCache, number
from gateway.store.counts.watermark import Writers
from gateway.store.rows import calls, feedback_events, set_aside_items

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class StoreState:
    """The store as of the last commit.

    ``prefix`` begins the names of this node's segments and writers in the store, where there are several nodes.
    ``finer_since_ms`` is that of ``Deltas``.
    """

    segments: Segments
    writers: Writers
    joiner: Joiner
    tally_cache: TallyCache
    prefix: str = ""
    finer_since_ms: int = 0

    #: The next lines, read while the database is busy with the transaction before.
    ahead: asyncio.Task[Read] | None = None

    def discard(self) -> None:
        """Cancel what was begun on the ground of this state."""
        if self.ahead is not None:
            self.ahead.cancel()

    def has_work(self, dead: Collection[str]) -> bool:
        """Return whether there is something to write though nothing new was read."""
        waits = {name for name in dead if not self.writers[name].gone}
        return bool(self.joiner.work_due or self.segments.forgotten() or self.segments.drained_writers(waits, {}))


async def load_state(store: Store, journal: Path, run: str | None, member: Member | None) -> StoreState:
    """Read the state from the store, after counting again what is not finite and forgetting writers that are gone."""
    try:
        async with store.change() as connection:
            await recount(connection)
    except Exception as error:
        if not is_of_a_row(error):
            raise
        logger.error("what is not finite cannot be counted again: %s", reason(error))
    async with store.change() as connection:
        prefix = ""
        if member is not None:
            prefix = member.prefix
            await positions.forget_writers_elsewhere(connection, prefix)
        if run is not None:
            await positions.forget_writers(connection, run, prefix)
        writers = await positions.read_writers(connection)
        offsets = await positions.read_offsets(connection, prefix)
        numbers = await positions.read_numbers(connection, prefix)
        segments = Segments(journal, offsets, numbers, prefix=prefix)
        joiner = Joiner(
            await plans.read_definitions(connection),
            writers.watermark_ms,
            newest=await calls.newest(connection),
            farthest=await feedback_events.farthest(connection),
            set_aside=await set_aside_items.predictions(connection),
        )
        await joiner.look(connection)
        since_ms = await number(connection, FINER_SINCE) or 0
    return StoreState(segments, writers, joiner, TallyCache(), prefix, since_ms)
