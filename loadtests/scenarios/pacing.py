"""What the scenarios with a schedule have in common: an open loop against each gateway, in turns.

Rule: a p99 of milliseconds measures the gateway only while the machine has its processors. The host of a virtual
machine takes a processor away for milliseconds at a time; if that is more than ``CALM`` of the time, the slowest
request in a hundred waited for the host, whatever gateway answered it. Only the kernel's figure for the host decides
whether a turn is repeated, never the result of the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from loadtests.awake import awake
from loadtests.figures import spread
from loadtests.openloop import Latency, open_loop
from loadtests.peers import Gateway
from loadtests.table import Target, count

#: What the turns found, by name, in the order of the rounds.
Found = Mapping[str, Sequence[Latency]]

#: The columns that ``cells`` fills.
COLUMNS: Final = ("p50 ms", "p99 ms", "generator late by p99 ms", "host took %", "errors")

#: The share of the processors' time that the host may take in a calm turn: a fifth of what the p99 leaves out.
CALM: Final = 0.002

#: The most repetitions for each round of the turns that decide a target.
_AGAIN: Final = 4

#: How ``calmly`` turns are taken, in words.
CALMLY: Final = (
    f"The processors are kept awake, and a turn in which the host took more than {CALM:.1%} of their time is taken "
    f"again, at most {_AGAIN} for each round."
)


def paced(gateway: Gateway, *, rate: float, seconds: float) -> Latency:
    """Send requests to one gateway on a schedule, and wait until its remaining work is done."""
    found = open_loop(gateway.port, rate=rate, seconds=seconds)
    gateway.settle()
    return found


class Calm:
    """Repeats turns in which the host took processors away, a bounded number of times for all ``rounds``.

    ``first`` holds the first result of each turn, calm or not, by name; ``again`` counts the repetitions.
    """

    def __init__(self, rounds: int) -> None:
        self._most = _AGAIN * rounds
        self.again = 0
        self.first: dict[str, list[Latency]] = {}

    def take(self, name: str, turn: Callable[[], Latency]) -> Latency:
        """Return the result of a calm turn, or the last result when no more repetitions are allowed."""
        found = turn()
        self.first.setdefault(name, []).append(found)
        while not is_calm(found) and self.again < self._most:
            self.again += 1
            found = turn()
        return found

    def notes(self, counted: Found, judged: Callable[[Found], Sequence[Target]]) -> tuple[str, str]:
        """Say how often the host disturbed a turn, and how the turns would be ``judged`` as they came."""
        turns = sum(map(len, counted.values()))
        return (
            f"the host took a processor away: {_disturbed(self.first)} of {turns} turns were not calm as they came; "
            f"{self.again} were taken again, and {_disturbed(counted)} of those that count are not calm",
            "as they came: " + "; ".join(f"{t.what} {t.found}{t.unit}" for t in judged(self.first)),
        )


@contextmanager
def calmly(rounds: int, directory: Path) -> Iterator[Calm]:
    """Keep the processors awake, and repeat turns that the host disturbed."""
    with awake(directory):
        yield Calm(rounds)


def is_calm(found: Latency) -> bool:
    """Return whether the machine had its processors in this turn."""
    return found.stolen <= CALM


def _disturbed(found: Found) -> int:
    return sum(not is_calm(one) for own in found.values() for one in own)


def cells(own: Sequence[Latency]) -> tuple[str, ...]:
    """Return the cells that every peer has in its line of the table."""
    return (
        str(spread([r.p50_ms for r in own])),
        str(spread([r.p99_ms for r in own])),
        str(spread([r.late_p99_ms for r in own])),
        str(spread([100 * r.stolen for r in own])),
        count(sum(r.errors for r in own)),
    )


def p99s(found: Found) -> dict[str, list[float]]:
    """Return the p99 of each round, in milliseconds."""
    return {name: [r.p99_ms for r in own] for name, own in found.items()}


def raw(found: Found) -> dict[str, Any]:
    """Return every number of every round."""
    return {name: [asdict(r) for r in own] for name, own in found.items()}
