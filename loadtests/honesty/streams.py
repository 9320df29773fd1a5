"""Traffic, simulated: what a route's tallies hold at each look, for many experiments at once.

Rule: nothing here decides. Tallies are built by cumulative sums of what single units did, so they are what the store
would hold; ``Looks.tally`` makes the product's own value of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from gateway.store.units.few_units import FEW
from loadtests.honesty.cases import Array
from policies.types import BUCKETS, Buckets, Tally

#: What each field of a tally sums over units, by its name.
_TERMS: Final[dict[str, Callable[[Array, Array], Array]]] = {
    "n": lambda m, d: (d > 0).astype(float),
    "m": lambda m, d: m,
    "m2": lambda m, d: m * m,
    "d": lambda m, d: d,
    "d2": lambda m, d: d * d,
    "md": lambda m, d: m * d,
    "positive": lambda m, d: (m > 0).astype(float),
    "negative": lambda m, d: (m < 0).astype(float),
    "m3": lambda m, d: m * m * m,
    "m2d": lambda m, d: m * m * d,
    "md2": lambda m, d: m * d * d,
    "d3": lambda m, d: d * d * d,
    "distinct": lambda m, d: (d > 0).astype(float),
}
_NAMES: Final = tuple(field.name for field in fields(Tally))
_COUNTS: Final = frozenset({"n", "positive", "negative", "distinct"})

#: Of 0/1 values with one of them a unit, all sums are of one of these.
_OF_SUCCESSES: Final = frozenset({"m", "m2", "md", "positive", "m3", "m2d", "md2"})


@dataclass(frozen=True, slots=True)
class Looks:
    """Sums up to each look, by name, of the shape (runs, looks, 2): the baseline's, then the variant's."""

    sums: dict[str, Array]
    #: M and D of the first units of each run as they came, by side: (2, runs, units) each. D is 0 for those of the
    #: other side. None: they follow from the sums. Empty: the store would have no unit singly.
    each: tuple[Array, Array] | None = None

    @property
    def runs(self) -> int:
        return len(self.sums["n"])

    @property
    def looks(self) -> int:
        return len(self.sums["n"][0])

    def tally(self, run: int, look: int, side: int) -> Tally:
        """Return one tally."""
        found = {name: float(self.sums[name][run, look, side]) for name in _NAMES}
        whole: dict[str, Any] = {name: int(found[name]) if name in _COUNTS else found[name] for name in _NAMES}
        return Tally(**whole)

    def few(self, run: int, look: int) -> dict[str, tuple[tuple[float, float], ...]]:
        """Return every unit of a side, where there are so few that the store has them singly."""
        found = {}
        known = self.each is None or self.each[0].size > 0
        for side, name in enumerate(("old", "new")):
            n = int(self.sums["n"][run, look, side])
            if known and 0 < n < FEW:
                found[name] = self._units(run, look, side, n)
        return found

    def _units(self, run: int, look: int, side: int, n: int) -> tuple[tuple[float, float], ...]:
        if self.each is None:  # 0/1 values, one a unit, in an order that does not depend on them
            right = np.random.default_rng(run).permutation(n) < self.sums["m"][run, look, side]
            return tuple((float(one), 1.0) for one in right)
        m, d = (of[side, run] for of in self.each)
        there = np.flatnonzero(d > 0)[:n]
        return tuple(zip(m[there].tolist(), d[there].tolist(), strict=True))

    def pair(self, run: int, look: int) -> tuple[Tally, Tally]:
        """Return (baseline, variant)."""
        return self.tally(run, look, 0), self.tally(run, look, 1)

    def scores(self) -> Array:
        """Return how many standard errors the variant's ratio is above the baseline's, of shape (runs, looks).

        The plain delta method; it chooses at which looks a decision is asked for, and decides nothing.
        """
        s = self.sums
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = s["m"] / s["d"]
            squares = s["m2"] - 2 * ratio * s["md"] + ratio**2 * s["d2"]
            variance = np.maximum(squares, 0) / s["d"] ** 2
            found: Array = np.nan_to_num((ratio[..., 1] - ratio[..., 0]) / np.sqrt(variance.sum(axis=-1)))
            return found


def binary(
    random: np.random.Generator, rates: npt.ArrayLike, part: float, *, runs: int, looks: int, batch: int = 100
) -> Looks:
    """Return units with one 0/1 value each, of which a share ``part`` gets the variant, at every ``batch`` units.

    ``rates`` are those of both sides, for good or, of the shape (looks, 2), as they are before each look.
    """
    n = np.empty((runs, looks, 2))
    n[..., 1] = random.binomial(batch, part, (runs, looks))
    n[..., 0] = batch - n[..., 1]
    successes = random.binomial(n.astype(int), np.array(rates)).astype(float)
    n, successes = n.cumsum(axis=1), successes.cumsum(axis=1)
    return of_counts(n, successes)


def of_counts(n: Array, successes: Array) -> Looks:
    """Return looks at units with one 0/1 value each."""
    sums = {name: successes if name in _OF_SUCCESSES else n for name in _NAMES}
    sums["negative"] = np.zeros_like(n)
    sums["d_max"] = (n > 0).astype(float)
    return Looks(sums)


def tally_of(m: Array, d: Array) -> Tally:
    """Return ``Tally.of_units(zip(m, d))``, fast."""
    found: dict[str, Any] = {
        name: float(d.max()) if name == "d_max" else float(_TERMS[name](m, d).sum()) for name in _NAMES
    }
    return Tally(**{name: int(value) if name in _COUNTS else value for name, value in found.items()})


def buckets_of(m: Array, d: Array, bucket: npt.NDArray[np.int64]) -> Buckets:
    """Return the sums of units by their bucket."""
    sums = [np.bincount(bucket, of, BUCKETS).tolist() for of in (m, d)]
    return Buckets(tuple(sums[0]), tuple(sums[1]))


#: Draws (m, d) of units, each of the shape asked for.
Draw = Callable[[np.random.Generator, tuple[int, int]], tuple[Array, Array]]


def units(
    random: np.random.Generator, draw: Draw, part: float, *, runs: int, looks: int, batch: int = 100
) -> Iterator[Looks]:
    """Yield looks at units that ``draw`` makes, alike on both sides, some runs at a time.

    Every unit is complete when it comes in.
    """
    at_once = max(1, 500_000 // (looks * batch))
    for start in range(0, runs, at_once):
        shape = (min(at_once, runs - start), looks * batch)
        treated = random.random(shape) < part
        m, d = draw(random, shape)
        cut = (shape[0], looks, batch)
        sums = {name: np.empty((shape[0], looks, 2)) for name in _NAMES}
        for name in _NAMES:
            each = d if name == "d_max" else _TERMS[name](m, d)
            of_variant = np.where(treated, each, 0.0).reshape(cut)
            if name == "d_max":
                of_baseline = np.where(treated, 0.0, each).reshape(cut)
                for side, most in enumerate((of_baseline, of_variant)):
                    sums[name][..., side] = np.maximum.accumulate(most.max(axis=2), axis=1)
            else:
                variant = of_variant.sum(axis=2)
                sums[name][..., 1] = variant.cumsum(axis=1)
                sums[name][..., 0] = (each.reshape(cut).sum(axis=2) - variant).cumsum(axis=1)
        early = min(shape[1], int(2 * FEW / max(min(part, 1 - part), 1e-3)))
        of = [np.where(treated[:, :early] == bool(side), d[:, :early], 0.0) for side in (0, 1)]
        yield Looks(sums, (np.stack([m[:, :early]] * 2), np.stack(of)))


def rewards(rate: float, requests: Callable[[np.random.Generator, tuple[int, int]], Array]) -> Draw:
    """Return units with several requests, each of which succeeds with this rate."""

    def draw(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
        d = requests(random, shape)
        return random.binomial(d.astype(int), rate).astype(float), d

    return draw


def own_rates(requests: Callable[[np.random.Generator, tuple[int, int]], Array]) -> Draw:
    """Return units with several requests, each unit with a rate of its own: of mean .1, and mostly close to 0."""

    def draw(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
        d = requests(random, shape)
        return random.binomial(d.astype(int), random.beta(0.25, 2.25, shape)).astype(float), d

    return draw


def one_to_twenty(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Return a number of requests from 1 to 20, each as likely."""
    return random.integers(1, 21, shape).astype(float)


