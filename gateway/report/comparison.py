"""One variant compared with the baseline on one metric, in the way that the route allows.

Rule: one result per variant and metric, valid at every look, from mature tallies, by the method that ``method_of``
names. A variant that answers instead of the baseline is compared by strata; one whose answers are merged with the
baseline's, by preference; one that only gets copies, on the same requests. The comparisons of the primary metric are
one family, held to Holm's level; those of all other metrics are another, held to Benjamini and Hochberg's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, log
from typing import Final

from gateway.report import methods
from gateway.report.account import ANSWERING, SHADOWING, Account
from gateway.report.verdict_status import Status
from policies.statistics.difference import Difference, Method
from policies.statistics.paired import paired_difference, times_the_sample
from policies.statistics.preference import Preference, preference
from policies.statistics.several import benjamini_hochberg_level, holm_level
from router.snapshot import Metric

logger = logging.getLogger(__name__)

#: The chance of ever being wrong about the primary metric of a route, and of the rest the share that may be wrong.
ALPHA: Final = 0.05

#: With fewer units on either side, an interval that contains 0 means "collecting" and not "no_difference_yet": even a
#: difference of 40 points often goes undetected then.
FEWEST_UNITS: Final = 30

#: Below this share of the evidence nothing is said of how much more it takes.
FARTHEST: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant less the baseline, on one metric. ``units`` are those with mature values: (variant, baseline).

    ``found`` is None while nothing can be said; of a preference it is the share of the votes less one half. ``votes``
    is that preference, None where answers are not merged. ``level`` is what the family of this comparison is held to:
    it decides where its p-value is at most that. ``times`` is how many times as many requests an A/B test would need
    for an interval as narrow as that of the pairs; None where answers are not paired or it is not known. ``progress``
    is how much of the evidence for a decision is there, ``needs`` about how many more units it takes. ``reason`` says
    why it decides nothing, or may not; ``error`` why it cannot be computed.
    """

    variant: str
    metric: str
    primary: bool
    status: Status
    units: tuple[int, int]
    found: Difference | None = None
    level: float = ALPHA
    paired: bool = False
    votes: Preference | None = None
    times: float | None = None
    progress: float | None = None
    needs: int | None = None
    reason: str | None = None
    error: str | None = None

    @property
    def difference(self) -> float | None:
        return None if self.found is None else self.found.difference

    @property
    def low(self) -> float | None:
        return None if self.found is None else self.found.low

    @property
    def high(self) -> float | None:
        return None if self.found is None else self.found.high

    @property
    def method(self) -> Method | None:
        return None if self.found is None else self.found.method

    @property
    def withheld(self) -> str | None:
        return None if self.found is None else self.found.withheld

    @property
    def decides(self) -> bool:
        """Whether it says that there is a difference."""
        return self.found is not None and self.found.decides(self.level)


def comparisons(account: Account) -> tuple[Comparison, ...]:
    """Compare every variant with the baseline on every metric of the route, the primary metric first."""
    primary, baseline = account.primary, account.route.baseline
    others = [variant for variant in account.variants if variant != baseline]
    if primary is None:
        return ()
    rest = [metric for metric in account.metrics if metric.name != primary.name]
    return (
        *_family(account, [(variant, primary) for variant in others], holm_level, alpha_of(account)),
        *_family(account, [(variant, metric) for metric in rest for variant in others], benjamini_hochberg_level),
    )


def alpha_of(account: Account) -> float:
    """Return the chance of ever being wrong about the primary metric."""
    return ALPHA if account.route.test is None else account.route.test.alpha


def _family(
    account: Account,
    places: Sequence[tuple[str, Metric]],
    level_of: Callable[[Sequence[float], float], float],
    alpha: float = ALPHA,
) -> tuple[Comparison, ...]:
    """Compare, and judge all comparisons at the level of their family."""
    level = alpha / max(len(places), 1)
    found = [compare(account, metric, variant, level) for variant, metric in places]
    held_to = level_of([1.0 if one.found is None or one.withheld else one.found.p for one in found], alpha)
    if held_to != level:  # p-values are of no level, but intervals are
        found = [compare(account, metric, variant, held_to) for variant, metric in places]
    return tuple(_judged(account, one, metric) for one, (_, metric) in zip(found, places, strict=True))


def compare(account: Account, metric: Metric, variant: str, level: float) -> Comparison:
    """Return what is known of a variant and the baseline; the interval misses the truth with probability ``level``.

    What goes wrong is logged and said in ``error``: one statistic that fails stops no other.
    """
    primary = account.primary is not None and account.primary.name == metric.name
    nothing = Comparison(variant, metric.name, primary, "collecting", (0, 0), level=level)
    try:
        if not account.answers(variant):
            return _on_the_same_requests(account, metric, nothing)
        if account.merged(variant, account.route.baseline):
            return _by_preference(account, metric, nothing)
        return _by_strata(account, metric, nothing)
    except Exception as error:
        logger.exception("%s of %s on route %s cannot be compared", metric.name, variant, account.route.name)
        said = f"cannot be computed: {type(error).__name__}: {error}"
        return replace(nothing, reason=said, error=said)


