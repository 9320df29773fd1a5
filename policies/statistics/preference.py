"""Which of two rankers users prefer, from the votes of units.

Rule: one unit, one vote. Ties say how often the rankers cannot be told apart, but not which is better.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.statistics.bernoulli import rate_interval
from policies.types import Tally


@dataclass(frozen=True, slots=True)
class Preference:
    """How many units voted for a ranker, against it, and for both alike.

    ``share`` is wins / (wins + losses), None without votes, and lies in [``low``, ``high``]; ``p`` is the exact
    two-sided sign test of one half.
    """

    wins: int
    losses: int
    ties: int
    share: float | None
    low: float
    high: float
    p: float


def preference(tally: Tally, *, alpha: float = 0.05) -> Preference:
    """Return the preference in a tally whose M is positive for a unit that prefers this ranker, negative for the other.

    The interval holds at every look with probability of ever missing the truth at most ``alpha``; ``p`` is for one
    look at a fixed number of votes. Both take votes to be final: a unit should vote when its window has closed.
    Without votes the interval is [0, 1] and p is 1. Impossible counts are clamped to 0.

    Raises ValueError if ``alpha`` is outside (0, 1).
    Source: Chapelle, Joachims, Radlinski & Yue 2012, TOIS 30(1); the interval as in ``bernoulli.rate_interval``.

    >>> found = preference(Tally(n=12, positive=8, negative=2))
    >>> found.wins, found.losses, found.ties, found.share, round(found.p, 6)
    (8, 2, 2, 0.8, 0.109375)
    """
    from scipy.special import bdtr  # takes half a second, and few routes interleave

    wins, losses = max(tally.positive, 0), max(tally.negative, 0)
    votes = wins + losses
    low, high = rate_interval(wins, losses, alpha=alpha)
    return Preference(
        wins=wins,
        losses=losses,
        ties=max(tally.n - votes, 0),
        share=wins / votes if votes else None,
        low=low,
        high=high,
        p=min(1.0, 2 * float(bdtr(min(wins, losses), votes, 0.5))),
    )
