"""What a route declares about its comparisons before there is data: the size of its test, and its guardrails.

Rule: nothing here changes what is recorded, so none of it belongs to an epoch or begins a period. The controller stores
each change of a test (``gateway.store.counts.reported``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, NamedTuple

from policies.rollouts.standing import Action
from router.settings.keys import Positive, Text, described, setting

PositiveNumber = Annotated[float, "positive_number"]
NotNegative = Annotated[float, "not_negative"]
Number = Annotated[float, "number"]
Alpha = Annotated[float, "alpha"]
Moment = Annotated[int, "moment"]  # Unix milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredTest:
    """How a route's test was planned: by ``smallest_effect``, ``units`` or ``until``, of which at most one is given.

    ``smallest_effect`` is absolute, in the units of the primary metric; ``units`` counts those of all variants.
    """

    smallest_effect: PositiveNumber | None = setting(
        None,
        "The smallest difference of the primary metric that matters, absolute: the test is most powerful for it.",
    )
    units: Positive | None = setting(
        None, "How many units, of all variants together, the test takes at most: then it has fixed looks and an end."
    )
    until: Moment | None = setting(
        None, 'When the test ends, as in "2026-03-31" (at 00:00 UTC) or "2026-03-31T12:00:00+02:00": as units does.'
    )
    expected_units: Positive | None = setting(
        None, "About how many units the test will take: intervals are narrowest then. It promises nothing."
    )
    alpha: Alpha = setting(
        0.05, "The chance of ever calling equal variants different, for all comparisons of the primary metric together."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """A bound on a metric, of which exactly one kind is given.

    With ``worse_by`` a variant may be worse than the concurrent baseline by that much at most; ``limit`` bounds the
    variant's own value, from above if lower is better and else from below. Both are absolute, in the metric's units:
    shares for failures and events, milliseconds for latency.
    """

    metric: Text = field(
        metadata=described(
            "One of the route's metrics; or failures or client_errors, as shares of calls; or latency_ms.p50, p90, "
            "p95 or p99."
        )
    )
    worse_by: NotNegative | None = setting(
        None, "How much worse than the baseline a variant may be, absolute, in the metric's units: 0.01 is one point."
    )
    limit: Number | None = setting(
        None, "What a variant's own value may reach: the most if lower is better, else the least."
    )
    alpha: Alpha = setting(0.05, "The chance of ever calling a guardrail broken that holds.")
    action: Action | None = setting(
        None,
        "What follows when it is broken: rollback, the variant gets nothing; floor, the least share of a bandit; "
        "pause, shares stay until a person resumes; warn, an event. Without it a rollout does what its on_failure "
        "says, and other policies nothing.",
    )


class Measure(NamedTuple):
    """What a guardrail can bound besides metrics; lower is better. ``quantile`` is that of a latency, in (0, 1)."""

    low: float
    high: float
    quantile: float | None = None


#: The built-in measures by name. Shares are of the variant's calls, latencies in milliseconds.
MEASURES: Final = {
    "failures": Measure(0.0, 1.0),
    "client_errors": Measure(0.0, 1.0),
    **{f"latency_ms.p{p}": Measure(0.0, float("inf"), p / 100) for p in (50, 90, 95, 99)},
}


def in_milliseconds(metric: str) -> bool:
    """Return whether a guardrail's metric is a built-in measure of time."""
    measure = MEASURES.get(metric)
    return measure is not None and measure.quantile is not None


#: The guardrail of every route that compares variants, unless it declares one on failures itself: a point more
#: failures than the baseline's. A smaller gap is often one backend's bad minute.
FAILURES: Final = Guardrail(metric="failures", worse_by=0.01)


def guardrails_in_force(declared: tuple[Guardrail, ...]) -> tuple[Guardrail, ...]:
    """Return the guardrails of a route that declares these: failures are always among them."""
    return declared if any(one.metric == FAILURES.metric for one in declared) else (FAILURES, *declared)
