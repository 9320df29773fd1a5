"""How long a comparison takes: the units until a difference is found, and the smallest difference found by then.

Rule: a plan and no statistic. It says what the method that decides (``difference.METHODS``) would need if units, rates
and variances stay as they were, and nothing here decides anything.

A difference of ``effect`` between two means whose estimate has the variance v / N after N units is a Brownian motion x
with drift 1 at the time t = N·effect²/v. Every method but a test with planned looks is a mixture of bets on that drift,
and decides when its stake has grown to 1 / α: when x first crosses a boundary. So one function serves all of them: how
likely that has happened by a time (``crossing``).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Final

from scipy.special import ndtri

from policies.statistics import e_process
from policies.statistics.difference import Method
from policies.statistics.means.mixture import ON_DECLARED, SMALL_AND_LARGE, TIGHTEST
from policies.statistics.means.strata import FEWEST_UNITS
from policies.statistics.paired import BEST_AT
from policies.statistics.power.crossing import PlannedBet, boundary_of, time_of
from policies.statistics.preference import CONCENTRATION

#: The chance of having decided by the units that a plan names.
POWER: Final = 0.8

#: How much larger a test with five planned looks must be at most than one with a single look
#: (``group_sequential.inflation``). With ten it is 1.04.
PLANNED_LOOKS: Final = 1.025


@dataclass(frozen=True, slots=True)
class Contrast:
    """What a plan must know of two variants that are compared.

    ``variances`` are those of one unit's part in a mean, (baseline, variant): the mean of n units has variance / n.
    ``share`` is the variant's share of the units of both, in (0, 1); None where both answer every request: then the
    second variance is 0 and the first that of a unit's difference, which is not 0 in the share ``differing`` of units.
    ``binary``: all values are 0 or 1. ``by_log_odds``: each unit has one such value, and bets are on odds ratios.
    ``fewest``: no decision is taken with fewer units on the smaller side. ``votes``: the mean is a share of votes.
    """

    mean: float
    variances: tuple[float, float]
    share: float | None = None
    differing: float = 1.0
    binary: bool = False
    by_log_odds: bool = False
    fewest: float = FEWEST_UNITS
    votes: bool = False

    def variance(self, effect: float) -> float:
        """Return the variance of the difference after N units, times N, if the variant's mean is higher by that."""
        one, other = self.variances
        if self.share is None:
            return one
        rate = self.mean + effect
        if self.binary and 0 < self.mean < 1 and 0 < rate < 1:
            other *= rate * (1 - rate) / (self.mean * (1 - self.mean))
        return one / (1 - self.share) + other / self.share

    @property
    def size(self) -> float:
        """What a unit adds to the size that sequences are tuned to: 4·n₀n₁/(n₀ + n₁), or units that differ."""
        return self.differing if self.share is None else 4 * self.share * (1 - self.share)

    @property
    def least_units(self) -> float:
        """The units of both variants below which there is no decision."""
        return self.fewest / max(self.differing if self.share is None else min(self.share, 1 - self.share), 1e-300)


@dataclass(frozen=True, slots=True)
class Design:
    """How a comparison is decided: by which method, at which level, and what it is tuned to, if that was declared.

    ``expected_units`` are those of both variants.
    """

    method: Method
    alpha: float = 0.05
    declared: float | None = None
    expected_units: float | None = None


def units_needed(contrast: Contrast, effect: float, design: Design, *, power: float = POWER) -> float:
    """Return after how many units of both variants a difference of ``effect`` is found with probability ``power``.

    Infinite where it never is: bets on differences of given sizes lose on much smaller ones.

    >>> even = Contrast(0.05, (0.0475, 0.0475), share=0.5, binary=True)
    >>> round(units_needed(even, 0.01, Design("group_sequential")))
    16718
    """
    variance = contrast.variance(effect)
    if not (effect and isfinite(effect) and isfinite(variance) and variance > 0 and contrast.least_units < inf):
        return inf
    per_unit = effect**2 / variance
    if design.method == "group_sequential":
        time = PLANNED_LOOKS * (float(ndtri(1 - design.alpha / 2)) + float(ndtri(power))) ** 2
    else:
        time = time_of(boundary_of(_bets(contrast, abs(effect), per_unit, design), design.alpha), power)
    return max(time / per_unit, contrast.least_units)


def effect_found(contrast: Contrast, units: float, design: Design, *, power: float = POWER) -> float:
    """Return the smallest difference upwards that is found within so many units; infinite where there are too few."""
    highest = (1 - contrast.mean) * (1 - 1e-9) if contrast.binary and contrast.share is not None else inf
    if not contrast.least_units <= units < inf:
        return inf
    effect, too_small, found = min(3.3 * sqrt(contrast.variance(0.0) / units), highest), 0.0, inf
    for _ in range(16):
        needed = units_needed(contrast, effect, design, power=power)
        if needed <= 1.005 * units:
            found = effect
        else:
            too_small = effect
        if abs(needed / units - 1) < 0.005 or found < 1.005 * too_small or too_small >= highest:
            break
        # The units needed fall almost with the square of the effect, but for what is too small to be ever found.
        following = effect * (2.0 if needed == inf else sqrt(needed / units))
        if not too_small < following < found:
            following = sqrt(too_small * found) if found < inf and too_small else following
        effect = min(following, highest)
    return found


def _bets(contrast: Contrast, effect: float, per_unit: float, design: Design) -> list[PlannedBet]:
    if design.method == "e_process":
        return _fresh_bets(contrast, effect, design)
    tuned: tuple[tuple[float, float], ...] = SMALL_AND_LARGE
    if contrast.votes:
        # A Beta(a, a) mixture has the variance 1 / (8a + 4), that of the share of 2a + 1 votes.
        tuned = ((TIGHTEST * (2 * CONCENTRATION + 1), 1.0),)
    elif design.method == "paired_e_process":
        tuned = tuple((size, 1 / len(BEST_AT)) for size in BEST_AT)
    elif design.expected_units:
        tuned = ((design.expected_units * contrast.size, 1.0),)
    bets = [PlannedBet(weight, normal=TIGHTEST * contrast.size / per_unit / size) for size, weight in tuned]
    if design.method == "mixture" and design.declared:
        bets = [bet._replace(weight=bet.weight * (1 - ON_DECLARED)) for bet in bets]
        bets.append(PlannedBet(ON_DECLARED, drift=design.declared / effect))
    return bets


def _fresh_bets(contrast: Contrast, effect: float, design: Design) -> list[PlannedBet]:
    """Return the bets of ``e_process`` on differences of given sizes, as multiples of the effect."""
    if contrast.by_log_odds:
        rate = min(max(contrast.mean + (contrast.share or 0.5) * effect, 1e-9), 1 - 1e-9)
        one = rate * (1 - rate)
        sizes = list(zip(e_process.LOG_ODDS, e_process.LOG_ODDS_WEIGHTS, strict=True))
    else:
        one = sqrt(max(contrast.variances[0], 1e-300))
        sizes = [(size, 1 / len(e_process.DEVIATIONS)) for size in e_process.DEVIATIONS]
    if design.declared:
        sizes = [(size, weight * (1 - e_process.ON_DECLARED)) for size, weight in sizes]
        sizes.append((design.declared / one, e_process.ON_DECLARED))
    return [PlannedBet(weight, drift=size * one / effect) for size, weight in sizes]
