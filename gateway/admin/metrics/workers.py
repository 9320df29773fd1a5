"""What workers report once a second: their counters since they started, and their gauges.

Rule: a counter here only grows, and only by what happened since this controller started: the first datagram of a worker
that is older is where counting begins, and what a worker had counted stays when it ends. Memory is bounded, however
many workers come and go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

#: A worker that is older than the controller by no more than this started together with it: all it counted is counted.
TOGETHER_MS: Final = 10_000

#: A worker sends a datagram each second. After this long without one its gauges are left out.
SILENT_SECONDS: Final = 10.0

MOST_WRITERS: Final = 256
MOST_COUNTERS: Final = 10_000

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Increase:
    """By how much a counter grew since the worker's last datagram."""

    name: str
    labels: Mapping[str, str]
    by: float


@dataclass(slots=True)
class _Worker:
    slot: int
    revision: int
    received: float
    counters: dict[tuple[str, Labels], float]
    gauges: dict[tuple[str, Labels], float]


class Workers:
    """The last datagram of each worker. ``clock`` is monotonic, in seconds."""

    def __init__(self, *, started_ms: int, clock: Callable[[], float]) -> None:
        self._started_ms = started_ms
        self._clock = clock
        self._workers: OrderedDict[str, _Worker] = OrderedDict()

    def receive(self, datagram: Mapping[str, Any]) -> list[Increase]:
        """Keep one datagram and return which counters grew. Raises ValueError if it is not one that a worker sends."""
        try:
            writer = str(datagram["writer"])
            counters = _numbers(datagram["counters"])
            worker = _Worker(
                slot=int(datagram["slot"]),
                revision=int(datagram["revision"]),
                received=self._clock(),
                counters=counters,
                gauges=_numbers(datagram["gauges"]),
            )
            known = self._workers.get(writer)
            older = known is None and _spawned_ms(writer) < self._started_ms - TOGETHER_MS
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"not a worker's datagram: {error!r}") from error
        before = known.counters if known is not None else counters if older else {}
        self._workers[writer] = worker
        self._workers.move_to_end(writer)
        while len(self._workers) > MOST_WRITERS:
            self._workers.popitem(last=False)
        grown = (
            (name, labels, number - before.get((name, labels), 0.0)) for (name, labels), number in counters.items()
        )
        return [Increase(name, dict(labels), by) for name, labels, by in grown if by > 0]

    def gauges(self) -> dict[tuple[str, Labels], float]:
        """Return each gauge added up over the workers that reported lately."""
        total: dict[tuple[str, Labels], float] = {}
        for worker in self._present():
            for place, number in worker.gauges.items():
                total[place] = total.get(place, 0.0) + number
        return total

    def revisions(self) -> dict[int, int]:
        """Return the snapshot revision of each worker, by its slot; of two in a slot, of the one that reported last."""
        return {worker.slot: worker.revision for worker in self._present()}

    def _present(self) -> list[_Worker]:
        now = self._clock()
        return [worker for worker in self._workers.values() if now - worker.received < SILENT_SECONDS]


def _numbers(listed: Any) -> dict[tuple[str, Labels], float]:
    """Return [name, labels, number] entries by name and labels. Raises ValueError or TypeError if they are not such."""
    if len(listed) > MOST_COUNTERS:
        raise ValueError(f"{len(listed)} numbers are more than {MOST_COUNTERS}")
    found: dict[tuple[str, Labels], float] = {}
    for name, labels, number in listed:
        if not isfinite(number):
            raise ValueError(f"{name} is {number}")
        found[str(name), tuple(sorted((str(key), str(value)) for key, value in dict(labels).items()))] = float(number)
    return found


def _spawned_ms(writer: str) -> int:
    """Return when the worker started: the last part of ``{run}-{slot}-{spawn}``, milliseconds in hexadecimal."""
    return int(writer.rsplit("-", 1)[1], 16)
