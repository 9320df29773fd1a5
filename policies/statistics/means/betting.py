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


def betting_difference(strata: Sequence[tuple[Stakes, Stakes]], alpha: float) -> tuple[float, float, float]:
    """Return (low, high, p): where the difference of two means lies, and an always-valid p of no difference.

    ``strata`` are (baseline, variant). Evidence over several is the mean of theirs, which is an e-value whether or not
    the same units come in all; the interval takes the difference to be the same in each. Without values on both sides
    of any it is (-1, 1, 1).

    Source: the bets, Waudby-Smith & Ramdas 2024, JRSS B 86(1); that the infimum over the nuisance mean is an e-value,
    Turner, Ly & Grünwald 2024, "Generic e-variables for exact sequential k-sample tests".
    """
    strata = [pair for pair in strata if pair[0].values and pair[1].values]
    if not strata:
        return -1.0, 1.0, 1.0

    def evidence(difference: float) -> float:
        each = [evidence_between(baseline, variant, difference) for baseline, variant in strata]
        most = max(each)
        if len(each) == 1 or most == inf:
            return most
        return most + log(fsum(exp(one - most) for one in each) / len(each))

    values = [one.values * (other.values / (one.values + other.values)) for one, other in strata]
    weighed = fsum(v * (other.mean - one.mean) for v, (one, other) in zip(values, strata, strict=True))
    seen = weighed / fsum(values)
    low = seen - _reach(lambda step: evidence(seen - step), 1 + seen, -log(alpha))
    high = seen + _reach(lambda step: evidence(seen + step), 1 - seen, -log(alpha))
    return low, high, min(1.0, exp(-min(evidence(0.0), 700.0)))


def betting_interval(stakes: Stakes, alpha: float) -> tuple[float, float]:
    """Return where one mean lies; (0, 1) without values."""
    if not stakes.values:
        return 0.0, 1.0
    mean = stakes.mean
    return (
        mean - _reach(lambda step: stakes.evidence(mean - step)[0], mean, -log(alpha)),
        mean + _reach(lambda step: stakes.evidence(mean + step)[0], 1 - mean, -log(alpha)),
    )


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
