"""Latency quantiles from counts per logarithmic bucket.

Rule: standard library only. Counts add up across workers and periods in any order, and a quantile is right to within
1 % of its value.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, exp, inf, log

from policies.statistics.bernoulli import refutes_rate

#: Relative error of a quantile. DDSketch's own default.
RELATIVE_ERROR = 0.01

#: A microsecond and eleven days: latencies beyond them, zero and infinity included, count as these. At most 1,498
#: buckets.
SHORTEST_MS, LONGEST_MS = 1e-3, 1e9

_STEP = log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))


def bucket(milliseconds: float) -> int:
    """Return the bucket of a latency: the i with γ^(i−1) < latency ≤ γ^i, where γ = 1.01 / 0.99.

    Raises ValueError if it is NaN, which means that nothing was measured.
    Source: Masson, Rim & Lee 2019, "DDSketch", VLDB 12(12).

    >>> bucket(1.0), bucket(100.0), bucket(101.0)
    (0, 231, 231)
    """
    if milliseconds != milliseconds:
        raise ValueError("a latency must be a number, got nan")
    return ceil(log(min(max(milliseconds, SHORTEST_MS), LONGEST_MS)) / _STEP)


def quantile(buckets: Mapping[int, int], q: float) -> float | None:
    """Return the latency in milliseconds that a share ``q`` in [0, 1] stays below, within 1 %; None without counts.

    Negative counts are taken as 0. Raises ValueError if ``q`` is outside [0, 1].

    >>> round(quantile({bucket(10.0): 99, bucket(500.0): 1}, 0.5), 1)
    10.1
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q must lie in [0, 1], got {q}")
    counts = sorted((index, count) for index, count in buckets.items() if count > 0)
    rank = q * (sum(count for _, count in counts) - 1)
    passed = 0
    for index, count in counts:
        passed += count
        if passed > rank:
            return _value(index)
    return None


def quantile_interval(
    buckets: Mapping[int, int], q: float, *, alpha: float = 0.05, weight: float = 1.0
) -> tuple[float, float] | None:
    """Return (low, high) around the latency that a share ``q`` in (0, 1) stays below; None without counts.

    At the true quantile, the calls below it are ``q`` of all: a latency is refuted when a bet against that, on the
    calls at or below it, would have multiplied its stake by 1 / ``alpha``. So the interval holds at every look, for any
    distribution, with probability of ever missing the truth at most alpha, where calls are independent. Its ends are
    those of buckets: 2 % apart. Without an upper end that the calls support it is infinite. Negative counts are 0.

    Where calls go together, as those of one unit, each counts as ``weight`` ≤ 1 of a trial.

    Raises ValueError if ``q`` or ``alpha`` is outside (0, 1).
    Source: Howard & Ramdas 2022, "Sequential estimation of quantiles", Bernoulli 28(3), section 3; the bet as in
    ``bernoulli.rate_interval``.

    >>> low, high = quantile_interval({bucket(10.0): 900, bucket(500.0): 100}, 0.95)
    >>> round(low), round(high)
    (493, 503)
    """
    if not 0 < q < 1:
        raise ValueError(f"q must lie in (0, 1), got {q}")
    counts = sorted((index, count) for index, count in buckets.items() if count > 0)
    total = sum(count for _, count in counts)
    if not total:
        return None

    def refuted(below: int) -> bool:
        return refutes_rate(weight * below, weight * (total - below), q, alpha=alpha)

    passed, low, high = 0, 0.0, inf
    for index, count in counts:
        if passed <= q * total and refuted(passed):  # too few lie below this bucket, or it would be wider
            low = exp((index - 1) * _STEP)
        passed += count
        if passed >= q * total and refuted(passed):
            high = exp(index * _STEP)
            break
    return low, high


def _value(index: int) -> float:
    """Return the latency whose relative distance to both ends of the bucket is the same: 2γ^i / (γ + 1)."""
    return 2 * exp(index * _STEP) / (exp(_STEP) + 1)
