"""What variants have shown of each other within stretches of constant shares, as counts that can be pooled.

Rule: closed forms on sums by stretch. Between stretches the world may have changed, and the shares with it: that one
variant had more of its traffic in a good week says nothing about the variant.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

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

    Where the rates did not change from stretch to stretch by more than chance explains, different stretches compare as
    well. So of each stretch a part is pooled with such parts of the others (``_changing``): all of it, nearly, in a
    steady world, and next to nothing where rates cycle.

    Where the shares of a stretch are not known, the shares of its values stand for them. Impossible tallies count for
    nothing.

    Source: Li, Morgan & Zaslavsky 2018, JASA 113(521), overlap weights; Rücker 2012, Research Synthesis Methods 3(4),
    fitting all pairs together; DerSimonian & Laird 1986, Controlled Clinical Trials 7(3), how much levels vary.

    >>> from policies.types import Tally
    >>> def of(successes: int, n: int) -> Tally:
    ...     return Tally(n, successes, successes, n, n, successes)
    >>> week = StretchTallies({"a": 0.5, "b": 0.5}, {("a", "click"): of(50, 500), ("b", "click"): of(50, 500)})
    >>> end = StretchTallies({"a": 0.1, "b": 0.9}, {("a", "click"): of(40, 100), ("b", "click"): of(360, 900)})
    >>> (a, not_a), (b, not_b) = effective_counts([week, end], ["a", "b"], "click")
    >>> round(a / (a + not_a), 2), round(b / (b + not_b), 2), round(a + not_a), round(b + not_b)
    (0.26, 0.26, 514, 1007)
    """
    successes, trials, shares = _sums(stretches, variants, metric)
    if not len(shares) or np.all(shares == shares[0]):
        return _pairs(successes.sum(0), trials.sum(0))
    due = trials.sum(1, keepdims=True) * shares
    changing = _changing(successes, trials, _fitted(successes, trials, due)[0])[:, None]
    parts = [np.vstack([changing * sums, ((1 - changing) * sums).sum(0)]) for sums in (successes, trials, due)]
    odds, overlap = _fitted(*parts)
    kept = trials.sum(0) * _comparable(due.sum(0), overlap)
    return _pairs(kept * expit(odds), kept)


def _fitted(successes: Array, trials: Array, due: Array) -> tuple[Array, Array]:
    """Return each variant's log odds and, by pair, the overlap; sums are by stretch and variant.

    ``due`` are trials by the shares, and not as they fell: so at constant shares all weights are exactly constant.
    """
    both = due[:, :, None] + due[:, None, :]
    weights = np.divide(due[:, None, :], both, out=np.zeros_like(both), where=both > 0)
    good = np.einsum("ka,kab->ab", successes, weights) + _ZERO
    bad = np.einsum("ka,kab->ab", trials - successes, weights) + _ZERO
    overlap = np.einsum("ka,kab->ab", due, weights)
    squares = np.einsum("ka,kab,kab->ab", due, weights, weights)
    information = np.divide(overlap**2, squares, out=np.zeros_like(squares), where=squares > 0)
    information *= good * bad / (good + bad) ** 2
    pair = _parallel(information, information.T)
    np.fill_diagonal(pair, 0.0)
    odds = np.log(good / bad)
    all_good, all_bad = successes.sum(0) + _ZERO, (trials - successes).sum(0) + _ZERO
    level = _OWN * _parallel(all_good, all_bad)
    right = (pair * (odds - odds.T)).sum(1) + level * np.log(all_good / all_bad)
    return np.linalg.solve(np.diag(pair.sum(1) + level) - pair, right), overlap


def _changing(successes: Array, trials: Array, odds: Array) -> Array:
    """Return by stretch the part, in [0, 1), of its evidence that must not be compared with other stretches.

    That is V·τ² / (1 + V·τ²), V the information of a stretch on its own level of log odds and τ² the variance of the
    levels, by the method of moments and one standard deviation more than that: rates are not taken for steady until
    they have been seen to be.
    """
    rates = expit(odds)
    level = successes.sum() / max(trials.sum(), _ZERO)
    information = np.maximum(trials @ (rates * (1 - rates)), _ZERO)
    expected = trials @ rates
    # Contrasts leave the level open: it is fitted by one step.
    shift = (successes.sum() - expected.sum()) / information.sum() if 0 < level < 1 else 0.0
    apart = successes.sum(1) - expected - shift * information
    freedom = len(apart) - 1
    excess = (apart**2 / information).sum() - freedom + sqrt(2 * freedom)
    spread = information.sum() - (information**2).sum() / information.sum()
    variance = max(excess, 0.0) / max(spread, _ZERO)
    part = information * variance / (1 + information * variance)
    return np.asarray(part, float)


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
