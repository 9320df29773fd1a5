"""What the scenarios with a schedule have in common: an open loop against each gateway, in turns.

Rule: a p99 of milliseconds is the gateway's only while the machine is its own. Of a virtual machine the host takes a
processor away for milliseconds at a time; where that is more than ``CALM`` of the time, the slowest request in a
hundred waited for the host, whoever answered it. A turn is taken again for what the kernel says of the host, never for
what it found.
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

#: What share of the processors' time the host may take in a turn that is calm: a fifth of what the p99 leaves out.
CALM: Final = 0.002

#: How many turns are taken again at most, for each round of those that are judged.
_AGAIN: Final = 4

#: How ``calmly`` turns are taken, in words.
CALMLY: Final = (
    f"The processors are kept awake, and a turn in which the host took more than {CALM:.1%} of their time is taken "
    f"again, at most {_AGAIN} for each round."
)


def paced(gateway: Gateway, *, rate: float, seconds: float) -> Latency:
    """Ask one gateway on a schedule and let it settle."""
    found = open_loop(gateway.port, rate=rate, seconds=seconds)
    gateway.settle()
    return found


class Calm:
    """Takes a turn again in which the host took processors away, a bounded number of them in so many ``rounds``.

    ``first`` is what each turn found the first time, calm or not, by name; ``again`` how many were taken again.
    """

    def __init__(self, rounds: int) -> None:
        self._most = _AGAIN * rounds
        self.again = 0
        self.first: dict[str, list[Latency]] = {}

    def take(self, name: str, turn: Callable[[], Latency]) -> Latency:
        """Return what a turn found that was calm, or the last one, when no more may be taken."""
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
    """Keep the processors awake, and have a turn taken again that the host disturbed."""
    with awake(directory):
        yield Calm(rounds)


def is_calm(found: Latency) -> bool:
    """Return whether the machine was its own in this turn."""
    return found.stolen <= CALM


def _disturbed(found: Found) -> int:
    return sum(not is_calm(one) for own in found.values() for one in own)


def cells(own: Sequence[Latency]) -> tuple[str, ...]:
    """Return what is in a line of the table for everyone."""
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
