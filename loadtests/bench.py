"""One run: how long things take, where scratch files go, and the rounds in which peers alternate.

Rule: peers take turns within a round, so that whatever changes on the machine meets all of them alike; after its turn
each is left to settle, so that what it still has to do is not charged to the next.
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
    """What every scenario is given. ``seconds`` is the length of a turn, ``peers`` are those that are there, and
    ``absent`` says of the others why."""

    directory: Path
    peers: tuple[Peer, ...]
    rounds: int = 5
    seconds: int = 4
    soak_minutes: float = 10.0
    quick: bool = False
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def proxies(self) -> tuple[Peer, ...]:
        """The peers that are products: they stream, and hold what they are asked to hold."""
        return tuple(peer for peer in self.peers if not peer.handmade)

    def named(self, *names: str) -> tuple[Peer, ...]:
        """Those of the peers that are there and have one of these names."""
        return tuple(peer for peer in self.peers if peer.name in names)

    @property
    def few(self) -> int:
        """How many rounds there are where the peers differ by much, or are many."""
        return max(1, self.rounds - 2)

    @property
    def many(self) -> int:
        """How many rounds there are where few peers are compared closely: the machine's speed moves within seconds."""
        return 3 * self.rounds

    @property
    def short(self) -> int:
        """The length in seconds of a turn where many are needed."""
        return max(1, self.seconds - 1)

    @property
    def shortest(self) -> int:
        """The length in seconds of a turn where two are compared closely: each is to meet the same machine."""
        return max(1, self.seconds // 2)

    def scratch(self, name: str) -> Path:
        """Make a directory for one part of a scenario."""
        found = self.directory / name
        found.mkdir(parents=True)
        return found

    def say(self, text: str) -> None:
        """Tell whoever waits how far it is."""
        print(f"  {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Round:
    """One peer's turn. ``cpu_us`` is a request's share of what its carriers used during the load; ``all_cpu_us`` of
    what everything of it used until it had settled, ``lag_seconds`` after the load."""

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
    """Start all peers beside each other; they cost nothing while nobody asks them.

    A peer that does not come up is left out and reported as absent; without Turnout there is nothing to measure.
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
    """Load one gateway for one round and let it settle."""
    before, all_before = gateway.carrying_seconds(), gateway.all_seconds()
    answers = wrk(gateway.port, load, directory)
    carried = gateway.carrying_seconds() - before
    lag = gateway.settle()
    return _round(answers, carried, gateway.all_seconds() - all_before, lag)


def rounds(count: int, turns: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Let everyone take a turn, so many times; every second round the other way round."""
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
    beset: Callable[[Gateway], T],
    *,
    take: Callable[[str, Callable[[], T]], T] = lambda _, turn: turn(),
) -> dict[str, list[T]]:
    """Let each gateway take turns alone and beside ``what``, right after each other; those are called "peer, what".

    Turnout, who is judged, has many rounds, the others few. ``take`` is given each turn with its name, to take it.
    """
    found: dict[str, list[T]] = {}
    for name, gateway in gateways.items():
        turns = {name: partial(alone, gateway), f"{name}, {what}": partial(beset, gateway)}
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
