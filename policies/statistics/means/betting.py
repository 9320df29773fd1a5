"""Intervals for means of bounded values, and for their difference, that hold for any number of units.

Rule: a bet against a mean m multiplies the stake by (1 + a·x) / (1 + a·m) for each value x in [0, 1]. Its expectation
is 1 where the mean is m, whatever else the values are. So neither a form of distribution nor a variance is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, expm1, fsum, inf, isfinite, log, log1p, sqrt
from typing import Final

#: Bets are on odds that are higher or lower by these factors (logarithms), with equal stakes: from what thousands of
#: values show to what a dozen do. Values that vary less than 0 and 1 do are worth the largest.
LOG_ODDS_RATIOS: Final = tuple(sign * size for size in (0.15, 0.3, 0.6, 1.2, 2.4, 4.8) for sign in (1, -1))
_RATIOS: Final = tuple(expm1(ratio) for ratio in LOG_ODDS_RATIOS)


@dataclass(frozen=True, slots=True)
class Stakes:
    """What each bet has won on one side: ``won`` are Σ ln(1 + aⱼ·x), ``values`` is how many values there were.

    ``mean`` is the mean of the values.
    """

    won: tuple[float, ...]
    values: float
    mean: float

    @classmethod
    def on_values(cls, values: Iterable[float]) -> Stakes:
        """Return the stakes after these values; each is taken as 0 or 1 where it is beyond."""
        inside = [min(max(value, 0.0), 1.0) for value in values if isfinite(value)]
        won = tuple(sum(log1p(ratio * value) for value in inside) for ratio in _RATIOS)
        return cls(won, float(len(inside)), sum(inside) / len(inside) if inside else 0.5)

    @classmethod
    def on_counts(cls, successes: float, failures: float) -> Stakes:
        """Return the stakes after so many values of 1 and of 0, which may be fractions: see ``mean_interval``."""
        successes, failures = max(successes, 0.0), max(failures, 0.0)
        values = successes + failures
        return cls(tuple(ratio * successes for ratio in LOG_ODDS_RATIOS), values, successes / values if values else 0.5)

    def evidence(self, mean: float) -> tuple[float, float]:
        """Return the logarithm of the mean of all stakes, from 1, against ``mean`` in [0, 1], and its derivative.

        It is convex in the mean.
        """
        logs = [won - self.values * log1p(ratio * mean) for won, ratio in zip(self.won, _RATIOS, strict=True)]
        most = max(logs)
        shares = [exp(each - most) for each in logs]
        total = sum(shares)
        slope = sum(share * ratio / (1 + ratio * mean) for share, ratio in zip(shares, _RATIOS, strict=True)) / total
        return most + log(total / len(logs)), -self.values * slope


def evidence_between(baseline: Stakes, variant: Stakes, difference: float) -> float:
    """Return the logarithm of the evidence against "the variant's mean is the baseline's plus ``difference``".

    It is the smallest product of the evidence against two means that differ so: of two independent e-values, and at
    most as large as the one against the true means. It is convex in ``difference``.
    """
    low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
    if low > high:
        return inf
    # The evidence against a mean rises on both sides of about the observed one, so the smallest lies about between.
    one, other = sorted((baseline.mean, variant.mean - difference))
    beyond = 0.01 + (other - one) / 10
    low, high = min(max(one - beyond, low), high), max(min(other + beyond, high), low)

    def both(mean: float) -> tuple[float, float]:
        (value, slope), (more, steeper) = baseline.evidence(mean), variant.evidence(mean + difference)
        return value + more, slope + steeper

    return _smallest(both, low, high)


def betting_interval(baseline: Stakes, variant: Stakes, alpha: float) -> tuple[float, float]:
    """Return where the difference of two means lies; (-1, 1) where a side has no values.

    Source: the bets, Waudby-Smith & Ramdas 2024, JRSS B 86(1); that the infimum over the nuisance mean is an e-value,
    Turner, Ly & Grünwald 2024, "Generic e-variables for exact sequential k-sample tests".
    """
    if not (baseline.values and variant.values):
        return -1.0, 1.0
    seen, wanted = variant.mean - baseline.mean, -log(alpha)
    low = seen - _reach(lambda step: evidence_between(baseline, variant, seen - step), 1 + seen, wanted)
    high = seen + _reach(lambda step: evidence_between(baseline, variant, seen + step), 1 - seen, wanted)
    return low, high


def betting_p(strata: Sequence[tuple[Stakes, Stakes]]) -> float:
    """Return an always-valid p of no difference in any stratum of (baseline, variant); 1 without values on both sides.

    Evidence over several is the mean of theirs, which is an e-value whether or not the same units come in all.
    """
    each = [evidence_between(one, other, 0.0) for one, other in strata if one.values and other.values]
    if not each:
        return 1.0
    most = max(each)
    evidence = most if len(each) == 1 or most == inf else most + log(fsum(exp(e - most) for e in each) / len(each))
    return min(1.0, exp(-min(evidence, 700.0)))


#: Where nothing is shown the evidence is below 0: the logarithm of what bets on all sides cost.
OFFSET: Final = 20.0


def _reach(evidence: Callable[[float], float], farthest: float, wanted: float) -> float:
    """Return the step at which the evidence, which rises, is as wanted: ``farthest`` where it is nowhere.

    Evidence grows about with the square of the step, so regula falsi on its root arrives soon (Illinois).
    """

    def excess(step: float) -> float:
        return sqrt(max(min(evidence(step), 1e12) + OFFSET, 0.0)) - goal

    goal = sqrt(wanted + OFFSET)
    near, far = 0.0, max(farthest, 0.0)
    below, above = excess(near), excess(far)
    if above <= 0:
        return far
    stayed = 0
    for _ in range(60):
        step = near + (far - near) * below / (below - above)
        value = excess(step)
        if abs(value) < 1e-6 or far - near < 1e-9:
            return step
        if value > 0:
            far, above, below = step, value, below / 2 if stayed > 0 else below
            stayed = 1
        else:
            near, below, above = step, value, above / 2 if stayed < 0 else above
            stayed = -1
    return far


def _smallest(function: Callable[[float], tuple[float, float]], low: float, high: float) -> float:
    """Return the smallest value of a convex function between two points: the function gives value and derivative.

    It is at most 1e-3 too low, never too high: the function lies above its tangents, so above where those at the two
    ends of a bracket meet. The next point is where they meet.
    """
    (at_low, falls), (at_high, rises) = function(low), function(high)
    if falls >= 0 or high - low <= 1e-12:
        return at_low
    if rises <= 0:
        return at_high
    floor = -inf
    for _ in range(60):
        middle = (at_high - at_low + falls * low - rises * high) / (falls - rises)
        floor = at_low + falls * (middle - low)
        if not low < middle < high or min(at_low, at_high) - floor <= 1e-3:
            break
        value, slope = function(middle)
        if value - floor <= 1e-3:
            break
        if slope > 0:
            high, at_high, rises = middle, value, slope
        else:
            low, at_low, falls = middle, value, slope
    return min(floor, at_low, at_high)
