"""One variant compared with the baseline where units keep their variant, at any look.

Rule: whichever method speaks, at one look or another, a metric's promise is kept over all of them together: the method
for few units has its own small part of α.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, fsum, isfinite, sqrt
from typing import Final

from policies.statistics.difference import Difference, Method
from policies.statistics.means.betting import Stakes, betting_interval, betting_p
from policies.statistics.means.group_sequential import boundary, sequential_p
from policies.statistics.means.mixture import Watch, declared, undeclared
from policies.statistics.means.strata import (
    FEWEST_UNITS,
    Bounds,
    BucketPair,
    Estimate,
    Pair,
    by_normal,
    by_student,
    capped_estimate,
    estimate,
    has_values,
    weights_of,
)
from policies.types import Tally

#: The part of α with which few units may decide, where values have bounds; the confidence sequence has the rest.
ON_FEW_UNITS: Final = 0.05

#: The exact method compares at most so many strata, those with the most values.
MOST_STRATA: Final = 8

#: One unit: the sum of its values, and how many.
Unit = tuple[float, float]


def compare(
    strata: Sequence[Pair],
    *,
    bounds: Bounds | None,
    alpha: float = 0.05,
    buckets: Sequence[BucketPair] | None = None,
    few: tuple[Sequence[Unit], Sequence[Unit]] | None = None,
    independent: bool = False,
    expected_units: float | None = None,
    effect: float | None = None,
    looks: Sequence[float] | None = None,
    information: Sequence[float] | None = None,
) -> Difference | None:
    """Return how much higher the variant's mean is than the baseline's; None while nothing can be said.

    ``strata`` are (baseline, variant) tallies, one pair per period, ``buckets`` the buckets of the same. ``few`` are
    all units of (baseline, variant), periods pooled, where both have few. ``bounds`` are what every value is known to
    lie in. ``expected_units`` are those of both sides together at the expected end of the experiment, ``effect`` is the
    smallest difference that matters, both declared before the data came. ``looks`` are the shares of a declared maximum
    that were there at each look up to this one: then the difference is group sequential, and ``information`` is that
    of each look but the last, whose own is known here. ``independent`` says that no unit comes in two strata, as where
    each request is one.

    The interval misses the truth, at any look, with probability at most ``alpha``; and no p-value ever falls to
    ``alpha`` with a higher one where there is no difference. Of several methods one speaks at a look:

    - With enough units for values as skewed as these, "asymptotic" is the confidence sequence on the difference of
      ΣM / ΣD ("mixture" where an effect was declared). The variance is by unit.
    - Where one heavy unit makes that impossible, the same with a bound on each unit's weight; ``capped`` says so.
    - Below, values with bounds are compared by "betting": with ``few``, on the units' own means M / D, where each unit
      counts once; without, and where the shares moved, "exact" on the values of each stratum, where a unit with D
      values weighs D / (the most values of any).
    - Values without bounds are then withheld, with the reason and what is missing.

    Raises ValueError if ``alpha`` is outside (0, 1).

    Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, "Time-uniform central limit theory", Ann. Statist.
    52(6); the relative difference, Fieller 1954.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    found = estimate(strata, buckets, bounds=bounds, independent=independent)
    if found is not None and not found.ready:
        capped = capped_estimate(strata, buckets)
        found = capped if capped is not None and capped.ready else found
    if looks is not None:
        return None if found is None else _group_sequential(found, bounds, looks, information, alpha)
    if found is not None and found.ready:
        part = 1.0 if bounds is None else 1 - ON_FEW_UNITS
        return _sequence(found, bounds, alpha, part, expected_units, effect)
    if bounds is not None:
        return _few_units(strata, bounds, few, alpha, found)
    if found is None or found.smaller < FEWEST_UNITS or not found.variance > 0:
        return None
    return _withheld(_sequence(found, bounds, alpha, 1.0, expected_units, effect), found)


