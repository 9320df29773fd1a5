"""One variant answers everything.

Rule: no chance and no evidence. Feedback about it measures that variant alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.plans import Weighted
from policies.rollouts.standing import START, Standing
from policies.types import Evidence, Path, Plan, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Single(Policy):
    """Every request goes to ``variant``.

    >>> Single(variant="v1").plan(Evidence()).shares
    {'v1': 1.0}
    """

    kind: ClassVar[str] = "single"

    variant: str

    def references(self) -> tuple[tuple[Path, str], ...]:
        return ((("variant",), self.variant),)

    def plan(self, evidence: Evidence, standing: Standing = START) -> Plan:
        return Weighted(((self.variant, 1.0),))
