"""Guardrails: what no variant may break, whatever its primary metric says.

Rule: each guardrail is judged for each variant by one interval that holds at every look: of how much worse the variant
is than the baseline was at the same time (``worse_by``), or of its own value (``limit``). Wholly beyond the bound it is
broken, wholly within it clean, else undecided: no data is not good news. What a guardrail can be about is an entry of
``MEASURES``, or a metric of the route.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf, sqrt
from statistics import NormalDist
from typing import Any, Final, Literal, NamedTuple, get_args

from gateway.report.account import ANSWERING, SHADOWING, Account, share_interval
from gateway.report.comparison import FEWEST_UNITS, compare
from policies.statistics.latency import quantile, quantile_interval
from policies.statistics.sequential import difference_interval, mean_interval
from policies.statistics.two_shares import Trials, share_gap
from policies.types import EMPTY, Tally, distinct_share
from router.records import Role
from router.settings.declared import MEASURES as DECLARED
from router.settings.declared import Guardrail, guardrails_in_force
from router.snapshot import Metric

logger = logging.getLogger(__name__)

State = Literal["broken", "undecided", "clean"]

#: Every state, the worst first.
STATES: Final[tuple[State, ...]] = get_args(State)

#: A variant that fails this share of its calls is failing, whatever the baseline does.
FAILING: Final = Guardrail(metric="failures", limit=0.5)

#: Of the chance of an error, that part is spent on the number of units that met a failure, the rest on sums.
ON_UNITS: Final = 0.8

#: By so much a band of one look is widened where it has to hold at every look: to 3.9 standard errors at 5 %. A mean is
#: ever farther off in less than 1 % of samples, over looks from any number of values to a hundred times as many.
WIDER: Final = 2.0


class Measured(NamedTuple):
    """What a measure says of a variant: its value, the baseline's, and where what is bounded lies."""

    value: float | None
    baseline: float | None
    low: float = -inf
    high: float = inf


@dataclass(frozen=True, slots=True)
class Guarded:
    """A guardrail and a variant; ``reading`` is of the difference from the baseline, or of the value if it has a limit.

    ``error`` says why it cannot be computed, None where it can.
    """

    variant: str
    guardrail: Guardrail
    state: State
    reading: Measured
    higher_is_worse: bool = True
    error: str | None = None


#: Returns what is seen of a variant; the interval misses the truth with probability at most the last argument.
Measure = Callable[[Account, Guardrail, str, float], Measured]


def guarded(account: Account) -> tuple[Guarded, ...]:
    """Judge every guardrail in force for every variant but the baseline, in the order of the file."""
    others = [name for name in account.variants if name != account.route.baseline]
    bounds = (*guardrails_in_force(account.route.guardrails), FAILING)
    return tuple(_judged(account, one, variant, one.alpha / len(others)) for one in bounds for variant in others)


def _judged(account: Account, guardrail: Guardrail, variant: str, alpha: float) -> Guarded:
    metric = None if guardrail.metric in DECLARED else account.snapshot.metrics[guardrail.metric]
    higher_is_worse = metric is None or metric.better == "lower"
    measure = MEASURES[guardrail.metric] if metric is None else partial(_metric, metric)
    try:
        reading = measure(account, guardrail, variant, alpha)
    except Exception as error:
        logger.exception("the guardrail on %s of %s cannot be judged", guardrail.metric, variant)
        said = f"cannot be computed: {type(error).__name__}: {error}"
        return Guarded(variant, guardrail, "undecided", Measured(None, None), higher_is_worse, said)
    return Guarded(variant, guardrail, _state(guardrail, reading, higher_is_worse), reading, higher_is_worse)


def _state(guardrail: Guardrail, reading: Measured, higher_is_worse: bool) -> State:
    """Return where the interval lies: beyond the bound, within it, or neither."""
    if reading.value is None:
        return "undecided"
    worst, best = (reading.high, reading.low) if higher_is_worse else (-reading.low, -reading.high)
    if guardrail.limit is not None:
        bound = guardrail.limit if higher_is_worse else -guardrail.limit
    else:
        bound = guardrail.worse_by or 0.0
    return "broken" if best > bound else "clean" if worst <= bound else "undecided"


