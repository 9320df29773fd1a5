"""Few people, and one who makes most of the requests."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from loadtests.honesty.cases import Case, Measured, median, share
from loadtests.honesty.route import SIDES, Design
from loadtests.honesty.streams import buckets_of, tally_of
from loadtests.honesty.verdicts import decision, mean_width, without_intervals
from policies.statistics.means.coverage import coverage_gap
from policies.types import BUCKETS, Buckets


def eighty_users(rates: tuple[float, float], looks: int, random: np.random.Generator, runs: int) -> Measured:
    """Return how often a difference is shown between 80 users with about 876 votes, who come one after the other.

    Each has a rate of its own; one looks after as many users as there are ``looks`` to that.
    """
    found = []
    for _ in range(runs):
        votes = random.geometric(1 / 10.95, 80).astype(float)
        treated = random.random(80) < 0.5
        of = np.where(treated, rates[1], rates[0])
        right = random.binomial(votes.astype(int), random.beta(8 * of, 8 * (1 - of))).astype(float)
        decided = False
        for upto in range(80 // looks, 81, 80 // looks):
            sides = [(right[:upto][on[:upto]], votes[:upto][on[:upto]]) for on in (~treated, treated)]
            if min(len(m) for m, _ in sides):
                few = {
                    name: tuple(zip(m.tolist(), d.tolist(), strict=True))
                    for name, (m, d) in zip(SIDES, sides, strict=True)
                }
                with without_intervals():
                    pair = tally_of(*sides[0]), tally_of(*sides[1])
                    decided = decided or decision([pair], Design(), few) != 0
        found.append(decided)
    return share(found)


def heavy_width(random: np.random.Generator, runs: int) -> Measured:
    """Return the width of a rate over 1,000 units of one call once a unit with 1,000 calls came, ÷ that before."""
    ratios = []
    for _ in range(runs):
        m, d = random.binomial(1, 0.5, 1001).astype(float), np.ones(1001)
        bucket = random.integers(0, BUCKETS, 1001)
        before = tally_of(m[:1000], d[:1000])
        m[1000], d[1000] = random.binomial(1000, 0.5), 1000.0
        after = mean_width(tally_of(m, d), Design(), buckets_of(m, d, bucket))
        ratios.append(after / mean_width(before, Design()))
    return median(ratios, random)


def gate(known: tuple[float, float], random: np.random.Generator, runs: int) -> Measured:
    """Return how often coverage of these shares is found to differ, over 2,000 units and one with 1,000 calls."""
    found = []
    for _ in range(runs):
        sides: list[tuple[Buckets, Buckets]] = []
        for side, covered in enumerate(known):
            calls = np.ones(1000)
            calls[0] = 1000.0 if side else 1.0
            bucket: npt.NDArray[np.int64] = random.integers(0, BUCKETS, 1000)
            valued = random.binomial(calls.astype(int), covered).astype(float)
            sides.append((buckets_of(valued, calls, bucket), buckets_of(valued, valued, bucket)))
        gap = coverage_gap(*sides)
        found.append(gap is not None and gap.decides(0.01))
    return share(found)


CASES: Final = (
    Case(
        "h",
        "80 users with 876 votes decided",
        "80% against 41% right",
        partial(eighty_users, (0.41, 0.8), 1),
        sense="at least",
        bound=0.8,
    ),
    Case(
        "h",
        "80 equal users called different",
        "50% right",
        partial(eighty_users, (0.5, 0.5), 40),
        bound=0.05,
    ),
    Case("j", "width of a mean with a unit of 1,000 calls ÷ without", "1,000 units of one call", heavy_width, bound=2),
    Case(
        "j",
        "unequal coverage found beside a unit of 1,000 calls",
        "60% against 80%",
        partial(gate, (0.8, 0.6)),
        sense="at least",
        bound=0.95,
    ),
    Case("j", "equal coverage called unequal", "the same units, 70%", partial(gate, (0.7, 0.7)), bound=0.01),
)
