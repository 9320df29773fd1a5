"""An interval for the rate of an event that happens or not, valid at every look.

Rule: closed forms and root finding on two sums; no grids, and safe for sums up to 1e12.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, lgamma, log, log1p

#: At this many trials the interval is tightest: 1.54 times as wide as one that may be looked at once, and at most 1.71
#: times anywhere from 100 to 10,000 trials. Tuning for 5,000, as is usual where means are of millions, would make the
#: intervals of a route with some hundred trials half again as wide.
TIGHTEST_AT_TRIALS = 500

#: Log odds beyond which a rate is 0 or 1: exp(700) is the edge of a double.
FARTHEST = 700.0


def rate_interval(
    successes: float, failures: float, *, alpha: float = 0.05, tightest_at: float = TIGHTEST_AT_TRIALS
) -> tuple[float, float]:
    """Return (low, high) around successes / (successes + failures): all rates that the trials do not refute.

    A rate q is refuted when a bet against it would have multiplied its stake by 1 / alpha. The bet is the likelihood
    ratio of other rates against q, mixed over Beta(c·q, c·(1 − q)), where c follows from ``tightest_at``: a
    nonnegative martingale when q is true, so by Ville's inequality the truth is refuted at any look with probability at
    most ``alpha`` in (0, 1). Counts may be fractions: ``sequential.mean_interval`` says when those are valid.
    With no trials the interval is (0, 1).

    Source: Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021, Ann. Statist. 49(2), beta-binomial mixture.

    >>> low, high = rate_interval(700, 300)
    >>> round(low, 4), round(high, 4)
    (0.6546, 0.7432)
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    concentration = _concentration(alpha, tightest_at)
    low = _lower(successes, failures, concentration, alpha)
    return low, 1 - _lower(failures, successes, concentration, alpha)


def refutes_rate(
    successes: float, failures: float, rate: float, *, alpha: float = 0.05, tightest_at: float = TIGHTEST_AT_TRIALS
) -> bool:
    """Return whether the trials refute a rate in (0, 1): whether it is outside of ``rate_interval``."""
    bet = _log_bet(successes, failures, log(rate / (1 - rate)), _concentration(alpha, tightest_at))
    return bet + log(alpha) > 0


def _concentration(alpha: float, tightest_at: float) -> float:
    """Return the weight of the Beta mixture that is best at so many trials; not below 1e-3.

    Source: Howard et al. 2021, Proposition 3: the mixture's variance.
    """
    spread = -2 * log(alpha)
    return max(tightest_at / (spread + log1p(spread)) - 1, 1e-3)


def _lower(successes: float, failures: float, concentration: float, alpha: float) -> float:
    """Return the smallest rate that is not refuted."""
    # Up to one success the bet against ever smaller rates gains too little to refute any of them. With more, its
    # logarithm is convex in the rate, so the rates that are not refuted are one interval around the observed rate.
    if successes <= 1:
        return 0.0

    def excess(log_odds: float) -> float:
        return _log_bet(successes, failures, log_odds, concentration) + log(alpha)

    near = FARTHEST if failures <= 0 else min(max(log(successes / failures), -FARTHEST), FARTHEST)
    step = 1 / 16
    far = near
    while excess(far) <= 0:
        if far <= -FARTHEST:
            return 0.0
        near, far, step = far, max(far - step, -FARTHEST), 2 * step
    return 1 / (1 + exp(-_root(excess, far, near)))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function crosses 0, to 1e-12, that is above 0 at ``low`` and not at ``high``.

    Secant steps, in which the function's value at an end that stays is halved so that the other end does not creep: ten
    steps or so. Importing scipy.optimize would add half a second to the start of every process that reports.
    Source: the Illinois algorithm, Dowell & Jarratt 1971, BIT 11.
    """
    above, below, stayed = function(low), function(high), 0
    for _ in range(200):
        if below == 0 or high - low <= 1e-12 * max(1.0, abs(high)):
            break
        middle = (low * below - high * above) / (below - above)
        if not low < middle < high:
            middle = (low + high) / 2
        value = function(middle)
        if value > 0:
            low, above, below = middle, value, below / 2 if stayed > 0 else below
            stayed = 1
        else:
            high, below, above = middle, value, above / 2 if stayed < 0 else above
            stayed = -1
    return high


def _log_bet(successes: float, failures: float, log_odds: float, concentration: float) -> float:
    """Return the logarithm of the mixture's likelihood ratio against the rate with these log odds."""
    log_rate, log_rest = -log1p(exp(-log_odds)), -log1p(exp(log_odds))
    a, b = concentration * exp(log_rate), concentration * exp(log_rest)
    trials = successes + failures
    return (
        (lgamma(a + successes) - lgamma(a) - successes * log_rate)
        + (lgamma(b + failures) - lgamma(b) - failures * log_rest)
        - (lgamma(concentration + trials) - lgamma(concentration))
    )
