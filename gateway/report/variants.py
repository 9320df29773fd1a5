"""What is known of each variant on its own: calls, latency, its metrics, its copies, and what a bandit believes of it.

Rule: numbers only. Where nothing was counted there is null, never an interval that says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, sqrt
from typing import Any, Final

from gateway.moments import rfc3339
from gateway.report.account import SHADOWING, Account
from gateway.report.comparison import ALPHA, paired
from gateway.report.verdict import coverage_tally
from gateway.store.counts.ledger import CALLS, Ledger
from policies import Tally
from policies.statistics.difference import Difference
from policies.statistics.latency import quantile
from policies.statistics.means.compare import compare
from policies.statistics.sequential import Bounds, Interval, mean_interval
from policies.types import EMPTY, Buckets
from router.records import Role
from router.scores import PAIR_MEASURES, Agreement
from router.snapshot import Metric

#: The role of calls for units that the route never treats.
HELD: Final = "holdout"

NO_BUCKETS: Final[Mapping[int, Buckets]] = {}
QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def variants(account: Account) -> list[dict[str, Any]]:
    """Return one entry per variant, in the order the file names them."""
    believed = _beliefs(account)
    return [
        _variant(account, name) | believed.get(name, {"p_best": None, "evidence": None}) for name in account.variants
    ]


def _variant(account: Account, name: str) -> dict[str, Any]:
    backend = account.snapshot.backends[name]
    roles = account.roles(name)
    calls = account.calls(name, roles)
    return {
        "name": name,
        "model": backend.model,
        "version": backend.version,
        "role": "shadow"
        if roles == SHADOWING
        else "draft"
        if account.merged(name, _another(account, name))
        else "primary",
        "share": account.shares.get(name, 0.0),
        "predictions": count(calls.d),
        "failures": count(calls.m),
        "client_errors": 0 if (refused := account.seen(name, "client_error", roles)) is None else refused.n,
        "units": calls.distinct,
        "latency_ms": _latency(account.ledger, name, roles),
        "metrics": {metric.name: _metric(account, name, metric) for metric in account.metrics},
        "shadow": _shadow(account, name),
    }


def earlier_versions(account: Account, ledger: Ledger) -> list[dict[str, Any]]:
    """Return which versions ran in this epoch before, and variants that the route has no more; the last first.

    ``ledger`` has what is counted of all versions. ``since`` and ``until`` are the beginnings of the first and the last
    period in which the version ran.
    """
    found: dict[tuple[str, str], list[tuple[int, Tally]]] = {}
    for key, tally in ledger.tallies.items():
        present = key.variant in account.variants and account.snapshot.backends[key.variant].version == key.version
        if key.metric == CALLS and not present:
            found.setdefault((key.variant, key.version), []).append((key.period, tally))
    shown = [
        {
            "name": name,
            "version": version,
            "predictions": count(sum(tally.d for _, tally in calls)),
            "failures": count(sum(tally.m for _, tally in calls)),
            "since": rfc3339(min(period for period, _ in calls)),
            "until": rfc3339(max(period for period, _ in calls)),
        }
        for (name, version), calls in found.items()
    ]
    return sorted(shown, key=lambda one: (str(one["until"]), str(one["name"])), reverse=True)


def _metric(account: Account, name: str, metric: Metric) -> dict[str, Any]:
    live, mature = account.own(name, metric, "live"), account.own(name, metric, "mature")
    closed, unexposed = account.own(name, metric, "closed").d, account.own(name, metric, "unexposed").d
    # Events and values score only what the client saw, so a copy waits for none.
    awaited = account.answers(name) or metric.kind == "label"
    calls = account.calls(name, account.roles(name)).d if awaited else 0.0
    return {
        "live": {"n": count(live.d), "mean": live.mean},
        "mature": {
            "n": count(mature.d),
            "mean": mature.mean,
            **_interval(mature, metric.bounds, account.buckets(name, metric, "mature")),
            "units": mature.distinct,
            "unit_of_analysis": unit_of_analysis(account),
        },
        "pending": count(max(calls - closed - unexposed, 0.0)),
        "not_exposed": count(unexposed),
        "oldest_pending_seconds": pending_seconds(account.ledger, name, metric.name),
        "coverage": _coverage(account, name, metric),
    }


def pending_seconds(ledger: Ledger, name: str, metric: str) -> float | None:
    """Return the age in event time of the oldest prediction whose window is open; None if unknown or if none is."""
    oldest = ledger.oldest_ms.get((name, metric))
    if oldest is None or ledger.watermark_ms is None:
        return None
    return max(ledger.watermark_ms - oldest, 0) / 1000


def _coverage(account: Account, name: str, metric: Metric) -> float | None:
    """Return the share of predictions with a value, among those whose window has closed; None before any has."""
    if account.answers(name):
        return coverage_tally(account, name, metric).mean
    closed, mature = account.own(name, metric, "closed").d, account.own(name, metric, "mature").d
    return min(mature / closed, 1.0) if closed else None


def _shadow(account: Account, name: str) -> dict[str, Any] | None:
    """Return what is known from copies; None for a variant that gets none."""
    calls = account.calls(name, SHADOWING)
    if not calls.d and account.answers(name):
        return None
    return {
        "calls": count(calls.d),
        "failures": count(calls.m),
        "latency_ms": _latency(account.ledger, name, SHADOWING),
        "agreement": _agreement(account, name),
        "noise_floor": _noise_floor(account, name),
        "predictions": _predictions(account, name),
        "paired": {
            metric.name: _paired(account, name, metric)
            for metric in account.metrics
            if _is_paired(account, name, metric)
        },
    }


def _agreement(account: Account, name: str) -> dict[str, Any]:
    tally = _compared(account, name, Agreement.name)
    return {"n": count(tally.d), "mean": tally.mean, **_interval(tally, (0.0, 1.0))}


def _noise_floor(account: Account, name: str) -> dict[str, Any] | None:
    """Return how often another copy of the baseline itself agrees with it; None if no other variant is one.

    A copy has the model and the version of the baseline, behind a backend of its own. What it does not agree with is
    noise of the model, or of the way to it: no variant can be expected to agree more often.
    """
    baseline, backends = account.route.baseline, account.snapshot.backends

    def model(variant: str) -> tuple[str, str]:
        return backends[variant].model, backends[variant].version

    for other in account.variants:
        if other not in (name, baseline) and model(other) == model(baseline) and not account.answers(other):
            return {"variant": other, **_agreement(account, other)}
    return None


def _predictions(account: Account, name: str) -> dict[str, dict[str, Any]]:
    """Return how its predictions differ from the answers', by each pair measure that compares their kind."""
    found = {}
    for measure in PAIR_MEASURES:
        tally = _compared(account, name, measure.name)
        if tally.mean is not None and not measure.by_unit:
            spread = max(tally.m2 / tally.d - tally.mean**2, 0.0)
            found[measure.key] = {"n": count(tally.d), "mean": tally.mean, "deviation": sqrt(spread)}
    return found


