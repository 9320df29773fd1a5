"""What a person may ask for: a copy of everything that is kept of a unit, and that all of it is erased.

Rule: the journal first. Lines of a segment that is not drained would be recorded after the erasure, and drained lines
stay in their segment until it is deleted: workers are asked to begin new segments, and the old ones are drained and
deleted before the store is touched. No log line and no event names the unit.

Where several nodes share the store, each node drains its own journal, and the holder of the lease erases, once what the
others shipped is recorded: so it must be asked last.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any, Final

from gateway.control.acts import Act
from gateway.control.event_log import EventLog, now_ms
from gateway.control.membership import Member
from gateway.control.opened import Opened
from gateway.control.record.recorder import Recorder
from gateway.files.pseudonym import names_of
from gateway.journal import rolling
from gateway.journal.quarantine import QUARANTINE
from gateway.journal.segments import FEEDBACK, LINKS, PREDICTIONS, segments
from gateway.store import Store, StoreError, audit, unit_data
from gateway.store.audit import Entry
from gateway.store.unit_data import Erased
from router.snapshot import Gateway

logger = logging.getLogger(__name__)

#: Workers look once a second, and the recorder must catch up.
DRAIN_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1


class NotDrained(Exception):
    """Segments that may name the unit are still there: they are not drained in time, or a process still writes them."""


class Erasures:
    """What the admin port asks about units. ``gateway`` returns the settings in force.

    Every request raises StoreError while the store is not open.
    """

    def __init__(self, journal: Path, gateway: Callable[[], Gateway], event_log: EventLog) -> None:
        self.opened: Opened | None = None
        self._journal = journal
        self._gateway = gateway
        self._event_log = event_log
        self._erasing: set[asyncio.Task[Mapping[str, int]]] = set()

    async def erase(self, units: Sequence[str], act: Act) -> Mapping[str, int]:
        """Erase units everywhere; return how much was erased. ``act`` says who asked for it.

        An erasure goes on to its end though its caller stops waiting. Raises NotDrained, what the store raises, and
        OSError or ValueError for a key file.
        """
        privacy = self._privacy()
        names = [name for unit in units for name in names_of(unit, self._gateway().unit_key_file)]
        task = asyncio.ensure_future(privacy.erase(names))
        self._erasing.add(task)
        task.add_done_callback(self._erasing.discard)
        erased = await asyncio.shield(task)
        counts = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in erased.items())
        said = f"{len(units)} unit{'s' * (len(units) != 1)} erased: {counts}"
        self._event_log.note("units_erased", None, said, via=act.via, author=act.author)
        await self._audit(Entry(who=act.who or act.author or "unknown", via=act.via, act="units_erased", changed=said))
        return erased

    async def _audit(self, entry: Entry) -> None:
        """Keep that units were erased, and not which: an entry is never removed."""
        try:
            if self.opened is not None:
                async with self.opened.store.begin() as connection:
                    await audit.append(connection, entry, now_ms())
        except Exception as error:  # what is erased is erased, and the answer must say so
            logger.error("an erasure is missing in the audit log: %s", type(error).__name__)

    def known(self, unit: str) -> AsyncIterator[Mapping[str, Any]]:
        """Yield everything that is stored of a unit. Raises what the store raises, and OSError or ValueError."""
        return self._privacy().known(unit, names_of(unit, self._gateway().unit_key_file))

    def _privacy(self) -> Privacy:
        if self.opened is None:
            raise StoreError("the store is not open yet")
        return Privacy(self.opened.store, self.opened.recorder, self._journal, self.opened.member)


class Privacy:
    """Erases from, and reads of, one node's journal and its store."""

    def __init__(self, store: Store, recorder: Recorder, journal: Path, member: Member | None = None) -> None:
        self._store = store
        self._member = member
        self._recorder = recorder
        self._journal = journal

    async def erase(self, names: Sequence[str], drain_seconds: float = DRAIN_SECONDS) -> Mapping[str, int]:
        """Erase the units of these names everywhere. Raises NotDrained, and what the store raises.

        Erasing twice does no harm; an erasure that was interrupted must be done again.
        """
        await self._drain_journal(drain_seconds)
        if self._member is not None:
            await self._drain_fleet(self._member, drain_seconds)
        # A line that could not be read may name any unit, in part or whole.
        (self._journal.parent / QUARANTINE).unlink(missing_ok=True)
        # A backup that was killed has left segments; one that is being made fails, or it would bring the unit back.
        for left in self._journal.parent.glob(f"{LINKS}*"):
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
        return asdict(await self._recorder.exclusively(lambda: self._erase(names)))

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
        """Wait until every segment that is written now is drained and deleted. Raises NotDrained."""
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
        """Wait until what is shipped is recorded. Raises NotDrained if another node holds the lease: it must erase."""
        if not member.holds:
            holder = member.view("").holder or "none at present"
            raise NotDrained(
                f"this node's journal is drained; ask the holder of the lease ({holder}) after every other"
            )
        deadline = monotonic() + seconds
        newest = await member.newest_shipped()
        while (first := await member.shipped(1))[0] and first[0][0].seq <= newest:
            if monotonic() > deadline:
                raise NotDrained(f"what nodes shipped is not recorded after {seconds:g} s")
            if not await self._recorder.step():
                await asyncio.sleep(_LOOK_SECONDS)

    def _present(self) -> set[Path]:
        """The segments there are, but an import's: it names predictions and no unit, and is not waited for."""
        found = [*segments(self._journal / PREDICTIONS), *segments(self._journal / FEEDBACK)]
        return {segment.path for segment in found if segment.slot < rolling.WORKER_SLOTS}
