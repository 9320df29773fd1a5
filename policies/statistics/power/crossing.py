"""When bets on a drift are won: a Brownian motion crosses the boundary at which their stake has grown to 1 / α.

Rule: arithmetic of plans; no data. Numerical, and exact to a few thousandths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, log
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: The times up to which a crossing is looked for, one after the other: a test with a single look ends at 7.8.
_HORIZONS: Final = (40.0, 160.0, 640.0)
_STEPS: Final = 160


class PlannedBet(NamedTuple):
    """A bet on the drift with its part of the stake: on plus and minus ``drift``, or on normally distributed ones.

    ``normal`` is the variance of those by time: at t the bet is as strong as a prior with the variance normal·t / t².
    """

    weight: float
    drift: float = 0.0
    normal: float = 0.0


def time_of(boundary: Callable[[Array], Array], power: float) -> float:
    """Return when the boundary has been crossed with probability ``power``; infinite if not by the last horizon."""
    for horizon in _HORIZONS:
        times = np.linspace(horizon / _STEPS, horizon, _STEPS)
        crossed = crossed_by(boundary, times)
        if crossed[-1] >= power:
            return float(np.interp(power, np.maximum.accumulate(crossed), times))
    return inf


def crossed_by(boundary: Callable[[Array], Array], times: Array) -> Array:
    """Return the probability that a Brownian motion with drift 1 has crossed a smooth boundary by each of these times.

    ``times`` are equally spaced and begin at one step; the boundary is above 0 at 0. Solves the integral equation of
    the first passage by the trapezoidal rule.

    Source: Buonocore, Nobile & Ricciardi 1987, Adv. Appl. Prob. 19(4), the equation with a kernel that is 0 at 0.

    >>> times = np.arange(1, 201) / 10
    >>> round(float(crossed_by(lambda t: 2 + 0 * t, times)[-1]), 4)
    1.0
    """
    step = float(times[0])
    height = boundary(times)
    slope = np.gradient(height, step)
    density = np.zeros(len(times))
    from_start = _kernel(height, slope, times)
    for i in range(len(times)):
        kernel = _kernel(height[i] - height[:i], slope[i], times[i] - times[:i])
        density[i] = max(-2 * from_start[i] + 2 * step * float(density[:i] @ kernel), 0.0)
    return np.minimum(np.cumsum(density) * step - density * step / 2, 1.0)


def _kernel(rise: Array, slope: Array | float, time: Array) -> Array:
    """Return ½·f·(slope − rise / time), f the density of the motion's having risen by that in that time."""
    density = np.exp(-((rise - time) ** 2) / (2 * time)) / np.sqrt(2 * np.pi * time)
    found: Array = density * (slope - rise / time) / 2
    return found


def boundary_of(bets: Sequence[PlannedBet], alpha: float) -> Callable[[Array], Array]:
    """Return where the bets' stakes add up to 1 / α, by time."""
    weights, drifts, normals = (np.array(column) for column in zip(*bets, strict=True))
    on_normal = normals > 0
    # Of a bet on plus and minus a drift, half is lost.
    logs = np.log(np.where(on_normal, weights, weights / 2))

    def height(times: Array) -> Array:
        strength = 1 + normals * times[:, None]
        constant = logs - np.where(on_normal, np.log(strength) / 2, drifts**2 * times[:, None] / 2)
        curve = np.where(on_normal, normals / strength / 2, 0.0)
        goal = -log(alpha)
        low, high = np.zeros(len(times)), np.full(len(times), 1.0)
        for _ in range(12):
            high = np.where(_stake(high, constant, drifts, curve) < goal, 3 * high, high)
        for _ in range(36):
            middle = (low + high) / 2
            above = _stake(middle, constant, drifts, curve) >= goal
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return high

    return height


def _stake(x: Array, constant: Array, drifts: Array, curve: Array) -> Array:
    """Return the logarithm of all stakes together where the motion is at ``x``."""
    at = x[:, None]
    found: Array = np.logaddexp.reduce(constant + drifts * at + curve * at**2, axis=1)
    return found