def of_estimate(
    found: Estimate, watch: Watch, bounds: Bounds | None, alpha: float, part: float = 1.0, method: Method = "asymptotic"
) -> Difference:
    """Return the difference that an estimate shows when it is watched so, with a ``part`` of alpha."""
    z = by_normal(abs(found.difference) / sqrt(found.variance), found.degrees)
    return _banded(found, bounds, watch.critical(alpha * part), method, min(1.0, watch.p(z) / part))


def standardised(
    strata: Sequence[Pair],
    *,
    bounds: Bounds | None,
    buckets: Sequence[BucketPair] | None = None,
    independent: bool = False,
) -> tuple[float, float] | None:
    """Return what a look sees; None with too few units.

    That is the difference in standard errors, as a normal quantile, and its information: the variance of the sum that
    new units only add to, as the boundaries ask for it.
    """
    found = estimate(strata, buckets, bounds=bounds, independent=independent)
    if found is None or not found.ready:
        return None
    z = by_normal(abs(found.difference) / sqrt(found.variance), found.degrees)
    return (z if found.difference > 0 else -z), found.score_variance


def _sequence(
    found: Estimate, bounds: Bounds | None, alpha: float, part: float, expected: float | None, effect: float | None
) -> Difference:
    method: Method = "asymptotic" if effect is None else "mixture"
    return of_estimate(found, _watch(found, expected, effect), bounds, alpha, part, method)


def _watch(found: Estimate, expected: float | None, effect: float | None) -> Watch:
    first = found.size * min(found.needed / found.smaller, 1.0)
    if effect:
        return declared(found.size, first, effect, sqrt(found.variance))
    return undeclared(found.size, first, expected=None if not expected else found.size * expected / found.units)


def _group_sequential(
    found: Estimate,
    bounds: Bounds | None,
    looks: Sequence[float],
    information: Sequence[float] | None,
    alpha: float,
) -> Difference:
    z = by_normal(abs(found.difference) / sqrt(found.variance), found.degrees) if found.variance > 0 else 0.0
    known = None if information is None or not found.variance > 0 else (*information, found.score_variance)
    edge, p = boundary(looks, alpha, known), sequential_p(looks, z, known)
    result = _banded(found, bounds, edge, "group_sequential", p)
    return result if found.ready else _withheld(result, found)


def _banded(found: Estimate, bounds: Bounds | None, z: float, method: Method, p: float) -> Difference:
    """Return the interval of so many standard errors."""
    t = by_student(z, found.degrees)
    margin = t * sqrt(max(found.variance, 0.0))
    low, high = found.difference - margin, found.difference + margin
    if bounds is not None:
        widest = bounds[1] - bounds[0]
        low, high = max(low, -widest), min(high, widest)
    relative = _relative(found, t)
    return Difference(found.difference, low, high, method, p=p, relative=relative, capped=found.capped)


def _withheld(result: Difference, found: Estimate) -> Difference:
    if not isfinite(found.needed):
        return replace(
            result,
            p=1.0,
            described=True,
            withheld="how skewed the values are is not known, so no error can be promised",
        )
    more = max(ceil(found.needed - found.smaller), 1)
    # Two digits: the skewness itself is an estimate.
    digits = max(len(str(more)) - 2, 0)
    needs = ceil(more / 10**digits) * 10**digits
    why = (
        f"so few large values decide the mean that the smaller side needs about {needs:,} more, or a cap on the value"
        if found.needed > FEWEST_UNITS
        else f"the smaller side needs {needs:,} more"
    )
    return replace(result, p=1.0, described=True, withheld=why, needs=needs)


