"""What an experiment is, and what it found.

Rule: values only. A result always has its standard error and the number of runs behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Literal
from zlib import crc32

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure with its standard error, over ``runs`` experiments."""

    value: float
    error: float
    runs: int


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table: what is measured in which setting, what it must reach, and what it was before.

    ``measure(random, runs)`` makes about ``runs`` experiments. ``bound`` None: the figure is only reported.
    """

    group: str
    what: str
    setting: str
    measure: Callable[[np.random.Generator, int], Measured]
    sense: Literal["at most", "at least"] = "at most"
    bound: float | None = None
    #: How many experiments it makes unless asked for another number.
    runs: int = 1000

    @property
    def name(self) -> str:
        return f"{self.group}: {self.what}, {self.setting}"

    @property
    def target(self) -> str:
        sign = "≤" if self.sense == "at most" else "≥"
        return "" if self.bound is None else f"{sign} {self.bound:g}"

    def found(self, runs: int | None = None) -> Measured:
        """Make the experiments. The same name and number of runs give the same result."""
        return self.measure(np.random.default_rng(crc32(self.name.encode())), runs or self.runs)

    def judged(self, found: Measured) -> str:
        """Say whether the target is reached: a miss of at most two standard errors may be chance."""
        if self.bound is None:
            return ""
        miss = (found.value - self.bound) * (1 if self.sense == "at most" else -1)
        if miss <= 0:
            return "yes"
        return "within 2 SE" if isfinite(miss) and miss <= 2 * found.error else "NO"


def share(happened: npt.NDArray[np.bool_] | list[bool]) -> Measured:
    """Return how often something happened."""
    each = np.asarray(happened, dtype=float)
    p = float(each.mean())
    # With no (or only) successes the usual error would be 0: count two more of each kind, as Agresti and Coull do.
    smoothed = (each.sum() + 2) / (len(each) + 4)
    return Measured(p, sqrt(smoothed * (1 - smoothed) / (len(each) + 4)), len(each))


def mean(each: npt.ArrayLike) -> Measured:
    """Return the mean of a number."""
    found = np.asarray(each, dtype=float)
    return Measured(float(found.mean()), float(found.std(ddof=1) / sqrt(len(found))), len(found))


def median(each: npt.ArrayLike, random: np.random.Generator, scale: float = 1.0) -> Measured:
    """Return the median of a number divided by ``scale``, its error by the bootstrap. Infinite: not within the run."""
    found = np.asarray(each, dtype=float) / scale
    again = np.median(random.choice(found, (200, len(found))), axis=1)
    finite = again[np.isfinite(again)]
    error = float(finite.std(ddof=1)) if len(finite) > 100 else float("inf")
    return Measured(float(np.median(found)), error, len(found))
