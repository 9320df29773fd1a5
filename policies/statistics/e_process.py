"""Whether two variants differ, where every request is drawn anew with a known probability: bets on who answered.

Rule: the only input is the tallies of stretches, in the order of their revisions, each with its constant shares. A bet
on a stretch uses how its values turned out, never which variant they went to: that is what is bet on.

The argument. Suppose that the variants do not differ: a request would have had the same value from either. Then, given
all values, which of the two answered are independent draws with the logged probabilities, whatever the values do: they
may cycle, drift, or follow the time of day. So a bet that pays f(A, y) on the variant A of a request with the value y,
with Σ π(a)·f(a, y) = 1, is a fair game, and by Ville's inequality no product of such bets ever reaches 1 / α with
probability above α. With more than two variants the pair is looked at alone, its shares made to sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import exp, isfinite, log, sqrt
from operator import attrgetter
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtri

from policies.statistics.difference import Difference
from policies.types import EMPTY, StretchTallies

Array = npt.NDArray[np.float64]
Bounds = tuple[float, float]

#: The differences that are bet on, as log odds ratios of 0/1 values: each with its sign and the opposite. They are a
#: factor 2 apart: a bet on a difference that is off by 1.4 still gains 9/10 of the best. Weights: a difference of 5 to
#: 50 % is what experiments are made for.
LOG_ODDS: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
LOG_ODDS_WEIGHTS: Final = (0.07, 0.18, 0.27, 0.23, 0.25)

#: The same for other values, as differences of means divided by the standard deviation of the values.
DEVIATIONS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)

#: Of a declared effect, that part of the stake is bet on it; the rest on the differences above.
ON_DECLARED: Final = 0.9

#: So many values must have been seen before a rate or a mean is known well enough to choose later bets by.
FEWEST_KNOWN: Final = 200

#: No bet on bounded values risks more than this part of its stake.
BOLDEST: Final = 0.5

#: Rates and shares are kept this far from 0 and 1.
_EDGE: Final = 1e-9


def fresh_difference(
    stretches: Sequence[StretchTallies],
    variant: str,
    baseline: str,
    metric: str,
    *,
    bounds: Bounds | None,
    effect: float | None = None,
    alpha: float = 0.05,
    sums: MetricSums | None = None,
) -> Difference | None:
    """Return how much higher the variant's mean is than the baseline's, and the p-value of no difference.

    ``p`` is min(1, 1 / E), E the mean of many bets (``log_e_value``). Given the values, E has mean exactly 1 at every
    look where the variants do not differ, so the probability that p ever falls to α or below is at most α. ``p`` is
    that of the present look: it may rise again. A p whose bets point the other way than the difference is 1.

    ``bounds`` are the (low, high) that each value is known to lie in, None when none are known. ``effect`` is the
    smallest difference of means that matters, if it was declared before the data came: most is then bet on it. The
    band is a description, at confidence 1 − ``alpha`` for one look: contrasts within stretches, each weighted by its
    overlap n₀·n₁ / (n₀ + n₁), so that a cycle of the rates while shares move is not taken for a difference. None
    while no stretch of known shares has values of both variants. ``sums`` are those of the stretches,
    if they were made before.

    Source: Turner, Ly & Grünwald 2024, "Generic e-variables for exact sequential k-sample tests"; Li, Morgan &
    Zaslavsky 2018, JASA 113(521), overlap weights.

    >>> from policies.types import Tally
    >>> def of(successes: int, n: int) -> Tally:
    ...     return Tally(n, successes, successes, n, n, successes, d_max=1)
    >>> one = StretchTallies({"a": 0.5, "b": 0.5}, {("a", "click"): of(400, 1000), ("b", "click"): of(500, 1000)})
    >>> found = fresh_difference([one], "b", "a", "click", bounds=(0, 1))
    >>> round(found.difference, 3), round(found.low, 3), round(found.high, 3), found.method, found.p < 0.001
    (0.1, 0.056, 0.144, 'e_process', True)
    """
    pair = pair_of(stretches, variant, baseline, metric) if sums is None else sums.pair(variant, baseline)
    band = None if pair is None else _band(pair, alpha)
    if pair is None or band is None:
        return None
    up, down = log_e_values(pair, bounds=bounds, effect=effect)
    difference, low, high, relative = band
    agrees = difference != 0 and (up > down) == (difference > 0)
    p = min(1.0, exp(-max(float(np.logaddexp(up, down)) - log(2), 0.0))) if agrees else 1.0
    return Difference(difference, low, high, "e_process", p=p, relative=relative, described=True)


def beyond(pair: Pair, margin: float, *, bounds: Bounds | None, alpha: float) -> tuple[bool, bool]:
    """Return whether the variant's mean is higher than the baseline's by more than ``margin``, and whether by less.

    They are bets on a higher and on a lower mean, where ``margin`` is taken off each value of the variant. Where the
    difference is at most the margin at every moment, the probability that the first is ever True is at most ``alpha``;
    likewise the second, where it is at least the margin. How boldly is bet follows from how much values varied, as if
    some more had varied as much as bounds allow: that no request of thirty had a rare event says little of how rare it
    is.
    """
    mean, deviation = _moments(pair)
    sizes = np.broadcast_to(np.array(DEVIATIONS), (len(mean), len(DEVIATIONS)))
    weights = np.full(len(DEVIATIONS), 1 / len(DEVIATIONS))
    m, m2, md = pair.m.copy(), pair.m2.copy(), pair.md.copy()
    m[:, 1] -= margin * pair.d[:, 1]
    m2[:, 1] += margin * margin * pair.d2[:, 1] - 2 * margin * pair.md[:, 1]
    md[:, 1] -= margin * pair.d2[:, 1]
    less = replace(pair, m=m, m2=m2, md=md)
    mean = mean - margin * pair.share
    if bounds is None:
        gains = _free_bets(less, mean, deviation, sizes)
    else:
        n = np.maximum(_known(np.cumsum(pair.n.sum(1)), np.ones(len(mean)), pair.d.sum(1)), 1.0)
        more = -2 * log(alpha)
        deviation = np.sqrt((n * deviation**2 + more * (bounds[1] - bounds[0]) ** 2 / 4) / (n + more))
        wider = min(bounds[0], bounds[0] - margin), max(bounds[1], bounds[1] - margin)
        gains = _bounded_bets(less, wider, mean, deviation, sizes)
    return _mixed(gains[0], weights) > -log(alpha), _mixed(gains[1], weights) > -log(alpha)


@dataclass(frozen=True, slots=True)
class Pair:
    """Sums of two variants by stretch: arrays of shape (stretches, 2), the baseline first, but for ``share``.

    ``share`` is the variant's share of the pair in (0, 1). A stretch of which one of the two had no share is left out,
    and one with impossible sums; the others keep their order.
    """

    share: Array
    n: Array
    m: Array
    m2: Array
    d: Array
    d2: Array
    md: Array
    d_max: Array

    @property
    def binary(self) -> bool:
        """Whether each unit has one value and that is 0 or 1. Follows from the values, whichever variant they were."""
        return bool(np.all(self.n == self.d) and np.all(self.m == self.m2))

    def squares(self, mean: Array) -> Array:
        """Return Σ(M − mean·D)² by stretch and side; ``mean`` has shape (stretches,)."""
        mean = mean[:, None]
        return np.maximum(self.m2 - 2 * mean * self.md + mean**2 * self.d2, 0.0)


class MetricSums:
    """The sums of one metric by stretch and variant, as arrays: made once for all pairs of a route's variants."""

    def __init__(self, stretches: Sequence[StretchTallies], metric: str) -> None:
        self._places = {
            name: at for at, name in enumerate(sorted({name for one in stretches for name, _ in one.tallies}))
        }
        names = list(self._places)
        self._shares = np.array([[one.shares.get(name, 0.0) for name in names] for one in stretches], float)
        rows = [_SUMS(one.tallies.get((name, metric), EMPTY)) for one in stretches for name in names]
        self._sums = np.array(rows, float).reshape(len(stretches), len(names), len(_COLUMNS))

    def pair(self, variant: str, baseline: str) -> Pair | None:
        """Return the sums of two variants; None while no stretch of known shares has values of either."""
        if variant not in self._places or baseline not in self._places:
            return None
        sides = [self._places[baseline], self._places[variant]]
        shares, sums = self._shares[:, sides], self._sums[:, sides]
        counts = sums[:, :, [_COLUMNS.index(name) for name in ("n", "d", "m2")]]
        with np.errstate(invalid="ignore"):
            known = np.isfinite(sums).all((1, 2)) & (counts >= 0).all((1, 2))
            known &= (shares > 0).all(1) & (counts[:, :, 0].sum(1) > 0)
        if not known.any():
            return None
        shares, sums = shares[known], sums[known]
        share = np.clip(shares[:, 1] / shares.sum(1), _EDGE, 1 - _EDGE)
        return Pair(share, *(sums[:, :, at] for at in range(len(_COLUMNS))))


