"""Which method compares a variant with the baseline, and what it is given of the ledger.

Rule: ``method_of`` decides, by how chance works on the route and what was declared of its test; the primary metric
alone has a declared test. Nothing here decides whether there is a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from gateway.report.account import Account
from gateway.store.counts.ledger import Look, UnitsOf
from policies.statistics.difference import STICKY_MOVING, Declared, Difference, Method, method_of
from policies.statistics.means.compare import compare, shares_moved, standardised
from policies.statistics.means.group_sequential import boundary, sequential_p
from policies.types import EMPTY, Tally
from router.settings.declared import DeclaredTest
from router.snapshot import Metric

#: The shares of a declared maximum at which a test is looked at.
LOOKS: Final = (0.2, 0.4, 0.6, 0.8, 1.0)

#: How a comparison was made, as a reader of the report is told.
METHODS: Final[Mapping[Method, str]] = {
    "exact": "an exact interval for each side, valid at every look",
    "asymptotic": "a confidence sequence, valid at every look once there are many units",
    "mixture": "a confidence sequence that is tuned to the declared effect, valid at every look",
    "betting": "bets on each unit's own mean, valid at every look for any number of units",
    "e_process": "bets on every request by the logged shares, valid at every look however rates and shares move",
    "paired_e_process": "bets on pairs of answers to the same request, valid at every look",
    "group_sequential": "planned looks up to the declared maximum, valid at these looks",
}

#: The same in a few words, as the sentence says it.
SHORT: Final[Mapping[Method, str]] = {
    "exact": "exact intervals",
    "asymptotic": "confidence sequence",
    "mixture": "confidence sequence for the declared effect",
    "betting": "bets on units' means",
    "e_process": "bets on every request",
    "paired_e_process": "bets on pairs",
    "group_sequential": "planned looks",
}

Pair = tuple[Tally, Tally]


def declared_test(account: Account, metric: Metric) -> DeclaredTest | None:
    """Return what was declared of a metric's test."""
    primary = account.primary
    return account.route.test if primary is not None and primary.name == metric.name else None


def declared(account: Account, metric: Metric) -> Declared:
    """Return what kind of thing was declared of a metric's test."""
    test = declared_test(account, metric)
    if test is None:
        return "undeclared"
    if test.units is not None or test.until is not None:
        return "maximum"
    return "undeclared" if test.smallest_effect is None else "effect"


def method(account: Account, metric: Metric, *, paired: bool = False) -> Method | None:
    """Return the method that decides; None where no method is valid."""
    return method_of(
        by_unit=account.route.by_unit, adaptive=account.adaptive, paired=paired, declared=declared(account, metric)
    )


def difference(account: Account, metric: Metric, variant: str, level: float) -> Difference | None:
    """Return how a variant that answers instead of the baseline differs from it; None while nothing can be said."""
    chosen, test = method(account, metric), declared_test(account, metric)
    if chosen == "e_process":
        # Needs numpy and scipy, which other routes do not.
        from policies.statistics.e_process import MetricSums, fresh_difference

        stretches = account.evidence.stretches
        if stretches and metric.name not in account.sums:
            account.sums[metric.name] = MetricSums(stretches, metric.name)
        return fresh_difference(
            stretches,
            variant,
            account.route.baseline,
            metric.name,
            bounds=metric.bounds,
            effect=None if test is None else test.smallest_effect,
            alpha=level,
            sums=account.sums.get(metric.name),
        )
    given = _Given(account, metric, variant)
    if chosen is None:
        found = compare(given.strata, bounds=metric.bounds, alpha=level)
        return None if found is None else replace(found, p=1.0, described=True, withheld=STICKY_MOVING)
    if chosen == "group_sequential":
        return _at_looks(account, metric, variant, given, level)
    return compare(
        given.strata,
        bounds=metric.bounds,
        alpha=level,
        buckets=given.buckets,
        few=given.few,
        expected_units=None if test is None else test.expected_units,
        effect=None if test is None else test.smallest_effect,
    )


def at_every_look(account: Account, metric: Metric, variant: str, level: float) -> Difference | None:
    """Return the difference of sticky units with an interval for every look, whatever was declared of its test.

    None while nothing can be said, and where shares follow the evidence.
    """
    if account.adaptive:
        return None
    given = _Given(account, metric, variant)
    return compare(given.strata, bounds=metric.bounds, alpha=level, buckets=given.buckets, few=given.few)


