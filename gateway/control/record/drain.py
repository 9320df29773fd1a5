"""What to read next of the journal, and which segments are finished for good.

Rule: decided from two looks at the folder, never one: while a folder is being listed its files still grow, so a size is
final only if the segment was finished before that look began.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from gateway.control.record.lines import Batch
from gateway.journal.quarantine import UnreadableLine
from gateway.journal.seal import SegmentRefused
from gateway.journal.segments import FEEDBACK, PREDICTIONS, Segment, read_lines, segments
from gateway.store.rows.calls import StoredCall

logger = logging.getLogger(__name__)

#: How much of a segment is read at once; longer lines are read whole all the same.
CHUNK_BYTES: Final = 2**22

#: Errors that are no fault of the segment: this process, or the system, has no descriptors or memory left.
_PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})


class Follower(Protocol):
    """Receives every call that is read; it may have read further by itself (``reached``)."""

    def reached(self, segment: Segment) -> int: ...
    def receive(self, segment: Segment, start: int, end: int, calls: Sequence[StoredCall]) -> None: ...


class Reading(NamedTuple):
    """Which part of a segment of predictions was read: from and to which byte, and which calls of the batch it held."""

    segment: Segment
    start: int
    end: int
    calls: slice


@dataclass(slots=True)
class Read:
    """What was read, and what is known of the journal once it is recorded: how far, and which number comes next.

    ``taken`` says how far each chunk that other nodes shipped was read, by its number; None: to the end. ``more`` is
    True when reading stopped at a bound, of lines or of bytes, and not because there was nothing left.
    """

    batch: Batch = field(default_factory=Batch)
    offsets: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    unreadable: list[UnreadableLine] = field(default_factory=list)
    taken: dict[int, int | None] = field(default_factory=dict)
    more: bool = False


class Segments:
    """The journal's folders as last looked at, and how far they are drained.

    ``offsets`` are by folder and file name; ``numbers``, of the line that comes next, by folder and writer. ``prefix``,
    the node's where there are several, comes before the name of every writer that is returned.
    """

    def __init__(
        self,
        journal: Path,
        offsets: Mapping[str, int],
        numbers: Mapping[str, int] | None = None,
        *,
        prefix: str = "",
    ) -> None:
        self._journal = journal
        self._prefix = prefix
        self.offsets = dict(offsets)
        self.numbers = dict(numbers or {})
        # What is not read, and why: segments of another format, entries that are no files, and segments that cannot be
        # read at the moment.
        self._foreign: dict[str, str] = {}
        self._odd: dict[str, str] = {}
        self._unreadable: dict[str, str] = {}
        self._logged: set[str] = set()  # names of refused segments that are in the log
        self.found: dict[str, Segment] = {}
        self._finished: set[str] = set()  # as of the look before
        self._final: set[str] = set()
        self._turn = 0

    def look(self, dead: Collection[str]) -> None:
        """List the folders. ``dead`` are the writers that will never write again, by what was known before."""
        self._final = self._finished | {name for name, segment in self.found.items() if self._writer(segment) in dead}
        self.found = {}
        self._odd = {}
        for folder in (PREDICTIONS, FEEDBACK):
            odd: dict[str, str] = {}
            self.found |= {f"{folder}/{one.path.name}": one for one in segments(self._journal / folder, odd)}
            self._odd |= {f"{folder}/{name}": what for name, what in odd.items()}
        # What could not be read may be readable by now; what is of another format stays so.
        self._unreadable.clear()
        self._log_refused(self._odd)
        self._finished = set()
        for chain in self._chains():
            self._finished.update(name for name, _ in chain[:-1])

    @property
    def refused(self) -> dict[str, str]:
        """Segments that are not read, and why. They stay as they are, for a program or an operator who can."""
        return {**self._foreign, **self._odd, **self._unreadable}

    def refuse(self, refused: Mapping[str, str]) -> None:
        """Take these segments for refused, without logging them."""
        self._foreign.update(refused)
        self._logged.update(refused)

    def writers(self) -> set[str]:
        """Return the writers of predictions: those whose heartbeats the watermark waits for."""
        return {self._writer(segment) for name, segment in self.found.items() if name.startswith(f"{PREDICTIONS}/")}

    def read(self, limit: int, follower: Follower | None = None, batch: Batch | None = None) -> Read:
        """Read about ``limit`` lines that are not drained, or ``CHUNK_BYTES`` a segment, into ``batch`` or a new one.

        Writers take turns, so that a busy one starves no other; the segments of one writer come in order. Reading stops
        where ``follower`` has reached, so that what was read is either all new to it or all known.
        """
        read = Read() if batch is None else Read(batch)
        batch, chains = read.batch, list(self._chains())
        self._turn += 1
        for i in range(len(chains)):
            for name, segment in chains[(i + self._turn) % len(chains)]:
                start, first = self.offsets.get(name, 0), len(batch.calls)
                reached = follower.reached(segment) if follower and name.startswith(PREDICTIONS) else 0
                most = reached - start if start < reached < start + CHUNK_BYTES else CHUNK_BYTES
                drained = self._read(name, segment, read, limit - batch.lines, most)
                if name in read.offsets and name.startswith(PREDICTIONS):
                    readings = slice(first, len(batch.calls))
                    read.readings.append(Reading(segment, start, read.offsets[name], readings))
                read.more |= not drained and name in read.offsets
                if not drained or name not in self._final:
                    break
            if batch.lines >= limit:
                read.more = True
                break
        return read

    def recorded(self, offsets: Mapping[str, int], numbers: Mapping[str, int]) -> None:
        """Read on from here the next time."""
        self.offsets.update(offsets)
        self.numbers.update(numbers)

    def drained(self, name: str) -> bool:
        """Return whether all of a segment that was there at the last look is recorded."""
        return self.offsets.get(name, 0) >= self.found[name].size

    def drained_writers(self, writers: Iterable[str], offsets: Mapping[str, int]) -> set[str]:
        """Return which of these (dead) writers have all their predictions recorded, once ``offsets`` are."""
        behind = {
            self._writer(segment)
            for name, segment in self.found.items()
            if name.startswith(f"{PREDICTIONS}/")
            and name not in self.refused
            and (name not in self._final or offsets.get(name, self.offsets.get(name, 0)) < segment.size)
        }
        return set(writers) - behind

    def disposable(self) -> list[tuple[str, Segment]]:
        """Return the segments that are finished and drained."""
        return [(name, segment) for name, segment in self.found.items() if name in self._final and self.drained(name)]

    def forgotten(self) -> list[str]:
        """Return the names of the offsets whose segments were deleted."""
        return [name for name in self.offsets if name not in self.found and name not in self._odd]

    def silent(self) -> list[str]:
        """Return the names of the numbers whose writers have no segment any more."""
        writing = {_chain(name, segment) for name, segment in self.found.items()}
        return [chain for chain in self.numbers if chain not in writing]

    def undrained_bytes(self) -> int:
        """Return how much is not recorded, as of the last look, without what is refused."""
        return sum(
            max(0, segment.size - self.offsets.get(name, 0))
            for name, segment in self.found.items()
            if name not in self.refused
        )

    def _read(self, name: str, segment: Segment, read: Read, limit: int, most: int) -> bool:
        """Read on in one segment; return whether its end is reached."""
        offset = self.offsets.get(name, 0)
        if offset >= segment.size or limit <= 0:
            return offset >= segment.size
        if name in self._foreign:
            return True
        try:
            lines, end = read_lines(segment.path, offset, most)
        except FileNotFoundError:
            return True
        except SegmentRefused as error:
            self._foreign[name] = str(error)
            self._log_refused(self._foreign)
            return True
        except OSError as error:
            if error.errno in _PASSING:
                raise
            self._unreadable[name] = error.strerror or str(error)
            self._log_refused(self._unreadable)
            return True
        if len(lines) > limit:
            del lines[limit:]
            end = offset + sum(len(line) + 1 for line in lines)
        chain = _chain(name, segment)
        expected = read.numbers.get(chain, self.numbers.get(chain))
        expected, aside = read.batch.read(lines, self._writer(segment), expected)
        if expected is not None:
            read.numbers[chain] = expected
        if aside:
            starts = list(accumulate((len(line) + 1 for line in lines), initial=offset))
            read.unreadable += [UnreadableLine(name, starts[line], content) for line, content in aside]
        if not lines and name in self._final:
            read.batch.torn += 1
            end = segment.size
        if end > offset:
            read.offsets[name] = end
        return end >= segment.size

    def _writer(self, segment: Segment) -> str:
        return f"{self._prefix}{segment.writer}"

    def _log_refused(self, refused: Mapping[str, str]) -> None:
        for name in refused.keys() - self._logged:
            logger.error("the segment %s is not read, and left as it is: %s", name, refused[name])
        self._logged.update(refused)

    def _chains(self) -> Iterator[list[tuple[str, Segment]]]:
        """Yield each writer's segments in one folder, in order."""
        for _, chain in groupby(self.found.items(), key=lambda item: (item[0].partition("/")[0], item[1].writer)):
            yield list(chain)


def _chain(name: str, segment: Segment) -> str:
    """Return the name of a writer's segments in one folder, through which its lines are numbered."""
    return f"{name.partition('/')[0]}/{segment.writer}"
