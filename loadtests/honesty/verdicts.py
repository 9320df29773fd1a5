"""What the product decides about simulated tallies: the functions that its report calls, and nothing of our own.

Rule: the only module of this bench that knows which function of the product judges what. A look is skipped only where
a test that may be looked at once would be far from deciding: no procedure that holds at every look decides there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Final
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from gateway.report import methods
from gateway.report.comparison import ALPHA
from loadtests.honesty.cases import Array
from loadtests.honesty.route import METRIC, SIDES, Design, Stretch, Units, account_of, metric_of
from loadtests.honesty.streams import Looks
from policies.statistics.difference import Difference
from policies.statistics.e_process import fresh_difference
from policies.statistics.means import betting, mixture
from policies.statistics.means import compare as means
from policies.statistics.sample_ratio import sample_ratio
from policies.statistics.sequential import mean_interval
from policies.thompson import Thompson
from policies.types import Buckets, Evidence, StretchTallies, Tally
from router.compile import is_step

#: Below this many standard errors no look is asked for a decision: at .05 a test that may be looked at once asks 1.96,
#: and bets of 1 to 20 on the two signs of a known difference 2.45.
LEAST_SCORE: Final = 2.1

Strata = Sequence[tuple[Tally, Tally]]


def decision(
    strata: Strata,
    design: Design,
    few: Mapping[str, Units] | None = None,
    *,
    buckets: Sequence[tuple[Buckets, Buckets]] | None = None,
) -> int:
    """Return +1 where the report says that the variant's mean is higher, -1 where lower, else 0.

    ``strata`` are the tallies of (baseline, variant) by period, or by plan where every request is drawn anew.
    """
    found = difference(strata, design, few, buckets=buckets)
    if found is None or not found.decides(ALPHA):
        return 0
    return 1 if found.difference > 0 else -1


def difference(
    strata: Strata,
    design: Design,
    few: Mapping[str, Units] | None = None,
    *,
    buckets: Sequence[tuple[Buckets, Buckets]] | None = None,
) -> Difference | None:
    """Return what the report finds of the variant and the baseline; None while nothing can be said."""
    known = [None] * len(strata) if buckets is None else buckets
    stretches = [Stretch(pair, design.part, of) for pair, of in zip(strata, known, strict=True)]
    account = account_of(design, stretches, few)
    return methods.difference(account, metric_of(design), SIDES[1], ALPHA)


def at_look(pairs: Sequence[tuple[Tally, Tally]], design: Design, looks: Sequence[float]) -> bool:
    """Return whether a test with a declared maximum decides at the last of these looks.

    ``pairs`` are the tallies at each look so far, ``looks`` the shares of the maximum. A look with too few units is
    none, as in the product.
    """
    seen = [means.standardised([pair], bounds=design.bounds) for pair in pairs[:-1]]
    made = [(of, one[1]) for of, one in zip(looks[:-1], seen, strict=True) if one is not None]
    found = means.compare(
        [pairs[-1]],
        bounds=design.bounds,
        alpha=ALPHA,
        looks=[*(of for of, _ in made), looks[-1]],
        information=[one for _, one in made],
    )
    return found is not None and found.decides(ALPHA)


@dataclass(frozen=True, slots=True)
class Decided:
    """The first decision of each run: its sign (0: none), and at which look (the number of looks: none)."""

    sign: npt.NDArray[np.int64]
    look: npt.NDArray[np.int64]


def first_decisions(
    looks: Looks,
    design: Design,
    *,
    only_worse: bool = False,
    least: float = LEAST_SCORE,
) -> Decided:
    """Return the first decision in each run, when one looks at every look; ``only_worse``: the first for "worse"."""
    scores = looks.scores()
    asked = (scores <= -least) if only_worse else (np.abs(scores) >= least)
    sign = np.zeros(looks.runs, dtype=np.int64)
    look = np.full(looks.runs, looks.looks, dtype=np.int64)
    with without_intervals():
        for run in range(looks.runs):
            for at in np.flatnonzero(asked[run]):
                found = decision([looks.pair(run, int(at))], design, looks.few(run, int(at)))
                if found:
                    sign[run], look[run] = found, at
                    break
    return Decided(sign, look)


@contextmanager
def without_intervals() -> Iterator[None]:
    """Leave out the ends of intervals: a decision is by p, and the search for them takes nine tenths of the time."""
    with (
        patch.object(betting, "_reach", lambda evidence, farthest, wanted: farthest),
        patch.object(mixture.Watch, "critical", lambda watch, alpha: 1.0),
    ):
        yield


def joined(parts: Sequence[Decided]) -> Decided:
    """Return the decisions of several groups of runs as one."""
    return Decided(np.concatenate([p.sign for p in parts]), np.concatenate([p.look for p in parts]))


def rate_tally(n: float, successes: float) -> Tally:
    """Return the tally of requests that are units of their own, with values of 0 and 1."""
    s = float(successes)
    return Tally(int(n), s, s, n, n, s, int(s), 0, float(n > 0), s, s, s, n, int(n))


def fresh_stretch(part: float, n: Array, successes: Array) -> StretchTallies:
    """Return what came of a plan that gave the variant the share ``part``; by side, the baseline first."""
    tallies = {
        (name, METRIC): rate_tally(float(n[side]), float(successes[side])) for side, name in enumerate(SIDES) if n[side]
    }
    return StretchTallies(dict(zip(SIDES, (1 - part, part), strict=True)), tallies)


def fresh_decision(stretches: Sequence[StretchTallies]) -> int:
    """Return +1 where bets on fresh requests show that the variant's rate is higher, -1 where lower, else 0."""
    found = fresh_difference(stretches, SIDES[1], SIDES[0], METRIC, bounds=(0.0, 1.0), alpha=ALPHA)
    if found is None or not found.decides(ALPHA):
        return 0
    return 1 if found.difference > 0 else -1