def fraction(account: Account, metric: Metric, variant: str | None = None) -> float | None:
    """Return which share of the declared maximum is there; None without one, or before anything is known.

    With ``variant`` the share counts from the first period that it and the baseline have in common: what was before
    says nothing about the two.
    """
    test = declared_test(account, metric)
    if test is None:
        return None
    began, now = account.began_ms, account.ledger.watermark_ms
    if variant is not None:
        sides = account.periods(account.route.baseline, metric), account.periods(variant, metric)
        common = min(sides[0].keys() & sides[1].keys(), default=None)
        if common is None:
            return None
        if began is not None and common > began:
            account, began = replace(account, ledger=account.ledger.since(common)), common
    if test.units is not None:
        return sum(account.own(name, metric, "mature").distinct for name in account.route.variants) / test.units
    if test.until is None or began is None or now is None:
        return None
    return min(max((now - began) / max(test.until - began, 1), 0.0), 1.0)


def due_look(account: Account, metric: Metric, variant: str, at_ms: int, alpha: float) -> Look | None:
    """Return the look that is to be made now of a test with a declared maximum; None where none is."""
    if method(account, metric) != "group_sequential" or not account.answers(variant):
        return None
    looks, now = account.looks(metric, variant), fraction(account, metric, variant)
    last = looks[-1].fraction if looks else 0.0
    if now is None or not any(last < planned <= now for planned in LOOKS):
        return None
    given = _Given(account, metric, variant)
    seen = standardised(
        given.strata, bounds=metric.bounds, buckets=given.buckets, independent=not account.route.by_unit
    )
    if seen is None:
        return None  # too few units for a look: it is made once there are enough
    z, information = seen
    edge = boundary(
        [*(look.fraction for look in looks), now], alpha, [*(look.information for look in looks), information]
    )
    beside = account.snapshot.backends[account.route.baseline].version
    return Look(at_ms, now, z, min(edge, 1e300), abs(z) > edge, information, beside)


def _at_looks(account: Account, metric: Metric, variant: str, given: _Given, level: float) -> Difference | None:
    """Return the present difference, with the p-value of the looks that were made: between looks nothing is decided."""
    looks, now = account.looks(metric, variant), fraction(account, metric, variant) or 0.0
    fractions, known = [look.fraction for look in looks], [look.information for look in looks]
    found = compare(
        given.strata,
        bounds=metric.bounds,
        alpha=level,
        buckets=given.buckets,
        independent=not account.route.by_unit,
        looks=fractions or [max(now, 1e-9)],
        information=known[:-1] if known else (),
    )
    if found is None:
        return None
    ps = [sequential_p(fractions[:at], abs(look.z), known[:at]) for at, look in enumerate(looks, 1)]
    best = min(range(len(ps)), key=ps.__getitem__, default=None)
    if best is None:
        waits = f"the first of its planned looks is made at {LOOKS[0]:.0%} of what was declared"
        return replace(found, p=1.0, described=True, withheld=found.withheld or waits)
    z = looks[best].z
    if (z > 0) != (found.difference > 0) and ps[best] <= level:  # what a look decided stays decided
        size = abs(found.difference)
        found = replace(found, difference=size if z > 0 else -size)
    return replace(found, p=ps[best], described=True, withheld=None)


class _Given:
    """Sums of a variant and the baseline, in the order that comparisons take them: (baseline, variant)."""

    def __init__(self, account: Account, metric: Metric, variant: str) -> None:
        self._account, self._metric = account, metric
        sides = account.periods(account.route.baseline, metric), account.periods(variant, metric)
        both = [period for period in sorted(sides[1]) if period in sides[0]]
        names = account.route.baseline, variant
        self.strata: list[Pair] = [(sides[0][period], sides[1][period]) for period in both]
        split = [account.buckets(name, metric, "mature") for name in names]
        known = [(split[0][period], split[1][period]) for period in both if all(period in side for side in split)]
        self.buckets = known if known and len(known) == len(both) else None
        few = self._few(names[0]), self._few(names[1])
        everywhere = [tuple(side.get(period, EMPTY) for side in sides) for period in sides[0].keys() | sides[1].keys()]
        # Units are of all periods together: also of those before the other side's present version.
        pooled = not shares_moved([(one, other) for one, other in everywhere])
        self.few = (few[0], few[1]) if few[0] is not None and few[1] is not None and pooled else None

    def _few(self, variant: str) -> Sequence[tuple[float, float]] | None:
        account, metric = self._account, self._metric
        version = account.snapshot.backends[variant].version
        of = UnitsOf(variant, version, "primary", "", metric.name, metric.definition)
        return account.ledger.few_units.get(of)
