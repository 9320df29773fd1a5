"""Edits of the shares: what a ramp costs in width, and whether the sample-ratio check sees faults and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from loadtests.honesty.cases import Array, Case, Measured, median, share
from loadtests.honesty.route import Design
from loadtests.honesty.streams import binary
from loadtests.honesty.verdicts import alarms, width


def cut_to_uncut(random: np.random.Generator, runs: int) -> Measured:
    """Return the width over five periods divided by that over one, of the same 20,000 units, each in one period."""
    looks = binary(random, (0.1, 0.1), 0.5, runs=runs, looks=5, batch=4000)
    ratios = []
    for run in range(runs):
        upto = [looks.pair(run, at) for at in range(5)]
        cut = [upto[0], *((b[0] - a[0], b[1] - a[1]) for a, b in pairwise(upto))]
        ratios.append(width(cut, Design()) / width(upto[-1:], Design()))
    return median(ratios, random)


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
            periods.append((_counted(place, here, seen, part), part))
            seen |= here
        alarmed.append(alarms(periods))
    return share(alarmed)


def _counted(place: Array, here: npt.NDArray[np.bool_], seen: npt.NDArray[np.bool_], part: float) -> tuple[int, int]:
    """Return how many units the product counts in a period: (baseline, variant)."""
    del seen
    variant = int((here & (place < part)).sum())
    return int(here.sum()) - variant, variant


def fault_found(true: float, units: int, random: np.random.Generator, runs: int) -> Measured:
    """Return how often the check alarms by then, at any look, where a share set to one half is ``true``."""
    counts = random.binomial(100, true, (runs, units // 100)).cumsum(axis=1)
    n = 100.0 * np.arange(1, units // 100 + 1)
    far = np.abs(counts - n / 2) / np.sqrt(n / 4) > 2.5  # it takes 3.3 at a single look
    found = [
        any(
            alarms([((int(n[at]) - int(counts[run, at]), int(counts[run, at])), 0.5)])
            for at in np.flatnonzero(far[run])
        )
        for run in range(runs)
    ]
    return share(found)


CASES: Final = (
    Case(
        "e",
        "width over five periods of fresh units ÷ uncut",
        "20,000 units, 10%",
        cut_to_uncut,
        bound=1.1,
        runs=1000,
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