def _compared(account: Account, name: str, measure: str) -> Tally:
    pooled = (account.pooled(name, SHADOWING, measure, "", "live", against) for against in ("", *account.variants))
    return sum(pooled, EMPTY)


def _is_paired(account: Account, name: str, metric: Metric) -> bool:
    # Events and values score only what the client saw, so a copy never has one: only labels make pairs.
    return metric.kind == "label" or bool(account.opponents(name, metric))


def _paired(account: Account, name: str, metric: Metric) -> dict[str, Any]:
    """Return the score of the copy less that of the answer, on the requests whose label scored both."""
    opponents = account.opponents(name, metric)
    against = opponents[0] if opponents else account.route.baseline
    tally = account.pooled(name, SHADOWING, metric.name, metric.definition, "mature", against)
    closed = account.own(name, metric, "closed", SHADOWING).d
    scored = sum(
        account.pooled(name, SHADOWING, metric.name, metric.definition, "mature", each).d for each in opponents
    )
    return {
        "against": against,
        "n": count(tally.d),
        "units": tally.distinct,
        "difference": tally.mean,
        **_shown(paired(account, name, metric, against)),
        # Copied requests whose window has closed without a score on both sides: no label came, or one of them failed.
        "incomplete": count(max(closed - scored, 0.0)),
    }


