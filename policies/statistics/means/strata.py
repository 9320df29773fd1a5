"""The difference of two means over strata, and how sure it is: estimate, variance, effective size, skewness.

Rule: sums only, one tally per side and stratum, and their buckets of units. Units are independent of each other; the
values of one unit are not, nor what one unit does in several strata.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import expm1, fsum, inf, isfinite, log1p, sqrt
from statistics import median
from typing import Final, NamedTuple, Protocol

from policies.types import Tally

Bounds = tuple[float, float]

#: On each side of a difference. With fewer units no estimate of a variance can be relied on. Of units with different
#: numbers of values it takes so many in effect, (ΣD)² / ΣD²: one that makes most of the requests is few.
FEWEST_UNITS: Final = 100

#: Units that the smaller side needs, as a multiple of the squared skewness of units. Kohavi et al. 2014 ask for 355 of
#: an interval that is looked at once at equal shares. Simulated at 5 % share with a look at every 100 of 50,000 units,
#: equal variants (rates of .5 to 50 %, users of 1 to 20 requests and of geometric² ones, revenue) were ever told apart
#: in at most .042 of 1,000 experiments with 25, and in .05 and more with 10.
SKEWNESS_FACTOR: Final = 25.0

#: The variance of a side is its own and the pooled one, which weighs as much as this multiple of the units that the
#: smaller side needs. A small side of skewed values without its large ones has both a low mean and a low variance.
SHRINKAGE: Final = 2.0

#: A bucket of units weighs at most as much as this many typical ones. So one unit weighs at most 2 / 65 of its side.
HEAVIEST_BUCKET: Final = 2.0

#: Covariances between strata are known from 64 buckets, and variances cannot fall below this share of their sum.
LEAST_VARIANCE: Final = 0.5

#: Sums beyond this are broken.
LARGEST: Final = 1e75


class BucketSums(Protocol):
    """ΣM and ΣD by bucket of units: ``policies.types.Buckets``."""

    @property
    def m(self) -> Sequence[float]: ...

    @property
    def d(self) -> Sequence[float]: ...


#: One stratum: the tallies of (baseline, variant).
Pair = tuple[Tally, Tally]
#: The buckets of the same.
BucketPair = tuple[BucketSums, BucketSums]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The difference of two means over strata.

    ``means`` are those of baseline and variant, ``variances`` theirs and ``covariance`` that between them, so that the
    difference has variance v₀ + v₁ − 2·c. It is known from so many ``degrees`` of freedom. ``size`` is the effective
    number of units, 4·n₀·n₁ / (n₀ + n₁) in one stratum. ``units`` is how many different units there are, ``smaller``
    how many the smaller side has, and ``needed`` how many it needs. ``capped`` is the largest share of a side that one
    unit may weigh, where that bound changed the estimate. ``weight`` is the sum of d₀·d₁ / (d₀ + d₁) over the strata.
    """

    means: tuple[float, float]
    variances: tuple[float, float]
    covariance: float
    degrees: float
    size: float
    units: float
    smaller: float
    needed: float
    capped: float | None = None
    weight: float = 0.0

    @property
    def difference(self) -> float:
        return self.means[1] - self.means[0]

    @property
    def variance(self) -> float:
        return self.variances[0] + self.variances[1] - 2 * self.covariance

    @property
    def score_variance(self) -> float:
        """The variance of the weighted sum of the strata's differences, to which new units only add."""
        return self.weight**2 * self.variance

    @property
    def ready(self) -> bool:
        """Whether there are enough units for the normal approximation."""
        return self.smaller >= self.needed and self.variance > 0 and isfinite(self.variance)


class Side(NamedTuple):
    """One side of one stratum: its mean, and sums of powers of the units' residuals, (M − D·mean) / mean of D.

    ``uneven`` is n·ΣD² / (ΣD)²: how many units count as one, because some weigh more than others.
    """

    n: float
    d: float
    mean: float
    squares: float
    cubes: float
    uneven: float

    @property
    def needed(self) -> float:
        """How many units it takes for the sum of values as skewed as these to be normal: see ``SKEWNESS_FACTOR``."""
        return needed_units(self.squares / max(self.n - 1, 1), self.cubes / self.n, self.uneven)


