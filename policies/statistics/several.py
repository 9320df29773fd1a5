"""Many comparisons at once: the level that each p-value is held to, so that errors stay rare among all of them.

Rule: a family of comparisons is held to one level, and a comparison of it decides where its p-value is at most that
level. So an interval at the level excludes 0 exactly where its comparison decides. With p-values that hold at every
look, so do both procedures.
"""

from __future__ import annotations

from collections.abc import Sequence


def holm_level(ps: Sequence[float], alpha: float) -> float:
    """Return the level at which a family with these p-values makes any wrong claim with probability at most ``alpha``.

    Of m hypotheses with k found false, the level is alpha / (m − k), or alpha when all are. NaN counts as 1.
    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6.

    >>> holm_level([0.01, 0.04, 0.03, 0.005], 0.05)
    0.025
    """
    m = max(len(ps), 1)
    found = 0
    while True:
        level = alpha / max(m - found, 1)
        more = sum(p <= level for p in ps)
        if more <= found:
            return level
        found = more


def benjamini_hochberg_level(ps: Sequence[float], alpha: float) -> float:
    """Return the level at which, of what a family with these p-values claims, a share ``alpha`` is wrong on average.

    Of m hypotheses with k found false, the level is k · alpha / m, and alpha / m when none is. Intervals at this level
    miss the truth for at most a share alpha of what was claimed. NaN counts as 1.
    Source: Benjamini & Hochberg 1995, JRSS B 57(1); the intervals, Benjamini & Yekutieli 2005, JASA 100(469).

    >>> benjamini_hochberg_level([0.01, 0.04, 0.03, 0.005], 0.05)
    0.05
    """
    m = max(len(ps), 1)
    found = len(ps)
    while True:
        level = max(found, 1) * alpha / m
        fewer = sum(p <= level for p in ps)
        if fewer >= found:
            return level
        found = fewer