def _beliefs(account: Account) -> Mapping[str, dict[str, Any]]:
    """Return P(best) and its evidence for each variant of an adaptive policy; empty for other policies."""
    metric = account.reward
    if metric is None:
        return {}
    evidence = account.evidence
    believed: dict[str, dict[str, Any]] = {}
    for name in account.route.variants:
        if account.answers(name):
            tally = evidence.tally(name, metric.name)
            known = {"metric": metric.name, "successes": count(tally.m), "trials": count(tally.d)}
            believed[name] = {"p_best": account.best.get(name), "evidence": known}
    return believed


def holdout(account: Account, ledger: Ledger) -> dict[str, Any] | None:
    """Return how the units that the route never treats do beside all others, by metric; None without a holdout.

    All versions of an epoch are counted (``ledger``), period by period. Only units that are counted are compared: of
    requests drawn anew, and of merged lists, the means alone are shown.
    """
    route = account.route
    held_calls = sum((t for key, t in ledger.tallies.items() if key.role == HELD and key.metric == CALLS), EMPTY)
    if not route.holdout_salt and not held_calls.n:
        return None
    found = {}
    for metric in account.metrics:
        sides: tuple[dict[int, Tally], dict[int, Tally]] = ({}, {})
        for key, tally in ledger.tallies.items():
            is_mature = (key.metric, key.definition, key.phase) == (metric.name, metric.definition, "mature")
            if is_mature and not key.against and key.role in (HELD, "primary"):
                side = sides[key.role == "primary"]
                side[key.period] = side.get(key.period, EMPTY) + tally
        held, treated = sides
        strata = [(held[period], treated[period]) for period in sorted(held) if period in treated]
        apart = compare(strata, bounds=metric.bounds, alpha=ALPHA) if route.by_unit and strata else None
        ours, theirs = (sum(side.values(), EMPTY) for side in sides)
        found[metric.name] = {
            "holdout": {"units": ours.n, "n": count(ours.d), "mean": ours.mean},
            "treated": {"units": theirs.n, "n": count(theirs.d), "mean": theirs.mean},
            "difference": None if apart is None else apart.difference,
            **{name: end for name, end in _shown(apart).items() if name != "method"},
            "p": None if apart is None or apart.withheld is not None else apart.p,
            "withheld": None if apart is None else apart.withheld,
        }
    return {"name": route.holdout, "share": route.holdout_share, "calls": count(held_calls.d), "metrics": found}


def _interval(tally: Tally, bounds: Bounds | None, periods: Mapping[int, Buckets] = NO_BUCKETS) -> dict[str, Any]:
    """Return the interval of a mean; nulls where nothing was counted, or too little for a valid interval.

    ``periods`` are the same units in buckets, by period: with them no heavy unit makes it wide.
    """
    if tally.mean is None:
        return _shown(None)
    known = sum(periods.values(), Buckets()) if periods else None
    return _shown(mean_interval(tally, bounds=bounds, alpha=ALPHA, buckets=known))


def _shown(found: Interval | Difference | None) -> dict[str, Any]:
    if found is None:
        return {"low": None, "high": None, "method": None}
    # An end that nothing bounds is null, in JSON and to those who read the report as a value.
    low, high = (end if isfinite(end) else None for end in (found.low, found.high))
    return {"low": low, "high": high, "method": found.method}


def _latency(ledger: Ledger, name: str, roles: tuple[Role, ...]) -> dict[str, float | None]:
    buckets: dict[int, int] = {}
    for role in roles:
        for index, count in ledger.latency.get((name, role), {}).items():
            buckets[index] = buckets.get(index, 0) + count
    return {label: quantile(buckets, q) for label, q in QUANTILES.items()}


def _another(account: Account, name: str) -> str:
    """Return the baseline, or for the baseline another variant: with it the variant's answers may be merged."""
    if name != account.route.baseline:
        return account.route.baseline
    return next((other for other in account.variants if other != name), name)


def unit_of_analysis(account: Account) -> str:
    return "unit" if account.route.by_unit else "request"


def count(number: float) -> int | float:
    """Return a count as people write it: sums are floats, and 812.0 users look wrong. Beyond 2⁵³ they are not exact."""
    return int(number) if float(number).is_integer() and abs(number) <= 2**53 else number
