"""What a person may ask for: everything that is kept of it, and that nothing is.

Rule: the journal first. What stands in a segment that is not drained would be recorded afterwards, and what is drained
stands there until the segment is deleted: workers are asked to begin new segments, and the old ones are drained and
deleted before the store is touched. No log line and no event names the unit.

Where several nodes share the store, each sees to its own journal, and the holder of the lease erases, once what the
others shipped is recorded: it is asked last.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any, Final

from gateway.control.membership import Member
from gateway.control.record.quarantine import QUARANTINE
from gateway.control.record.recorder import Recorder
from gateway.journal import rolling
from gateway.journal.segments import FEEDBACK, LINKS, PREDICTIONS, segments
from gateway.store import Store
from gateway.store.rows import unit_data
from gateway.store.rows.unit_data import Erased

#: Workers look once a second, and the recorder must catch up.
DRAIN_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1


class NotDrained(Exception):
    """Segments that may name the unit are still there: they are not drained in time, or nobody lets go of them."""


class Privacy:
    """Answers for one node's journal and its store."""

    def __init__(self, store: Store, recorder: Recorder, journal: Path, member: Member | None = None) -> None:
        self._store = store
        self._member = member
        self._recorder = recorder
        self._journal = journal

    async def erase(self, names: Sequence[str], drain_seconds: float = DRAIN_SECONDS) -> Mapping[str, int]:
        """Erase the units of these names everywhere. Raises NotDrained, and what the store raises.

        What is done again does no harm; what was interrupted must be done again.
        """
        await self._drain_journal(drain_seconds)
        if self._member is not None:
            await self._drain_fleet(self._member, drain_seconds)
        # A line that could not be read may name anybody, in part or whole.
        (self._journal.parent / QUARANTINE).unlink(missing_ok=True)
        # A backup that was killed has left segments; one that is being made fails, or it would bring the unit back.
        for left in self._journal.parent.glob(f"{LINKS}*"):
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
        return asdict(await self._recorder.aside(lambda: self._erase(names)))

    async def known(self, unit: str, names: Sequence[str]) -> AsyncIterator[Mapping[str, Any]]:
        """Yield everything that is kept of a unit: plain JSON values, each of a ``kind``."""
        yield {"kind": "unit", "unit": unit, "kept_as": list(names)}
        for row in (*await unit_data.arrived(self._store, names), *await unit_data.counted(self._store, names)):
            yield row
        async for ids in unit_data.predictions(self._store, names):
            for one in ids:
                if (found := await self._store.prediction(one)) is not None:
                    yield {"kind": "prediction", **found}

    async def _erase(self, names: Sequence[str]) -> Erased:
        erased = await unit_data.erase(self._store, names)
        await self._store.scrub()
        return erased

    async def _drain_journal(self, seconds: float) -> None:
        """Have every segment that is written now drained and deleted. Raises NotDrained."""
        before = self._present()
        if before:
            await asyncio.to_thread(rolling.ask, self._journal)
        deadline = monotonic() + seconds
        while left := before & self._present():
            if monotonic() > deadline:
                raise NotDrained(f"{len(left)} segments of the journal are not drained after {seconds:g} s")
            if not await self._recorder.step():
                await asyncio.sleep(_LOOK_SECONDS)

    async def _drain_fleet(self, member: Member, seconds: float) -> None:
        """Have what is shipped recorded. Raises NotDrained where that, and the erasing, is another node's to do."""
        if not member.holds:
            holder = member.view("").holder or "none at present"
            raise NotDrained(
                f"this node's journal is settled; ask the holder of the lease ({holder}) after every other"
            )
        deadline = monotonic() + seconds
        newest = await member.newest_shipped()
        while (first := await member.shipped(1))[0] and first[0][0].seq <= newest:
            if monotonic() > deadline:
                raise NotDrained(f"what nodes shipped is not recorded after {seconds:g} s")
            if not await self._recorder.step():
                await asyncio.sleep(_LOOK_SECONDS)

    def _present(self) -> set[Path]:
        """The segments there are. An import that is under way names predictions and no unit: it is not waited for."""
        found = [*segments(self._journal / PREDICTIONS), *segments(self._journal / FEEDBACK)]
        return {segment.path for segment in found if segment.slot < rolling.WORKER_SLOTS}
