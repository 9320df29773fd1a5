"""One variant answers; others get a copy of the requests, and their answers reach no client.

Rule: a shadow never answers. It is compared with the primary on the same requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from policies.plans import Mirror, Weighted
from policies.rollouts.standing import START, Standing
from policies.settings import share_problems
from policies.types import Evidence, Path, Plan, Policy, SettingProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow(Policy):
    """``primary`` answers every request; each of ``shadows`` gets a copy of its share in [0, 1] of them.

    A share is taken by unit when the request carries one, so the same users are always copied.

    >>> Shadow(primary="v1", shadows={"v2": 0.1}).plan(Evidence()).shares
    {'v1': 1.0}
    """

    kind: ClassVar[str] = "shadow"

    primary: str
    shadows: Mapping[str, float]

    def references(self) -> tuple[tuple[Path, str], ...]:
        return ((("primary",), self.primary), *((("shadows", name), name) for name in self.shadows))

    def problems(self) -> tuple[SettingProblem, ...]:
        problems: list[SettingProblem] = []
        if not self.shadows:
            problems.append(
                SettingProblem(("shadows",), "names no variant, got {}; write at least one, as in { v2 = 1.0 }")
            )
        for name, share in self.shadows.items():
            if name == self.primary:
                message = f'"{name}" is the primary and cannot be its own shadow; name another variant'
                problems.append(SettingProblem(("shadows", name), message))
            problems.extend(share_problems(("shadows", name), share))
        return tuple(problems)

    def plan(self, evidence: Evidence, standing: Standing = START) -> Plan:
        mirrors = tuple(Mirror(name, share) for name, share in self.shadows.items())
        return Weighted(((self.primary, 1.0),), mirrors=mirrors)
