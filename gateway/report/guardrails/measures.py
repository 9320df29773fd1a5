"""What a guardrail can be about: each measure says where a variant's value, or its difference from the baseline, lies.

Rule: each end of an interval misses the truth, at any look, with probability at most alpha. Calls of one unit count
together, and so does what a unit does in several periods. Where the traffic of the two moved and counts are not kept by
period, the interval has room for whatever the time of the calls may explain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite, nextafter, sqrt
from typing import Final, NamedTuple

from gateway.report import methods
from gateway.report.account import ANSWERING, SHADOWING, Account, share_interval
from gateway.report.comparison import FEWEST_UNITS, compare
from policies.statistics.latency import quantile, quantile_interval
from policies.statistics.means.carried import Traffic, carried_over
from policies.statistics.means.compare import of_estimate, shares_moved
from policies.statistics.means.mixture import undeclared
from policies.statistics.means.strata import Bounds, estimate, has_values, side_of
from policies.statistics.sequential import HEAVY, mean_interval
from policies.statistics.two_shares import Trials, share_gap
from policies.types import EMPTY, Tally, distinct_share
from router.records import Role
from router.settings.declared import MEASURES as DECLARED
from router.settings.declared import Guardrail
from router.snapshot import Metric

#: Of the chance of an error, that part is spent on exact counts, which speak from the first call on; the rest on sums,
#: which know more once there are hundreds of units.
ON_COUNTS: Final = 0.7

#: A latency's level is not looked for nearer to 0 or 1 than this.
_EDGE: Final = 1e-6


class Measured(NamedTuple):
    """What a measure says of a variant: its value, the baseline's, and where what is bounded lies."""

    value: float | None
    baseline: float | None
    low: float = -inf
    high: float = inf


#: Returns what is seen of a variant; each end misses the truth with probability at most the last argument.
Measure = Callable[[Account, Guardrail, str, float], Measured]


def _failures(account: Account, guardrail: Guardrail, variant: str, alpha: float) -> Measured:
    """See which share of calls fails; where units keep their variant, by the units that met a failure."""
    roles, baseline = roles_of(account, variant), account.route.baseline
    ours, theirs = account.calls(variant, roles), account.calls(baseline, ANSWERING)
    if guardrail.limit is not None:
        exact = share_interval(account, ours.m, [variant], roles, alpha=ON_COUNTS * alpha)
        # One heavy unit widens sums over units less.
        sums = _by_sums(ours, (0.0, 1.0), 2 * (1 - ON_COUNTS) * alpha) if account.route.by_unit else None
        low, high = (exact.low, exact.high) if sums is None else (max(exact.low, sums[0]), min(exact.high, sums[1]))
        return Measured(ours.mean, theirs.mean, low, high)
    if account.adaptive:
        counted = [Trials(theirs.m, theirs.d, ours.m, ours.d)]
        return Measured(ours.mean, theirs.mean, *_carried(account, variant, counted[0], alpha))
    ours_by, theirs_by = account.calls_by_period(variant, roles), account.calls_by_period(baseline, ANSWERING)
    pairs = [(theirs_by[period], ours_by[period]) for period in sorted(ours_by) if period in theirs_by]
    return Measured(ours.mean, theirs.mean, *_gap(pairs, alpha, by_unit=account.route.by_unit))


def _gap(pairs: list[tuple[Tally, Tally]], alpha: float, *, by_unit: bool) -> tuple[float, float]:
    """Return where the difference of two shares of failed calls lies: by exact counts, and by sums over units.

    Where units keep their variant a unit's calls fail together or not: only units are independent. Then the counts are
    of units that met a failure. Each has at least one, so their number is a lower bound of that of failures, and no
    heavy unit can move it: a share of calls that is larger by x raises that of units by at most x times their calls.
    """
    sums = _sums_gap(pairs, alpha, independent=not by_unit)
    if not by_unit:
        trials = [Trials(one.m, one.d, other.m, other.d) for one, other in pairs]
        low, high = share_gap(trials, alpha=ON_COUNTS * alpha)
        return (low, high) if sums is None else (max(low, sums[1]), min(high, sums[2]))
    one, other = (sum((pair[side] for pair in pairs), EMPTY) for side in (0, 1))
    # A unit that comes in several periods is no new trial in each.
    once = [distinct_share(side) for side in (one, other)]
    units = [
        Trials(*(n * part for side, part in zip(pair, once, strict=True) for n in (side.positive, side.n)))
        for pair in pairs
    ]
    low, _ = share_gap(units, alpha=ON_COUNTS * alpha)
    calls = (one.d + other.d) / (one.n + other.n) if one.n + other.n > 0 else 1.0
    low = low / max(calls, 1.0) if low > 0 else low
    # From above: a unit of D calls is D / (the most of any) trials, as in ``sequential.mean_interval``.
    heaviest = [max(side.d_max, 1.0) for side in (one, other)]
    calls_of = [
        Trials(
            *(n * part / most for side, part, most in zip(pair, once, heaviest, strict=True) for n in (side.m, side.d))
        )
        for pair in pairs
    ]
    _, high = share_gap(calls_of, alpha=ON_COUNTS * alpha)
    if sums is None:
        return low, high
    # Where few units met most failures, the variant with more such units need not fail more calls.
    return max(min(low, sums[0]), sums[1]), min(high, sums[2])


