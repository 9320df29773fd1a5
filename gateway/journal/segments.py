"""Segments: the append-only files of sealed JSON lines that the journal is made of; their names, and how they are read.

Rule: the journal is the one record that passes from workers to the controller. What a reader may rely on:

- A *writer* is one life of one worker, ``{run}-{slot}-{spawn}``; its segments are ``{writer}-{seq}.jsonl``. ``run`` and
  ``spawn`` are Unix milliseconds of the supervisor's and the worker's start as 12 hex digits, so names sort by age.
- Segments only grow, and are never written again once a higher ``seq`` of the same writer exists.
- The first line of a segment says its format. Every line is sealed (``gateway.journal.seal``), and those of a writer in
  one folder are numbered through all its segments, from 0.
- A last line without its newline is still being written or, when the segment is finished, torn: it is counted and not
  read.

Standard library only: workers import this, and so does the controller.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.files.regular import open_regular
from gateway.journal.seal import HEADER_BYTES, check_header

#: The journal's folder in the data directory, and in it the folder of each kind.
JOURNAL: Final = "journal"
PREDICTIONS: Final = "predictions"
FEEDBACK: Final = "feedback"
#: Begins the names of the folders in which a backup that is being made, or was killed, holds links to segments.
LINKS: Final = ".backup-"

#: A segment is small enough to be drained and deleted soon, and large enough that files are few.
SEGMENT_BYTES: Final = 16 * 2**20

_NAME: Final = re.compile(r"([0-9a-f]{12})-(\d{2,})-([0-9a-f]{12})-(\d{6,})\.jsonl")


def new_run(now_ms: int) -> str:
    """Return the name of a supervisor's run."""
    return f"{now_ms:012x}"


def new_writer(run: str, slot: int, now_ms: int) -> str:
    """Return the name of one life of the worker at ``slot``."""
    return f"{run}-{slot:02d}-{now_ms:012x}"


def next_run(journal: Path, now_ms: int) -> str:
    """Return the name of a run that is newer than every one in the journal, also when the clock was set back.

    A reader would take a run that looked older than the last for dead, and the segments it writes for finished.
    """
    known = (int(segment.run, 16) + 1 for segment in _all_segments(journal))
    return new_run(max(now_ms, *known, 0))


def next_writer(journal: Path, run: str, slot: int, now_ms: int) -> str:
    """Return the name of a life that is newer than every other of this worker, also when the clock was set back."""
    lives = (int(s.spawn, 16) + 1 for s in _all_segments(journal) if (s.run, s.slot) == (run, slot))
    return new_writer(run, slot, max(now_ms, *lives, 0))


def roll_bytes(max_journal_bytes: int) -> int:
    """Return the size at which a segment is followed by the next: an eighth of the bound, 16 MiB at most.

    Only finished segments can be deleted, so a segment as large as the bound would keep the journal full for ever.
    """
    return max(1, min(SEGMENT_BYTES, max_journal_bytes // 8))


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of the journal, as it was when listed. ``size`` is in bytes."""

    path: Path
    run: str
    slot: int
    spawn: str
    seq: int
    size: int

    @property
    def writer(self) -> str:
        return f"{self.run}-{self.slot:02d}-{self.spawn}"


def segments(directory: Path, odd: dict[str, str] | None = None) -> list[Segment]:
    """Return the segments in ``directory``, oldest first: by run, slot, spawn, seq. A missing directory holds none.

    An entry that is named like a segment but is no readable file is left out; ``odd`` receives its name and what it is.
    """
    found: list[Segment] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if name := _NAME.fullmatch(entry.name):
                    run, slot, spawn, seq = name.groups()
                    try:
                        status = entry.stat()
                    except FileNotFoundError:  # drained and deleted just now
                        continue
                    except OSError as error:  # a loop of links
                        if odd is not None:
                            odd[entry.name] = error.strerror or str(error)
                        continue
                    if stat.S_ISREG(status.st_mode):
                        found.append(Segment(Path(entry.path), run, int(slot), spawn, int(seq), status.st_size))
                    elif odd is not None:
                        odd[entry.name] = "no regular file"
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda s: (s.run, s.slot, s.spawn, s.seq))


def read_lines(path: Path, offset: int, max_bytes: int) -> tuple[list[bytes], int]:
    """Return the whole lines from ``offset`` on, newlines left out, and the offset after the last of them.

    The lines are still sealed. Reads about ``max_bytes``, more only when a single line is longer. Raises
    OSError, and SegmentRefused if the segment is not to be read at all.
    """
    with open(open_regular(path), "rb", buffering=0) as segment:
        check_header(segment.read(HEADER_BYTES), path.name.rpartition("-")[0])
        segment.seek(offset)
        content = segment.read(max_bytes) or b""
        while b"\n" not in content and (more := segment.read(max_bytes)):
            content += more
    whole = content[: content.rfind(b"\n") + 1]
    return whole.split(b"\n")[:-1], offset + len(whole)


def size_bytes(directory: Path, *kinds: str) -> int:
    """Return how many bytes the journal under ``directory`` holds: not drained yet, or drained and not deleted yet.

    Counts these ``kinds`` of segments, or all.
    """
    return sum(segment.size for kind in kinds or (PREDICTIONS, FEEDBACK) for segment in segments(directory / kind))


def _all_segments(journal: Path) -> list[Segment]:
    return [segment for kind in (PREDICTIONS, FEEDBACK) for segment in segments(journal / kind)]