_COLUMNS: Final = tuple(field.name for field in fields(Pair)[1:])
_SUMS: Final = attrgetter(*_COLUMNS)


def pair_of(stretches: Sequence[StretchTallies], variant: str, baseline: str, metric: str) -> Pair | None:
    """Return the sums of two variants; None while no stretch of known shares has values of either."""
    return MetricSums(stretches, metric).pair(variant, baseline) if stretches else None


def log_e_values(pair: Pair, *, bounds: Bounds | None, effect: float | None = None) -> tuple[float, float]:
    """Return the logarithms of what bets on a higher and on a lower mean of the variant made of 1, in this order.

    Their mean is the e-value. Each is a mixture over the sizes of the difference, which all stretches share. What else
    a bet must know (the rate, or mean and deviation of the values) it takes from earlier stretches; in the first ones,
    until ``FEWEST_KNOWN`` values are there, from the values of these themselves, whichever variant they went to. So
    after the first stretches the e-value is a martingale, exactly; within them its mean is exactly 1 at each look, and
    it changes so little with the rate that over all looks it stayed below α in simulations.
    """
    if pair.binary and bounds == (0.0, 1.0):
        return _log_odds_bets(pair, effect)
    mean, deviation = _moments(pair)
    sizes = np.array(DEVIATIONS)
    weights = np.full(len(sizes), 1 / len(sizes))
    scaled = np.broadcast_to(sizes, (len(mean), len(sizes)))
    if effect:
        declared = np.abs(effect) / deviation
        scaled = np.column_stack([scaled, declared])
        weights = np.append(weights * (1 - ON_DECLARED), ON_DECLARED)
    gains = (
        _bounded_bets(pair, bounds, mean, deviation, scaled) if bounds else _free_bets(pair, mean, deviation, scaled)
    )
    return _mixed(gains[0], weights), _mixed(gains[1], weights)


