"""Row parity: every answer's prediction id has its one primary row, and every further row has a reason.

Rule: two counts, because neither suffices alone. Over the whole load the answers are counted against the primary rows:
the difference is answers that were sent and not read, because the generator stopped, so it is at most the number in
flight. And for a sample every single id is looked up.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.peers.turnout import reading


@dataclass(frozen=True, slots=True)
class Parity:
    """``answers`` that clients read, of which ``sampled`` were looked up one by one; rows of the store by what they
    are; ``stops`` is how many requests can have been in flight whenever a generator stopped, all together."""

    answers: int
    stops: int
    answered: int
    further: dict[str, int] = field(default_factory=dict)
    sampled: int = 0
    sample_missing: int = 0
    sample_doubled: int = 0

    @property
    def unread(self) -> int:
        """The number of primary rows of whole answers that no client counted."""
        return self.answered - self.answers

    @property
    def broken(self) -> int:
        """The number of answers without exactly one row, plus the number of unexplained rows."""
        unexplained = max(0, -self.unread) + max(0, self.unread - self.stops)
        return unexplained + self.sample_missing + self.sample_doubled

    @property
    def holds(self) -> bool:
        """Whether every answer has its one row, and no row is left unexplained."""
        return not self.broken

    def __str__(self) -> str:
        further = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.further.items())) or "none"
        return (
            f"row parity {'holds' if self.holds else 'BROKEN'}: {self.answers:,} answers read, {self.answered:,} "
            f"primary rows of whole answers ({self.unread:,} answered and not read when a generator stopped, at most "
            f"{self.stops:,}); further rows: {further}; sample of {self.sampled:,} ids: {self.sample_missing} without "
            f"a row, {self.sample_doubled} with more than one"
        )


def compare(
    answers: int, stops: int, rows: Iterable[tuple[str, str | None, int]], ids: Sequence[str], known: Counter[str]
) -> Parity:
    """Compare answers with rows: (role, fault, how many) of all, and how many primary rows each sampled id has."""
    found = list(rows)
    whole = sum(count for role, fault, count in found if role == "primary" and fault is None)
    further = {
        f"{role}{'' if fault is None else f' ({fault})'}": count
        for role, fault, count in found
        if role != "primary" or fault is not None
    }
    return Parity(
        answers=answers,
        stops=stops,
        answered=whole,
        further=further,
        sampled=len(ids),
        sample_missing=sum(known[id] == 0 for id in ids),
        sample_doubled=sum(known[id] > 1 for id in ids) + len(ids) - len(set(ids)),
    )


def parity(data_dir: Path, *, answers: int, stops: int, ids: Sequence[str]) -> Parity:
    """Compare what was answered with what a settled Turnout recorded."""
    with reading(data_dir) as store:
        rows = store.execute("SELECT role, fault, count(*) FROM predictions GROUP BY role, fault").fetchall()
        return compare(answers, stops, rows, ids, _primary_rows(store, ids))


def _primary_rows(store: sqlite3.Connection, ids: Sequence[str]) -> Counter[str]:
    known: Counter[str] = Counter()
    for id in ids:
        (count,) = store.execute("SELECT count(*) FROM predictions WHERE id = ? AND role = 'primary'", (id,)).fetchone()
        known[id] = count
    return known