def _client_errors(account: Account, guardrail: Guardrail, variant: str, alpha: float) -> Measured:
    """See which share of calls is answered with a 4xx. They are counted neither by unit nor by period."""
    roles, baseline = roles_of(account, variant), account.route.baseline
    (k1, n1), (k0, n0) = _refused(account, variant, roles), _refused(account, baseline, ANSWERING)
    value, theirs = (k1 / n1 if n1 else None), (k0 / n0 if n0 else None)
    if guardrail.limit is not None:
        own = share_interval(account, k1, [variant], roles, alpha=alpha)
        return Measured(value, theirs, own.low, own.high)
    return Measured(value, theirs, *_carried(account, variant, Trials(k0, n0, k1, n1), alpha))


def _carried(account: Account, variant: str, counted: Trials, alpha: float) -> tuple[float, float]:
    """Return where the difference of two shares lies of calls that are counted neither by unit nor by period.

    One heavy unit of either side may have had all of them or none. Of the others, calls count as many trials as there
    would be if all calls of a unit were alike (Kish 1965, Survey Sampling, section 8.2).
    """
    sides = [
        _others(account, account.calls(name, roles))
        for name, roles in ((account.route.baseline, ANSWERING), (variant, roles_of(account, variant)))
    ]
    (h0, c0), (h1, c1) = sides
    k0, n0, k1, n1 = counted
    least = Trials(c0 * min(k0, n0 - h0), c0 * (n0 - h0), c1 * max(k1 - h1, 0), c1 * (n1 - h1))
    most = Trials(c0 * max(k0 - h0, 0), c0 * (n0 - h0), c1 * min(k1, n1 - h1), c1 * (n1 - h1))
    traffic = _traffic(account, variant)
    part = alpha if traffic is None else alpha / 2
    low, high = _trial_gap(least, part)[0], _trial_gap(most, part)[1]
    if traffic is None:
        return low, high
    # The baseline's share is known no better than this, and so is what it would have been at the variant's times.
    theirs = mean_interval(_of_trials(least.k0, least.n0), bounds=(0.0, 1.0), alpha=part)
    assert theirs is not None  # with bounds there always is one
    shares = [theirs.low + (theirs.high - theirs.low) * step / 8 for step in range(9)]
    carried = [(share, *carried_over(traffic, share)) for share in shares]
    low -= max(most - share for share, _, most in carried)
    high += max(share - least for share, least, _ in carried)
    return max(low, -1.0), min(high, 1.0)


def _trial_gap(counted: Trials, alpha: float) -> tuple[float, float]:
    if not all(map(isfinite, counted)):
        return -1.0, 1.0
    low, high = share_gap([counted], alpha=ON_COUNTS * alpha)
    sums = _sums_gap(
        [(_of_trials(counted.k0, counted.n0), _of_trials(counted.k1, counted.n1))], alpha, independent=True
    )
    return (low, high) if sums is None else (max(low, sums[1]), min(high, sums[2]))


def _sums_gap(
    pairs: Sequence[tuple[Tally, Tally]], alpha: float, *, independent: bool
) -> tuple[float, float, float] | None:
    """Return the difference of two shares by sums over units, and where it lies; None while there are too few."""
    found = estimate(pairs, bounds=(0.0, 1.0), independent=independent)
    if found is None or not found.ready:
        return None
    watch = undeclared(found.size, found.size * min(found.needed / found.smaller, 1.0))
    # Either end alone misses half as often as the interval does.
    one = of_estimate(found, watch, (0.0, 1.0), 2 * (1 - ON_COUNTS) * alpha)
    return one.difference, one.low, one.high


