"""Read a journal as the recorder would, and say of each segment what is in it and what is wrong with it.

Rule: only reads, so it may run while workers write. A line that is being written at that moment counts as torn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from gateway.control.record.lines import Batch
from gateway.journal.seal import SegmentRefused
from gateway.journal.segments import FEEDBACK, PREDICTIONS, Segment, read_lines, segments

_CHUNK_BYTES: Final = 2**22


@dataclass(frozen=True, slots=True)
class Verified:
    """What one segment holds. ``lost`` are numbers missing up to its end; ``refused`` says why it is not read."""

    segment: str
    bytes: int
    lines: int = 0
    torn: int = 0
    corrupt: int = 0
    lost: int = 0
    refused: str | None = None

    @property
    def ok(self) -> bool:
        return self.refused is None and not (self.torn or self.corrupt or self.lost)


def verify(journal: Path) -> Iterator[Verified]:
    """Yield what each segment holds, by folder and writer, the oldest first. Raises OSError."""
    for folder in (PREDICTIONS, FEEDBACK):
        odd: dict[str, str] = {}
        listed = segments(journal / folder, odd)
        yield from (Verified(f"{folder}/{name}", 0, refused=what) for name, what in sorted(odd.items()))
        for _, chain in groupby(listed, key=lambda segment: segment.writer):
            expected: int | None = None
            for segment in chain:
                found, expected = _verify(folder, segment, expected)
                yield found


def _verify(folder: str, segment: Segment, expected: int | None) -> tuple[Verified, int | None]:
    """Return what a segment holds, and the number of the line that should follow."""
    name, batch, offset = f"{folder}/{segment.path.name}", Batch(), 0
    try:
        while True:
            lines, end = read_lines(segment.path, offset, _CHUNK_BYTES)
            if not lines:
                break
            expected, _ = batch.read(lines, segment.writer, expected)
            offset = end
    except SegmentRefused as error:
        return Verified(name, segment.size, refused=str(error)), None
    except FileNotFoundError:  # drained and deleted just now
        return Verified(name, 0), expected
    except OSError as error:
        return Verified(name, segment.size, refused=error.strerror or str(error)), None
    torn = batch.torn + int(offset < segment.size)
    return Verified(name, segment.size, batch.lines, torn, batch.corrupt, batch.lost), expected