def _progress(account: Account, one: Comparison, metric: Metric) -> float | None:
    """Return how much of the evidence for a decision is there, in [0, 1]; None where nothing is known.

    It is (target half-width / present half-width)², which grows as the number of units does. The target is the declared
    smallest effect; without one it is the difference that is seen, if it stays. Where the interval is a description, it
    is the share of the evidence that the level asks for; where a maximum is declared, the share of that.
    """
    found, test = one.found, methods.declared_test(account, metric)
    if found is None:
        return None
    if one.decides:
        return 1.0
    if methods.declared(account, metric) == "maximum" and not one.paired and one.votes is None:
        share = methods.fraction(account, metric, one.variant)
        return None if share is None else min(share, 1.0)
    if found.described:
        return min(max(log(max(found.p, 1e-300)) / log(one.level), 0.0), 1.0)
    effect = None if test is None else test.smallest_effect
    half, target = (found.high - found.low) / 2, effect or abs(found.difference)
    return min((target / half) ** 2, 1.0) if half > 0 and isfinite(half) else None


def _needs(one: Comparison) -> int | None:
    """Return about how many more units, of both sides together, a decision takes; None where no number of them would.

    Evidence is taken to grow as it did so far.
    """
    if one.found is None or one.decides:
        return None
    if one.withheld is not None:
        return one.found.needs
    have, done = sum(one.units), one.progress
    return None if done is None or done < FARTHEST or not have else ceil(have * (1 / done - 1))


def paired(account: Account, variant: str, metric: Metric, against: str, level: float = ALPHA) -> Difference | None:
    """Return the mean difference of two scores of the same requests; None while there are no pairs."""
    tally = account.pooled(variant, SHADOWING, metric.name, metric.definition, "mature", against)
    widest = (
        None if metric.bounds is None else (metric.bounds[0] - metric.bounds[1], metric.bounds[1] - metric.bounds[0])
    )
    return paired_difference(tally, bounds=widest, symmetric=metric.binary, alpha=level)


def _by_strata(account: Account, metric: Metric, nothing: Comparison) -> Comparison:
    sides = (account.own(name, metric, "mature", ANSWERING) for name in (nothing.variant, account.route.baseline))
    ours, theirs = (side.distinct for side in sides)
    found = methods.difference(account, metric, nothing.variant, nothing.level)
    reason = None
    if found is None and min(ours, theirs) >= FEWEST_UNITS:
        reason = "values without known bounds take 100 on each side"
        if not account.route.by_unit:
            reason = "the shares that these requests were drawn with are not known"
    return replace(nothing, units=(ours, theirs), found=found, reason=reason)


def _by_preference(account: Account, metric: Metric, nothing: Comparison) -> Comparison:
    tally = account.pooled(
        nothing.variant, ("draft",), metric.name, metric.definition, "mature", account.route.baseline
    )
    votes = preference(tally, alpha=nothing.level)
    decided = votes.wins + votes.losses
    return replace(nothing, units=(decided, decided), votes=votes, found=votes.difference())


def _on_the_same_requests(account: Account, metric: Metric, nothing: Comparison) -> Comparison:
    variant, baseline = nothing.variant, account.route.baseline
    if metric.kind != "label" and not account.opponents(variant, metric):
        reason = f"{metric.name} is known only of what clients saw, and copies are never seen: it takes a label"
        return replace(nothing, paired=True, reason=reason)
    pairs = account.pooled(variant, SHADOWING, metric.name, metric.definition, "mature", baseline)
    own = account.own(variant, metric, "mature", SHADOWING), account.own(baseline, metric, "mature", ANSWERING)
    return replace(
        nothing,
        units=(pairs.distinct, pairs.distinct),
        paired=True,
        times=times_the_sample(pairs, *own),
        found=paired(account, variant, metric, baseline, nothing.level),
    )


def _judged(account: Account, one: Comparison, metric: Metric) -> Comparison:
    """Return the comparison with its status: a p-value that decides does so however few the units are."""
    one = replace(one, progress=_progress(account, one, metric))
    one = replace(one, needs=_needs(one))
    if one.found is None or one.withheld is not None:
        return replace(one, reason=one.reason or one.withheld)
    if one.decides:
        return replace(one, status="better" if (one.found.difference > 0) == (metric.better == "higher") else "worse")
    return replace(one, status="collecting" if min(one.units) < FEWEST_UNITS else "no_difference_yet")
