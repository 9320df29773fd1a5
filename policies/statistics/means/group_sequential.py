"""Boundaries for a test with a declared maximum: |z| decides at a look where it is above the look's boundary.

Rule: the boundary of a look depends on the looks before it and nothing else, so the looks are stored, and how many come
need not be known. numpy is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import erfc, exp, inf, isfinite, log, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

#: A look that follows the one before by less than this share of the maximum decides nothing: it would gain nothing, and
#: the numbers would lose their accuracy.
LEAST_STEP: Final = 0.01

#: Boundaries above this are infinite: |z| is never so large by chance.
FARTHEST: Final = 8.0

#: Points per standard deviation of one step, and the most points.
_DENSITY, _MOST_POINTS = 6.0, 1201

_NORMAL: Final = NormalDist()


def spent(fraction: float, alpha: float) -> float:
    """Return how much of a two-sided ``alpha`` may be spent up to this fraction of the maximum, as O'Brien and Fleming.

    Source: Lan & DeMets 1983, "Discrete sequential boundaries for clinical trials", Biometrika 70(3).

    >>> round(spent(0.5, 0.05), 5), spent(1.0, 0.05)
    (0.00305, 0.05)
    """
    if fraction >= 1:
        return alpha
    if fraction <= 0:
        return 0.0
    return 4 * _above(_NORMAL.inv_cdf(1 - alpha / 4) / sqrt(fraction))


def boundary(fractions: Sequence[float], alpha: float = 0.05) -> float:
    """Return the |z| above which the last of these looks decides, at a two-sided ``alpha`` over all looks.

    ``fractions`` are the shares of the declared maximum that were there at each look so far, the last one now. It is
    infinite where a look decides nothing: too early, or hardly later than the one before. From the maximum on it stays.

    Source: Armitage, McPherson & Rowe 1969, JRSS A 132(2), the recursion; ldbounds (Reboussin et al. 2000) for vectors.

    >>> [round(boundary([0.2, 0.4, 0.6, 0.8, 1.0][:looks]), 2) for looks in (2, 3, 4, 5)]
    [3.36, 2.68, 2.29, 2.03]
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    looks = _kept(fractions)
    if not looks or min(fractions[-1], 1.0) != looks[-1]:
        return inf
    return _boundaries(looks, alpha)[-1]


def sequential_p(fractions: Sequence[float], z: float) -> float:
    """Return the smallest alpha at which this look would decide, given |z|; 1 where no look decides.

    It is at most α with probability at most α over all looks where there is no difference.
    """
    looks = _kept(fractions)
    if not looks or min(fractions[-1], 1.0) != looks[-1] or not isfinite(z):
        return 1.0
    z = min(abs(z), FARTHEST - 0.01)
    low, high = log(1e-15), log(0.999)
    if _boundaries(looks, exp(high))[-1] > z:
        return 1.0
    # Boundaries fall with alpha, almost in a straight line of z² and ln α.
    return exp(_root(lambda at: min(_boundaries(looks, exp(at))[-1], FARTHEST) ** 2 - z * z, low, high))


def inflation(looks: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return how many times as many units so many equal looks take as one look at the end, for the same power.

    >>> round(inflation(5), 3)
    1.025
    """
    fractions = tuple(look / looks for look in range(1, looks + 1))
    fixed = _NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(power)
    bounds = _boundaries(fractions, alpha)
    drift = _root(lambda drift: power - _crossed(fractions, bounds, drift), fixed, 2 * fixed)
    return (drift / fixed) ** 2


def _kept(fractions: Sequence[float]) -> tuple[float, ...]:
    """Return the looks that count: in order, at most 1, and far enough apart; the maximum always counts."""
    kept: list[float] = []
    for fraction in fractions:
        at = min(fraction, 1.0)
        before = kept[-1] if kept else 0.0
        if at - before >= LEAST_STEP or (at >= 1.0 > before):
            kept.append(at)
    return tuple(kept)


@lru_cache(maxsize=256)
def _boundaries(looks: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Return the boundary of each look."""
    bounds: list[float] = []
    state: tuple[Array, Array] | None = None
    before, used = 0.0, 0.0
    for at in looks:
        goal, step = spent(at, alpha) - used, at - before
        bound = _spending(_leaving(state, step), goal, sqrt(at))
        used += goal if bound < inf else 0.0
        bounds.append(bound)
        state = _advanced(state, step, min(bound, FARTHEST + 2) * sqrt(at))
        before = at
    return tuple(bounds)


def _spending(leaves: Callable[[float], float], goal: float, scale: float) -> float:
    """Return the boundary of |z| beyond which a path is with probability ``goal``; infinite where that is too far."""
    if leaves(FARTHEST * scale) >= goal:
        return inf
    return _root(lambda z: leaves(z * scale) - goal, 0.0, FARTHEST)


def _crossed(looks: Sequence[float], bounds: Sequence[float], drift: float) -> float:
    """Return the probability of crossing a boundary at any look where z has mean drift·√fraction."""
    state: tuple[Array, Array] | None = None
    before = crossed = 0.0
    for at, bound in zip(looks, bounds, strict=True):
        limit = min(bound, FARTHEST + 2) * sqrt(at)
        crossed += _leaving(state, at - before, drift)(limit)
        state = _advanced(state, at - before, limit, drift)
        before = at
    return crossed


def _leaving(state: tuple[Array, Array] | None, step: float, drift: float = 0.0) -> Callable[[float], float]:
    """Return the probability, by a limit, of going beyond plus or minus the limit in one step from inside."""
    scale, shift = sqrt(step), drift * step
    if state is None:
        return lambda limit: _above((limit - shift) / scale) + _above((limit + shift) / scale)
    from scipy.special import ndtr

    points, masses = state

    def leaves(limit: float) -> float:
        return float(masses @ (ndtr((points + shift - limit) / scale) + ndtr((-points - shift - limit) / scale)))

    return leaves


def _advanced(state: tuple[Array, Array] | None, step: float, limit: float, drift: float = 0.0) -> tuple[Array, Array]:
    """Return where paths that stay within the limit are after a step: points, and the probability at each (Simpson)."""
    import numpy as np

    scale, shift = sqrt(step), drift * step
    count = int(min(max(2 * limit / scale * _DENSITY, 60), _MOST_POINTS)) // 2 * 2 + 1
    points = np.linspace(-limit, limit, count)
    simpson = np.ones(count)
    simpson[1:-1:2], simpson[2:-1:2] = 4, 2
    simpson *= (points[1] - points[0]) / 3
    if state is None:
        density = np.exp(-(((points - shift) / scale) ** 2) / 2)
    else:
        density = np.exp(-(((points[:, None] - state[0] - shift) / scale) ** 2) / 2) @ state[1]
    return points, simpson * density / (scale * sqrt(2 * np.pi))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function that falls crosses 0, to 1e-9."""
    at_low, at_high = function(low), function(high)
    if at_low <= 0:
        return low
    if at_high >= 0:
        return high
    stayed = 0
    for _ in range(100):
        middle = low + (high - low) * at_low / (at_low - at_high)
        value = function(middle)
        if value > 0:
            low, at_low, at_high = middle, value, at_high / 2 if stayed > 0 else at_high
            stayed = 1
        else:
            high, at_high, at_low = middle, value, at_low / 2 if stayed < 0 else at_low
            stayed = -1
        if high - low < 1e-9 or abs(value) < 1e-13:
            return middle
    return high


def _above(z: float) -> float:
    return erfc(z / sqrt(2)) / 2
