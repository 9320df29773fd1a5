"""How much evidence an estimate is that is watched from some size on: e-values, p-values and critical values of |z|.

Rule: z = (estimate − truth) / standard error is all that is known of the data. In the limit of many units z·√size is a
Brownian motion, whatever the values are, so a bet on its drift is a martingale where the drift is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, exp, log, log1p, sqrt
from typing import Final, Literal

#: What is undeclared may be found at any size: one bet is tuned to small experiments (large differences), the other to
#: large ones, in effective units (4·n₀·n₁ / (n₀ + n₁)), with their weights. Simulated at 90 against 95 % and 5 against
#: 6 %: both are found by the planned size with probability .46 and .49; one bet tuned to 5,000 finds .33 and .51.
SMALL_AND_LARGE: Final = ((300.0, 0.7), (9000.0, 0.3))

#: Where the first look is late, because values are skewed, so are the sizes: at least these multiples of its size.
BEYOND_FIRST_LOOK: Final = (0.6, 12.0)

#: −2·ln α + ln(1 − 2·ln α) at α = .05. A normal bet whose variance is this at a size is the tightest there.
#: Source: Waudby-Smith et al. 2024, equation 161.
TIGHTEST: Final = -2 * log(0.05) + log1p(-2 * log(0.05))

#: The share of the stake that is on the declared effect; the rest is as if none were declared, or the interval around a
#: much larger or smaller difference would never get narrow.
ON_DECLARED: Final = 0.9


@dataclass(frozen=True, slots=True)
class Bet:
    """One bet on the drift, with its share of the stake.

    A "normal" bet has a normal prior whose variance is ``strength`` times that of the estimate; a "points" bet has two
    priors of equal weight, at plus and minus √``strength`` standard errors. Both strengths grow in proportion to size.
    """

    kind: Literal["normal", "points"]
    weight: float
    strength: float

    def log_evidence(self, z: float) -> tuple[float, float]:
        """Return ln(weight · e-value) and its derivative by z ≥ 0."""
        if self.kind == "normal":
            tilt = self.strength / (1 + self.strength)
            return log(self.weight) - log1p(self.strength) / 2 + tilt * z * z / 2, tilt * z
        drift = sqrt(self.strength)
        # ln cosh(x) = |x| − ln 2 + ln(1 + exp(−2|x|)), which does not overflow.
        tail = exp(-2 * drift * z)
        return (
            log(self.weight) - self.strength / 2 + drift * z - log(2) + log1p(tail),
            drift * (1 - tail) / (1 + tail),
        )

    def chance_below(self, z: float) -> float:
        """Return the probability of |Z| < z if the bet is right."""
        if self.kind == "normal":
            return 1 - 2 * _above(z / sqrt(1 + self.strength))
        drift = sqrt(self.strength)
        return max(_above(-z - drift) - _above(z - drift), 0.0)


@dataclass(frozen=True, slots=True)
class Watch:
    """An estimate watched from the first look, whose size was the share ``early`` of the present one, in (0, 1].

    The mean of e-values is an e-value, so the bets are averaged. A martingale M ≥ 0 watched from the first look on
    exceeds C with probability at most E[min(1, M₁ / C)], by Ville's inequality from there: this is below 1 / C because
    nothing could be decided before. So C, the evidence that α asks for, is less than 1 / α where the first look is not
    far behind.
    """

    bets: tuple[Bet, ...]
    early: float = 0.0

    def p(self, z: float) -> float:
        """Return the always-valid p-value of an estimate |z| standard errors from the value in question."""
        return self._level(self._log_evidence(self.bets, abs(z))[0])

    def critical(self, alpha: float) -> float:
        """Return the largest |z| that is no evidence against the value in question at level ``alpha``.

        >>> one = Watch((Bet("normal", 1.0, TIGHTEST),))
        >>> round(one.critical(0.05) / 1.96, 2)
        1.55
        """
        at = -log(alpha)
        if self.early > 0:
            # The level falls almost like 1 / evidence, so secant steps on the logarithms arrive in three or four.
            before, missed = at, log(self._level(at) / alpha)
            at += missed
            for _ in range(20):
                miss = log(max(self._level(at), 1e-300) / alpha)
                if abs(miss) < 1e-9 or miss == missed:
                    break
                before, at, missed = at, at - miss * (at - before) / (miss - missed), miss
        return self._reached(self.bets, at)

    def _level(self, evidence: float) -> float:
        """Return the probability of ever having as much evidence (its logarithm) where there is nothing to find."""
        if evidence <= 0:
            return 1.0
        if self.early <= 0:
            return exp(-evidence)
        first = tuple(Bet(bet.kind, bet.weight, bet.strength * min(self.early, 1.0)) for bet in self.bets)
        z = self._reached(first, evidence)
        later = sum(bet.weight * bet.chance_below(z) for bet in first)
        return min(1.0, 2 * _above(z) + exp(-evidence) * later)

    @staticmethod
    def _log_evidence(bets: Sequence[Bet], z: float) -> tuple[float, float]:
        """Return the logarithm of the mean e-value at z ≥ 0, and its derivative."""
        each = [bet.log_evidence(z) for bet in bets]
        most = max(value for value, _ in each)
        shares = [exp(value - most) for value, _ in each]
        total = sum(shares)
        slope = sum(share * slope for share, (_, slope) in zip(shares, each, strict=True)) / total
        return most + log(total), slope

    def _reached(self, bets: Sequence[Bet], evidence: float) -> float:
        """Return the z ≥ 0 whose evidence has this logarithm.

        Newton's method from above, where the function is convex and rises.
        """
        # Each bet alone, with its weight, reaches it later than all together.
        z = min(_reached_alone(bet, evidence) for bet in bets)
        for _ in range(50):
            value, slope = self._log_evidence(bets, z)
            step = (value - evidence) / slope if slope > 0 else 0.0
            z = max(z - step, 0.0)
            if abs(step) <= 1e-9 * (1 + z):
                break
        return z


def undeclared(size: float, first: float = 0.0, *, expected: float | None = None) -> Watch:
    """Return how an estimate of this effective size is watched when no effect was declared.

    ``expected`` is the effective size that the experiment is expected to end with, if the operator said so; ``first``
    is the size from which it could be decided.
    """
    if expected is not None and expected > 0:
        sizes: tuple[tuple[float, float], ...] = ((expected, 1.0),)
    else:
        sizes = tuple(
            (max(tuned, factor * first), weight)
            for (tuned, weight), factor in zip(SMALL_AND_LARGE, BEYOND_FIRST_LOOK, strict=True)
        )
    return Watch(
        tuple(Bet("normal", weight, TIGHTEST * size / tuned) for tuned, weight in sizes),
        min(first / size, 1.0) if size > 0 else 0.0,
    )


def declared(size: float, first: float, effect: float, error: float) -> Watch:
    """Return how an estimate with this standard error is watched when the smallest effect that matters was declared."""
    rest = undeclared(size, first)
    bets = tuple(Bet(bet.kind, bet.weight * (1 - ON_DECLARED), bet.strength) for bet in rest.bets)
    return Watch((Bet("points", ON_DECLARED, (effect / error) ** 2), *bets), rest.early)


def _reached_alone(bet: Bet, evidence: float) -> float:
    """Return a z at which this bet alone has at least evidence of this logarithm; less than 1e-9 above the smallest."""
    wanted = evidence - log(bet.weight)
    if bet.kind == "normal":
        return sqrt(max(2 * (wanted + log1p(bet.strength) / 2) * (1 + bet.strength) / bet.strength, 0.0))
    # cosh(x) ≥ exp(x) / 2.
    return max((wanted + bet.strength / 2 + log(2)) / sqrt(bet.strength), 0.0)


def _above(z: float) -> float:
    """Return the probability that a standard normal variable exceeds ``z``."""
    return erfc(z / sqrt(2)) / 2
