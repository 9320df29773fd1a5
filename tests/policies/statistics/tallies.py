"""Tallies of many units at once, for simulations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from policies.types import Tally

Array = npt.NDArray[np.float64]


def tally_of(m: Array, d: Array, distinct: int | None = None) -> Tally:
    """Return ``Tally.of_units(zip(m, d))``, fast; of these units so many are new, by default all."""
    m, d = m[d > 0], d[d > 0]
    if not len(d):
        return Tally()
    return Tally(
        n=len(d),
        m=float(m.sum()),
        m2=float((m * m).sum()),
        d=float(d.sum()),
        d2=float((d * d).sum()),
        md=float((m * d).sum()),
        positive=int((m > 0).sum()),
        negative=int((m < 0).sum()),
        d_max=float(d.max()),
        m3=float((m * m * m).sum()),
        m2d=float((m * m * d).sum()),
        md2=float((m * d * d).sum()),
        d3=float((d * d * d).sum()),
        distinct=len(d) if distinct is None else distinct,
    )


def allowed(alpha: float, count: int) -> float:
    """Return the highest share of ``count`` simulations that may fail: ``alpha`` and two standard errors."""
    return float(alpha + 2 * np.sqrt(alpha * (1 - alpha) / count))
