"""Copies compared with answers, pair by pair."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from loadtests.honesty.cases import Array, Case, Measured, median, share
from loadtests.honesty.streams import tally_of
from policies.statistics.paired import paired_difference, times_the_sample
from policies.types import Tally

#: Of 10,000 requests, one in twenty is answered rightly by one of the two alone.
DIFFERING: Final = 0.05


def _decides(tally: Tally, *, symmetric: bool = True) -> bool:
    bounds = (-1.0, 1.0) if symmetric else None
    found = paired_difference(tally, bounds=bounds, symmetric=symmetric, alpha=0.05)
    return found is not None and found.decides(0.05)


def by_request(wins: float, random: np.random.Generator, runs: int) -> Measured:
    """Return how often a difference is found in 10,000 pairs, at every 100; ``wins``: of those that differ."""
    shape = runs, 100
    differing = random.binomial(100, DIFFERING, shape)
    won = random.binomial(differing, wins)
    found = []
    for up, of in zip(won.cumsum(axis=1).tolist(), differing.cumsum(axis=1).tolist(), strict=True):
        # 2.1 standard errors are asked of a look: see ``verdicts``.
        asked = [at for at in range(100) if (2 * up[at] - of[at]) ** 2 > 2.1**2 * of[at]]
        found.append(any(_decides(_pairs(up[at], of[at], 100 * (at + 1))) for at in asked))
    return share(found)


def _pairs(wins: int, differing: int, n: int) -> Tally:
    m, d, all_ = float(2 * wins - differing), float(differing), float(n)
    return Tally(n, m, d, all_, all_, m, wins, differing - wins, 1.0, m, d, m, all_, n)


def by_user(users: int, random: np.random.Generator, runs: int) -> Measured:
    """Return how often equal variants are told apart while users come again, to 100 requests each, at 100 looks.

    Each user leans to one of the two by chance, half of them to either.
    """
    found = []
    for _ in range(runs):
        lean, m, d = random.beta(1, 1, users), np.zeros(users), np.zeros(users)
        decided = False
        for _look in range(100):
            came = random.poisson(1.0, users)
            differing = random.binomial(came, 0.2)
            m += 2 * random.binomial(differing, lean) - differing
            d += came
            decided = decided or (m.sum() ** 2 > 2.1**2 * (m @ m) and _decides(tally_of(m, d)))
        found.append(decided)
    return share(found)


def by_loss(sigma: float, random: np.random.Generator, runs: int) -> Measured:
    """Return how often a difference is found where the mean loss is equal: one pair in twenty loses much by chance."""
    found = []
    for _ in range(runs):
        lost = np.exp(sigma * random.standard_normal(10_000)) * (random.random(10_000) < 0.05)
        m = lost - np.exp(sigma**2 / 2) * 0.05
        sums: Array = np.stack([(m**power).cumsum()[99::100] for power in (1, 2, 3)])
        asked = np.flatnonzero(sums[0] ** 2 > 2.1**2 * sums[1])
        found.append(any(_decides(_losses(sums[:, at], 100 * (int(at) + 1)), symmetric=False) for at in asked))
    return share(found)


def _losses(sums: Array, n: int) -> Tally:
    m, m2, m3 = map(float, sums)
    d = float(n)
    return Tally(n, m, m2, d, d, m, n, 0, 1.0, m3, m2, m, d, n)


def of_an_ab_test(random: np.random.Generator, runs: int) -> Measured:
    """Return what is said of how many times as many requests an A/B test needs: 20 by hand, 2·(¼ + ¼) / .05."""
    n = 5000
    said = []
    for _ in range(runs):
        right = float(random.binomial(n, 0.5))
        own = Tally(n, right, right, float(n), float(n), right)
        differing = int(random.binomial(n, DIFFERING))
        said.append(times_the_sample(_pairs(int(random.binomial(differing, 0.5)), differing, n), own, own) or 0.0)
    return median(said, random)


CASES: Final = (
    Case(
        "shadow",
        "equal variants called different, pairs",
        "one pair in 20 differs, by 10,000 requests",
        partial(by_request, 0.5),
        bound=0.05,
        runs=2000,
    ),
    *(
        Case(
            "shadow",
            "equal variants called different, pairs of users",
            f"{users} users come again to 100 requests each",
            partial(by_user, users),
            bound=0.05,
        )
        for users in (50, 500)
    ),
    *(
        Case(
            "shadow",
            "equal mean loss called different, pairs",
            f"one pair in 20 loses much, σ {sigma:g}, by 10,000 requests",
            partial(by_loss, sigma),
            bound=0.05,
        )
        for sigma in (1.0, 2.0)
    ),
    Case(
        "shadow",
        "a difference found in pairs",
        "62% of those that differ, by 10,000 requests",
        partial(by_request, 0.62),
        sense="at least",
        bound=0.9,
    ),
    Case(
        "shadow",
        "an A/B test needs as many times the requests (median)",
        "by hand 20",
        of_an_ab_test,
        sense="at least",
        bound=19.5,
    ),
)
