"""Which of two rankers users prefer, from the votes of units.

Rule: one unit, one vote in a period, and its votes of all periods together weigh as much as one. Ties say how often the
rankers cannot be told apart, but not which is better.

What makes the vote valid. Each request draws anew which ranker's item stands first, so between rankers that are alike
the sign of a request's credit is a fair coin, whatever units, items and times do; and between rankers that are liked by
as many units as are not, the sign of a unit's sum is one. Only closed windows vote. A unit that comes back may change
its sign, though, and then the votes are no sequence of bets of which each is made once. Of a random walk, signs that
are a factor 2 of its steps apart are half independent, so the number of looks that count as new grows with the
logarithm of the votes cast by a unit. The stake is divided among them: E by 1 + 2·ln(values per unit). A unit that
comes once costs nothing. Simulated with fixed groups of 20 to 1,000 units that vote up to 1,000 times each.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isfinite, lgamma, log, log1p
from typing import Final

from policies.statistics.bernoulli import rate_interval
from policies.statistics.difference import Difference
from policies.types import Tally, distinct_share

#: The bet on the share of wins is mixed over Beta(10, 10): most of it between 30 and 70 %. From 50 to 5,000 votes no
#: other mixture needs less than 9/10 of the votes that it needs.
CONCENTRATION: Final = 10.0


@dataclass(frozen=True, slots=True)
class Preference:
    """How many units voted for a ranker, against it, and for both alike.

    ``share`` is wins / (wins + losses), None without votes, and lies in [``low``, ``high``]; ``p`` is the always-valid
    p-value of one half: it is at most α exactly where the interval excludes one half.
    """

    wins: int
    losses: int
    ties: int
    share: float | None
    low: float
    high: float
    p: float

    def difference(self) -> Difference | None:
        """Return the share of the votes less one half, as the result of a comparison; None without votes."""
        if self.share is None:
            return None
        return Difference(self.share - 0.5, self.low - 0.5, self.high - 0.5, "paired_e_process", p=self.p)


def preference(tally: Tally, *, alpha: float = 0.05) -> Preference:
    """Return the preference in a tally whose M is positive for a unit that prefers this ranker, negative for the other.

    Interval and ``p`` hold at every look: the probability that the interval ever misses the truth, or that ``p`` ever
    falls to ``alpha`` or below without a preference, is at most ``alpha``. Without votes the interval is [0, 1] and p
    is 1. Impossible counts are clamped to 0.

    Raises ValueError if ``alpha`` is outside (0, 1).
    Source: Chapelle, Joachims, Radlinski & Yue 2012, TOIS 30(1), the vote; Robbins 1970, the mixture; the interval as
    in ``bernoulli.rate_interval``, with the same mixture.

    >>> found = preference(Tally(n=120, positive=80, negative=20, d=120))
    >>> found.wins, found.losses, found.ties, found.share, found.p < 1e-6
    (80, 20, 20, 0.8, True)
    """
    wins, losses = max(tally.positive, 0), max(tally.negative, 0)
    votes = wins + losses
    again, once = looks(tally), distinct_share(tally)
    spread = -2 * log(alpha / again) if 0 < alpha < 1 else 1.0
    low, high = rate_interval(
        wins * once,
        losses * once,
        alpha=alpha / again,
        tightest_at=(2 * CONCENTRATION + 1) * (spread + log1p(spread)),
    )
    return Preference(
        wins=wins,
        losses=losses,
        ties=max(tally.n - votes, 0),
        share=wins / votes if votes else None,
        low=low,
        high=high,
        p=min(1.0, again * exp(-max(log_sign_e_value(wins * once, losses * once), 0.0))),
    )


def log_sign_e_value(wins: float, losses: float, concentration: float = CONCENTRATION) -> float:
    """Return log E, where E = 2ⁿ·B(wins + a, losses + a) / B(a, a) is what a bet against fair coins has won.

    ``concentration`` is a > 0. With fair coins E is a nonnegative martingale of mean 1, so by Ville's inequality the
    probability that it ever reaches 1 / α is at most α.

    >>> round(exp(log_sign_e_value(60, 40, 1)), 6), round(exp(log_sign_e_value(60, 40, 10)), 5)
    (0.91305, 2.18659)
    """
    a, n = concentration, wins + losses
    return n * log(2) + _log_beta(wins + a, losses + a) - _log_beta(a, a)


def unfairness_p(tally: Tally) -> float:
    """Return the always-valid p-value that values in [−1, 1], one of each draft, have the mean 0.

    A fair draft gives each value the mean 0 whatever came before, so that by Hoeffding's lemma the bet
    exp(λΣ − λ²n / 2) is a supermartingale for every λ; it is mixed over a normal λ. n counts the values other than 0:
    without the zeros the mean is 0 as well. Coins (1 or −1) lose nothing. Without values, and of impossible sums, p is
    1.

    Source: Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021, Ann. Statist. 49(2).

    >>> round(unfairness_p(Tally(m=20.0, positive=60, negative=40)), 3)
    0.457
    """
    values = max(tally.positive, 0) + max(tally.negative, 0)
    if not values or not isfinite(tally.m):
        return 1.0
    prior = 50.0
    total = prior + values
    return exp(min(0.0, 0.5 * log(total / prior) - tally.m * tally.m / (2 * total)))


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def looks(tally: Tally) -> float:
    """Return what the stake is divided by because units vote again; at least 1."""
    values = tally.d / (tally.n * distinct_share(tally)) if tally.n > 0 and isfinite(tally.d) else 1.0
    return 1 + 2 * log(max(values, 1.0))
