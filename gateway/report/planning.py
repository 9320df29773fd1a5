"""What a route's traffic can decide, and when: differences and days, from what was counted of it so far.

Rule: it plans by the method that decides (``difference.METHODS``), and supposes that units, rates and variances stay as
they were since the present versions began; it says what it supposes. What is unreachable has a reason instead of a
number. The keys are the product's public interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import Any, Final

from gateway.moments import rfc3339
from gateway.report import methods
from gateway.report.account import ANSWERING, SHADOWING, Account
from gateway.report.comparison import alpha_of
from gateway.report.sentence import counted
from gateway.report.variants import unit_of_analysis
from policies.statistics.difference import STICKY_MOVING
from policies.statistics.means.strata import FEWEST_UNITS, estimate
from policies.statistics.paired import unit_variance
from policies.statistics.power.power import POWER, Contrast, Design, effect_found, units_needed
from policies.statistics.preference import looks
from router.snapshot import DeclaredTest, Metric

#: What is planned for unless one says otherwise: effects as shares of the baseline's mean, and days.
RELATIVE_EFFECTS: Final = (0.01, 0.02, 0.05, 0.1, 0.2)
DAYS: Final = (1.0, 7.0, 14.0, 30.0, 90.0)

#: Merged lists are planned for by how far the share of votes is from one half.
VOTES: Final = (0.01, 0.02, 0.05, 0.1)

#: What takes longer is said to be out of reach.
LONGEST_DAYS: Final = 3650.0

_DAY_MS: Final = 86_400_000


def planning(account: Account, effects: Sequence[float] = (), days: Sequence[float] = ()) -> dict[str, Any]:
    """Return the days to a decision for each effect, and the effect that is decided within each number of days.

    ``effects`` are absolute, in the primary metric's units, and greater than 0; without them they are shares of the
    baseline's mean. "Decided" means: with probability ``POWER``, and at any look on the way. Takes up to a second.

    | key                 | meaning                                                                                |
    |---------------------|----------------------------------------------------------------------------------------|
    | supposed            | since when the numbers are, how many days of them are mature, and the delay of a value |
    | counted_in          | what units are called: "users", "units" or "requests"                                  |
    | variants            | each variant but the baseline: what it is planned by, and what comes of it             |
    | .effects            | ``days`` and ``units`` (of both variants) until a difference of ``effect`` is decided  |
    | .within             | the smallest ``effect`` that is decided within so many ``days`` from the beginning     |
    | .why, .withheld     | why there is no number; why this route decides nothing                                 |
    """
    metric, baseline = account.primary, account.route.baseline
    others = [variant for variant in account.variants if variant != baseline]
    shown: dict[str, Any] = {
        "route": account.route.name,
        "metric": None if metric is None else metric.name,
        "baseline": baseline,
        "unit_of_analysis": unit_of_analysis(account),
        "counted_in": counted(account),
        "power": POWER,
        "supposed": None,
        "variants": [],
    }
    if metric is None or not others:
        return shown
    span = _span(account, metric)
    alpha = alpha_of(account) / len(others)
    since = None if span.began_ms is None else rfc3339(span.began_ms)
    return shown | {
        "alpha": alpha,
        "supposed": {"since": since, "days": span.days, "delay_days": span.delay_days},
        "variants": [_variant(account, metric, one, span, alpha, effects, days or DAYS) for one in others],
    }


@dataclass(frozen=True, slots=True)
class _Span:
    """The time of which values are mature: from ``began_ms``, ``days`` long; a value is there ``delay_days`` later."""

    began_ms: int | None
    days: float
    delay_days: float


@dataclass(frozen=True, slots=True)
class _Basis:
    """What one variant is planned by. ``mean`` is the baseline's; ``why`` says what is missing.

    No difference in the direction that is planned for, the better one, is as large as ``whole``. The two have ``part``
    of the units of all variants.
    """

    contrast: Contrast
    design: Design
    units_per_day: float
    mean: float | None = None
    why: str | None = None
    whole: float = inf
    part: float = 1.0

    def relative(self, effect: float) -> float | None:
        return effect / abs(self.mean) if self.mean else None


def _span(account: Account, metric: Metric) -> _Span:
    periods = [
        key.period
        for key, tally in account.ledger.tallies.items()
        if (key.metric, key.definition, key.phase) == (metric.name, metric.definition, "mature") and tally.n
    ]
    delay = metric.window_ms if metric.mature == "window" else 0
    began, end = min(periods, default=None), account.ledger.watermark_ms
    if began is None or end is None:
        return _Span(began, 0.0, delay / _DAY_MS)
    return _Span(began, max(end - began - delay, 0) / _DAY_MS, delay / _DAY_MS)


def _variant(
    account: Account,
    metric: Metric,
    variant: str,
    span: _Span,
    alpha: float,
    effects: Sequence[float],
    days: Sequence[float],
) -> dict[str, Any]:
    basis = _basis(account, metric, variant, span, alpha)
    if basis is None:
        return {"variant": variant, "method": None, "withheld": STICKY_MOVING, "effects": [], "within": []}
    test = account.route.test
    wanted = list(effects) or _defaults(basis, test)
    return {
        "variant": variant,
        "method": basis.design.method,
        "withheld": None,
        "share": basis.contrast.share,
        "units_per_day": basis.units_per_day,
        "mean": basis.mean,
        "effects": [_effect(basis, span, one) for one in wanted],
        "within": [_within(basis, span, one) for one in days],
        "maximum": _maximum(basis, span, test),
    }


def _basis(account: Account, metric: Metric, variant: str, span: _Span, alpha: float) -> _Basis | None:
    """Return what a variant is planned by; None where no method may decide."""
    baseline, test = account.route.baseline, account.route.test
    merged, paired = account.merged(variant, baseline), not account.answers(variant)
    method = methods.method(account, metric, paired=paired or merged)
    if method is None:
        return None
    design = Design(
        method,
        alpha,
        None if test is None else test.smallest_effect,
        None if test is None else test.expected_units,
    )
    if merged:
        return _of_votes(account, metric, variant, span, design)
    if paired:
        return _of_pairs(account, metric, variant, span, design)
    return _of_sides(account, metric, variant, span, design)


def _of_sides(account: Account, metric: Metric, variant: str, span: _Span, design: Design) -> _Basis:
    """Return the basis of two variants that share the traffic, at their present shares."""
    own = {name: account.own(name, metric, "mature", ANSWERING) for name in account.variants}
    theirs, ours = own[account.route.baseline], own[variant]
    shares = [account.shares.get(name, 0.0) for name in (account.route.baseline, variant)]
    units = sum(max(tally.distinct, 0) for tally in own.values())
    per_day = units / span.days * sum(shares) if span.days else 0.0
    found = estimate([(theirs, ours if ours.n >= FEWEST_UNITS else theirs)], bounds=metric.bounds)
    one, other = (0.0, 0.0) if found is None else found.variances
    why = None
    if min(shares) <= 0:
        why = f"{variant if shares[1] <= 0 else account.route.baseline} gets no traffic"
    elif theirs.n < 2 or not per_day:
        why = f"no values of {account.route.baseline} are mature yet"
    elif not one:
        why = f"all values of {account.route.baseline} are equal so far"
    elif found is not None and design.method != "e_process" and not isfinite(found.needed):
        why = "how skewed the values are is not known yet"
    contrast = Contrast(
        theirs.mean or 0.0,
        (one * theirs.n, other * (ours.n if ours.n >= FEWEST_UNITS else theirs.n)),
        shares[1] / sum(shares) if min(shares) > 0 else 0.5,
        binary=metric.binary,
        by_log_odds=metric.binary and theirs.n == theirs.d,
        fewest=0.0 if design.method == "e_process" or found is None else found.needed,
    )
    if metric.binary and metric.better == "lower":  # the improvement that is planned for is downwards
        contrast = replace(contrast, mean=1 - contrast.mean)
    whole = inf if metric.bounds is None else metric.bounds[1] - metric.bounds[0]
    if metric.binary:
        whole = 1 - contrast.mean
    return _Basis(contrast, design, per_day, theirs.mean, why, whole, sum(shares))


def _of_pairs(account: Account, metric: Metric, variant: str, span: _Span, design: Design) -> _Basis:
    """Return the basis of two variants that answered the same requests."""
    baseline = account.route.baseline
    pairs = account.pooled(variant, SHADOWING, metric.name, metric.definition, "mature", baseline)
    differing = max(pairs.positive, 0) + max(pairs.negative, 0)
    variance = unit_variance(pairs) or 0.0
    why = None
    if pairs.n < 2 or not span.days:
        why = "no pair of values is mature yet"
    elif not differing or not variance:
        why = "the two have had the same value on every request so far"
    mean = account.own(baseline, metric, "mature", ANSWERING).mean
    contrast = Contrast(mean or 0.0, (variance, 0.0), differing=differing / max(pairs.n, 1), fewest=0.0)
    per_day = max(pairs.distinct, 0) / span.days if span.days else 0.0
    return _Basis(contrast, design, per_day, mean, why)


def _of_votes(account: Account, metric: Metric, variant: str, span: _Span, design: Design) -> _Basis:
    """Return the basis of two rankers: units that prefer one of them, each a vote."""
    tally = account.pooled(variant, ("draft",), metric.name, metric.definition, "mature", account.route.baseline)
    votes = max(tally.positive, 0) + max(tally.negative, 0)
    why = None if votes and span.days else "no unit has preferred either yet"
    design = replace(design, alpha=design.alpha / looks(tally))
    per_day = votes / span.days if span.days else 0.0
    return _Basis(Contrast(0.5, (0.25, 0.0), fewest=0.0, votes=True), design, per_day, why=why, whole=0.5)


def _defaults(basis: _Basis, test: DeclaredTest | None) -> list[float]:
    """Return the effects that are planned for where none are asked for, the declared one first."""
    declared = [] if test is None or test.smallest_effect is None else [test.smallest_effect]
    if basis.contrast.votes:
        return [*declared, *VOTES]
    if basis.why:
        return declared
    scale = abs(basis.mean or 0.0) or sqrt(basis.contrast.variances[0])
    return [*declared, *(scale * one for one in RELATIVE_EFFECTS)]


def _effect(basis: _Basis, span: _Span, effect: float) -> dict[str, Any]:
    """Return how long it takes until a difference is decided."""
    shown = {"effect": effect, "relative": basis.relative(effect)}
    nothing = shown | {"days": None, "units": None}
    if basis.why:
        return nothing | {"why": basis.why}
    if effect >= basis.whole * (1 - 1e-9):
        return nothing | {"why": f"no difference can be larger than {basis.whole:.4g}"}
    units = units_needed(basis.contrast, effect, basis.design)
    if not isfinite(units):
        return nothing | {"why": "it is much smaller than what this method looks for; declare smallest_effect"}
    needed = units / basis.units_per_day + span.delay_days
    if needed > LONGEST_DAYS:
        return nothing | {"units": round(units), "why": "it would take more than ten years of this traffic"}
    return shown | {"days": needed, "units": round(units), "why": None}


def _within(basis: _Basis, span: _Span, days: float) -> dict[str, Any]:
    """Return the smallest difference that is decided within so many days from the beginning."""
    shown = {"days": days, "effect": None, "relative": None}
    if basis.why:
        return shown | {"why": basis.why}
    if days <= span.delay_days:
        return shown | {"why": "no value is mature by then"}
    effect = effect_found(basis.contrast, (days - span.delay_days) * basis.units_per_day, basis.design)
    if not isfinite(effect) or effect >= basis.whole:
        return shown | {"why": "there are too few units by then for any difference"}
    return {"days": days, "effect": effect, "relative": basis.relative(effect), "why": None}


def _maximum(basis: _Basis, span: _Span, test: DeclaredTest | None) -> dict[str, Any] | None:
    """Return what a test with a declared maximum decides by its end; None if none is declared."""
    if test is None or basis.why or not (test.units or test.until) or span.began_ms is None:
        return None
    if test.units:
        days = test.units * basis.part / basis.units_per_day + span.delay_days
    else:
        days = ((test.until or 0) - span.began_ms) / _DAY_MS
    units = test.units or round(max(days - span.delay_days, 0.0) * basis.units_per_day / basis.part)
    return _within(basis, span, days) | {"units": units}