def needed_units(square: float, cube: float, uneven: float) -> float:
    """Return the number of units that residuals with this mean square and mean cube need, of units so uneven."""
    least = FEWEST_UNITS * max(uneven, 1.0)
    if not square > 0:
        return least
    ratio = cube / square
    needed = SKEWNESS_FACTOR * ratio * ratio / square  # as products: a power too large raises
    return max(least, needed) if isfinite(needed) else inf


def has_values(tally: Tally) -> bool:
    """Return whether there are values, and sums whose third powers are numbers, and not 0."""
    sums = (tally.d, tally.m, tally.d2, tally.m2, tally.md)
    return tally.n > 0 and tally.d > tally.n / LARGEST and all(abs(each) < LARGEST for each in sums)


def by_normal(t: float, degrees: float) -> float:
    """Return the normal quantile at the level of a Student ``t``. Source: Wallace 1959, Ann. Math. Statist. 30(4)."""
    return sqrt(degrees * log1p(t * t / degrees)) if isfinite(degrees) else t


def by_student(z: float, degrees: float) -> float:
    """Return the Student quantile at the level of a normal ``z``."""
    return sqrt(degrees * expm1(min(z * z / degrees, 600.0))) if isfinite(degrees) else z


def weights_of(counts: Sequence[tuple[float, float]]) -> list[float]:
    """Return the weight of each stratum with (d₀, d₁) values, d₀·d₁ / (d₀ + d₁); they sum to 1.

    Source: Cochran 1954; Mantel & Haenszel 1959.
    """
    total = _weight(counts)
    return [one * (other / (one + other)) / total for one, other in counts]


def _weight(counts: Sequence[tuple[float, float]]) -> float:
    return fsum(one * (other / (one + other)) for one, other in counts)


def estimate(
    strata: Sequence[Pair],
    buckets: Sequence[BucketPair] | None = None,
    *,
    bounds: Bounds | None = None,
    independent: bool = False,
) -> Estimate | None:
    """Return the difference of the means ΣM / ΣD over the strata in which both sides have two units; None without any.

    Each counts with its Cochran-Mantel-Haenszel weight: a ramp moves the shares while the world changes, and pooled
    means would show the world's change as the variant's effect (Simpson).

    A unit that comes in several strata makes their errors depend on each other. The variance within each stratum and
    side is that of the units' residuals (delta method); the covariances between strata come from the ``buckets``, 64
    sums over units that are in the same bucket in all strata. Without buckets the standard errors of the strata are
    added, which covers any dependence. ``independent`` says that no unit comes twice.

    Source: Deng, Knoblich & Lu, KDD 2018, "Applying the delta method in metric analytics"; the covariances, as the
    delete-a-group jackknife.
    """
    chosen = [at for at, pair in enumerate(strata) if all(side.n >= 2 and has_values(side) for side in pair)]
    if not chosen:
        return None
    pairs = [strata[at] for at in chosen]
    known = None if buckets is None or len(buckets) != len(strata) else [buckets[at] for at in chosen]
    known = known if known is not None and _sound(known) else None
    weights = weights_of([(one.d, other.d) for one, other in pairs])
    sides = tuple([side_of(pair[at], bounds) for pair in pairs] for at in (0, 1))
    units = tuple(_distinct([pair[at] for pair in pairs]) for at in (0, 1))

    freedom = [sum(side.n - 1 for side in each) for each in sides]
    squares = [fsum(side.squares for side in each) for each in sides]
    pooled = fsum(squares) / sum(freedom)
    cubes = fsum(side.cubes for each in sides for side in each) / sum(side.n for each in sides for side in each)
    uneven = max(
        fsum(side.uneven * side.d * side.d / side.n for side in each)
        * sum(side.n for side in each)
        / fsum(side.d for side in each) ** 2
        for each in sides
    )
    needed = needed_units(pooled, cubes, uneven)

    variances: list[list[float]] = []
    for each, count in zip(sides, units, strict=True):
        own = count / (count + SHRINKAGE * min(needed, 1e15))
        variances.append(
            [
                weight**2 * (own * side.squares / (side.n - 1) + (1 - own) * pooled) / side.n
                for weight, side in zip(weights, each, strict=True)
            ]
        )
    means = tuple(fsum(w * side.mean for w, side in zip(weights, each, strict=True)) for each in sides)
    totals, covariance, degrees = _over_strata(variances, weights, sides, known, independent)
    variance = totals[0] + totals[1] - 2 * covariance
    return Estimate(
        (means[0], means[1]),
        totals,
        covariance,
        degrees,
        4 * pooled / variance if variance > 0 else 0.0,
        sum(units),
        min(units),
        needed,
        weight=_weight([(one.d, other.d) for one, other in pairs]),
    )