def _log_odds_bets(pair: Pair, effect: float | None) -> tuple[float, float]:
    """Return both logarithms for 0/1 values: Π p_A(Y) / Σ_a π(a)·p_a(Y).

    The rates p of the two differ by a log odds ratio and average to the known rate by their shares.
    """
    rate = np.clip(_known(pair.m.sum(1) + 0.5, pair.d.sum(1) + 1.0, pair.d.sum(1)), _EDGE, 1 - _EDGE)
    sizes = np.broadcast_to(np.array(LOG_ODDS), (len(rate), len(LOG_ODDS)))
    weights = np.array(LOG_ODDS_WEIGHTS)
    if effect:
        half = abs(effect) / 2
        declared = logit(np.clip(rate + half, _EDGE, 1 - _EDGE)) - logit(np.clip(rate - half, _EDGE, 1 - _EDGE))
        sizes = np.column_stack([sizes, declared])
        weights = np.append(weights * (1 - ON_DECLARED), ON_DECLARED)
    share, successes = pair.share[:, None], np.clip(pair.m, 0.0, pair.d)
    failures = pair.d - successes
    found = []
    for signed in (sizes, -sizes):
        other = expit(logit(rate)[:, None] + (1 - share) * signed)
        one = expit(logit(rate)[:, None] - share * signed)
        both = share * other + (1 - share) * one
        gains = (
            successes[:, :1] * np.log(one / both)
            + successes[:, 1:] * np.log(other / both)
            + failures[:, :1] * np.log((1 - one) / (1 - both))
            + failures[:, 1:] * np.log((1 - other) / (1 - both))
        )
        found.append(_mixed(gains.sum(0), weights))
    return found[0], found[1]


def _bounded_bets(pair: Pair, bounds: Bounds, mean: Array, deviation: Array, sizes: Array) -> tuple[Array, Array]:
    """Return the logarithms by size for bounded values: Π(1 ± λs), s = (M − μD)·(1{variant}/π − 1{baseline}/(1 − π)).

    From sums, by log(1 + λs) ≥ λs − s²·(−log(1 − λb) − λb)/b² for |s| ≤ b and 0 ≤ λb < 1. λ = size·π(1 − π)/deviation
    is what gains most from a difference of that size.

    Source: Fan, Grama & Liu 2015, "Exponential inequalities for martingales with applications", Lemma 4.1.
    """
    share = pair.share
    reach = np.maximum(bounds[1] - mean, mean - bounds[0]) * np.maximum(pair.d_max.max(1), 1.0)
    bound = np.maximum(reach, 1e-300) / np.minimum(share, 1 - share)
    each = pair.m - mean[:, None] * pair.d
    squares = pair.squares(mean)
    total = (each[:, 1] / share - each[:, 0] / (1 - share))[:, None]
    spread = (squares[:, 1] / share**2 + squares[:, 0] / (1 - share) ** 2)[:, None]
    bound = bound[:, None]
    risk = np.minimum(sizes * (share * (1 - share) / deviation)[:, None] * bound, BOLDEST)
    cost = (-np.log1p(-risk) - risk) / bound**2 * spread
    gain = risk / bound * total
    return (gain - cost).sum(0), (-gain - cost).sum(0)


