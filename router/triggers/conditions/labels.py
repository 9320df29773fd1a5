"""So many labelled rows since the last firing."""

from __future__ import annotations

from dataclasses import dataclass

from router.triggers.condition import AtLeast, Condition, ConditionJudged, MetricName, Since, needed, unknown
from router.triggers.readings import Need, TriggerReadings


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRows(Condition):
    """So many predictions of the route got a value of a metric since the last firing, else since the trigger began."""

    kind = "labels"
    has_history = True

    metric: MetricName = needed("One of the route's metrics.")
    at_least: AtLeast = needed("How many.")

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        there = seen.labels.get(self.metric)
        if there is None:
            return unknown(f"no values of {self.metric}")
        n = there - (since.labels.get(self.metric, 0) if since.epoch == seen.epoch else 0)
        said = f"{n:,} predictions have a new value of {self.metric}, of {self.at_least:,}"
        return ConditionJudged("met" if n >= self.at_least else "clear", said, value=n, bound=self.at_least)

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("labels", self.metric),)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)