def capped_estimate(strata: Sequence[Pair], buckets: Sequence[BucketPair] | None) -> Estimate | None:
    """Return the same with a bound on what one unit may weigh; None where it changes nothing, or buckets are missing.

    Each bucket of units weighs at most as much as two typical ones (``HEAVIEST_BUCKET``), and so does each unit.
    """
    if buckets is None or len(buckets) != len(strata):
        return None
    chosen = [at for at, pair in enumerate(strata) if all(side.n >= 2 and has_values(side) for side in pair)]
    found = by_buckets([buckets[at] for at in chosen])
    if found is None or found.capped is None:
        return None
    units = [_distinct([strata[at][side] for at in chosen]) for side in (0, 1)]
    return replace(
        found,
        size=4 * units[0] * units[1] / sum(units),
        units=sum(units),
        smaller=min(units),
        needed=max(found.needed, FEWEST_UNITS),
    )


def by_buckets(buckets: Sequence[BucketPair]) -> Estimate | None:
    """Return the difference of two means over strata from buckets alone; None where one side of a stratum has none.

    Heavy buckets are cut, and all variances are those between the buckets. How skewed units are is judged by buckets
    that were not cut: those that were are few, and a large deviation of one adds as much to the standard error as to
    the difference. What is counted in ``units``, ``smaller`` and ``size`` are buckets; ``needed`` is 0 or infinite.
    """
    if not _sound(buckets):
        return None
    one, other = (_bucket_weights([pair[side].d for pair in buckets]) for side in (0, 1))
    if one is None or other is None:
        return None
    factors = (one.factors, other.factors)
    sums = [
        [
            (
                [f * m for f, m in zip(each, pair[side].m, strict=True)],
                [f * d for f, d in zip(each, pair[side].d, strict=True)],
            )
            for pair in buckets
        ]
        for side, each in enumerate(factors)
    ]
    totals = [[(fsum(m), fsum(d)) for m, d in each] for each in sums]
    if any(not 0 < d < LARGEST or not abs(m) < LARGEST for each in totals for m, d in each):
        return None
    weights = weights_of([(mine[1], theirs[1]) for mine, theirs in zip(*totals, strict=True)])
    means = [fsum(w * m / d for w, (m, d) in zip(weights, each, strict=True)) for each in totals]
    count = len(factors[0])
    parts = [
        [
            fsum(
                w * (m[at] - d[at] * of_m / of_d) / of_d
                for w, (m, d), (of_m, of_d) in zip(weights, each, total, strict=True)
            )
            for at in range(count)
        ]
        for each, total in zip(sums, totals, strict=True)
    ]
    grow = count / (count - 1)
    between = [theirs - mine for mine, theirs in zip(*parts, strict=True)]
    rest = [part for part, *each in zip(between, *factors, strict=True) if min(each) == 1.0]
    spread = fsum(part * part for part in rest)
    skewness = len(rest) * (fsum(part**3 for part in rest) / spread) ** 2 / spread if spread > 0 else inf
    ready = len(rest) > count / 2 and SKEWNESS_FACTOR * skewness <= count
    return Estimate(
        (means[0], means[1]),
        (grow * fsum(part * part for part in parts[0]), grow * fsum(part * part for part in parts[1])),
        grow * fsum(mine * theirs for mine, theirs in zip(*parts, strict=True)),
        float(count - 1),
        float(count),
        2.0 * count,
        float(count),
        0.0 if ready else inf,
        max(one.heaviest, other.heaviest) or None,
        _weight([(mine[1], theirs[1]) for mine, theirs in zip(*totals, strict=True)]),
    )


