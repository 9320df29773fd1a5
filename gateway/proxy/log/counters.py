"""Counters of one worker, since it started: what was dropped, refused or could not be read, and where.

Rule: every drop is counted here, under a name and labels the controller knows; nothing is ever reset.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

Name = Literal[
    "mirror_drops",
    "shed",
    "slow_clients",
    "unit_fallbacks",
    "uncounted_requests",
    "unfinished_requests",
    "merge_failures",
    "extraction_failures",
    "version_mismatches",
    "journal_fsync_failures",
    "capture_drops",
    "journal_shed",
    "journal_refused",
    "snapshot_errors",
    "feedback_rejected",
    "retries",
    "retry_budget_exhausted",
    "ejections",
]


class Counts:
    """Cumulative numbers by name and labels."""

    def __init__(self) -> None:
        self._numbers: defaultdict[tuple[Name, tuple[tuple[str, str], ...]], int] = defaultdict(int)

    def add(self, name: Name, number: int = 1, **labels: str) -> None:
        self._numbers[name, tuple(labels.items())] += number

    def listed(self) -> list[tuple[str, dict[str, str], int]]:
        """Return every counter as (name, labels, number), as a datagram carries them."""
        return [(name, dict(labels), number) for (name, labels), number in self._numbers.items()]
