"""A stable variant and a candidate that takes its traffic over step by step, by itself, as long as nothing speaks
against it.

Rule: a step that raises the share sends no unit back, and a rollout that is restarted with the same candidate gives the
same users to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.plans import Mirror, Weighted
from policies.rollouts import acts, advance
from policies.rollouts.history import Changes
from policies.rollouts.ladder import Ladder, Stage, mistakes, position, unreachable
from policies.rollouts.standing import START, Command, Findings, Moved, Refused, Standing
from policies.rollouts.waits import Wait, waits_for
from policies.types import Evidence, Path, Plan, Policy, SettingProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout(Ladder, Policy):
    """``candidate`` takes the traffic of ``stable`` over in ``steps``, each passed when all its conditions hold.

    A step is ``share``, which the candidate answers, or ``shadow``, of which it gets copies.

    >>> steps = Stage(shadow=1.0, hold=3_600_000), Stage(share=0.25, hold=3_600_000), Stage(share=1.0)
    >>> Rollout(stable="v1", candidate="v2", steps=steps).plan(Evidence(), Standing(number=1, step=1)).shares
    {'v1': 0.75, 'v2': 0.25}
    """

    kind: ClassVar[str] = "rollout"
    randomised: ClassVar[bool] = True
    stepped: ClassVar[bool] = True

    def references(self) -> tuple[tuple[Path, str], ...]:
        return ((("stable",), self.stable), (("candidate",), self.candidate))

    def problems(self) -> tuple[SettingProblem, ...]:
        return tuple(SettingProblem(path, words) for path, words in mistakes(self))

    def unreachable(self, units: float, requests: float) -> tuple[SettingProblem, ...]:
        return tuple(SettingProblem(path, words) for path, words in unreachable(self, units, requests))

    def plan(self, evidence: Evidence, standing: Standing = START) -> Plan:
        if standing.of and self.candidate not in standing.of:
            standing = START  # it was about another candidate
        if standing.state == "rolled_back" or not self.steps:
            return Weighted(((self.stable, 1.0),), sticky=self.sticky)
        stage: Stage = self.steps[position(self.steps, standing)]
        if standing.state == "done" or stage.share == 1:
            return Weighted(((self.candidate, 1.0),), sticky=self.sticky)
        if stage.shadow is not None:
            mirrors = (Mirror(self.candidate, float(stage.shadow)),)
            return Weighted(((self.stable, 1.0),), sticky=self.sticky, mirrors=mirrors)
        share = float(stage.share or 0.0)
        return Weighted(((self.stable, 1.0 - share), (self.candidate, share)), sticky=self.sticky)

    def reconciled(self, standing: Standing, versions: Mapping[str, str], baseline: str, now_ms: int) -> Moved | None:
        changes = Changes(standing, self.kind, Findings(versions=versions, baseline=baseline), now_ms)
        advance.edited(self, self.kind, changes)
        return changes.moved()

    def advance(self, standing: Standing, findings: Findings, now_ms: int) -> Moved | None:
        return advance.advance(self, self.kind, standing, findings, now_ms)

    def act(self, standing: Standing, command: Command, findings: Findings, now_ms: int) -> Moved | Refused:
        return acts.act(self, self.kind, standing, command, findings, now_ms)

    def waits_for(self, standing: Standing, findings: Findings, now_ms: int) -> tuple[Wait, ...]:
        return waits_for(self, standing, findings, now_ms)

    @property
    def by_unit(self) -> bool:
        return self.sticky

    @property
    def stages(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(
            {"share": one.share, "shadow": one.shadow, "conditions": list(one.conditions)} for one in self.steps
        )

    @property
    def gates(self) -> tuple[tuple[Path, str], ...]:
        named = ((at, index, metric) for at, stage in enumerate(self.steps) for index, metric in enumerate(stage.clean))
        return tuple((("steps", at, "clean", index), metric) for at, index, metric in named)

    @property
    def compared(self) -> tuple[Path, ...]:
        wanted = (
            (at, key) for at, stage in enumerate(self.steps) for key in ("pairs", "agreement") if getattr(stage, key)
        )
        return tuple(("steps", at, key) for at, key in wanted)