def fresh_band(stretches: Sequence[StretchTallies]) -> tuple[float, float] | None:
    """Return the band that describes the difference of rates; None where there is none."""
    found = fresh_difference(stretches, SIDES[1], SIDES[0], METRIC, bounds=(0.0, 1.0), alpha=ALPHA)
    return None if found is None else (found.low, found.high)


class Plans:
    """A Thompson policy of two variants over one run: the plans that the product makes of what came in."""

    def __init__(self, floor: float) -> None:
        self._policy = Thompson(variants=SIDES, reward=METRIC, floor=floor)
        self._closed: list[StretchTallies] = []
        self._n, self._won = np.zeros(2), np.zeros(2)
        self.part = 0.5

    def after(self, n: Array, won: Array) -> None:
        """Count ``n`` more requests of each side, of which ``won`` succeeded, and plan."""
        self._n, self._won = self._n + n, self._won + won
        stretches = self.stretches()
        if self.learn(stretches):
            self._closed = list(stretches)
            self._n, self._won = np.zeros(2), np.zeros(2)

    def learn(self, stretches: Sequence[StretchTallies]) -> bool:
        """Plan from these; return whether the share moved by a step, so that another stretch begins."""
        present = {SIDES[0]: 1 - self.part, SIDES[1]: self.part}
        shares = self._policy.plan(Evidence(stretches=tuple(stretches))).shares
        if not is_step(present, shares, len(stretches)):
            return False
        self.part = shares[SIDES[1]]
        return True

    def stretches(self) -> tuple[StretchTallies, ...]:
        """Return what came in, by stretch."""
        return (*self._closed, fresh_stretch(self.part, self._n, self._won))


def width(strata: Strata, design: Design, buckets: Sequence[tuple[Buckets, Buckets]] | None = None) -> float:
    """Return how wide the interval of the difference is; infinite where there is none."""
    found = difference(strata, design, buckets=buckets)
    return inf if found is None else found.high - found.low


def mean_width(tally: Tally, design: Design, buckets: Buckets | None = None) -> float:
    """Return how wide the interval of one variant's mean is; infinite where there is none."""
    found = mean_interval(tally, bounds=design.bounds, buckets=buckets)
    return inf if found is None else found.high - found.low


def alarms(periods: Iterable[tuple[tuple[int, int], float]]) -> bool:
    """Return whether the sample-ratio check alarms: units of (baseline, variant) and the variant's share, by period."""
    stretches = (
        ({"baseline": counts[0], "variant": counts[1]}, {"baseline": 1 - part, "variant": part})
        for counts, part in periods
    )
    return not sample_ratio(stretches).ok
