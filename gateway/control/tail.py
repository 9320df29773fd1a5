"""Follow the journal for those who count what happens, without waiting for the store.

Rule: from the journal's end at the start, each line once, as soon as it is there. A store that is down or slow delays
reports, never request rates. A segment that is still to be read here is not deleted (``reading``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from gateway.control.lines import Batch
from gateway.journal import PREDICTIONS, Segment, read_lines, segments
from gateway.store.calls import Call

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.25
CHUNK_BYTES: Final = 2**20


class Tail:
    """Tells ``on_calls`` of every finished call that is journaled from now on."""

    def __init__(self, journal: Path, on_calls: Callable[[Sequence[Call]], None]) -> None:
        self._folder = journal / PREDICTIONS
        self._on_calls = on_calls
        self._offsets = {segment.path: segment.size for segment in segments(self._folder)}

    def reading(self, segment: Segment) -> bool:
        """Return whether a segment of predictions holds lines that were not read here."""
        return segment.path.parent == self._folder and self._offsets.get(segment.path, 0) < segment.size

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            try:
                more = await self.step()
            except OSError as error:
                logger.warning("the journal cannot be followed: %s", error)
                more = False
            await asyncio.sleep(0 if more else POLL_SECONDS)

    async def step(self) -> bool:
        """Read what is new, up to a chunk of each segment; return whether there may be more."""
        found = segments(self._folder)
        self._offsets = {s.path: self._offsets.get(s.path, 0) for s in found}
        behind = [segment for segment in found if self._offsets[segment.path] < segment.size]
        more = False
        for segment in behind:
            batch, end = await asyncio.to_thread(self._read, segment)
            more |= end - self._offsets[segment.path] >= CHUNK_BYTES // 2
            # A torn end is nothing to wait for: its writer has gone on to another segment.
            last = not any(s.writer == segment.writer and s.seq > segment.seq for s in found)
            self._offsets[segment.path] = end if batch.lines or last else segment.size
            self._on_calls([call for call in batch.calls if not call.open])
        return more

    def _read(self, segment: Segment) -> tuple[Batch, int]:
        batch = Batch()
        try:
            lines, end = read_lines(segment.path, self._offsets[segment.path], CHUNK_BYTES)
        except FileNotFoundError:
            return batch, segment.size
        batch.read(lines, segment.writer)
        return batch, end
