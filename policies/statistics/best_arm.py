"""The probability that each variant is the best.

Rule: integrated, not sampled: a propensity must be exact, and the same evidence must give the same plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import inf, isfinite

import numpy as np
import numpy.typing as npt
from scipy.special import polygamma

Array = npt.NDArray[np.float64]

#: Where panels end, in standard deviations of a posterior's log odds to either side of its mode: dense where the mass
#: is, and out to 48, because towards a rate of 0 or 1 the density falls only exponentially.
_AROUND_MODE = np.concatenate([np.arange(0, 6, 0.5), np.arange(6, 12, 1.0), [12, 14, 16, 20, 24, 28, 32, 40, 48]])
_AROUND_MODE = np.concatenate([-_AROUND_MODE[:0:-1], _AROUND_MODE])

#: How wide a panel may be between these; beyond them a posterior asks for nothing.
_WIDEST = np.concatenate([[np.inf], np.diff(_AROUND_MODE), [np.inf]])

#: Panels also end at these log odds, whatever the posteriors: the density of one with a or b well below 1 bends there,
#: at a small fraction of its deviation.
_EVERYWHERE = np.arange(-40.0, 41.0, 2.0)

#: Gauss-Legendre nodes per panel.
_NODES = 12


def probabilities_best(posteriors: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Return for each Beta(a, b) posterior the probability that its rate is the highest of all; they sum to 1.

    π(i) = ∫ fᵢ · ∏ⱼ≠ᵢ Fⱼ, integrated over the log odds, where every density is smooth, even those that are infinite at
    a rate of 0 or 1. Panels follow each posterior's own scale, so that posteriors of 10 and of 10⁸ observations can be
    compared. The distribution functions F come from the same panels. The absolute error is about 1e-13.

    Raises ValueError if an a or b is not positive and finite.

    >>> [round(p, 12) for p in probabilities_best([(1, 1), (2, 1)])]
    [0.333333333333, 0.666666666667]
    """
    for a, b in posteriors:
        if not (a > 0 and b > 0 and isfinite(a) and isfinite(b)):
            raise ValueError(f"a Beta posterior needs two positive finite numbers, got ({a}, {b})")
    if not posteriors:
        return ()
    a, b = np.array(posteriors, float).T[..., None, None]
    ends = _panel_ends(a.ravel(), b.ravel())
    half = np.diff(ends)[:, None] / 2
    nodes, weights, to_node = _gauss_legendre(_NODES)
    log_odds = ends[:-1, None] + half * (nodes + 1)
    densities = _density(a, b, log_odds) * half
    per_panel = densities @ weights
    totals = per_panel.sum(axis=1)
    before = np.cumsum(per_panel, axis=1) - per_panel
    below = (before[:, :, None] + densities @ to_node.T) / totals[:, None, None]
    # The product over all others is that over those before times that over those after.
    first, last = np.ones_like(below), np.ones_like(below)
    np.cumprod(below[:-1], axis=0, out=first[1:])
    last[:-1] = np.cumprod(below[:0:-1], axis=0)[::-1]
    raw = ((densities * first * last) @ weights).sum(axis=1) / totals
    # Rounding may leave a value below 0, or the sum short of 1. Both errors are far below any digit that is shown, but
    # propensities must sum to 1 exactly.
    best = [max(float(p), 0.0) for p in raw]
    return tuple(p / sum(best) for p in best)


def _panel_ends(a: Array, b: Array) -> Array:
    """Return where panels end, so that none is wider than any posterior asks for there: log odds have their mode at
    ln(a / b). Posteriors of one scale share their panels.
    """
    modes, deviations = np.log(a / b)[:, None], np.sqrt(polygamma(1, a) + polygamma(1, b))[:, None]
    ends = np.unique(np.concatenate([_EVERYWHERE, (modes + deviations * _AROUND_MODE).ravel()]))
    asked = deviations * _WIDEST[np.searchsorted(_AROUND_MODE, ((ends[1:] + ends[:-1]) / 2 - modes) / deviations)]
    inside = (ends[:-1] >= _EVERYWHERE[0]) & (ends[1:] <= _EVERYWHERE[-1])
    widest = np.minimum(asked.min(axis=0), np.where(inside, _EVERYWHERE[1] - _EVERYWHERE[0], np.inf))
    kept, narrowest = [float(ends[0])], inf
    for low, high, wide in zip(ends[:-1].tolist(), ends[1:].tolist(), (widest * (1 + 1e-9)).tolist(), strict=True):
        narrowest = min(narrowest, wide)
        if high - kept[-1] > narrowest and low > kept[-1]:
            kept.append(low)
            narrowest = wide
    return np.array([*kept, float(ends[-1])])


def _density(a: Array, b: Array, log_odds: Array) -> Array:
    """Return the density of the log odds of Beta(a, b), relative to its mode.

    Written in distances from the mode: a·ln x + b·ln(1 − x) would be the small difference of numbers as large as a + b.
    """
    distance = log_odds - np.log(a / b)
    return np.exp(-a * _log_mean_exp(b / (a + b), -distance) - b * _log_mean_exp(a / (a + b), distance))


def _log_mean_exp(p: Array, z: Array) -> Array:
    """Return ln(1 − p + p·exp(z)), accurate near z = 0 and without overflow: beyond 50 it is linear."""
    return np.log1p(p * np.expm1(np.minimum(z, 50.0))) + np.maximum(z - 50.0, 0.0)


@cache
def _gauss_legendre(count: int) -> tuple[Array, Array, Array]:
    """Return nodes and weights on [-1, 1], and the matrix that integrates from -1 to each node.

    The matrix is exact for the polynomial through the nodes: that one's Legendre coefficients are
    ½(2k + 1)·Σⱼ wⱼ·Pₖ(xⱼ)·f(xⱼ), and (2k + 1)·∫Pₖ = Pₖ₊₁ − Pₖ₋₁.
    """
    nodes, weights = np.polynomial.legendre.leggauss(count)
    values = np.polynomial.legendre.legvander(nodes, count)
    lower = np.hstack([-np.ones((count, 1)), values[:, : count - 1]])
    return nodes, weights, (values[:, 1:] - lower) @ (values[:, :count] * weights[:, None]).T / 2
