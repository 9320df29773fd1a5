"""The watermark: the event time up to which everything that happened is known.

Rule: taken from the journal alone, never from a clock, so that a replay closes the same windows as the first run did.
Every writer says once a second before which time all its calls are in the journal; the least of these is the watermark.
A writer that died holds it back until its segments are drained, then never again. It never goes back. Where there are
several nodes, one that is out of reach for long holds it back no longer: what it ships later is late, and counts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Writer:
    """One life of a worker, and the time before which all its calls are known.

    ``bye``: it ended and said so. ``gone``: it is dead and everything it wrote is recorded.
    """

    mark_ms: int
    bye: bool = False
    gone: bool = False


class Writers:
    """Every writer seen, by name (``{run}-{slot}-{spawn}``), and the watermark; ``changed`` names the unsaved ones.

    Where there are several nodes, a name has its node's and "/" before it.
    """

    def __init__(self, writers: dict[str, Writer] | None = None, watermark_ms: int | None = None) -> None:
        self._writers = dict(writers or {})
        self.watermark_ms = watermark_ms
        self.changed: set[str] = set()

    def __getitem__(self, name: str) -> Writer:
        return self._writers[name]

    def __contains__(self, name: str) -> bool:
        return name in self._writers

    def take_changed(self) -> list[tuple[str, Writer]]:
        """Return the writers that changed since the last time."""
        changed, self.changed = self.changed, set()
        return [(name, self._writers[name]) for name in sorted(changed)]

    def add(self, name: str) -> None:
        """Add a writer, if it is new: nothing that it wrote is older than its start, which is in its name."""
        if name not in self._writers:
            self._put(name, Writer(int(name.rpartition("-")[2], 16)))

    def mark(self, name: str, at_ms: int, *, bye: bool = False) -> None:
        """Take a heartbeat or, with ``bye``, a clean end."""
        writer = self._writers[name]
        # Where a clock was set back, a later heartbeat has an earlier time: the promise made first still holds.
        self._put(name, Writer(max(writer.mark_ms, at_ms), bye or writer.bye, writer.gone))

    def mark_gone(self, name: str) -> None:
        """Note that a dead writer's segments are drained to their end."""
        self._put(name, replace(self._writers[name], gone=True))

    def living(self) -> list[str]:
        """Return the writers that are not gone, oldest first."""
        return sorted(name for name, writer in self._writers.items() if not writer.gone)

    def dead(self, run: str | None = None, prefix: str = "") -> set[str]:
        """Return the writers that will write no more: they said so, or have a successor; ``run`` is the present one.

        Only writers of the node with this ``prefix``: of another node's it cannot be known here.
        """
        own = {name: name[len(prefix) :].split("-") for name in self._writers if name.rpartition("/")[0] == prefix[:-1]}
        # Where the run is given, a newer one is of a supervisor that takes over: both runs write for a while.
        newest = run if run is not None else max((at for at, _, _ in own.values()), default="")
        spawns: dict[tuple[str, str], str] = {}
        for at, slot, spawn in own.values():
            spawns[at, slot] = max(spawns.get((at, slot), ""), spawn)
        return {
            name
            for name, (at, slot, spawn) in own.items()
            if self._writers[name].bye or at < newest or spawn < spawns[at, slot]
        }

    def advance(self, present: Collection[str] | None = None) -> bool:
        """Move the watermark to where the marks allow, and return whether it moved.

        ``present`` are the nodes that are waited for, None: all.
        """
        marks = [
            writer.mark_ms
            for name, writer in self._writers.items()
            if not writer.gone and (present is None or name.rpartition("/")[0] in present)
        ]
        # When the last writer is gone, everything up to its last heartbeat is known.
        reached = min(marks) if marks else max((writer.mark_ms for writer in self._writers.values()), default=None)
        if reached is None or (self.watermark_ms is not None and reached <= self.watermark_ms):
            return False
        self.watermark_ms = reached
        return True

    def _put(self, name: str, writer: Writer) -> None:
        if self._writers.get(name) != writer:
            self._writers[name] = writer
            self.changed.add(name)