def side_of(tally: Tally, bounds: Bounds | None) -> Side:
    mean, per_unit = tally.m / tally.d, tally.d / tally.n
    squares = tally.squares(mean)
    # Sums of squares cancel: what is left below 1e-12 of them is their rounding.
    if squares <= 1e-12 * (tally.m2 + mean * mean * tally.d2):
        squares = 0.0
    cubes = tally.cubes(mean)
    # Σd³·Σd ≥ (Σd²)², so a tally below that has no third moments, or not of all its units.
    if not (isfinite(cubes) and tally.d3 * tally.d >= tally.d2**2 * (1 - 1e-9)):
        # No residual is larger than the bounds times the most values of a unit.
        cubes = inf if bounds is None else squares * (bounds[1] - bounds[0]) * max(tally.d_max, per_unit)
    return Side(
        tally.n,
        tally.d,
        mean,
        squares / per_unit**2,
        cubes / (per_unit * per_unit * per_unit),
        tally.n * tally.d2 / tally.d / tally.d,
    )


def _sound(buckets: Sequence[BucketPair]) -> bool:
    """Return whether all sums are numbers that can be added up."""
    return all(abs(each) < LARGEST for pair in buckets for side in pair for of in (side.m, side.d) for each in of)


def _distinct(tallies: Sequence[Tally]) -> float:
    """Return how many different units these tallies have: at least as many as one of them."""
    return max(sum(tally.distinct for tally in tallies), *(tally.n for tally in tallies), 0)


def _over_strata(
    variances: Sequence[Sequence[float]],
    weights: Sequence[float],
    sides: Sequence[Sequence[Side]],
    buckets: Sequence[BucketPair] | None,
    independent: bool,
) -> tuple[tuple[float, float], float, float]:
    """Return the variances of both means, their covariance, and the degrees of freedom they are known from."""
    alone = fsum(variances[0]), fsum(variances[1])
    if independent or len(weights) == 1:
        return alone, 0.0, inf
    if buckets is None:
        # Sides of one stratum are independent; those of different strata may depend in any way.
        errors = [sqrt(one + other) for one, other in zip(*variances, strict=True)]
        total = fsum(errors) ** 2
        return alone, (sum(alone) - total) / 2, inf
    parts = [
        [
            [weight * (m - side.mean * d) / side.d for m, d in zip(pair[at].m, pair[at].d, strict=True)]
            for weight, side, pair in zip(weights, sides[at], buckets, strict=True)
        ]
        for at in (0, 1)
    ]
    count = len(parts[0][0])
    grow = count / (count - 1)
    sums = [[fsum(column) for column in zip(*each, strict=True)] for each in parts]
    within = [[fsum(part * part for part in stratum) for stratum in each] for each in parts]
    totals = [alone[at] + grow * (fsum(s * s for s in sums[at]) - fsum(within[at])) for at in (0, 1)]
    # Sides of one stratum are independent, whatever their buckets say.
    same = fsum(one * other for pair in zip(*parts, strict=True) for one, other in zip(*pair, strict=True))
    covariance = grow * (fsum(one * other for one, other in zip(*sums, strict=True)) - same)
    together = sum(alone)
    least = LEAST_VARIANCE * together
    if totals[0] + totals[1] - 2 * covariance < least:
        return alone, (together - least) / 2, float(count - 1)
    variance = totals[0] + totals[1] - 2 * covariance
    exact = fsum(v * v for each in variances for v in each) / variance**2
    degrees = (count - 1) / (1 - exact) if exact < 1 else inf
    return (max(totals[0], 0.0), max(totals[1], 0.0)), covariance, max(degrees, count - 1.0)


class _Cut(NamedTuple):
    factors: tuple[float, ...]
    heaviest: float


def _bucket_weights(counts: Sequence[Sequence[float]]) -> _Cut | None:
    """Return by what the sums of each bucket are multiplied, and the share of a cut one; None without typical ones."""
    totals = [fsum(column) for column in zip(*counts, strict=True)]
    most = HEAVIEST_BUCKET * median(totals) if totals else 0.0
    if not 0 < most < LARGEST:
        return None
    heaviest = most / fsum(min(total, most) for total in totals) if max(totals) > most else 0.0
    return _Cut(tuple(min(1.0, most / total) if total > 0 else 1.0 for total in totals), heaviest)
