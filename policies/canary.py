"""A stable variant, and a candidate that answers a small share, raised step by step.

Rule: raising the share moves no unit from the candidate back to the stable variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.plans import Weighted
from policies.rollouts.standing import START, Standing
from policies.settings import share_problems
from policies.types import Evidence, Path, Plan, Policy, SettingProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary(Policy):
    """``candidate`` answers ``share`` in [0, 1] of the units, ``stable`` the rest; 0 holds it back, 1 completes it.

    With ``sticky`` a unit keeps its variant; without, every request is drawn anew.

    >>> Canary(stable="v1", candidate="v2", share=0.25).plan(Evidence()).shares
    {'v1': 0.75, 'v2': 0.25}
    """

    kind: ClassVar[str] = "canary"
    randomised: ClassVar[bool] = True

    stable: str
    candidate: str
    share: float
    sticky: bool = True

    def references(self) -> tuple[tuple[Path, str], ...]:
        return ((("stable",), self.stable), (("candidate",), self.candidate))

    def problems(self) -> tuple[SettingProblem, ...]:
        problems = share_problems(("share",), self.share)
        if self.stable == self.candidate:
            message = f'must differ from stable, got "{self.candidate}" for both; name the new variant'
            problems = (SettingProblem(("candidate",), message), *problems)
        return problems

    def plan(self, evidence: Evidence, standing: Standing = START) -> Plan:
        weights = ((self.stable, 1.0 - self.share), (self.candidate, float(self.share)))
        return Weighted(weights, sticky=self.sticky)

    @property
    def by_unit(self) -> bool:
        return self.sticky
