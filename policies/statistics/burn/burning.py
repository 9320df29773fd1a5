"""Which variants fail so fast that they are taken out on counts alone.

Rule: three reasons, each against what the baseline did in the same time. A variant that never answered since the step
began needs only a few calls. One that did answer must have failed for longer than a restart takes. And where the
baseline has no calls, failure alone is said to be just that: whether it is the variant's own is not known.

The argument. Suppose that the variants fail alike: at each moment a call has the same chance of failure at either,
however that chance moves (a shared outage). Then, given how many calls failed, which of them were the variant's is
drawn by the shares of the traffic, and the bet Π p_A(Y) / Σ π_a p_a(Y) is a fair game; by Ville's inequality it reaches
exp(x) with probability at most exp(−x). It bets that the variant fails 95 % of its calls and the baseline 5 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Final, Literal

from policies.statistics.burn.watch import BRIEF_MS, Count, FailureWatch

#: Shares of failed calls that are bet on: of a variant that is broken, and of a baseline that is not.
BROKEN: Final = 0.95
HEALTHY: Final = 0.05

#: Fewer units than these that met a failure are a few clients' trouble.
FEWEST_FAILED: Final = 5

#: The logarithm of the evidence against a variant that never answered in this step: it is weighed once a step. Of
#: shared outages that last from before a step begins, at most one in 400 takes it for broken.
NEVER_ANSWERED: Final = 6.0

#: The same of a variant that answered before: a run may begin in each of the 3e7 seconds of a year, and at most once in
#: 1,000 years of one route is a variant taken for broken that fails as the baseline does.
BROKE: Final = 24.2

#: The shares of the traffic are known from the step as if from so many calls, and from those in the run.
_CALLS_KNOWN: Final = 20.0

Reason = Literal["never_answered", "broke", "alone"]


@dataclass(frozen=True, slots=True)
class Burn:
    """A variant that fails fast. ``own`` and ``base`` are what was counted since ``seconds`` ago, or since the step.

    ``evidence`` is the logarithm of what the bet made of 1; 0 where the baseline had no calls ("alone").
    """

    variant: str
    reason: Reason
    own: Count
    base: Count
    seconds: float
    evidence: float


def burning(watch: FailureWatch) -> tuple[Burn, ...]:
    """Return the variants that fail fast, in the order of the totals.

    "never_answered": every call since the step began failed, of at least 5 units, and the evidence against the baseline
    is exp(6): with equal shares, 5 failed calls against 5 answered ones. "broke": at every look of more than ten
    seconds most calls failed, of at least 5 units, and the evidence is exp(24.2): with equal shares, 19 against 19.
    "alone": the same while the baseline had no calls.

    Where units are sticky a variant's failures are its units, each once in a step; the baseline's answers are calls,
    but no more than it has units that never met a failure. So no client that is refused, however often it asks, adds
    more than one failure, and no client can make the answers cease that others get.

    Source: Turner, Ly & Grünwald 2024, "Generic e-variables for exact sequential k-sample tests"; Shin, Ramdas &
    Rinaldo 2023, "E-detectors: a nonparametric framework for sequential change detection".
    """
    found = (_burn(watch, name) for name in watch.totals if name != watch.baseline)
    return tuple(burn for burn in found if burn is not None)


def faltering(watch: FailureWatch) -> dict[str, str]:
    """Return the variants that failed most of their calls at the last look, with words that follow the name.

    That may be a restart: nothing is taken out for it. But nothing that waits for a good moment should go on meanwhile.
    """
    return {
        name: f"failed {run.calls - run.answered:,.0f} of its last {run.calls:,.0f} calls"
        for name, run in watch.runs.items()
        if run.failed >= FEWEST_FAILED
    }


def _burn(watch: FailureWatch, name: str) -> Burn | None:
    own, base = watch.totals[name], watch.totals.get(watch.baseline, Count())
    if own.failed >= FEWEST_FAILED and own.answered <= 0:
        share = own.calls / (own.calls + base.calls)
        evidence = log_evidence(own.failed, 0, base.failures, _different(base.answered, base), share)
        if evidence >= NEVER_ANSWERED:
            return Burn(name, "never_answered", own, base, (watch.at_ms - watch.began_ms) / 1000, evidence)
    run = watch.runs.get(name)
    if run is None or run.lasted_ms <= BRIEF_MS or run.failed < FEWEST_FAILED:
        return None
    seen = Count(run.failed, run.failed, run.calls, run.calls - run.answered)
    if run.base.calls <= 0:
        return Burn(name, "alone", seen, run.base, run.lasted_ms / 1000, 0.0)
    before = own.calls / (own.calls + base.calls)
    share = (run.calls + _CALLS_KNOWN * before) / (run.calls + run.base.calls + _CALLS_KNOWN)
    evidence = log_evidence(run.failed, run.answered, run.base.failures, _different(run.base.answered, base), share)
    return Burn(name, "broke", seen, run.base, run.lasted_ms / 1000, evidence) if evidence >= BROKE else None


def _different(answered: float, base: Count) -> float:
    """Return how many of the baseline's answers count: no more than it has units that never met a failure."""
    return min(answered, max(base.units - base.failed, 0))


def log_evidence(failed: float, answered: float, base_failed: float, base_answered: float, share: float) -> float:
    """Return the logarithm of what the bet made of 1, where the variant gets a ``share`` in (0, 1) of all calls.

    >>> round(log_evidence(5, 0, 0, 5, 0.5), 2)
    6.42
    """
    both = share * BROKEN + (1 - share) * HEALTHY
    return (
        failed * log(BROKEN / both)
        + answered * log((1 - BROKEN) / (1 - both))
        + base_failed * log(HEALTHY / both)
        + base_answered * log((1 - HEALTHY) / (1 - both))
    )


def sentence(burn: Burn, baseline: str) -> str:
    """Return what is said of a variant that fails fast, with the numbers."""
    own, base = burn.own, burn.base
    calls = f"{own.failures:,.0f} of {own.calls:,.0f} calls"
    if burn.reason == "never_answered":
        beside = f"{baseline} failed {base.failures:,.0f} of {base.calls:,.0f}"
        return f"{burn.variant} failed every one of its {own.calls:,.0f} calls since the step began; {beside}"
    if burn.reason == "alone":
        lasted = f"in the last {burn.seconds:.0f} s"
        return f"{burn.variant} failed {calls} {lasted}; whether {baseline} would have is not known"
    return (
        f"{burn.variant} failed {calls} in the last {burn.seconds:.0f} s, while {baseline} failed "
        f"{base.failures:,.0f} of {base.calls:,.0f}"
    )
