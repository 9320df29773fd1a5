"""Counters of one worker, since it started: what was dropped, refused or could not be read, and where.

Rule: every drop is counted here, in a series that ``worker_series`` declares; nothing is ever reset.
"""

from __future__ import annotations

from collections import defaultdict

from gateway.proxy.log.worker_series import Sample, WorkerCounter


class Counts:
    """Cumulative numbers by counter and labels."""

    def __init__(self) -> None:
        self._numbers: defaultdict[tuple[WorkerCounter, tuple[tuple[str, str], ...]], int] = defaultdict(int)

    def add(self, counter: WorkerCounter, number: int = 1, **labels: str) -> None:
        """Count. The labels are those that the counter declares."""
        self._numbers[counter, tuple(labels.items())] += number

    def samples(self) -> list[Sample]:
        """Return the number of every counter under each of its labels, as a datagram carries them."""
        return [counter.sample(number, **dict(labels)) for (counter, labels), number in self._numbers.items()]
