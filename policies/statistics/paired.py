"""Whether two variants differ that answered the same requests: bets on the signs of units' differences.

Rule: the only input is the tally of differences, M a unit's sum of differences and D its number of pairs. Nothing is
assumed about how a unit's requests go together, nor about how far their values are spread.

The argument. Suppose that the variants do not differ: each of them would have given either answer of a pair as well as
the other. Then, given how large every unit's difference is, its sign is a fair coin. Bets on coins are a fair game, and
by Ville's inequality no product of them ever reaches 1 / α with probability above α. For 0/1 values with one pair a
unit these are the discordant pairs of McNemar's test.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, exp, fsum, inf, isfinite, log, log1p, sqrt
from typing import Final

from policies.statistics.difference import Difference
from policies.statistics.sequential import mean_interval
from policies.types import Tally, distinct_share

Bounds = tuple[float, float]

#: The numbers of differing units at which half of the stake each is bet best. From 20 to 20,000 the interval is then at
#: most an eighth wider than the best for the number that it came to.
BEST_AT: Final = (50.0, 5000.0)

#: Units that skewed values need, as a multiple of their squared skewness. Simulated with a look at every 100 of 20,000
#: pairs, mean 0: lognormal losses of one in twenty pairs (σ 1 to 2) to one side were ever taken for a difference in at
#: most .003 of 300 experiments with 50, in .05 with 25, and in .2 to .8 without a bound.
SKEWNESS_FACTOR: Final = 50.0

#: Twice the logarithm of 20 and the logarithm of that and 1: with it the bet is best (Howard et al., Proposition 3).
_SPREAD: Final = 2 * log(20) + log1p(2 * log(20))


def paired_difference(
    tally: Tally, *, bounds: Bounds | None, symmetric: bool = True, alpha: float = 0.05
) -> Difference | None:
    """Return the mean difference ΣM / ΣD, where it lies, and the p-value of no difference; None with no pairs.

    The bet against a difference of δ multiplies exp(λ(M − δD) − λ²(M − δD)²/2) over units, mixed over a normal λ: its
    mean is at most 1 for each unit whose M − δD is as likely positive as negative. ``p`` is 1 over the bet against
    δ = 0, and the interval holds the δ whose bets stay below 1 / ``alpha``: it excludes 0 exactly where p < ``alpha``.
    Against 0 this is exact; against other δ it holds in the limit of many units, which self-normalised sums reach soon.
    The probability holds over all looks where units are complete when they come in (requests always are). While units
    still grow it holds for each look; over all looks the error stayed below α in simulations.

    ``bounds`` are those of a difference; None: none are known. With too few units the interval is as wide as they are.
    ``symmetric`` False: values without bounds may have a mean of 0 and seldom large values to one side. Then no
    decision may be taken until there are enough units for values as skewed as these (``SKEWNESS_FACTOR``).

    Source: de la Peña 1999, Ann. Probab. 27(1), Lemma 6.1, for symmetric terms; mixed as in Howard, Ramdas, McAuliffe &
    Sekhon 2021, Ann. Statist. 49(2), normal mixture; McNemar 1947 for pairs of 0/1 values.

    >>> wins, losses = [(1.0, 1.0)] * 75, [(-1.0, 1.0)] * 25
    >>> found = paired_difference(Tally.of_units([*wins, *losses, *[(0.0, 1.0)] * 900]), bounds=(-1, 1))
    >>> round(found.difference, 3), round(found.low, 3), round(found.high, 3), found.p < 0.001
    (0.05, 0.017, 0.083, True)
    """
    sums = (tally.m, tally.m2, tally.d, tally.d2, tally.md)
    if not (tally.n > 0 and tally.d > 0 and all(map(isfinite, sums))):
        return None
    differing: float = max(tally.positive, 0) + max(tally.negative, 0)
    mean = tally.m / tally.d
    widest = (-inf, inf) if bounds is None else bounds
    if not differing or tally.m2 <= 0:
        # All pairs are equal so far. That says how rare differences are, and that is all.
        rare = mean_interval(tally, bounds=bounds, alpha=alpha) if bounds is not None else None
        low, high = widest if rare is None else (rare.low, rare.high)
        return Difference(mean, low, high, "paired_e_process")
    # A unit that comes in several periods tends to differ alike in each: of its terms so much is independent.
    once = distinct_share(tally)
    differing = differing * once
    # Two units more, as different as the mean one, to either side: ten pairs that are all alike are no certainty.
    m2, d2 = tally.m2 * (1 + 2 / differing), tally.d2 * (1 + 2 / (tally.n * once))
    low, high = _inside(mean, widest, replace(tally, m2=m2, d2=d2), _least(differing, alpha) / once)
    p = exp(-max(log_bet(once * tally.m * tally.m / m2, differing), 0.0))
    found = Difference(mean, low, high, "paired_e_process", p=p)
    needed = 0.0 if symmetric else _needed(tally, mean)
    if tally.n >= needed:
        return found
    why = "so few large values decide the mean that no error can be promised yet"
    more = ceil(needed - tally.n) if isfinite(needed) else None
    return replace(found, p=1.0, described=True, withheld=why, needs=more)


def log_bet(score: float, differing: float) -> float:
    """Return the logarithm of what bets on signs made of 1.

    ``score`` is (ΣM)² / ΣM² over the units that differ, of which there are ``differing``. Half of the stake is bet for
    each number in ``BEST_AT``.

    >>> round(log_bet(25.0, 100), 3)
    9.653
    """
    logs = []
    for best in BEST_AT:
        time = _SPREAD * differing / best
        logs.append(score * time / (2 * (1 + time)) - log1p(time) / 2 - log(len(BEST_AT)))
    highest = max(logs)
    return highest + log(fsum(exp(one - highest) for one in logs))


def times_the_sample(pairs: Tally, one: Tally, other: Tally) -> float | None:
    """Return how many times as many requests an A/B test needs for an interval of the same width; None if unknown.

    It gives each variant half of the requests, whose variances add: 2·(σ₁² + σ₂²) / σ², where σ² is that of a unit's
    difference. ``one`` and ``other`` are the variants' own values.

    >>> own = Tally(1000, 500, 500, 1000, 1000, 500)
    >>> round(times_the_sample(Tally(1000, 0, 100, 1000, 1000, 0), own, own), 1)
    10.0
    """
    found = [unit_variance(tally) for tally in (pairs, one, other)]
    if None in found or not found[0]:
        return None
    paired, *unpaired = (variance or 0.0 for variance in found)
    return 2 * sum(unpaired) / paired or None


def _needed(tally: Tally, mean: float) -> float:
    """Return how many units values as skewed as these need; infinite where the sums do not say."""
    squares, cubes = tally.squares(mean), tally.cubes(mean)
    if not (squares > 0 and isfinite(cubes)) or tally.d3 <= 0:
        return inf
    return SKEWNESS_FACTOR * tally.n * (cubes / squares) ** 2 / squares


def unit_variance(tally: Tally) -> float | None:
    """Return the variance of M − D·ΣM/ΣD over units, per mean D squared (delta method); None below two units."""
    sums = (tally.m, tally.m2, tally.d, tally.d2, tally.md)
    if tally.n < 2 or tally.d <= 0 or not all(map(isfinite, sums)):
        return None
    return max(tally.squares(tally.m / tally.d), 0.0) * tally.n / tally.d / tally.d


def _least(differing: float, alpha: float) -> float:
    """Return the score at which the bet has made 1 / α."""
    low, high = 0.0, 1.0
    while log_bet(high, differing) < -log(alpha):
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if log_bet(middle, differing) < -log(alpha):
            low = middle
        else:
            high = middle
    return high


def _inside(mean: float, widest: Bounds, tally: Tally, least: float) -> Bounds:
    """Return the δ with (ΣM − δΣD)² < ``least``·Σ(M − δD)², which are those between the roots of a parabola."""
    a = tally.d * tally.d - least * tally.d2
    b = tally.m * tally.d - least * tally.md
    c = tally.m * tally.m - least * tally.m2
    if a <= 0:
        return widest
    reach = sqrt(max(b * b - a * c, 0.0))
    return max(min((b - reach) / a, mean), widest[0]), min(max((b + reach) / a, mean), widest[1])
