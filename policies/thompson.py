"""A bandit that gives each variant the probability that it is the best, and never less than a floor.

Rule: learns from mature tallies only, so a variant whose feedback is slow is not taken for a bad one; and from how
variants did beside each other at the same shares, so one that had its traffic in a good week is not taken for a good
one. The probability of being best is what shares follow. It is no verdict: it makes no promise of how often it errs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import ClassVar

from policies.plans import Weighted
from policies.rollouts.standing import START, Standing
from policies.settings import distinct_problems, positive_problems
from policies.types import Evidence, Path, Plan, Policy, SettingProblem, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Thompson(Policy):
    """Beta-Bernoulli Thompson sampling over ``variants``, maximising a ``reward`` that is scored 0/1.

    The posterior of a variant is Beta(prior[0] + successes, prior[1] + failures), counted so that stretches of
    different shares compare (``contrasts.effective_counts``); at constant shares these are plain sums. Its share is
    (1 − Kε)·π + ε, where π is the exact probability that its rate is the highest of the K and ε is ``floor`` in
    [0, 1/K]. Drawing a variant with that share has the same distribution as drawing from the posteriors for each
    request, and the propensity is known exactly. Mixing keeps the order of the shares, and the floor; clipping and
    renormalising would fall below it.

    Without ``sticky`` every request is drawn anew. With it a unit keeps its variant while the shares stay; its
    requests still count one by one, so the shares then move faster than the number of units alone would justify.

    Source: Thompson 1933; Scott 2010, "A modern Bayesian look at the multi-armed bandit".

    >>> Thompson(variants=("v1", "v2"), reward="click").plan(Evidence()).shares
    {'v1': 0.5, 'v2': 0.5}
    """

    kind: ClassVar[str] = "thompson"
    adaptive: ClassVar[bool] = True
    randomised: ClassVar[bool] = True

    # field(): without it the dataclass would take the members of the same name in Policy for the defaults.
    variants: tuple[str, ...] = field()
    reward: str = field()
    floor: float = 0.02
    prior: tuple[float, float] = (1.0, 1.0)
    sticky: bool = False

    def references(self) -> tuple[tuple[Path, str], ...]:
        return tuple((("variants", index), name) for index, name in enumerate(self.variants))

    def problems(self) -> tuple[SettingProblem, ...]:
        problems = list(distinct_problems(("variants",), self.variants, what="variants"))
        if not self.reward:
            problems.append(SettingProblem(("reward",), 'names no metric, got ""; name one that is scored 0/1'))
        highest = 1 / max(len(self.variants), 1)
        if not 0 <= self.floor <= highest:
            share_of = f"1 / {len(self.variants)} variants"
            problems.append(
                SettingProblem(("floor",), f"must lie in [0, {highest:.4g}] ({share_of}), got {self.floor}")
            )
        for index, count in enumerate(self.prior):
            problems.extend(positive_problems(("prior", index), count))
        return tuple(problems)

    def posterior(self, tally: Tally) -> tuple[float, float]:
        """Return (a, b) of the Beta posterior of a variant's rate.

        Impossible evidence (negative counts, more successes than values, not finite) raises nothing: successes are
        clamped into [0, values], and without any finite values the posterior is the prior.
        """
        trials = tally.d if isfinite(tally.d) and isfinite(tally.m) else 0.0
        trials = max(trials, 0.0)
        successes = min(max(tally.m, 0.0), trials) if trials else 0.0
        return self.prior[0] + successes, self.prior[1] + trials - successes

    def posteriors(self, evidence: Evidence) -> tuple[tuple[float, float], ...]:
        """Return (a, b) of each variant: from contrasts within stretches, or of pooled sums where there are none."""
        if not evidence.stretches:
            return tuple(self.posterior(evidence.tally(name, self.reward)) for name in self.variants)
        from policies.statistics.contrasts import effective_counts  # numpy: never at import time

        counts = effective_counts(evidence.stretches, self.variants, self.reward)
        return tuple((self.prior[0] + successes, self.prior[1] + failures) for successes, failures in counts)

    def probability_best(self, evidence: Evidence) -> Mapping[str, float]:
        from policies.statistics.best_arm import probabilities_best  # numpy: never at import time

        return dict(zip(self.variants, probabilities_best(self.posteriors(evidence)), strict=True))

    def plan(self, evidence: Evidence, standing: Standing = START) -> Plan:
        kept = 1 - len(self.variants) * self.floor
        best = self.probability_best(evidence)
        return Weighted(tuple((name, kept * p + self.floor) for name, p in best.items()), sticky=self.sticky)

    @property
    def by_unit(self) -> bool:
        return self.sticky