def _failures(account: Account, guardrail: Guardrail, variant: str, alpha: float) -> Measured:
    """See which share of calls fails; where units keep their variant, by the units that met a failure."""
    roles, baseline = _roles(account, variant), account.route.baseline
    ours, theirs = account.calls(variant, roles), account.calls(baseline, ANSWERING)
    if guardrail.limit is not None:
        found = None
        if account.route.by_unit:
            found = mean_interval(ours, bounds=None, alpha=alpha)  # one heavy unit widens it less
        exact = share_interval(account, ours.m, [variant], roles, alpha=alpha)
        low, high = (exact.low, exact.high) if found is None else (max(found.low, 0.0), min(found.high, 1.0))
        return Measured(ours.mean, theirs.mean, low, high)
    ours_by, theirs_by = account.calls_by_period(variant, roles), account.calls_by_period(baseline, ANSWERING)
    pairs = [(theirs_by[period], ours_by[period]) for period in sorted(ours_by) if period in theirs_by]
    if not account.route.by_unit:
        trials = [Trials(one.m, one.d, other.m, other.d) for one, other in pairs]
        return Measured(ours.mean, theirs.mean, *share_gap(trials, alpha=alpha))
    return Measured(ours.mean, theirs.mean, *_by_units(pairs, alpha))


def _by_units(pairs: list[tuple[Tally, Tally]], alpha: float) -> tuple[float, float]:
    """Return where the difference of two shares of failed calls lies, in which a unit is one trial.

    A unit's calls fail together or not: only units are independent. It is bounded by sums over units; and from below by
    the units that met a failure. Each has at least one, so their number is a lower bound of that of failures, and no
    heavy unit can move it: a share of calls that is larger by x raises that of units by at most x times their calls.
    """
    by_sums = difference_interval(pairs, bounds=(0.0, 1.0), alpha=(1 - ON_UNITS) * alpha)
    one, other = (sum((pair[side] for pair in pairs), EMPTY) for side in (0, 1))
    # A unit that comes in several periods is no new trial in each.
    once = [distinct_share(side) for side in (one, other)]
    low, _ = share_gap(
        [
            Trials(*(n * part for side, part in zip(pair, once, strict=True) for n in (side.positive, side.n)))
            for pair in pairs
        ],
        alpha=ON_UNITS * alpha,
    )
    calls = (one.d + other.d) / (one.n + other.n) if one.n + other.n > 0 else 1.0
    low = low / max(calls, 1.0) if low > 0 else low
    if by_sums is None:
        return low, 1.0
    # Where few units met most failures, the variant with more such units need not fail more calls.
    return max(min(low, by_sums.difference), by_sums.low), by_sums.high


def _client_errors(account: Account, guardrail: Guardrail, variant: str, alpha: float) -> Measured:
    """See which share of calls is answered with a 4xx."""
    roles, baseline = _roles(account, variant), account.route.baseline
    (k1, n1), (k0, n0) = _refused(account, variant, roles), _refused(account, baseline, ANSWERING)
    value, theirs = (k1 / n1 if n1 else None), (k0 / n0 if n0 else None)
    if guardrail.limit is not None:
        own = share_interval(account, k1, [variant], roles, alpha=alpha)
        return Measured(value, theirs, own.low, own.high)
    if not account.route.by_unit:
        return Measured(value, theirs, *share_gap([Trials(k0, n0, k1, n1)], alpha=alpha))
    ours = share_interval(account, k1, [variant], roles, alpha=alpha / 2)
    other = share_interval(account, k0, [baseline], ANSWERING, alpha=alpha / 2)
    return Measured(value, theirs, ours.low - other.high, ours.high - other.low)


