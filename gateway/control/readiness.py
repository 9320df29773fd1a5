"""Whether this node is ready: how far recording is, and what the node sees of its fleet.

Rule: asking changes nothing and needs no answer of the store. It is asked at every health check and scrape.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.control.event_log import EventLog
from gateway.control.membership import FleetView
from gateway.control.opened import Opened
from gateway.control.progress import Progress
from gateway.journal.segments import size_bytes

#: Between two looks at whether recording is stalled.
LOOK_SECONDS: Final = 1.0


class Readiness:
    """How far recording is. ``identity`` returns the hash of the configuration that this node runs."""

    def __init__(self, journal: Path, identity: Callable[[], str], event_log: EventLog) -> None:
        self.opened: Opened | None = None
        self._journal = journal
        self._identity = identity
        self._event_log = event_log
        self._started = time.monotonic()

    @property
    def fleet(self) -> FleetView | None:
        """The nodes that share the store as this one sees them, None where there is no store to share."""
        if self.opened is None or self.opened.member is None:
            return None
        return self.opened.member.view(self._identity())

    @property
    def refused_segments(self) -> int:
        """How many segments of the journal are left alone because this program cannot read them."""
        return 0 if self.opened is None else self.opened.recorder.refused

    def lag(self) -> tuple[float, int]:
        """Return how far the store is behind the journal: seconds, and bytes."""
        if self.opened is not None:
            return self.opened.recorder.lag()
        waiting = 0
        with suppress(OSError):  # no descriptors, or a journal that cannot be listed
            waiting = size_bytes(self._journal)
        return (time.monotonic() - self._started if waiting else 0.0), waiting

    def progress(self) -> Progress:
        """Return how far recording is, and whether and why it is stalled."""
        if self.opened is not None:
            return self.opened.recorder.progress()
        stalled, _ = self.lag()
        return Progress(stalled or time.monotonic() - self._started, "the store is not open", oldest_seconds=stalled)

    async def keep_noting(self) -> None:
        """Note in the event log when recording stalls and when it goes on again, for ever."""
        stalled = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.opened is None:
                continue  # the loop that opens the store notes why it is not open
            now = self.opened.recorder.progress()
            if now.stalled:
                stalled += 1
                if stalled == 2:
                    what = f"{now.trouble}: {now.detail[:200]}" if now.detail else now.trouble
                    self._event_log.note("recording_stalled", None, f"{what}; the journal keeps what comes")
            else:
                if stalled > 1:
                    self._event_log.note("recording_resumed", None, "what waited in the journal is being recorded")
                stalled = 0
