"""What variants have shown of each other within stretches of constant shares, as counts that can be pooled.

Rule: closed forms on sums by stretch. Between stretches the world may have changed, and the shares with it: that one
variant had more of its traffic in a good week says nothing about the variant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from policies.types import EMPTY, StretchTallies

Array = npt.NDArray[np.float64]

#: Counts of zero have no logarithm; this is added.
_ZERO = 1e-6

#: How strongly, relative to contrasts, a variant's own pooled rate decides its level. Contrasts do not fix the level
#: that all variants share, nor that of a variant which never stood beside another.
_OWN = 1e-8

#: How strongly, relative to contrasts, counts are kept near the plain sums.
_NEAR = 1e-9


def effective_counts(
    stretches: Sequence[StretchTallies], variants: Sequence[str], metric: str
) -> tuple[tuple[float, float], ...]:
    """Return (successes, failures) of each variant as if all had been drawn at constant shares.

    While the shares were constant these are the plain sums, exactly, whatever the rates did: then each variant met the
    same mixture of times. Otherwise two variants a and b are compared by sums in which a stretch counts with weight
    π(b) / (π(a) + π(b)) for a, and with π(a) / (π(a) + π(b)) for b: so weighted, both met the same mixture. The log
    odds of all variants are fitted to those of their pairs by least squares, each pair weighted by its information.
    A variant's count is its sum, less what of it cannot be compared: so that its contrasts have the variance that they
    would have with that count at constant shares (``_comparable``).

    Where the shares of a stretch are not known, the shares of its values stand for them. Impossible tallies count for
    nothing.

    Source: Li, Morgan & Zaslavsky 2018, JASA 113(521), overlap weights; Kish 1965, effective sample size. Fitting all
    pairs together is as in network meta-analysis (Rücker 2012, Research Synthesis Methods 3(4)).

    >>> from policies.types import Tally
    >>> def of(successes: int, n: int) -> Tally:
    ...     return Tally(n, successes, successes, n, n, successes)
    >>> week = StretchTallies({"a": 0.5, "b": 0.5}, {("a", "click"): of(50, 500), ("b", "click"): of(50, 500)})
    >>> end = StretchTallies({"a": 0.1, "b": 0.9}, {("a", "click"): of(40, 100), ("b", "click"): of(360, 900)})
    >>> (a, not_a), (b, not_b) = effective_counts([week, end], ["a", "b"], "click")
    >>> round(a / (a + not_a), 6) == round(b / (b + not_b), 6), round(a + not_a), round(b + not_b)
    (True, 514, 1006)
    """
    successes, trials, shares = _sums(stretches, variants, metric)
    total = successes.sum(0), trials.sum(0)
    if not len(shares) or np.all(shares == shares[0]):
        return _pairs(*total)
    both = shares[:, :, None] + shares[:, None, :]
    weights = np.divide(shares[:, None, :], both, out=np.zeros_like(both), where=both > 0)
    due = trials.sum(1)[:, None] * shares
    good = np.einsum("ka,kab->ab", successes, weights) + _ZERO
    bad = np.einsum("ka,kab->ab", trials - successes, weights) + _ZERO
    overlap = np.einsum("ka,kab->ab", due, weights)
    squares = np.einsum("ka,kab,kab->ab", due, weights, weights)
    information = np.divide(overlap**2, squares, out=np.zeros_like(squares), where=squares > 0)
    information *= good * bad / (good + bad) ** 2
    pair = _parallel(information, information.T)
    np.fill_diagonal(pair, 0.0)
    odds = np.log(good / bad)
    own = np.log((total[0] + _ZERO) / (total[1] - total[0] + _ZERO))
    level = _OWN * _parallel(total[0] + _ZERO, total[1] - total[0] + _ZERO)
    fitted = np.linalg.solve(np.diag(pair.sum(1) + level) - pair, (pair * (odds - odds.T)).sum(1) + level * own)
    kept = total[1] * _comparable(due.sum(0), overlap)
    return _pairs(kept * expit(fitted), kept)


def _comparable(due: Array, overlap: Array) -> Array:
    """Return which part of each variant's count its contrasts are worth: 1 at constant shares.

    The difference of a and b has the variance 1 / overlap(a, b), in units of σ². The parts are such that the variances
    of single variants add up to these, nearly: least squares of the relative errors, and of all solutions (there are
    many for two variants) the one nearest to the plain sums.
    """
    squares = overlap**2
    np.fill_diagonal(squares, 0.0)
    largest = squares.max(1)
    seen = (due > 0) & (largest > 0)
    plain = 1 / np.where(seen, due, 1.0)
    near = np.where(seen, _NEAR * largest, 1.0)
    sums = np.where(squares > 0, overlap, 0.0).sum(1)
    fitted = np.linalg.solve(np.diag(squares.sum(1) + near) + squares, np.where(seen, sums, 0.0) + near * plain)
    return np.where(seen, np.minimum(plain / np.maximum(fitted, plain), 1.0), 0.0)


def _sums(stretches: Sequence[StretchTallies], variants: Sequence[str], metric: str) -> tuple[Array, Array, Array]:
    """Return successes, trials and shares, each of shape (stretches, variants); shares sum to 1."""
    keys = [(variant, metric) for variant in variants]
    shape = len(stretches), len(keys)
    # Plain comprehensions: a bandit of ten variants may have ten thousand tallies, and plans once a second.
    tallies = [stretch.tallies.get(key, EMPTY) for stretch in stretches for key in keys]
    trials = np.array([tally.d for tally in tallies], float).reshape(shape)
    successes = np.array([tally.m for tally in tallies], float).reshape(shape)
    trials[~(np.isfinite(trials) & np.isfinite(successes) & (trials > 0))] = 0.0
    successes = np.where(trials > 0, np.clip(successes, 0.0, trials), 0.0)
    shares = np.array([stretch.shares.get(name, 0.0) for stretch in stretches for name in variants], float)
    shares = np.maximum(shares.reshape(shape), 0.0)
    shares = np.where(shares.sum(1, keepdims=True) > 0, shares, trials)
    used = trials.sum(1) > 0
    shares = shares[used] / shares[used].sum(1, keepdims=True)
    return successes[used], trials[used], shares


def _parallel(one: Array, other: Array) -> Array:
    """Return one·other / (one + other), 0 where both are."""
    both = one + other
    return np.divide(one * other, both, out=np.zeros_like(both), where=both > 0)


def _pairs(successes: Array, trials: Array) -> tuple[tuple[float, float], ...]:
    return tuple((float(s), float(n - s)) for s, n in zip(successes, trials, strict=True))
