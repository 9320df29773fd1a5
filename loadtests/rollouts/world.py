"""What is true in a simulation: how much traffic there is, what each variant does with it, and what goes wrong.

Rule: values, and what follows from them at any moment. The stable variant is "old", the candidate "new".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SIDES: Final = ("old", "new")
DAY: Final = 86_400.0

#: A restarted pod answers slower at first: so much slower, for so many seconds.
WARMING: Final = (4.0, 10.0)
RESTART: Final = 5.0


@dataclass(frozen=True, slots=True)
class World:
    """Rates of (old, new), at their daily mean. All of them double and halve again in a day, of both alike.

    ``rate`` is in calls a second; it goes from .4 to 1.6 of that. A ``sticky`` unit makes 1 to 8 calls, which are
    refused, slow and in half of the cases failing together. ``restarts_a_step`` are expected of each side, in the first
    half hour of each step.
    """

    rate: float = 20.0
    sticky: bool = False
    failures: tuple[float, float] = (0.005, 0.005)
    client_errors: tuple[float, float] = (0.03, 0.03)
    slower: tuple[float, float] = (1.0, 1.0)
    complaints: tuple[float, float] = (0.02, 0.02)
    correct: tuple[float, float] = (0.9, 0.9)
    outages_a_week: float = 3.0
    restarts_a_step: float = 0.0
    restarts: bool = True
    #: Neither traffic nor rates move.
    steady: bool = False


@dataclass(frozen=True, slots=True)
class Troubles:
    """What goes wrong: (begin, end) in seconds, in which both sides fail all calls, or one of them does."""

    shared: tuple[tuple[float, float], ...] = ()
    own: tuple[tuple[int, float, float], ...] = ()

    @property
    def edges(self) -> list[float]:
        return [at for begin, end in (*self.shared, *(one[1:] for one in self.own)) for at in (begin, end)]

    def since(self, at: float, more: Troubles) -> Troubles:
        """Return the same by a clock that begins at ``at``, and ``more`` that is by that clock."""
        return Troubles(
            (*((begin - at, end - at) for begin, end in self.shared), *more.shared),
            (*((side, begin - at, end - at) for side, begin, end in self.own), *more.own),
        )


def troubles(random: np.random.Generator, world: World, whole: float) -> Troubles:
    """Draw what goes wrong in a rollout of about ``whole`` seconds, which may take half as long again.

    Shared outages last 20 s to 10 minutes; each side restarts once.
    """
    shared = []
    for _ in range(random.poisson(world.outages_a_week * 1.5 * whole / (7 * DAY))):
        begin = random.uniform(0, 1.5 * whole)
        shared.append((begin, begin + 20 * 30 ** random.uniform()))
    begins = [(side, random.uniform(0, whole)) for side in (0, 1) if world.restarts]
    return Troubles(tuple(shared), tuple((side, begin, begin + RESTART) for side, begin in begins))


def step_restarts(random: np.random.Generator, world: World, length: float) -> Troubles:
    """Draw restarts in the first half hour of a step."""
    own = []
    for side in (0, 1):
        for begin in random.uniform(0, min(length, 1800), random.poisson(world.restarts_a_step)):
            own.append((side, float(begin), float(begin) + RESTART))
    return Troubles((), tuple(own))


def busy(world: World, seconds: Array) -> Array:
    """Return how much of the mean traffic there is at these times of the day."""
    return np.ones(len(seconds)) if world.steady else 1 + 0.6 * np.sin(2 * np.pi * seconds / DAY)


def level(world: World, seconds: Array) -> Array:
    """Return by how much all rates are multiplied at these times."""
    found: Array = np.ones(len(seconds)) if world.steady else 2.0 ** np.sin(2 * np.pi * seconds / DAY + 1.0)
    return found


def down(found: Troubles, seconds: Array) -> npt.NDArray[np.bool_]:
    """Return whether each side fails all its calls at these times of a step: of shape (times, 2)."""
    which = np.zeros((len(seconds), 2), bool)
    for begin, end in found.shared:
        which[(begin <= seconds) & (seconds < end)] = True
    for side, begin, end in found.own:
        which[(begin <= seconds) & (seconds < end), side] = True
    return which


def warming(found: Troubles, seconds: Array) -> Array:
    """Return how much slower each side is at these times, of shape (times, 2)."""
    slower = np.ones((len(seconds), 2))
    for side, _, end in found.own:
        slower[(end <= seconds) & (seconds < end + WARMING[1]), side] = WARMING[0]
    return slower
