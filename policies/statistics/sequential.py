"""Means and differences of means, with intervals that are valid at every look.

Rule: the only input is one tally per side and stratum, summed over units. Units are assumed to be independent of each
other; the values of one unit are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, inf, isfinite, log, log1p, sqrt

from policies.statistics.bernoulli import rate_interval
from policies.statistics.difference import Difference as Difference
from policies.statistics.difference import Method as Method
from policies.statistics.means.mixture import undeclared
from policies.statistics.means.strata import FEWEST_UNITS, BucketSums, by_buckets, by_student, side_of
from policies.types import BUCKETS, EMPTY, Buckets, Tally

Bounds = tuple[float, float]

#: A unit with more than this multiple of the average number of values is heavy.
HEAVY = 10.0

#: Values whose variation depends on fewer units than this get no asymptotic interval: with 1 % of the traffic and a
#: rate of 5 %, a variant shows one success in its first 100 units once in 27 times, and its estimated variance then
#: excludes the truth.
FEWEST_EVENTS = 10

#: Asymptotic intervals are tightest at this many units: the size of a whole experiment, as GrowthBook chose it.
TIGHTEST_AT_UNITS = 5000


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a mean lies. "exact" holds at any size; "asymptotic" in the limit of many units."""

    low: float
    high: float
    method: Method


def mean_interval(
    tally: Tally, *, bounds: Bounds | None, alpha: float = 0.05, buckets: BucketSums | None = None
) -> Interval | None:
    """Return where the mean ΣM / ΣD lies, at every look with probability of ever missing it at most ``alpha``.

    ``bounds`` are the finite (low, high) that every single value is known to lie in, None when none are known.

    With bounds the interval is exact, for any number of units. Values are scaled to [0, 1], and the test of a mean q
    multiplies one factor per unit, (p/q)^(M/d) · ((1−p)/(1−q))^((D−M)/d), where d = ``d_max`` is the most values of any
    unit. M/d, (D−M)/d and 1 − D/d sum to 1, so by the inequality of arithmetic and geometric means the factor is at
    most (p/q)·M/d + ((1−p)/(1−q))·(D−M)/d + 1 − D/d, whose expectation is 1 when E[M] = q·E[D]. That needs neither
    values of 0 and 1 nor units of one size, nor that the values of one unit are independent. The product over units is
    that of ΣM/d successes and Σ(D−M)/d failures, so one closed form serves all. A unit with D values weighs D/d
    trials. ``d`` is taken as given, like the counts. Where one unit has more than ten times as many values as units
    have on average (``HEAVY``), it would make the interval wide for good. Then it is the asymptotic one, once there are
    enough units for values as skewed as theirs; or, if the ``buckets`` of the tally are given, that of the mean in
    which no unit weighs more than two typical buckets of units; and the exact one before.

    The probability holds over all looks where requests are the units, or units are complete when they come in. While
    counts of units still grow it holds for each look; over all looks the error stayed below ``alpha`` in simulations.
    With no values the interval is ``bounds``.

    Without bounds it is the asymptotic confidence sequence on the ratio, its variance from the units' residuals
    M − D·ΣM/ΣD; None below 100 units (``FEWEST_UNITS``), and while fewer than 10 units are not 0 (``FEWEST_EVENTS``) or
    all are equal, since a variance of 0 would look like certainty.

    Impossible tallies (negative counts, sums outside the bounds) are clamped. Raises ValueError if ``alpha`` is outside
    (0, 1) or ``bounds`` are not finite and ascending.

    Source: for bounds see ``bernoulli.rate_interval``; without, Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024,
    "Time-uniform central limit theory", Ann. Statist. 52(6).

    >>> mean_interval(Tally(), bounds=(0.0, 1.0))
    Interval(low=0.0, high=1.0, method='exact')
    >>> interval = mean_interval(Tally.of_units([(1, 1)] * 70 + [(0, 1)] * 30), bounds=(0, 1))
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.535, 0.835)
    """
    _check(alpha, bounds)
    if bounds is not None:
        return _with_a_heavy_unit(tally, bounds, alpha, buckets) or _exact_mean(tally, bounds, alpha)
    if not _is_varied(tally, bounds):
        return None
    mean, variance = _ratio(tally)
    margin = _margin(variance, tally.n, alpha)
    return Interval(mean - margin, mean + margin, "asymptotic")


