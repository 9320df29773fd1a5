"""The coverage of a metric below a share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

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
class CoverageBelow(Condition):
    """Of the variant's predictions whose window has closed, too few have a value of a metric."""

    kind = "coverage"

    metric: MetricName = needed("One of the route's metrics.")
    below: Annotated[float, "share"] = needed("The share that it falls below, with its whole interval.")
    hysteresis: Margin = key(0.0, "How far it must be back before the condition may be met anew.")

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        band = seen.coverage.get(self.metric)
        if band is None:
            return unknown(f"no window of {self.metric} has closed")
        said = f"{band.value:.1%} of predictions have a value of {self.metric}, limit {self.below:.0%}"
        return beyond(band, self.below, "below", self.hysteresis, said)

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("coverage", self.metric),)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)
