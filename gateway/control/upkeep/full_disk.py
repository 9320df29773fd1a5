"""A full disk: the space held in reserve is given up so that the journal can be drained, and taken again afterwards.

Rule: only where the store is a file on the same disk. A database elsewhere needs no space here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.control.event_log import EventLog
from gateway.control.opened import Opened
from gateway.journal.reserve import Reserve, reserve_bytes
from router.snapshot import Gateway

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0


class FullDisk:
    """Holds the reserve of one journal. ``gateway`` returns the settings in force, ``waiting`` the undrained bytes."""

    def __init__(
        self, journal: Path, gateway: Callable[[], Gateway], waiting: Callable[[], int], event_log: EventLog
    ) -> None:
        self.opened: Opened | None = None
        self._journal = journal
        self._gateway = gateway
        self._waiting = waiting
        self._event_log = event_log
        self._reserve = Reserve(journal)
        self._dropped = False

    async def keep_reserve(self) -> None:
        """Look about once a second whether the reserve is needed, for ever."""
        failing = False
        while True:
            try:
                await self.look()
                failing = False
            except Exception as error:
                if not failing:
                    logger.warning("no room on the disk can be held in reserve: %s", error)
                failing = True
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Give up the reserve if the disk is full, or make it again. Raises OSError."""
        if self._dropped or self._gateway().store != "sqlite" or not self._journal.exists():
            return
        before = self._reserve.spent
        await asyncio.to_thread(self._tend)
        spent = self._reserve.spent
        if self.opened is not None:
            self.opened.recorder.sparing = spent
        if spent and not before:
            self._event_log.note("disk_full", None, "the journal is drained first; until then it is full for workers")
        elif before and not spent:
            self._event_log.note("disk_has_room", None, "the journal is drained, workers may write again")

    def _tend(self) -> None:
        trouble = None if self.opened is None else self.opened.recorder.trouble
        if trouble is None or not self._reserve.release(trouble):
            size = reserve_bytes(self._gateway().max_journal_bytes)
            self._reserve.tend(size, drained=not self._waiting())

    def drop(self) -> None:
        """Give up the reserve for good: the controller ends and the journal is drained. Raises OSError."""
        self._dropped = True
        self._reserve.drop()
