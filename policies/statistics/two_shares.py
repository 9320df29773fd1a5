"""How far two shares of independent trials are apart, exactly and at every look: for failures, refusals, coverage.

Rule: closed forms on counts; no numpy, so that routes without heavy statistics import none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import acos, cos, isfinite, lgamma, log, pi, sqrt
from typing import Final, NamedTuple

#: What is expected of a share before it is known, as of so many successes and failures: it may be small or large.
PRIOR: Final = (0.5, 1.5)

#: Halvings of an interval of at most 2: to 2e-6.
_STEPS: Final = 20


class Trials(NamedTuple):
    """So many successes of so many trials, on the baseline's side and on the variant's."""

    k0: float
    n0: float
    k1: float
    n1: float


def share_gap(strata: Sequence[Trials], *, alpha: float = 0.05) -> tuple[float, float]:
    """Return (low, high) of how much larger the variant's share of successes is than the baseline's.

    The share of a side may differ between strata; the difference may not. A difference is refuted when the likelihood
    of the data, averaged over two shares drawn from a Beta prior, is 1 / ``alpha`` times as large as the largest one
    that it allows. Where it is true that ratio is at most a nonnegative martingale that begins at 1, so the probability
    of ever refuting it, at any look, is at most alpha. Exact for any number of trials; without any it is [−1, 1].
    Impossible counts are clamped.

    Source: Wasserman, Ramdas & Balakrishnan 2020, "Universal inference", PNAS 117(29), section 8; the restricted
    maximum, Miettinen & Nurminen 1985, Stat. Med. 4(2).

    >>> low, high = share_gap([Trials(0, 320, 8, 80)])
    >>> round(low, 3), round(high, 3)
    (0.017, 0.277)
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    clean = [one for one in map(_clamped, strata) if one.n0 > 0 and one.n1 > 0]
    if not clean:
        return -1.0, 1.0
    evidence = _log_average(clean) + log(alpha)
    middle = _gap(clean)

    def refuted(difference: float) -> bool:
        return sum(_log_largest(one, difference) for one in clean) <= evidence

    if refuted(middle):  # strata contradict each other so much that no one difference explains them
        return -1.0, 1.0
    return _edge(refuted, middle, -1.0), _edge(refuted, middle, 1.0)


def _clamped(one: Trials) -> Trials:
    n0, n1 = (n if isfinite(n) and n > 0 else 0.0 for n in (one.n0, one.n1))
    k0, k1 = (min(k, n) if isfinite(k) and k > 0 else 0.0 for k, n in ((one.k0, n0), (one.k1, n1)))
    return Trials(k0, n0, k1, n1)


def _gap(strata: Sequence[Trials]) -> float:
    """Return the difference that the data speak for most: a place between both edges."""
    weights = [one.n0 * one.n1 / (one.n0 + one.n1) for one in strata]
    gaps = [one.k1 / one.n1 - one.k0 / one.n0 for one in strata]
    return sum(weight * gap for weight, gap in zip(weights, gaps, strict=True)) / sum(weights)


def _log_average(strata: Sequence[Trials]) -> float:
    """Return the logarithm of the likelihood averaged over one share for each side."""
    k0, n0, k1, n1 = (sum(column) for column in zip(*strata, strict=True))
    return sum(_log_beta(PRIOR[0] + k, PRIOR[1] + n - k) - _log_beta(*PRIOR) for k, n in ((k0, n0), (k1, n1)))


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _log_largest(one: Trials, difference: float) -> float:
    """Return the largest logarithm of the likelihood of a stratum in which the shares differ by so much."""
    share = _restricted(one, difference)
    return _log_likelihood(one.k0, one.n0, share) + _log_likelihood(one.k1, one.n1, share + difference)


def _log_likelihood(k: float, n: float, share: float) -> float:
    share = min(max(share, 1e-300), 1.0)
    return (k * log(share) if k else 0.0) + ((n - k) * log(max(1 - share, 1e-17)) if n > k else 0.0)


def _restricted(one: Trials, difference: float) -> float:
    """Return the baseline's share that is likeliest where the variant's is larger by so much: the root of a cubic."""
    k0, n0, k1, n1 = one
    ratio, ours, theirs, d = n0 / n1, k1 / n1, k0 / n0, difference
    a = 1 + ratio
    b = -(1 + ratio + ours + ratio * theirs + d * (ratio + 2)) / (3 * a)
    c = (d * d + d * (2 * ours + ratio + 1) + ours + ratio * theirs) / a
    v = b**3 - b * c / 2 - ours * d * (1 + d) / (2 * a)
    u = sqrt(max(b * b - c / 3, 0.0)) * (1 if v > 0 else -1)
    turn = acos(min(max(v / u**3, -1.0), 1.0)) if u else 0.0
    share = 2 * u * cos((pi + turn) / 3) - b - d
    return min(max(share, 0.0, -d), 1.0, 1.0 - d)


def _edge(refuted: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return where the differences that are not refuted end, between one that is not and the farthest there is."""
    if not refuted(outside):
        return outside
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside
