"""Boundaries for a test with a declared maximum: |z| decides at a look where it is above the look's boundary.

Rule: the boundary of a look depends on the looks before it and nothing else, so the looks are stored, and how many come
need not be known. How much of alpha is spent follows from the share of the declared maximum; how two looks go together
follows from the information that each had: where traffic grows, half of the time is not half of the information.
numpy is imported inside functions.
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


def boundary(fractions: Sequence[float], alpha: float = 0.05, information: Sequence[float] | None = None) -> float:
    """Return the |z| above which the last of these looks decides, at a two-sided ``alpha`` over all looks.

    ``fractions`` are the shares of the declared maximum that were there at each look so far, the last one now, and
    ``information`` what was known at each, in any unit: the variance of the score, which is the difference times its
    weight, n₀·n₁ / (n₀ + n₁) in one stratum. Units that come only add to the score, so two looks have the correlation
    √(variance then / variance now), also where values vary more at one time than at another; 1 / the variance of the
    difference says the same of values that vary evenly, and falls where a rare event becomes frequent. Without
    information, or where it is 0 at some look, it is taken to have grown as the fractions did. The boundary is infinite
    where a look decides nothing: too early, or hardly more than the one before. From the maximum on it stays.

    Source: Lan & DeMets 1983, spending by calendar time, Lan & DeMets 1989, Biometrics 45(3); Armitage, McPherson &
    Rowe 1969, JRSS A 132(2), the recursion; ldbounds (Reboussin et al. 2000) for vectors.

    >>> [round(boundary([0.2, 0.4, 0.6, 0.8, 1.0][:looks]), 2) for looks in (2, 3, 4, 5)]
    [3.36, 2.68, 2.29, 2.03]
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    looks = _kept(fractions, information)
    if not looks or min(fractions[-1], 1.0) != looks[-1][0]:
        return inf
    return _boundaries(looks, alpha)[-1]


def sequential_p(fractions: Sequence[float], z: float, information: Sequence[float] | None = None) -> float:
    """Return the smallest alpha at which this look would decide, given |z|; 1 where no look decides.

    It is at most α with probability at most α over all looks where there is no difference.
    """
    looks = _kept(fractions, information)
    if not looks or min(fractions[-1], 1.0) != looks[-1][0] or not isfinite(z):
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
    bounds = _boundaries(tuple(zip(fractions, fractions, strict=True)), alpha)
    drift = _root(lambda drift: power - _crossed(fractions, bounds, drift), fixed, 2 * fixed)
    return (drift / fixed) ** 2


def _kept(fractions: Sequence[float], information: Sequence[float] | None = None) -> tuple[tuple[float, float], ...]:
    """Return the looks that count, as (share of the maximum, information as a share of the last look's).

    They are in order, at most 1, and far enough apart in both; the maximum always counts. Where it brought hardly any
    information, it is taken to have brought a little: that is on the safe side.
    """
    known = information is not None and all(one > 0 and isfinite(one) for one in information)
    times = information if known and information is not None else [min(one, 1.0) for one in fractions]
    kept: list[tuple[float, float]] = []
    for fraction, time in zip(fractions, times, strict=True):
        at = min(fraction, 1.0)
        before, then = kept[-1] if kept else (0.0, 0.0)
        more = time - then >= LEAST_STEP * (time if known else 1.0)
        if at >= 1.0 > before:
            kept.append((at, time if more else then * (1 + LEAST_STEP) if known else time))
        elif at - before >= LEAST_STEP and more:
            kept.append((at, time))
    # Twelve digits of what is measured: the same looks have the same boundaries.
    return tuple((at, round(time / kept[-1][1], 12) if known else time) for at, time in kept)


@lru_cache(maxsize=256)
def _boundaries(looks: tuple[tuple[float, float], ...], alpha: float) -> tuple[float, ...]:
    """Return the boundary of each look, given as ``_kept`` returns them."""
    bounds: list[float] = []
    state: tuple[Array, Array] | None = None
    before, used = 0.0, 0.0
    for at, time in looks:
        goal, step = spent(at, alpha) - used, time - before
        bound = _spending(_leaving(state, step), goal, sqrt(time))
        used += goal if bound < inf else 0.0
        bounds.append(bound)
        state = _advanced(state, step, min(bound, FARTHEST + 2) * sqrt(time))
        before = time
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