def _latency(account: Account, guardrail: Guardrail, variant: str, alpha: float) -> Measured:
    """See a quantile of how long calls took, in milliseconds; calls are taken to be independent."""
    q = DECLARED[guardrail.metric].quantile or 0.5
    ours = _buckets(account, variant, _roles(account, variant))
    theirs = _buckets(account, account.route.baseline, ANSWERING)
    value, base = quantile(ours, q), quantile(theirs, q)
    if guardrail.limit is not None:
        return Measured(value, base, *(quantile_interval(ours, q, alpha=alpha) or (-inf, inf)))
    own, other = quantile_interval(ours, q, alpha=alpha / 2), quantile_interval(theirs, q, alpha=alpha / 2)
    if own is None or other is None:
        return Measured(value, base)
    return Measured(value, base, own[0] - other[1], own[1] - other[0])


def _metric(metric: Metric, account: Account, guardrail: Guardrail, variant: str, alpha: float) -> Measured:
    """See the mature values of a metric of the route."""
    ours, theirs = (account.own(name, metric, "mature") for name in (variant, account.route.baseline))
    if guardrail.limit is not None:
        found = mean_interval(ours, bounds=metric.bounds, alpha=alpha)
        return (
            Measured(ours.mean, theirs.mean)
            if found is None
            else Measured(ours.mean, theirs.mean, found.low, found.high)
        )
    one = compare(account, metric, variant, alpha)
    if one.error is not None:
        raise ArithmeticError(one.error)
    if one.found is None or one.withheld is not None or min(one.units) < FEWEST_UNITS:
        return Measured(ours.mean, theirs.mean)
    low, high = one.found.low, one.found.high
    if one.found.described:  # of one look: bets have no interval, so it is made wide enough for many
        least = _least_margin(metric, (ours, theirs), alpha)
        low = one.found.difference - max(WIDER * (one.found.difference - low), least)
        high = one.found.difference + max(WIDER * (high - one.found.difference), least)
    return Measured(ours.mean, theirs.mean, low, high)


def _least_margin(metric: Metric, sides: tuple[Tally, Tally], alpha: float) -> float:
    """Return how far off a difference of bounded values may be however little they varied so far; 0 without bounds.

    To each side z² values are added that vary as much as the bounds allow half of them to: that no request of thirty
    had a rare event says little of how rare it is. Source: Agresti & Coull 1998, American Statistician 52(2).
    """
    if metric.bounds is None:
        return 0.0
    z = WIDER * NormalDist().inv_cdf(1 - alpha / 2)
    more, width, variance = z * z, metric.bounds[1] - metric.bounds[0], 0.0
    for side in sides:
        mean = side.mean or 0.0
        squares = max(side.squares(mean), 0.0)
        variance += (squares + more / 2 * width * width) / (side.d + more) ** 2
    return z * sqrt(variance)


def _roles(account: Account, variant: str) -> tuple[Role, ...]:
    return ANSWERING if account.answers(variant) else SHADOWING


def _refused(account: Account, variant: str, roles: tuple[Role, ...]) -> tuple[float, float]:
    seen = account.seen(variant, "client_error", roles)
    return (0 if seen is None else seen.n), account.checked(variant, roles)


def _buckets(account: Account, variant: str, roles: tuple[Role, ...]) -> Mapping[int, int]:
    total: dict[int, int] = {}
    for role in roles:
        for index, n in account.ledger.latency.get((variant, role), {}).items():
            total[index] = total.get(index, 0) + n
    return total


#: Everything a guardrail can be about besides metrics, by the names of ``router.settings.declared``.
MEASURES: Final[Mapping[str, Measure]] = {
    "failures": _failures,
    "client_errors": _client_errors,
    **{name: _latency for name, one in DECLARED.items() if one.quantile is not None},
}


def shown(one: Guarded) -> dict[str, Any]:
    """Return a guardrail's state as plain JSON values."""
    finite = [bound if abs(bound) < inf else None for bound in (one.reading.low, one.reading.high)]
    return {
        "variant": one.variant,
        "metric": one.guardrail.metric,
        "worse_by": one.guardrail.worse_by,
        "limit": one.guardrail.limit,
        "state": one.state,
        "value": one.reading.value,
        "baseline": one.reading.baseline,
        "low": finite[0],
        "high": finite[1],
        "reason": one.error,
    }
