"""One variant compared with the baseline, in the way that the route allows.

Rule: one interval per comparison, valid at every look, from mature tallies. A variant that answers instead of the
baseline is compared by strata (periods); one whose answers are merged with the baseline's, by preference; one that only
gets copies, on the same requests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from gateway.report.account import SHADOWING, Account
from gateway.report.verdict_status import Status
from policies.statistics.preference import Preference, preference
from policies.statistics.sequential import Interval, Method, difference_interval, mean_interval
from policies.types import Tally
from router.snapshot import Metric

#: The chance of ever being wrong about a route, shared by its comparisons (Bonferroni).
ALPHA: Final = 0.05

#: With fewer units on either side, an interval that contains 0 means "collecting" and not "no_difference_yet": even a
#: difference of 40 points often goes undetected then.
FEWEST_UNITS: Final = 30


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant less the baseline, on one metric. ``units`` are those with mature values: (variant, baseline).

    ``difference``, ``low`` and ``high`` are None while nothing can be said; for a preference they are its share of the
    votes less one half. ``votes`` is that preference, None where answers are not merged.
    """

    variant: str
    status: Status
    difference: float | None
    low: float | None
    high: float | None
    method: Method | None
    units: tuple[int, int]
    paired: bool = False
    votes: Preference | None = None


def comparisons(account: Account) -> tuple[Comparison, ...]:
    """Compare every variant with the baseline on the route's primary metric; empty if it has no metric."""
    metric, baseline = account.primary, account.route.baseline
    others = [variant for variant in account.variants if variant != baseline]
    if metric is None or not others:
        return ()
    alpha = ALPHA / len(others)
    return tuple(_judged(_compare(account, metric, baseline, variant, alpha), metric) for variant in others)


def paired_interval(tally: Tally, metric: Metric, *, alpha: float = ALPHA) -> Interval | None:
    """Return the interval of the mean difference of two scores of the same requests; None if there is none.

    It is asymptotic as soon as enough units differ, as ``difference_interval`` is. The exact interval assumes that
    every unit varies as much as its bounds allow, but most pairs are equal: it would be several times as wide.
    """
    if tally.mean is None:
        return None
    bounds = (
        None if metric.bounds is None else (metric.bounds[0] - metric.bounds[1], metric.bounds[1] - metric.bounds[0])
    )
    found = mean_interval(tally, bounds=None, alpha=alpha)
    if found is None or bounds is None:
        return found or (None if bounds is None else mean_interval(tally, bounds=bounds, alpha=alpha))
    return replace(found, low=max(found.low, bounds[0]), high=min(found.high, bounds[1]))


def _compare(account: Account, metric: Metric, baseline: str, variant: str, alpha: float) -> Comparison:
    if not account.answers(variant):
        return _on_the_same_requests(account, metric, baseline, variant, alpha)
    if account.merged(variant, baseline):
        return _by_preference(account, metric, baseline, variant, alpha)
    return _by_strata(account, metric, baseline, variant, alpha)


def _by_strata(account: Account, metric: Metric, baseline: str, variant: str, alpha: float) -> Comparison:
    ours, theirs = account.periods(variant, metric), account.periods(baseline, metric)
    found = difference_interval(
        [(theirs[period], ours[period]) for period in sorted(ours) if period in theirs],
        bounds=metric.bounds,
        adaptive=account.adaptive,
        by_unit=account.route.by_unit,
        alpha=alpha,
    )
    units = sum((t.n for t in ours.values()), 0), sum((t.n for t in theirs.values()), 0)
    if found is None:
        return _open(variant, units)
    return Comparison(variant, "no_difference_yet", found.difference, found.low, found.high, found.method, units)


def _by_preference(account: Account, metric: Metric, baseline: str, variant: str, alpha: float) -> Comparison:
    tally = account.pooled(variant, ("draft",), metric.name, metric.definition, "mature", baseline)
    votes = preference(tally, alpha=alpha)
    decided = votes.wins + votes.losses
    open_ = replace(_open(variant, (decided, decided)), votes=votes)
    if votes.share is None:
        return open_
    return replace(
        open_,
        status="no_difference_yet",
        difference=votes.share - 0.5,
        low=votes.low - 0.5,
        high=votes.high - 0.5,
        method="exact",  # votes are counted, not averaged
    )


def _on_the_same_requests(account: Account, metric: Metric, baseline: str, variant: str, alpha: float) -> Comparison:
    tally = account.pooled(variant, SHADOWING, metric.name, metric.definition, "mature", baseline)
    found = paired_interval(tally, metric, alpha=alpha)
    open_ = replace(_open(variant, (tally.n, tally.n)), paired=True)
    if found is None:
        return open_
    return replace(
        open_,
        status="no_difference_yet",
        difference=tally.mean,
        low=found.low,
        high=found.high,
        method=found.method,
    )


def _open(variant: str, units: tuple[int, int]) -> Comparison:
    return Comparison(variant, "collecting", None, None, None, None, units)


def _judged(comparison: Comparison, metric: Metric) -> Comparison:
    """Return the comparison with the status of its interval: one without 0 decides, however few the units are."""
    if comparison.low is None or comparison.high is None:
        return comparison
    rises, falls = comparison.low > 0, comparison.high < 0
    if rises or falls:
        return replace(comparison, status="better" if rises == (metric.better == "higher") else "worse")
    return replace(comparison, status="collecting" if min(comparison.units) < FEWEST_UNITS else "no_difference_yet")
