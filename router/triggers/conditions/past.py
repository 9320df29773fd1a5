"""A metric worse than its own past."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from router.triggers.condition import (
    WEEK_MS,
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
from router.triggers.readings import Need, TriggerReadings, ValueBand


@dataclass(frozen=True, slots=True, kw_only=True)
class WorseThanPast(Condition):
    """The mean of a metric over the last ``window`` is worse than over ``past`` before, of the same version."""

    kind = "past"
    has_history = True

    metric: MetricName = needed("One of the route's metrics.")
    worse_by: Margin = needed("By how much, absolute, in the metric's units; the whole interval must lie beyond.")
    window: Length = key(WEEK_MS, "Over how long the present is.")
    past: Length = key(4 * WEEK_MS, "Over how long before that the past is.")
    hysteresis: Margin = key(0.0, "How far the difference must be back before the condition may be met anew.")

    def judge(self, seen: TriggerReadings, since: Since) -> ConditionJudged:
        values = seen.values.get(self.metric)
        if values is None:
            return unknown(f"too few values of {self.metric}")
        until = seen.at_ms - values.delay_ms
        now = values.mean(until - self.window, until)
        before = values.mean(until - self.window - self.past, until - self.window)
        if now is None or before is None:
            return unknown(f"too few values of {self.metric}{'' if now is None else ' in the past'}")
        worse = now.value - before.value if values.lower_is_better else before.value - now.value
        margin = sqrt((now.high - now.value) ** 2 + (before.high - before.value) ** 2)
        said = (
            f"{self.metric} is {now.value:.4g}, {worse:+.4g} worse than the {before.value:.4g} before (±{margin:.4g})"
        )
        band = ValueBand(worse, worse - margin, worse + margin)
        return beyond(band, self.worse_by, "above", self.hysteresis, said)

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("hours", self.metric, self.window + self.past),)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)
