"""Whether a guardrail's state is more than ten seconds' doing: what may be acted on.

Rule: a pod restarts within ten seconds. A guardrail that is broken only because of so few seconds is shown broken, and
nothing is done about it; one that is clean only because the baseline was down for so long is not passed. Where it is
known when calls failed (``policies.statistics.burn``), the worst ten seconds are taken off. Else as much is, as ten
seconds of the traffic could make.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from gateway.report.account import ANSWERING, Account
from gateway.report.guardrails.judging import Guarded, state_of
from gateway.report.guardrails.measures import Measured, latency, roles_of
from policies.statistics.burn import FailureWatch, brief
from policies.statistics.burn.watch import BRIEF_MS
from policies.types import EMPTY, Tally
from router.settings.declared import in_milliseconds
from router.snapshot import Metric


def lasting(account: Account, one: Guarded, watch: FailureWatch | None = None) -> bool:
    """Return whether a guardrail would be in the same state without any ten seconds; undecided ones always are.

    ``watch`` has what is known of the seconds of the present step. ``account`` is the one that it was judged from.
    """
    if one.state == "undecided":
        return True
    return state_of(one.guardrail, _without(account, one, watch), one.higher_is_worse) == one.state


def _without(account: Account, one: Guarded, watch: FailureWatch | None) -> Measured:
    """Return the reading with room for ten seconds on either end."""
    name, reading = one.guardrail.metric, one.reading
    if in_milliseconds(name):
        share = max(_parts(account, one.variant, None).values(), default=1.0)
        alpha = one.guardrail.alpha / max(len(account.variants) - 1, 1)
        return latency(account, one.guardrail, one.variant, alpha, brief=min(share, 1.0))
    metric = account.snapshot.metrics.get(name)
    parts = _parts(account, one.variant, metric)
    up = down = max(parts.values(), default=1.0)
    if metric is None and name == "failures" and watch is not None:
        # Of the periods before the watched step it is not known when calls failed.
        present = {period: part for period, part in parts.items() if period >= watch.began_ms}
        earlier = max((part for period, part in parts.items() if period not in present), default=0.0)
        known = brief(watch, one.variant)
        weight = _weight(account, one.variant, present)
        up, down = (max(earlier, weight * share) for share in known)
    width = 1.0
    if metric is not None:
        if metric.bounds is not None:
            width = metric.bounds[1] - metric.bounds[0]
        else:
            width = max(abs(value) for value in (reading.value or 0.0, reading.baseline or 0.0))
        if not one.higher_is_worse:
            up, down = down, up
    return reading._replace(low=reading.low - width * up, high=reading.high + width * down)


def _parts(account: Account, variant: str, metric: Metric | None) -> dict[int, float]:
    """Return, by period, which part of the comparison ten seconds of it make at most, where calls come evenly."""
    sides = _by_period(account, variant, metric)
    weights = _weights(sides)
    now, window = account.ledger.watermark_ms, 0 if metric is None else metric.window_ms
    begins = sorted(sides)  # none just after a restart, when latencies, which no period divides, are known all the same
    ends = dict(zip(begins, [*begins[1:], inf], strict=False))
    found = {}
    for period, weight in weights.items():
        lasted = min(ends[period], -inf if now is None else now - window) - period
        found[period] = weight * (min(BRIEF_MS / lasted, 1.0) if lasted > 0 else 1.0)
    return found


def _weight(account: Account, variant: str, periods: Mapping[int, float]) -> float:
    weights = _weights(_by_period(account, variant, None))
    return min(sum(weights.get(period, 0.0) for period in periods), 1.0)


def _weights(sides: Mapping[int, tuple[Tally, Tally]]) -> dict[int, float]:
    """Return the largest part that a period has in a comparison by strata, or in either side's pooled calls."""
    both = {
        period: one.d * other.d / (one.d + other.d) for period, (one, other) in sides.items() if one.d + other.d > 0
    }
    totals = [sum(pair[side].d for pair in sides.values()) for side in (0, 1)]
    whole = sum(both.values())
    return {
        period: max(
            both[period] / whole if whole > 0 else 1.0,
            *(pair[side].d / totals[side] if totals[side] > 0 else 0.0 for side in (0, 1)),
        )
        for period, pair in sides.items()
        if period in both
    }


def _by_period(account: Account, variant: str, metric: Metric | None) -> dict[int, tuple[Tally, Tally]]:
    """Return the tallies of (baseline, variant) by period: of calls, or of the mature values of a metric."""
    roles = roles_of(account, variant)
    if metric is None:
        theirs, ours = (
            account.calls_by_period(account.route.baseline, ANSWERING),
            account.calls_by_period(variant, roles),
        )
    else:
        theirs, ours = account.periods(account.route.baseline, metric), account.periods(variant, metric)
    return {period: (theirs.get(period, EMPTY), ours.get(period, EMPTY)) for period in theirs.keys() | ours.keys()}
