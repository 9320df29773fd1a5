"""Variants side by side at fixed shares, to learn which is better.

Rule: only the operator changes shares. Evidence never moves them, and that keeps the comparison simple.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum
from typing import ClassVar

from policies.plans import Weighted
from policies.rollouts.standing import START, Standing
from policies.settings import share_problems
from policies.types import Evidence, Path, Plan, Policy, SettingProblem

#: Shares are written in decimal and added in binary: 0.1 + 0.2 + 0.7 is not 1.
SUM_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class AB(Policy):
    """Each variant of ``shares`` answers its share in [0, 1] of the units; the shares sum to 1.

    With ``sticky`` a unit keeps its variant; without, every request is drawn anew. No variant is the natural
    baseline, so the route names one.

    >>> AB(shares={"v1": 0.5, "v2": 0.5}).plan(Evidence()).shares
    {'v1': 0.5, 'v2': 0.5}
    """

    kind: ClassVar[str] = "ab"
    randomised: ClassVar[bool] = True
    needs_baseline: ClassVar[bool] = True

    shares: Mapping[str, float]
    sticky: bool = True

    def references(self) -> tuple[tuple[Path, str], ...]:
        return tuple((("shares", name), name) for name in self.shares)

    def problems(self) -> tuple[SettingProblem, ...]:
        problems: list[SettingProblem] = []
        if len(self.shares) < 2:
            names = ", ".join(f'"{name}"' for name in self.shares) or "none"
            problems.append(SettingProblem(("shares",), f"needs at least two variants, got {names}"))
        for name, share in self.shares.items():
            problems.extend(share_problems(("shares", name), share))
        total = fsum(self.shares.values())
        # The negation catches NaN. A single wrong share is reported as what it is, not as a wrong sum as well.
        if not problems and not abs(total - 1) <= SUM_TOLERANCE:
            problems.append(SettingProblem(("shares",), f"must sum to 1, got {total:.12g}"))
        return tuple(problems)

    def plan(self, evidence: Evidence, standing: Standing = START) -> Plan:
        return Weighted(tuple((name, float(share)) for name, share in self.shares.items()), sticky=self.sticky)

    @property
    def by_unit(self) -> bool:
        return self.sticky