def _free_bets(pair: Pair, mean: Array, deviation: Array, sizes: Array) -> tuple[Array, Array]:
    """Return the logarithms by size for values without known bounds: exp(θΣ(M − μD)(A − π) − θ²·c·Σ(M − μD)²).

    Given the values, each term is bounded by its own value, whatever that is: c = (1 − 2π) / (4·log((1 − π)/π)), which
    is 1/8 at a half. So heavy tails cost power, never validity.

    Two variants may have the same mean and still differ: if the one with few requests varies more, c is too little.
    So the price is never below ½·θ²·Σ(M − μD)²·(A − π)², the squares as they fell. That keeps the e-value exact for
    variants that do not differ, and makes it hold for equal means in the limit of many requests.

    Source: Kearns & Saul 1998, "Large deviation methods for approximate probabilistic inference".
    """
    share = pair.share
    away = 1 - 2 * share
    c = np.where(
        np.abs(away) < 1e-4, 1 / 8, away / (4 * np.where(np.abs(away) < 1e-4, 1.0, np.log((1 - share) / share)))
    )
    each = pair.m - mean[:, None] * pair.d
    total = (each[:, 1] * (1 - share) - each[:, 0] * share)[:, None]
    theta = sizes * (share * (1 - share) / (2 * c * deviation))[:, None]
    squares = pair.squares(mean)
    fallen = (squares[:, 1] * (1 - share) ** 2 + squares[:, 0] * share**2)[:, None] / 2
    cost = np.maximum((theta**2 * c[:, None] * squares.sum(1)[:, None]).sum(0), (theta**2 * fallen).sum(0))
    gain = (theta * total).sum(0)
    return gain - cost, -gain - cost


def _moments(pair: Pair) -> tuple[Array, Array]:
    """Return the mean of the values and the standard deviation of a unit's M − mean·D, as known for each stretch."""
    d, n = pair.d.sum(1), pair.n.sum(1)
    mean = _known(pair.m.sum(1), d, d)
    square = _known(pair.m2.sum(1), n, d) - 2 * mean * _known(pair.md.sum(1), n, d)
    square = square + mean**2 * _known(pair.d2.sum(1), n, d)
    return mean, np.sqrt(np.maximum(square, 1e-300))


def _known(sums: Array, counts: Array, values: Array) -> Array:
    """Return Σsums / Σcounts of the stretches before each; for the first ones, of these together.

    The first ones are those up to the one with which ``FEWEST_KNOWN`` values are there.
    """
    first = int(np.searchsorted(np.cumsum(values), FEWEST_KNOWN))
    ratio = np.cumsum(sums) / np.maximum(np.cumsum(counts), 1e-300)
    before = np.concatenate([ratio[:1], ratio[:-1]])
    before[: first + 1] = ratio[min(first, len(ratio) - 1)]
    return before


def _mixed(logs: Array, weights: Array) -> float:
    """Return log Σ weight·exp(log), finite."""
    total = float(np.logaddexp.reduce(logs + np.log(weights)))
    return total if isfinite(total) else (-1e300 if total < 0 or total != total else 1e300)


def _band(pair: Pair, alpha: float) -> tuple[float, float, float, tuple[float, float, float] | None] | None:
    """Return the overlap-weighted difference with a normal band, and the same relative to the baseline's mean."""
    both = (pair.d[:, 0] > 0) & (pair.d[:, 1] > 0)
    if not both.any():
        return None
    d, m, n = pair.d[both], pair.m[both], pair.n[both].sum(1)
    weights = d[:, 0] * d[:, 1] / d.sum(1)
    weights = weights / weights.sum()
    means = m / d
    squares = pair.squares(pair.m.sum(1) / np.maximum(pair.d.sum(1), 1e-300))[both].sum(1)
    variance = squares / d.sum(1) * (n / np.maximum(n - 1, 1))
    one, other = (float(weights @ means[:, side]) for side in (0, 1))
    errors = [float(weights**2 @ (variance / d[:, side])) for side in (0, 1)]
    z = -float(ndtri(alpha / 2))
    difference, margin = other - one, z * sqrt(sum(errors))
    relative = None
    if abs(one) > z * sqrt(errors[0]):
        ratio = difference / one
        reach = z * sqrt(errors[1] + (1 + ratio) ** 2 * errors[0]) / abs(one)
        relative = (ratio, ratio - reach, ratio + reach)
    return difference, difference - margin, difference + margin, relative
