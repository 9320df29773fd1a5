"""Report every call to the metrics as it is journaled, without waiting for the store.

Rule: from the journal's end at the start, each line once. What the recorder reads is reported as it is read, so that a
line is decoded once; what it leaves for ``PATIENCE_SECONDS``, because the store is down or far behind, is read here. A
store in trouble delays reports, never request rates. A segment is not deleted before it is reported (``reached``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final

from gateway.control.record.lines import Batch
from gateway.journal.seal import SegmentRefused
from gateway.journal.segments import PREDICTIONS, Segment, read_lines, segments
from gateway.store.rows.calls import StoredCall

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 2.0
CHUNK_BYTES: Final = 2**20


class Tail:
    """Calls ``on_calls`` with every finished call that is journaled from now on."""

    def __init__(
        self,
        journal: Path,
        on_calls: Callable[[Sequence[StoredCall]], None],
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._folder = journal / PREDICTIONS
        self._on_calls = on_calls
        self._clock = clock
        self._offsets: dict[Path, int] = {}
        with suppress(OSError):  # then all of it is reported, once it can be listed
            self._offsets = {segment.path: segment.size for segment in segments(self._folder)}
        #: When the recorder last read on from where this had reached.
        self._received_at: dict[Path, float] = {}

    def reached(self, segment: Segment) -> int:
        """Return up to where a segment of predictions has been reported."""
        return self._offsets.get(segment.path, 0)

    def receive(self, segment: Segment, start: int, end: int, calls: Sequence[StoredCall]) -> None:
        """Take what the recorder read from ``start`` to ``end``: all of it is new if it begins where this is."""
        if start == self.reached(segment):
            self._received_at[segment.path] = self._clock()
            self._offsets[segment.path] = end
            self._deliver(calls)

    async def run(self) -> None:
        """Follow for ever."""
        failing = False
        while True:
            try:
                more = await self.step()
                failing = False
            except Exception as error:
                if not failing:
                    logger.warning("the journal cannot be followed: %s", error)
                more, failing = False, True
            await asyncio.sleep(0 if more else LOOK_SECONDS)

    async def step(self, *, at_once: bool = False) -> bool:
        """Read what the recorder has left, up to a chunk of each segment; return whether there may be more.

        ``at_once``: without waiting ``PATIENCE_SECONDS`` for the recorder.
        """
        found = segments(self._folder)
        self._offsets = {s.path: self._offsets.get(s.path, 0) for s in found}
        self._received_at = {path: at for path, at in self._received_at.items() if path in self._offsets}
        recently = self._clock() - PATIENCE_SECONDS
        more = False
        for segment in found:
            start = self._offsets[segment.path]
            if start >= segment.size or (not at_once and self._received_at.get(segment.path, recently) > recently):
                continue
            batch, end = await asyncio.to_thread(_read, segment, start)
            if self._offsets[segment.path] != start:
                continue  # the recorder has read it in the meantime
            more |= end - start >= CHUNK_BYTES // 2
            # A torn end is nothing to wait for: its writer has gone on to another segment.
            last = not any(s.writer == segment.writer and s.seq > segment.seq for s in found)
            self._offsets[segment.path] = end if batch.lines or last else segment.size
            self._deliver(batch.calls)
        return more

    def _deliver(self, calls: Sequence[StoredCall]) -> None:
        self._on_calls([call for call in calls if not call.open])


def _read(segment: Segment, start: int) -> tuple[Batch, int]:
    batch = Batch()
    try:
        lines, end = read_lines(segment.path, start, CHUNK_BYTES)
    except FileNotFoundError:
        return batch, segment.size
    except SegmentRefused:  # the recorder logs it, and leaves it too
        return batch, start
    except OSError as error:
        logger.debug("%s cannot be followed: %s", segment.path.name, error)
        return batch, start
    batch.read(lines, segment.writer)
    return batch, end
