"""What the product decides about simulated tallies: the functions that its report calls, and nothing of our own.

Rule: the only module of this bench that knows which function of the product judges what. A look is skipped only where
a test that may be looked at once would be far from deciding: no procedure that holds at every look decides there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import numpy as np
import numpy.typing as npt

from loadtests.honesty.cases import Array
from loadtests.honesty.streams import Looks, of_counts
from policies.statistics.sample_ratio import sample_ratio
from policies.statistics.sequential import Bounds, difference_interval, mean_interval
from policies.thompson import Thompson
from policies.types import Evidence, Tally

#: Below this many standard errors no look is asked for a decision: at .05 a test that may be looked at once asks 1.96.
LEAST_SCORE: Final = 1.5

Strata = Sequence[tuple[Tally, Tally]]


@dataclass(frozen=True, slots=True)
class Design:
    """How a route assigns and what its metric is: what the product chooses the method by."""

    bounds: Bounds | None = (0.0, 1.0)
    by_unit: bool = True
    adaptive: bool = False


def decision(strata: Strata, design: Design) -> int:
    """Return +1 where the variant's mean is shown to be higher, -1 where lower, else 0."""
    found = difference_interval(
        strata, bounds=design.bounds, adaptive=design.adaptive, by_unit=design.by_unit, alpha=0.05
    )
    if found is None:
        return 0
    return int(found.low > 0) - int(found.high < 0)


@dataclass(frozen=True, slots=True)
class Decided:
    """The first decision of each run: its sign (0: none), and at which look (the number of looks: none)."""

    sign: npt.NDArray[np.int64]
    look: npt.NDArray[np.int64]


def first_decisions(
    looks: Looks,
    design: Design,
    judge: Callable[[Strata, Design], int] = decision,
    *,
    only_worse: bool = False,
    least: float = LEAST_SCORE,
) -> Decided:
    """Return the first decision in each run, when one looks at every look; ``only_worse``: the first for "worse"."""
    scores = looks.scores()
    asked = (scores <= -least) if only_worse else (np.abs(scores) >= least)
    sign = np.zeros(looks.runs, dtype=np.int64)
    look = np.full(looks.runs, looks.looks, dtype=np.int64)
    for run in range(looks.runs):
        for at in np.flatnonzero(asked[run]):
            found = judge([looks.pair(run, int(at))], design)
            if found:
                sign[run], look[run] = found, at
                break
    return Decided(sign, look)


def joined(parts: Sequence[Decided]) -> Decided:
    """Return the decisions of several groups of runs as one."""
    return Decided(np.concatenate([p.sign for p in parts]), np.concatenate([p.look for p in parts]))


class Plans:
    """A Thompson policy of two variants over one run: the plans that the product makes of what came in."""

    def __init__(self, floor: float) -> None:
        self._policy = Thompson(variants=("baseline", "variant"), reward="click", floor=floor)
        self._had, self._won = np.zeros(2), np.zeros(2)

    def after(self, n: Array, won: Array) -> float:
        """Return the variant's share once ``n`` more requests of each side came in, of which ``won`` succeeded."""
        return self.of_all(self._had + n, self._won + won)

    def of_all(self, had: Array, won: Array) -> float:
        """Return the variant's share when these are all sums there are."""
        self._had, self._won = had, won
        looks = of_counts(had.reshape(1, 1, 2), won.reshape(1, 1, 2))
        baseline, variant = looks.pair(0, 0)
        evidence = Evidence({("baseline", "click"): baseline, ("variant", "click"): variant})
        return self._policy.plan(evidence).shares["variant"]


def width(strata: Strata, design: Design) -> float:
    """Return how wide the interval of the difference is; infinite where there is none."""
    found = difference_interval(strata, bounds=design.bounds, adaptive=design.adaptive, by_unit=design.by_unit)
    return inf if found is None else found.high - found.low


def mean_width(tally: Tally, design: Design) -> float:
    """Return how wide the interval of one variant's mean is; infinite where there is none."""
    found = mean_interval(tally, bounds=design.bounds)
    return inf if found is None else found.high - found.low


def alarms(periods: Iterable[tuple[tuple[int, int], float]]) -> bool:
    """Return whether the sample-ratio check alarms: units of (baseline, variant) and the variant's share, by period."""
    stretches = (
        ({"baseline": counts[0], "variant": counts[1]}, {"baseline": 1 - part, "variant": part})
        for counts, part in periods
    )
    return not sample_ratio(stretches).ok