def difference_interval(
    strata: Sequence[tuple[Tally, Tally]],
    *,
    bounds: Bounds | None,
    adaptive: bool = False,
    by_unit: bool = True,
    alpha: float = 0.05,
) -> Difference | None:
    """Return how much higher the variant's mean is than the baseline's, compared only within strata.

    ``strata`` are (baseline, variant) tallies, one pair per period; a stratum that lacks one side is left out. Each
    counts with weight d₀·d₁ / (d₀ + d₁) (Cochran, Mantel & Haenszel): a ramp moves the shares while the world changes,
    and pooled means would show the world's change as the variant's effect (Simpson). None when no stratum has both.

    The interval holds at every look with probability of ever missing the truth at most ``alpha``. It is the asymptotic
    confidence sequence, with delta-method variances by unit, when each side has at least 100 units that vary enough
    (see ``mean_interval``). With ``by_unit`` the same unit may have values in several strata, so their errors may add
    up: standard errors are added, which covers any correlation. Without, strata are independent and variances add.

    Otherwise, and always when ``adaptive`` (the shares follow the evidence, so that earlier values decide how many come
    later), it is the difference of two means, each within its own interval at alpha / 2: exact with ``bounds``, valid
    for values that do not change their mean over a stratum, and wider by half or more. None where ``mean_interval`` is.

    Raises ValueError if ``alpha`` is outside (0, 1) or ``bounds`` are not finite and ascending.

    >>> baseline, variant = Tally(1000, 400, 400, 1000, 1000, 400), Tally(1000, 500, 500, 1000, 1000, 500)
    >>> found = difference_interval([(baseline, variant)], bounds=(0, 1))
    >>> round(found.difference, 3), round(found.low, 3), round(found.high, 3), found.method
    (0.1, 0.031, 0.169, 'asymptotic')
    """
    _check(alpha, bounds)
    pairs = [(one, other) for one, other in strata if _has_values(one) and _has_values(other)]
    found = None if adaptive else _asymptotic_difference(pairs, bounds, by_unit, alpha)
    return found or _difference_of_intervals(pairs, bounds, alpha)


def _with_a_heavy_unit(tally: Tally, bounds: Bounds, alpha: float, buckets: BucketSums | None) -> Interval | None:
    """Return the interval in which a heavy unit weighs less than the exact one makes it; None where there is none."""
    if not _is_varied(tally, bounds) or not tally.d_max > HEAVY * tally.d / tally.n:
        return None
    side = side_of(tally, None)
    if tally.n >= side.needed:
        mean, variance = _ratio(tally)
        z = undeclared(tally.n, side.needed).critical(alpha)
    else:
        # A mean is its difference from another that is known to be 0.
        nothing = Buckets(d=(1.0,) * BUCKETS)
        found = by_buckets([(nothing, buckets)]) if buckets is not None else None
        if found is None or not found.ready:
            return None
        mean, variance = found.difference, found.variance
        z = by_student(undeclared(tally.n, FEWEST_UNITS).critical(alpha), found.degrees)
    margin = z * sqrt(variance)
    return Interval(max(mean - margin, bounds[0]), min(mean + margin, bounds[1]), "asymptotic")


def _exact_mean(tally: Tally, bounds: Bounds, alpha: float) -> Interval:
    low, high = bounds
    if not _has_values(tally):
        return Interval(low, high, "exact")
    # d_max is at least the mean of D, also weighted by D; only a tally made by hand says otherwise.
    heaviest = max(tally.d_max, tally.d2 / tally.d, tally.d / tally.n)
    trials = tally.d / heaviest
    successes = min(max((tally.m - low * tally.d) / (high - low) / heaviest, 0.0), trials)
    rates = rate_interval(successes, trials - successes, alpha=alpha)
    return Interval(low + (high - low) * rates[0], low + (high - low) * rates[1], "exact")


