"""The traffic of one step: what is counted of it up to any moment, as the store would hold it.

Rule: time is cut into bins, of a second where something goes wrong or the step begins. Everything is a sum over bins,
so that a look at any bin's end is one addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from loadtests.rollouts.world import Array, Troubles, World, busy, down, level, warming
from policies.statistics.burn import Count
from policies.statistics.latency import bucket
from policies.types import Tally

#: How many calls a sticky unit makes, and how often.
CALLS: Final = np.array([1, 2, 4, 8])
OFTEN: Final = np.array([0.5, 0.25, 0.15, 0.1])

#: The ends of the cells of latencies, in milliseconds, and the bucket that each is counted in.
CELLS: Final = np.exp(np.linspace(np.log(8), np.log(3000), 37))
IN_BUCKET: Final = [bucket(float(end)) for end in CELLS]

#: Latencies are lognormal: of this median and this σ.
MEDIAN_MS, SIGMA = 50.0, 0.6

#: Of a step's seconds, so many at its beginning and around trouble are looked at one by one.
SINGLY: Final = 30

#: The share of answers that get a label.
LABELLED: Final = 0.6

Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Step:
    """Sums up to the end of each bin, of shape (bins, 2); ``ends`` are seconds since the step began, the first is 0."""

    ends: Array
    sums: dict[str, Array]
    latency: Array
    share: tuple[float, float]
    shadow: bool

    def calls(self, at: int, side: int) -> Tally:
        """Return the tally of calls up to a bin."""
        each: dict[str, Any] = {name: float(self.sums[name][at, side]) for name in ("m", "m2", "d", "d2", "md")}
        units = int(self.sums["units"][at, side])
        most = float(self.sums["most"][at, side])
        return Tally(n=units, positive=int(self.sums["failed"][at, side]), d_max=most, distinct=units, **each)

    def count(self, at: int, side: int) -> Count:
        """Return the same as fast burn is given it."""
        return Count(*(float(self.sums[name][at, side]) for name in ("units", "failed", "d", "m")))  # type: ignore[arg-type]

    def values(self, at: int, side: int, metric: str) -> Tally:
        """Return the tally of a metric, of 0/1 values with one a unit, up to a bin."""
        n, m = (float(self.sums[f"{metric}_{name}"][at, side]) for name in ("n", "m"))
        return Tally(int(n), m, m, n, n, m, int(m), 0, float(n > 0), m, m, m, n, int(n))

    def at(self, seconds: float) -> int:
        """Return the last bin that ends by then."""
        return max(int(np.searchsorted(self.ends, seconds, side="right")) - 1, 0)


def ends_of(length: float, found: Troubles, singly: int = SINGLY) -> Array:
    """Return the ends of the bins of a step: seconds at its beginning and near trouble, minutes, then tens of them."""
    grid = [
        np.arange(0, min(singly, length)),
        np.arange(singly, min(600, length), 10),
        np.arange(600, min(7200, length), 60),
        np.arange(7200, length, 900),
    ]
    near = [np.arange(np.floor(edge) - 12, edge + SINGLY) for edge in found.edges]
    whole = np.unique(np.concatenate([*grid, *near, [length]]))
    return whole[(whole >= 0) & (whole <= length)]


def drawn(
    random: np.random.Generator,
    world: World,
    share: float,
    *,
    shadow: bool,
    began: float,
    length: float,
    found: Troubles,
) -> Step:
    """Draw a step that begins ``began`` seconds into the day, in which the candidate gets a ``share`` of the calls."""
    ends = ends_of(length, found, 10 * SINGLY if world.steady else SINGLY)
    middle = (ends[1:] + ends[:-1]) / 2
    parts = np.array([1.0, share] if shadow else [1 - share, share])
    times = began + middle
    calls = world.rate * (busy(world, times) * np.diff(ends))[:, None] * parts
    each, often = (CALLS, OFTEN) if world.sticky else (CALLS[:1], np.ones(1))
    units = random.poisson(calls[:, :, None] / float(each @ often) * often)  # (bins, 2, sizes)
    high = level(world, times)[:, None, None]
    failing = np.where(down(found, middle)[:, :, None], 1.0, np.minimum(high * _sides(world.failures), 1.0))
    # Half of what fails are whole units, where units have several calls.
    wholly = np.where(failing == 1, 1.0, failing / 2)
    failed = random.binomial(units, wholly)
    single = random.binomial((units - failed) * each, np.where(failing == 1, 0.0, failing / 2 / (1 - failing / 2)))
    answered = units - failed
    refused = random.binomial(answered, np.minimum(high * _sides(world.client_errors), 1.0))
    good = answered.sum(2)
    complaints = random.binomial(good, np.minimum(high[:, :, 0] * np.array(world.complaints), 1.0))
    labelled = random.binomial(good, LABELLED)
    wrong = (1 - np.array(world.correct)) * np.sqrt(high[:, :, 0])
    sums: dict[str, Array] = {
        "units": units.sum(2),
        "failed": (failed + np.minimum(single, answered)).sum(2),
        "m": (failed * each + single).sum(2),
        "m2": (failed * each**2 + single).sum(2),
        "d": (units * each).sum(2),
        "d2": (units * each**2).sum(2),
        "md": (failed * each**2 + single * each).sum(2),
        "refused": (refused * each).sum(2),
        "complaint_n": good,
        "complaint_m": complaints,
        "correct_n": labelled,
        "correct_m": labelled - random.binomial(labelled, np.minimum(wrong, 1.0)),
        "agreed": random.binomial(units.sum(2), 0.95),
    }
    sums = {name: _before(np.asarray(one, float).cumsum(0)) for name, one in sums.items()}
    sums["most"] = _before(np.maximum.accumulate(np.where(units > 0, each, 0).max(2), axis=0).astype(float))
    slow = np.log(MEDIAN_MS * _sides(world.slower)[None, :, 0] * np.sqrt(high[:, :, 0]) * warming(found, middle))
    below = ndtr((np.log(CELLS) - slow[:, :, None]) / SIGMA)
    cells = np.diff(below, axis=2, prepend=0.0)
    cells[:, :, -1] += 1 - cells.sum(2)
    counted = np.zeros(cells.shape)
    for size, calls_each in enumerate(each):
        counted += calls_each * random.multinomial(answered[:, :, size], np.maximum(cells, 0.0))
    return Step(ends, sums, _before(counted.cumsum(0)), (float(parts[0]), float(parts[1])), shadow)


def _sides(rates: tuple[float, float]) -> Array:
    return np.array(rates)[:, None]


def _before(sums: Array) -> Array:
    """Return the sums with those at the beginning, which are 0."""
    return np.concatenate([np.zeros((1, *sums.shape[1:])), sums])
