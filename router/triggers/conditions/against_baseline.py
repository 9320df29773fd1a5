"""A metric worse than the baseline's."""

from __future__ import annotations

from dataclasses import dataclass

from router.triggers.condition import (
    Condition,
    ConditionJudged,
    Margin,
    MetricName,
    Since,
    beyond,
    key,
    needed,
    unknown,
)
from router.triggers.readings import Need, TriggerReadings


@dataclass(frozen=True, slots=True, kw_only=True)
class WorseThanBaseline(Condition):
    """The variant is worse than the baseline was at the same time, by an interval that holds at every look."""

    kind = "baseline"

    metric: MetricName = needed("One of the route's metrics, or what guardrails can bound: failures, latency_ms.p95.")
    worse_by: Margin = needed("By how much, absolute, in the metric's units; the whole interval must lie beyond.")
    hysteresis: Margin = key(0.0, "How far the difference must be back before the condition may be met anew.")

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        band = seen.harm.get(self.metric)
        if band is None:
            return unknown(f"{self.metric} cannot be compared with {seen.baseline} yet")
        said = f"{self.metric} is {band.value:+.4g} worse than {seen.baseline} ({band.low:.4g} to {band.high:.4g})"
        return beyond(band, self.worse_by, "above", self.hysteresis, said)

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("harm", self.metric),)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    @property
    def compares(self) -> bool:
        return True