def heavy(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Return the square of a geometric number of mean 2.5: few users make most of the requests."""
    return random.geometric(0.4, shape).astype(float) ** 2


@dataclass(frozen=True, slots=True)
class Revenue:
    """Units that buy with a side's rate, for a lognormal amount with this σ and median 20, at most ``cap``."""

    sigma: float
    buyers: tuple[float, float] = (0.05, 0.05)
    cap: float = np.inf

    @classmethod
    def capped(cls, sigma: float, buyers: tuple[float, float] = (0.05, 0.05)) -> Revenue:
        """Return the same with a cap at the 99th percentile of buyers."""
        return cls(sigma, buyers, 20 * float(np.exp(sigma * ndtri(0.99))))

    def moments(self, side: int) -> tuple[float, float]:
        """Return mean and variance of what a unit spends, without the cap's tail: exact for a lognormal."""
        at, s, where = np.log(20.0), self.sigma, np.log(self.cap)
        each = []
        for power in (1, 2):
            below = np.exp(power * at + power**2 * s**2 / 2) * ndtr((where - at) / s - power * s)
            beyond = 0.0 if np.isinf(self.cap) else self.cap**power * ndtr((at - where) / s)
            each.append(self.buyers[side] * float(below + beyond))
        return each[0], each[1] - each[0] ** 2

    def looks(self, random: np.random.Generator, part: float, *, runs: int, looks: int, batch: int = 100) -> Looks:
        """Return the sums at every ``batch`` units, of which a share ``part`` gets the variant."""
        n = np.empty((runs, looks, 2))
        n[..., 1] = random.binomial(batch, part, (runs, looks))
        n[..., 0] = batch - n[..., 1]
        bought = random.binomial(n.astype(int), np.array(self.buyers))
        amounts = np.minimum(20 * np.exp(self.sigma * random.standard_normal(int(bought.sum()))), self.cap)
        place = np.repeat(np.arange(bought.size), bought.ravel())
        powers = {
            power: np.bincount(place, amounts**power, bought.size).reshape(n.shape).cumsum(axis=1)
            for power in (1, 2, 3)
        }
        counts, buyers = n.cumsum(axis=1), bought.astype(float).cumsum(axis=1)
        sums = dict.fromkeys(("n", "d", "d2", "d3", "distinct"), counts)
        sums |= {"m": powers[1], "md": powers[1], "md2": powers[1], "m2": powers[2], "m2d": powers[2], "m3": powers[3]}
        sums |= {"positive": buyers, "negative": np.zeros_like(counts), "d_max": (counts > 0).astype(float)}
        return Looks({name: sums[name] for name in _NAMES})


def growing(random: np.random.Generator, users: int, part: float, *, runs: int, looks: int, batch: int) -> Looks:
    """Return looks at users who come again and again: each request is of any of them, with a rate of the user's own."""
    shape = (runs, users)
    treated, rate = random.random(shape) < part, random.beta(0.5, 2.0, shape)
    m, d = np.zeros(shape), np.zeros(shape)
    sums = {name: np.empty((runs, looks, 2)) for name in _NAMES}
    for at in range(looks):
        came = random.multinomial(batch, np.full(users, 1 / users), runs)
        m, d = m + random.binomial(came, rate), d + came
        for name in _NAMES:
            each = d if name == "d_max" else _TERMS[name](m, d)
            for side, there in enumerate((~treated, treated)):
                of = np.where(there, each, 0.0)
                sums[name][:, at, side] = of.max(axis=1) if name == "d_max" else of.sum(axis=1)
    return Looks(sums, (np.empty((2, runs, 0)), np.empty((2, runs, 0))))


def first(found: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the index of the first True in each row, the row's length where there is none."""
    index: npt.NDArray[np.int64] = np.where(found.any(axis=1), found.argmax(axis=1), found.shape[1])
    return index