def _of_trials(k: float, n: float) -> Tally:
    """Return the tally of so many units with one value each, of which ``k`` are 1."""
    return Tally(int(n), k, k, n, n, k, int(k), 0, float(n > 0), k, k, k, n, int(n))


def _others(account: Account, calls: Tally) -> tuple[float, float]:
    """Return how many calls one heavy unit made (0: there is none), and how many trials each other call counts as."""
    if not account.route.by_unit or calls.n <= 0:
        return 0.0, 1.0
    heaviest = calls.d_max if calls.d_max > HEAVY * calls.d / calls.n else 0.0
    rest, squares = calls.d - heaviest, calls.d2 - heaviest * heaviest
    return heaviest, min(rest / squares, 1.0) * distinct_share(calls) if rest > 0 and squares > 0 else 1.0


def _traffic(account: Account, variant: str) -> list[Traffic] | None:
    """Return how many calls (baseline, variant) had in each stretch of constant shares; None where shares stayed."""
    baseline = account.route.baseline
    if account.adaptive:
        reward = account.reward
        tallies = [
            tuple(stretch.tally(name, reward.name) for name in (baseline, variant))
            for stretch in account.evidence.stretches
            if reward is not None
        ]
    else:
        sides = (
            account.calls_by_period(baseline, ANSWERING),
            account.calls_by_period(variant, roles_of(account, variant)),
        )
        tallies = [tuple(side.get(at, EMPTY) for side in sides) for at in sorted(sides[0].keys() | sides[1].keys())]
    pairs = [(one, other) for one, other in tallies]
    return [(one.d, other.d) for one, other in pairs] if shares_moved(pairs) else None


def _latency(account: Account, guardrail: Guardrail, variant: str, alpha: float) -> Measured:
    """See a quantile of how long calls took, in milliseconds. They are counted neither by unit nor by period."""
    return latency(account, guardrail, variant, alpha)


def latency(account: Account, guardrail: Guardrail, variant: str, alpha: float, brief: float = 0.0) -> Measured:
    """Return the same without the slowest calls of the variant, and of the baseline, that make a share ``brief``.

    Where only one end of the interval would differ, it is that end which changes: a low one without the variant's
    slowest, a high one without the baseline's.
    """
    q = DECLARED[guardrail.metric].quantile or 0.5
    places = (account.route.baseline, ANSWERING), (variant, roles_of(account, variant))
    theirs, ours = (_buckets(account, name, roles) for name, roles in places)
    shares = [_others(account, account.calls(name, roles)) for name, roles in places]
    heavy = [
        heaviest / max(account.calls(name, roles).d, 1.0)
        for (heaviest, _), (name, roles) in zip(shares, places, strict=True)
    ]
    (_, c0), (_, c1) = shares
    value, base = quantile(ours, q), quantile(theirs, q)
    part = alpha if guardrail.limit is not None else alpha / 2

    def end(side: Mapping[int, int], level: float, part_of_calls: float, which: int) -> float | None:
        if not _EDGE < level < 1 - _EDGE:
            return None
        found = quantile_interval(side, level, alpha=part, weight=part_of_calls)
        return None if found is None else found[which]

    # One heavy unit may be all fast or all slow: the others' quantile is then at another level of all calls.
    low = end(ours, q * (1 - brief) * (1 - heavy[1]), c1, 0)
    high = end(ours, q * (1 - heavy[1]) + heavy[1], c1, 1)
    if guardrail.limit is not None:
        return Measured(value, base, -inf if low is None else low, inf if high is None else high)
    above, below = _levels(_traffic(account, variant), q)
    their_high = end(theirs, above * (1 - heavy[0]) + heavy[0], c0, 1)
    their_low = end(theirs, below * (1 - brief) * (1 - heavy[0]), c0, 0)
    return Measured(
        value,
        base,
        -inf if low is None or their_high is None else low - their_high,
        inf if high is None or their_low is None else high - their_low,
    )


