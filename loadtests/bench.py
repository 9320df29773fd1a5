"""One run: how long things take, where scratch files go, and the rounds in which peers alternate.

Rule: peers take turns within a round, so that a change on the machine affects all of them alike. After its turn the
bench waits until a peer has finished its remaining work, so that this is not charged to the next peer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from loadtests.peers import Gateway, Job, Peer
from loadtests.wrk import Answers, Load, wrk

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bench:
    """The arguments of every scenario. ``seconds`` is the length of a turn, ``peers`` are the available peers, and
    ``absent`` holds the reasons why the others are missing."""

    directory: Path
    peers: tuple[Peer, ...]
    rounds: int = 5
    seconds: int = 4
    soak_minutes: float = 10.0
    quick: bool = False
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def proxies(self) -> tuple[Peer, ...]:
        """The peers that are products: they can stream and hold many connections open."""
        return tuple(peer for peer in self.peers if not peer.handmade)

    def named(self, *names: str) -> tuple[Peer, ...]:
        """The available peers that have one of these names."""
        return tuple(peer for peer in self.peers if peer.name in names)

    @property
    def few(self) -> int:
        """The number of rounds where the peers differ by much, or are many."""
        return max(1, self.rounds - 2)

    @property
    def many(self) -> int:
        """The number of rounds where few peers are compared closely: the machine's speed changes within seconds."""
        return 3 * self.rounds

    @property
    def short(self) -> int:
        """The length in seconds of a turn where many turns are needed."""
        return max(1, self.seconds - 1)

    @property
    def shortest(self) -> int:
        """The length in seconds of a turn where two peers are compared closely, on an unchanged machine."""
        return max(1, self.seconds // 2)

    def scratch(self, name: str) -> Path:
        """Make a directory for one part of a scenario."""
        found = self.directory / name
        found.mkdir(parents=True)
        return found

    def say(self, text: str) -> None:
        """Print progress to standard error."""
        print(f"  {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Round:
    """One peer's turn. ``cpu_us`` is the CPU per request of the processes that carry requests, during the load;
    ``all_cpu_us`` that of all its processes until its remaining work was done, ``lag_seconds`` after the load."""

    answers: int
    per_second: float
    errors: int
    cpu_us: float
    all_cpu_us: float
    p50_ms: float
    p99_ms: float
    lag_seconds: float


@contextmanager
def standing(bench: Bench, peers: Sequence[Peer], job: Job, directory: Path) -> Iterator[dict[str, Gateway]]:
    """Start all peers side by side; they use no CPU while they get no requests.

    A peer that does not start is left out and reported as absent; without Turnout there is nothing to measure.
    """
    with ExitStack() as held:
        gateways = {}
        for peer in peers:
            try:
                gateways[peer.name] = held.enter_context(peer.serve(job, directory))
            except (OSError, RuntimeError) as error:
                if peer.name == "Turnout":
                    raise
                bench.say(f"{peer.name} did not come up: {error}")
                bench.absent[peer.name] = f"did not come up: {error}"
        yield gateways


def turn(gateway: Gateway, load: Load, directory: Path) -> Round:
    """Load one gateway for one turn and wait until its remaining work is done."""
    before, all_before = gateway.carrying_seconds(), gateway.all_seconds()
    answers = wrk(gateway.port, load, directory)
    carried = gateway.carrying_seconds() - before
    lag = gateway.settle()
    return _round(answers, carried, gateway.all_seconds() - all_before, lag)


def rounds(count: int, turns: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Call each of ``turns`` once per round, for ``count`` rounds; every second round in the opposite order."""
    found: dict[str, list[T]] = {name: [] for name in turns}
    for number in range(count):
        for name in turns if number % 2 == 0 else reversed(list(turns)):
            found[name].append(turns[name]())
    return found


def beside(
    bench: Bench,
    gateways: Mapping[str, Gateway],
    what: str,
    alone: Callable[[Gateway], T],
    disturbed: Callable[[Gateway], T],
    *,
    take: Callable[[str, Callable[[], T]], T] = lambda _, turn: turn(),
) -> dict[str, list[T]]:
    """Measure each gateway alone and, directly afterwards, with ``what`` going on; the latter is named "peer, what".

    Turnout, which the target is about, gets many rounds, the others few. ``take`` runs each turn, given its name.
    """
    found: dict[str, list[T]] = {}
    for name, gateway in gateways.items():
        turns = {name: partial(alone, gateway), f"{name}, {what}": partial(disturbed, gateway)}
        taken = {called: partial(take, called, turn) for called, turn in turns.items()}
        found |= rounds(bench.many if name == "Turnout" else bench.few, taken)
    return found


def _round(answers: Answers, carried: float, everything: float, lag: float) -> Round:
    each = 1e6 / max(1, answers.count)
    return Round(
        answers=answers.count,
        per_second=answers.per_second,
        errors=answers.errors,
        cpu_us=carried * each,
        all_cpu_us=everything * each,
        p50_ms=answers.p50_ms,
        p99_ms=answers.p99_ms,
        lag_seconds=lag,
    )
