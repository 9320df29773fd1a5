"""A difference of means adjusted for what units did before: CUPED, at any look.

Rule: the covariate is known before the unit was assigned, so that no variant can have changed it. Sums only.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from policies.statistics.difference import Difference
from policies.statistics.means.compare import of_estimate
from policies.statistics.means.mixture import undeclared
from policies.statistics.means.strata import FEWEST_UNITS, Bounds, Estimate


@dataclass(frozen=True, slots=True)
class CovariateSums:
    """Sums over the units of one side: n, ΣM, ΣX, ΣM², ΣMX and ΣX², where X is a unit's covariate."""

    n: float
    m: float
    x: float
    mm: float
    mx: float
    xx: float

    def __add__(self, other: CovariateSums) -> CovariateSums:
        return CovariateSums(
            self.n + other.n,
            self.m + other.m,
            self.x + other.x,
            self.mm + other.mm,
            self.mx + other.mx,
            self.xx + other.xx,
        )


def adjusted_estimate(
    baseline: CovariateSums, variant: CovariateSums, *, needed: float = FEWEST_UNITS
) -> Estimate | None:
    """Return the difference of two means per unit, each taken at the same mean covariate; None with fewer than 3 units.

    The slope θ = Cov(M, X) / Var(X) is that within sides. Without any variation of X nothing is adjusted. The variance
    falls by the squared correlation. ``needed`` is how many units the smaller side takes: see ``strata.estimate``.

    Source: Deng, Xu, Kohavi & Walker, WSDM 2013, "Improving the sensitivity of online controlled experiments by
    utilizing pre-experiment data"; at any look, Lindon, Ham, Tingley & Bojinov, arXiv 2210.08589.
    """
    sides = (baseline, variant)
    numbers = [value for side in sides for value in (side.n, side.m, side.x, side.mm, side.mx, side.xx)]
    if min(side.n for side in sides) < 3 or not all(map(isfinite, numbers)):
        return None
    squares = [(s.mm - s.m * s.m / s.n, s.mx - s.m * s.x / s.n, s.xx - s.x * s.x / s.n) for s in sides]
    varied = squares[0][2] + squares[1][2]
    slope = (squares[0][1] + squares[1][1]) / varied if varied > 1e-12 * (baseline.xx + variant.xx) else 0.0
    middle = (baseline.x + variant.x) / (baseline.n + variant.n)
    means = [s.m / s.n - slope * (s.x / s.n - middle) for s in sides]
    # One degree of freedom of each side for its mean, and one of both for the slope.
    left = [max(mm - 2 * slope * mx + slope * slope * xx, 0.0) for mm, mx, xx in squares]
    variances = [rest / (s.n - 1.5) / s.n for rest, s in zip(left, sides, strict=True)]
    units = baseline.n + variant.n
    return Estimate(
        (means[0], means[1]),
        (variances[0], variances[1]),
        0.0,
        units - 3,
        4 * baseline.n * variant.n / units,
        units,
        min(baseline.n, variant.n),
        needed,
    )


def adjusted_difference(
    baseline: CovariateSums,
    variant: CovariateSums,
    *,
    bounds: Bounds | None = None,
    alpha: float = 0.05,
    needed: float = FEWEST_UNITS,
) -> Difference | None:
    """Return the adjusted difference, valid at every look; None while there are too few units."""
    found = adjusted_estimate(baseline, variant, needed=needed)
    if found is None or not found.ready:
        return None
    return of_estimate(found, undeclared(found.size, found.size * found.needed / found.smaller), bounds, alpha)
