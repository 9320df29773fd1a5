"""A metric below or above a limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from router.triggers.condition import (
    WEEK_MS,
    Bound,
    Condition,
    ConditionJudged,
    Length,
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
class MetricLimit(Condition):
    """The mean of a metric over the last ``window`` lies, with its whole interval, below or above a limit."""

    kind = "metric"
    has_history = True

    metric: MetricName = needed("One of the route's metrics.")
    below: Bound | None = key(None, "The limit that it falls below.")
    above: Bound | None = key(None, "The limit that it rises above.")
    window: Length = key(WEEK_MS, "Over how long: of the predictions whose values are known by now, the last.")
    hysteresis: Margin = key(0.0, "How far the mean must be back before the condition may be met anew.")

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        values = seen.values.get(self.metric)
        until = seen.at_ms - (values.delay_ms if values is not None else 0)
        band = None if values is None else values.mean(until - self.window, until)
        if band is None:
            return unknown(f"too few values of {self.metric}")
        side: Literal["below", "above"] = "below" if self.above is None else "above"
        bound = self.below if self.above is None else self.above
        assert bound is not None  # one of the two is given
        said = f"{self.metric} is {band.value:.4g} ({band.low:.4g} to {band.high:.4g}), limit {bound:g}"
        return beyond(band, bound, side, self.hysteresis, said)

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("hours", self.metric, self.window),)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    def problems(self) -> Iterator[tuple[str, str]]:
        if (self.below is None) == (self.above is None):
            yield "metric", "needs a limit: either below or above"