def _levels(traffic: Sequence[Traffic] | None, q: float) -> tuple[float, float]:
    """Return at which levels of the baseline's calls its ``q`` may lie, had they come when the variant's did."""
    if traffic is None:
        return q, q

    def level(end: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if carried_over(traffic, middle)[end] < 1 - q else (low, middle)
        return 1 - (low + high) / 2

    return level(1), level(0)


def _metric(metric: Metric, account: Account, guardrail: Guardrail, variant: str, alpha: float) -> Measured:
    """See the mature values of a metric of the route."""
    ours, theirs = (account.own(name, metric, "mature") for name in (variant, account.route.baseline))
    if guardrail.limit is not None:
        found = _own_mean(ours, metric.bounds, alpha)
        return Measured(ours.mean, theirs.mean, *(found or (-inf, inf)))
    if account.answers(variant) and not account.merged(variant, account.route.baseline):
        if not account.route.by_unit:
            return _by_bets(metric, account, guardrail, variant, alpha)
        one = methods.at_every_look(account, metric, variant, alpha)
        units = min(ours.distinct, theirs.distinct)
    else:
        compared = compare(account, metric, variant, alpha)
        if compared.error is not None:
            raise ArithmeticError(compared.error)
        one, units = compared.found, min(compared.units)
    if one is None or one.withheld is not None or units < FEWEST_UNITS:
        return Measured(ours.mean, theirs.mean)
    return Measured(ours.mean, theirs.mean, one.low, one.high)


def _by_bets(metric: Metric, account: Account, guardrail: Guardrail, variant: str, alpha: float) -> Measured:
    """See it where every request is drawn anew: bets on a difference beyond the bound, and on one within, decide.

    The band is of one look, and only a description; it is made to say what the bets say.
    """
    from policies.statistics.e_process import MetricSums, beyond, fresh_difference  # needs numpy and scipy

    ours, theirs = (account.own(name, metric, "mature") for name in (variant, account.route.baseline))
    stretches, baseline = account.evidence.stretches, account.route.baseline
    if stretches and metric.name not in account.sums:
        account.sums[metric.name] = MetricSums(stretches, metric.name)
    sums = account.sums.get(metric.name)
    pair = None if sums is None else sums.pair(variant, baseline)
    if pair is None:
        return Measured(ours.mean, theirs.mean)
    found = fresh_difference(stretches, variant, baseline, metric.name, bounds=metric.bounds, alpha=alpha, sums=sums)
    margin = (guardrail.worse_by or 0.0) * (1 if metric.better == "lower" else -1)
    more, less = beyond(pair, margin, bounds=metric.bounds, alpha=alpha)
    low, high = (-inf, inf) if found is None else (found.low, found.high)
    above, below = nextafter(margin, inf), nextafter(margin, -inf)
    low = max(low, above) if more else min(low, below)
    high = min(high, below) if less else max(high, above)
    return Measured(ours.mean, theirs.mean, low, high)


def _own_mean(tally: Tally, bounds: Bounds | None, alpha: float) -> tuple[float, float] | None:
    """Return where a variant's own mean lies; None while values without bounds are too few."""
    sums = _by_sums(tally, bounds, 2 * alpha * (1.0 if bounds is None else 1 - ON_COUNTS))
    if bounds is None:
        return sums
    exact = mean_interval(once(tally), bounds=bounds, alpha=ON_COUNTS * alpha)
    assert exact is not None  # with bounds there always is one
    return (exact.low, exact.high) if sums is None else (max(exact.low, sums[0]), min(exact.high, sums[1]))


def _by_sums(tally: Tally, bounds: Bounds | None, alpha: float) -> tuple[float, float] | None:
    """Return where a mean lies by its standard error; None while there are too few units for values so skewed."""
    if tally.n < 2 or not has_values(tally):
        return None
    part = distinct_share(tally)
    side, units = side_of(tally, bounds), tally.n * part
    variance = side.squares / (side.n - 1) / units
    if not (units >= side.needed and variance > 0):
        return None
    margin = undeclared(units, side.needed).critical(alpha) * sqrt(variance)
    low, high = (-inf, inf) if bounds is None else bounds
    return max(side.mean - margin, low), min(side.mean + margin, high)


def once(tally: Tally) -> Tally:
    """Return the part of a tally over periods that is independent: a unit that comes again is no new one."""
    part = distinct_share(tally)
    if part == 1.0:
        return tally
    return Tally(
        n=max(round(tally.n * part), 1),
        m=tally.m * part,
        m2=tally.m2 * part,
        d=tally.d * part,
        d2=tally.d2 * part,
        md=tally.md * part,
        d_max=tally.d_max,
    )


def roles_of(account: Account, variant: str) -> tuple[Role, ...]:
    """Return the roles that a variant's calls are counted in."""
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

#: What is seen of a metric of the route.
of_metric: Final = _metric
