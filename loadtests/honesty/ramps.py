"""Edits of the shares: what a ramp costs in width, who comes again, and what the sample-ratio check sees."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from loadtests.honesty.cases import Array, Case, Measured, median, share
from loadtests.honesty.route import Design
from loadtests.honesty.streams import binary, buckets_of, tally_of
from loadtests.honesty.verdicts import LEAST_SCORE, alarms, decision, width, without_intervals
from policies.types import BUCKETS, Buckets, Tally

#: The variant's shares in a ramp of five steps.
STEPS: Final = (0.05, 0.1, 0.2, 0.35, 0.5)


def cut_to_uncut(random: np.random.Generator, runs: int) -> Measured:
    """Return the width over five periods divided by that over one, of the same 20,000 units, each in one period."""
    looks = binary(random, (0.1, 0.1), 0.5, runs=runs, looks=5, batch=4000)
    ratios = []
    for run in range(runs):
        upto = [looks.pair(run, at) for at in range(5)]
        cut = [upto[0], *((b[0] - a[0], b[1] - a[1]) for a, b in pairwise(upto))]
        buckets = [(_spread(one, random), _spread(other, random)) for one, other in cut]
        ratios.append(width(cut, Design(), buckets) / width(upto[-1:], Design()))
    return median(ratios, random)


def _spread(tally: Tally, random: np.random.Generator) -> Buckets:
    """Return the buckets of units that are in one period only, with one 0/1 value each."""
    even = [1 / BUCKETS] * BUCKETS
    right = random.multinomial(int(tally.m), even)
    wrong = random.multinomial(tally.n - int(tally.m), even)
    return Buckets(tuple(map(float, right)), tuple(map(float, right + wrong)))


def over_a_ramp(again: bool, better: float, random: np.random.Generator, runs: int, *, trend: bool = False) -> Measured:
    """Return how often variants are told apart over a ramp, at ten looks in each of its five periods.

    4,000 users have rates of their own, of mean .2, to which the variant adds ``better``. ``again``: all of them come
    in each period; else each comes in one. The base rate halves and doubles from period to period; with
    ``trend`` it goes from two fifths to the double, a little at each look.
    """
    users, looks = 4000, 10
    found = []
    for _ in range(runs):
        place, bucket = random.random(users), random.integers(0, BUCKETS, users)
        rate, first = random.beta(0.5, 2.0, users), random.integers(0, len(STEPS), users)
        periods: list[tuple[Tally, Tally]] = []
        buckets: list[tuple[Buckets, Buckets]] = []
        decided = False
        for number, part in enumerate(STEPS):
            treated = place < part
            here = np.full(users, True) if again else first == number
            world = 0.5 if number % 2 else 1.0
            m, d = np.zeros(users), np.zeros(users)
            for look in range(looks):
                if trend:
                    world = 0.4 * 5.0 ** ((number * looks + look) / (len(STEPS) * looks))
                came = np.where(here, random.poisson(0.3 if again else 1.5, users), 0)
                m += random.binomial(came, np.minimum(rate * world + better * treated, 1.0))
                d += came
                sides = [(np.where(on, m, 0.0), np.where(on, d, 0.0)) for on in (~treated, treated)]
                now = [*periods, (tally_of(*sides[0]), tally_of(*sides[1]))]
                if not decided and abs(_score(now)) >= LEAST_SCORE:
                    cut = [*buckets, (buckets_of(*sides[0], bucket), buckets_of(*sides[1], bucket))]
                    with without_intervals():
                        decided = decision(_distinct(now) if again else now, Design(), buckets=cut) != 0
            periods.append(now[-1])
            buckets.append((buckets_of(*sides[0], bucket), buckets_of(*sides[1], bucket)))
        found.append(decided)
    return share(found)


def _distinct(periods: Sequence[tuple[Tally, Tally]]) -> list[tuple[Tally, Tally]]:
    """Return the same with each unit counted once over the periods, as the store does: nearly all come in each."""
    found, before = [], [0, 0]
    for pair in periods:
        more = [max(tally.n - known, 0) for tally, known in zip(pair, before, strict=True)]
        before = [max(tally.n, known) for tally, known in zip(pair, before, strict=True)]
        found.append((_with_distinct(pair[0], more[0]), _with_distinct(pair[1], more[1])))
    return found


def _with_distinct(tally: Tally, distinct: int) -> Tally:
    return tally - Tally(distinct=tally.distinct - distinct)


def _score(periods: Sequence[tuple[Tally, Tally]]) -> float:
    """Return how many standard errors the variant is above the baseline, were periods independent."""
    over = spread = 0.0
    for one, other in periods:
        if min(one.d, other.d) > 0:
            weight = one.d * other.d / (one.d + other.d)
            over += weight * (other.m / other.d - one.m / one.d)
            for side in (one, other):
                mean = side.m / side.d
                rest = side.m2 - 2 * mean * side.md + mean * mean * side.d2
                spread += weight**2 * max(rest, 0.0) / side.d**2
    return over / spread**0.5 if spread > 0 else 0.0


def false_alarm(people: int, edits: Sequence[float], visits: float, random: np.random.Generator, runs: int) -> Measured:
    """Return how often the check alarms over periods with these shares of the variant, though all is as set.

    A person visits in each period geometric² times, of which ``visits`` scales the mean; who is hashed below the share
    gets the variant.
    """
    alarmed = []
    for _ in range(runs):
        place, seen = random.random(people), np.zeros(people, dtype=bool)
        rate = visits * random.geometric(0.4, people).astype(float) ** 2
        periods = []
        for part in edits:
            here = random.random(people) < -np.expm1(-rate)
            periods.append((_counted(place, here & ~seen, part), part))
            seen |= here
        alarmed.append(alarms(periods))
    return share(alarmed)


def _counted(place: Array, new: npt.NDArray[np.bool_], part: float) -> tuple[int, int]:
    """Return how many units a period counts, (baseline, variant): those whose first request in the epoch it has."""
    variant = int((new & (place < part)).sum())
    return int(new.sum()) - variant, variant


def fault_found(true: float, units: int, random: np.random.Generator, runs: int) -> Measured:
    """Return how often the check alarms by then, at any look, where a share set to one half is ``true``."""
    counts = random.binomial(100, true, (runs, units // 100)).cumsum(axis=1)
    n = 100.0 * np.arange(1, units // 100 + 1)
    far = np.abs(counts - n / 2) / np.sqrt(n / 4) > 2.5  # it takes 3.3 at a single look
    found = []
    for run in range(runs):
        at_looks = [
            (100 * (at + 1) - int(counts[run, at]), int(counts[run, at])) for at in np.flatnonzero(far[run]).tolist()
        ]
        found.append(any(alarms([(pair, 0.5)]) for pair in at_looks))
    return share(found)


CASES: Final = (
    Case(
        "e",
        "width over five periods of fresh units ÷ uncut",
        "20,000 units, 10%",
        cut_to_uncut,
        bound=1.1,
    ),
    *(
        Case(
            "aa-ramp",
            "equal rates called different over a ramp of five steps",
            f"4,000 users {words}, 5% to 50% share",
            partial(over_a_ramp, again, 0.0, trend=trend),
            bound=0.05,
        )
        for again, trend, words in (
            (True, False, "who come in each"),
            (False, False, "who come in one"),
            (True, True, "who come in each, rates rise fivefold"),
            (False, True, "who come in one, rates rise fivefold"),
        )
    ),
    Case(
        "aa-ramp",
        "a difference found over such a ramp",
        "4,000 users who come in each, .02 better",
        partial(over_a_ramp, True, 0.02),
        sense="at least",
        runs=200,
    ),
    Case(
        "d",
        "sample-ratio alarm, users who come again",
        "1,000 users, geometric² visits, ten edits from 50% to 59%",
        partial(false_alarm, 1000, [0.5 + 0.01 * at for at in range(10)], 1.0),
        bound=0.001,
        runs=4000,
    ),
    Case(
        "f",
        "80 people called a broken assignment",
        "40 edits of .02 points",
        partial(false_alarm, 80, [0.5 + 0.0002 * at for at in range(40)], 10.0),
        bound=0.001,
        runs=4000,
    ),
    Case(
        "ratio",
        "a broken assignment found by 20,000 units",
        "48% instead of 50%",
        partial(fault_found, 0.48, 20_000),
        sense="at least",
        bound=0.93,
    ),
    Case(
        "ratio",
        "a sound assignment alarms by 50,000 units",
        "50%",
        partial(fault_found, 0.5, 50_000),
        bound=0.001,
        runs=10_000,
    ),
)
