"""Few people, and one who makes most of the requests."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from loadtests.honesty.cases import Case, Measured, median, share
from loadtests.honesty.route import Design
from loadtests.honesty.verdicts import decision, mean_width
from policies.types import Tally


def eighty_users(rates: tuple[float, float], random: np.random.Generator, runs: int) -> Measured:
    """Return how often a difference is shown between 80 users with about 876 votes, at one look."""
    found = []
    for _ in range(runs):
        votes = random.geometric(1 / 10.95, 80)
        treated = random.random(80) < 0.5
        right = random.binomial(votes, np.where(treated, rates[1], rates[0]))
        sides = [
            Tally.of_units([(float(m), float(d)) for m, d in zip(right[which], votes[which], strict=True)])
            for which in (~treated, treated)
        ]
        found.append(decision([(sides[0], sides[1])], Design()) != 0)
    return share(found)


def heavy_width(random: np.random.Generator, runs: int) -> Measured:
    """Return the width of a rate over 1,000 units of one call once a unit with 1,000 calls came, ÷ that before."""
    ratios = []
    for _ in range(runs):
        tally = Tally.of_units([(float(m), 1.0) for m in random.binomial(1, 0.5, 1000)])
        heavy = tally + Tally.of_unit(float(random.binomial(1000, 0.5)), 1000.0)
        ratios.append(mean_width(heavy, Design()) / mean_width(tally, Design()))
    return median(ratios, random)


CASES: Final = (
    Case(
        "h",
        "80 users with 876 votes decided",
        "80% against 41% right",
        partial(eighty_users, (0.41, 0.8)),
        sense="at least",
        bound=0.8,
    ),
    Case("h", "80 equal users called different", "50% right", partial(eighty_users, (0.5, 0.5)), bound=0.05),
    Case("j", "width of a mean with a unit of 1,000 calls ÷ without", "1,000 units of one call", heavy_width, bound=2),
)