def _relative(found: Estimate, z: float) -> tuple[float, float, float] | None:
    """Return the variant's mean over the baseline's, less 1, and its interval; None where the baseline may be 0.

    A ratio q is refuted where μ₁ − q·μ₀ is more than ``z`` of its standard errors from 0: a quadratic in q.
    Source: Fieller 1954, "Some problems in interval estimation", JRSS B 16(2).
    """
    (base, mean), (v0, v1), c = found.means, found.variances, found.covariance
    square = base * base - z * z * v0
    if not square > 0:
        return None
    half = base * mean - z * z * c
    rest = half * half - square * (mean * mean - z * z * v1)
    if not rest >= 0:
        return None
    ends = (half - sqrt(rest)) / square, (half + sqrt(rest)) / square
    low, high = (end - 1 for end in ends)
    return mean / base - 1, low, high


def _few_units(
    strata: Sequence[Pair],
    bounds: Bounds,
    few: tuple[Sequence[Unit], Sequence[Unit]] | None,
    alpha: float,
    found: Estimate | None,
) -> Difference | None:
    low, high = bounds
    width = high - low
    method: Method
    pairs = [pair for pair in strata if all(has_values(side) for side in pair)]
    if few is not None and all(few) and not shares_moved(pairs):
        method = "betting"
        sides = [
            (
                Stakes.on_values([(m / d - low) / width for m, d in few[0] if d > 0]),
                Stakes.on_values([(m / d - low) / width for m, d in few[1] if d > 0]),
            )
        ]
        weights = [1.0]
    else:
        method = "exact"
        pairs = sorted(pairs, key=lambda pair: pair[0].d * (pair[1].d / (pair[0].d + pair[1].d)))[-MOST_STRATA:]
        sides = [(_counted(one, bounds), _counted(other, bounds)) for one, other in pairs]
        weights = weights_of([(one.d, other.d) for one, other in pairs]) if pairs else []
    if not sides or not all(one.values and other.values for one, other in sides):
        return None
    part = alpha * ON_FEW_UNITS
    each = [betting_interval(*side, part / len(sides)) for side in sides]
    below, above = (fsum(w * one[end] for w, one in zip(weights, each, strict=True)) for end in (0, 1))
    # The p-value is of no difference in any period: differences that cancel are none on the whole.
    p = 1.0 if len(sides) > 1 and below <= 0 <= above else betting_p(sides)
    difference = fsum(w * (other.mean - one.mean) for w, (one, other) in zip(weights, sides, strict=True))
    needs = None if found is None or not isfinite(found.needed) else max(ceil(found.needed - found.smaller), 0)
    return Difference(
        width * difference, width * below, width * above, method, p=min(1.0, p / ON_FEW_UNITS), needs=needs or None
    )


def shares_moved(pairs: Sequence[Pair]) -> bool:
    """Return whether the variant's share of the units differed between periods by more than chance makes it.

    Then what the world changed meanwhile would show as the variant's effect in means over all periods (Simpson). The
    statistic is chi-square's, and the bound three standard deviations above its mean.
    """
    pairs = [(one, other) for one, other in pairs if one.n + other.n > 0]  # a correction may have emptied a period
    ours, all_ = sum(other.n for _, other in pairs), sum(one.n + other.n for one, other in pairs)
    if len(pairs) < 2 or not 0 < ours < all_:
        return False
    share = ours / all_
    apart = fsum((other.n - share * (one.n + other.n)) ** 2 / (one.n + other.n) for one, other in pairs)
    degrees = len(pairs) - 1
    return apart / (share * (1 - share)) > degrees + 3 * sqrt(2 * degrees)


def _counted(tally: Tally, bounds: Bounds) -> Stakes:
    """Return the stakes of a tally, a unit with D values weighing D / (the most of any): see ``mean_interval``."""
    low, high = bounds
    # d_max is at least the mean of D, also weighted by D; only a tally made by hand says otherwise.
    heaviest = max(tally.d_max, tally.d2 / tally.d, tally.d / tally.n)
    trials = tally.d / heaviest
    successes = min(max((tally.m - low * tally.d) / (high - low) / heaviest, 0.0), trials)
    return Stakes.on_counts(successes, trials - successes)