def _asymptotic_difference(
    pairs: Sequence[tuple[Tally, Tally]], bounds: Bounds | None, by_unit: bool, alpha: float
) -> Difference | None:
    # One unit on a side of a stratum says nothing about how much units vary there.
    pairs = [pair for pair in pairs if min(side.n for side in pair) >= 2]
    if not all(_is_varied(sum((pair[side] for pair in pairs), EMPTY), bounds) for side in (0, 1)):
        return None
    difference = 0.0
    errors: list[float] = []
    for weight, one, other in _weighted(pairs):
        (low_mean, low_variance), (mean, variance) = _ratio(one), _ratio(other)
        difference += weight * (mean - low_mean)
        errors.append(weight * sqrt(low_variance + variance))
    variance = fsum(errors) ** 2 if by_unit else fsum(error**2 for error in errors)
    margin = _margin(variance, sum(one.n + other.n for one, other in pairs), alpha)
    widest = inf if bounds is None else bounds[1] - bounds[0]
    return Difference(difference, max(difference - margin, -widest), min(difference + margin, widest), "asymptotic")


def _difference_of_intervals(
    pairs: Sequence[tuple[Tally, Tally]], bounds: Bounds | None, alpha: float
) -> Difference | None:
    """Return the difference of two means per stratum, all within their intervals at once (Bonferroni)."""
    each = alpha / (2 * len(pairs)) if pairs else alpha
    found = [
        (pair, one, other)
        for pair in pairs
        if (one := mean_interval(pair[0], bounds=bounds, alpha=each))
        and (other := mean_interval(pair[1], bounds=bounds, alpha=each))
    ]
    if not found:
        return None
    weights = [weight for weight, _, _ in _weighted([pair for pair, _, _ in found])]
    return Difference(
        fsum(
            w * (pair[1].m / pair[1].d - pair[0].m / pair[0].d) for w, (pair, _, _) in zip(weights, found, strict=True)
        ),
        fsum(w * (other.low - one.high) for w, (_, one, other) in zip(weights, found, strict=True)),
        fsum(w * (other.high - one.low) for w, (_, one, other) in zip(weights, found, strict=True)),
        found[0][1].method,
    )


def _weighted(pairs: Sequence[tuple[Tally, Tally]]) -> list[tuple[float, Tally, Tally]]:
    """Return each stratum with its Cochran-Mantel-Haenszel weight; the weights sum to 1."""
    raw = [one.d * (other.d / (one.d + other.d)) for one, other in pairs]
    total = fsum(raw)
    return [(weight / total, one, other) for weight, (one, other) in zip(raw, pairs, strict=True)]


def _has_values(tally: Tally) -> bool:
    return tally.n > 0 and tally.d > 0 and all(map(isfinite, (tally.d, tally.m, tally.d2, tally.m2, tally.md)))


def _is_varied(tally: Tally, bounds: Bounds | None) -> bool:
    """Return whether enough units vary enough for the normal approximation: see the constants above."""
    if tally.n < FEWEST_UNITS or not _has_values(tally):
        return False
    if bounds == (0.0, 1.0):
        mean = tally.m / tally.d
        events = tally.n * min(mean, 1 - mean)
    else:
        events = tally.positive + tally.negative
    return events >= FEWEST_EVENTS and _ratio(tally)[1] > 0


def _ratio(tally: Tally) -> tuple[float, float]:
    """Return ΣM / ΣD and its variance by the delta method, from the units' residuals M − D·ΣM/ΣD.

    Needs two units. Source: Deng, Knoblich & Lu, KDD 2018, "Applying the delta method in metric analytics".
    """
    mean = tally.m / tally.d
    squares = tally.squares(mean)
    # Sums of squares cancel: what is left below 1e-12 of them is their rounding.
    if squares <= 1e-12 * (tally.m2 + mean * mean * tally.d2):
        squares = 0.0
    return mean, squares * (tally.n / (tally.n - 1)) / tally.d**2


def _margin(variance: float, units: int, alpha: float) -> float:
    """Return the half-width of the asymptotic confidence sequence around an estimate with this variance."""
    spread = -2 * log(alpha)
    time = units * (spread + log1p(spread)) / TIGHTEST_AT_UNITS
    return sqrt(variance * 2 * (1 + 1 / time) * (log1p(time) / 2 - log(alpha)))


def _check(alpha: float, bounds: Bounds | None) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    if bounds is not None and not (isfinite(bounds[0]) and isfinite(bounds[1]) and bounds[0] < bounds[1]):
        raise ValueError(f"bounds must be finite and ascending, got {bounds}")
