"""What a trigger's conditions may see: values of one route at one moment.

Rule: values only. A condition says what it needs (``Need``), and whoever makes readings reads that and nothing else. A
reading that could not be made is absent: then nothing is known, and that is never a reason to fire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Final, Literal, NamedTuple

#: What can be read: a variant's mature values by hour; how many labelled rows the route has; which share of predictions
#: has a value; how much worse the variant is than the baseline; verdicts; guardrails; since when the
#: version serves.
What = Literal["hours", "labels", "coverage", "harm", "verdicts", "guardrails", "age"]

#: Fewer values, or fewer hours, say nothing of a mean.
FEWEST_VALUES: Final = 30
FEWEST_HOURS: Final = 5

#: Standard errors on each side of a mean: twice the 1.96 of a single look at 5 %, for looks again and again.
WIDE: Final = 3.92


class Need(NamedTuple):
    """Something that a condition reads; ``metric`` "" where it is about no metric, ``span_ms`` how far back."""

    what: What
    metric: str = ""
    span_ms: int = 0


class ValueBand(NamedTuple):
    """A value, and where the truth lies."""

    value: float
    low: float
    high: float


class Hour(NamedTuple):
    """The mature values of the predictions of ``span_ms`` from ``at_ms`` on: how many, and their sum."""

    at_ms: int
    span_ms: int
    n: int
    total: float


@dataclass(frozen=True, slots=True)
class Values:
    """A metric of a variant's present version, hour by hour.

    ``spread`` is the variance of a mean times the number of its values, with units as clusters; None if unknown.
    Values are known ``delay_ms`` after their predictions.
    """

    hours: tuple[Hour, ...] = ()
    spread: float | None = None
    bounds: tuple[float, float] | None = None
    lower_is_better: bool = False
    delay_ms: int = 0

    def mean(self, since_ms: int, until_ms: int) -> ValueBand | None:
        """Return the mean of the values of predictions in [since, until), None if it says nothing.

        Hours are taken as clusters, as values within one are alike; and the spread of units where that says more.
        """
        hours = [one for one in self.hours if since_ms <= one.at_ms and one.at_ms + one.span_ms <= until_ms and one.n]
        n = sum(one.n for one in hours)
        if n < FEWEST_VALUES or (len(hours) < FEWEST_HOURS and self.spread is None):
            return None
        mean = sum(one.total for one in hours) / n
        variance = (self.spread or 0.0) / n
        if len(hours) >= FEWEST_HOURS:
            squares = sum((one.total - mean * one.n) ** 2 for one in hours)
            variance = max(variance, squares / n**2 * len(hours) / (len(hours) - 1))
        if self.bounds is not None:  # that no value of thirty differed says little (Agresti & Coull 1998)
            more, width = WIDE * WIDE, self.bounds[1] - self.bounds[0]
            variance = max(variance, (variance * n**2 + more / 2 * width * width) / (n + more) ** 2)
        return ValueBand(mean, mean - WIDE * sqrt(variance), mean + WIDE * sqrt(variance))


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerReadings:
    """What is known of a route, and of ``version`` of the variant that a trigger is about, which began ``began_ms``.

    ``values``, ``labels``, ``coverage`` and ``harm`` are by metric; harm is how much worse the variant is than the
    baseline. ``verdicts`` are by variant, ``guardrails`` states by (variant, metric).
    """

    at_ms: int
    route: str
    epoch: str
    variant: str
    baseline: str
    version: str
    began_ms: int | None = None
    values: Mapping[str, Values] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    coverage: Mapping[str, ValueBand] = field(default_factory=dict)
    harm: Mapping[str, ValueBand] = field(default_factory=dict)
    verdicts: Mapping[str, str] = field(default_factory=dict)
    guardrails: Mapping[tuple[str, str], str] = field(default_factory=dict)
