"""The verdict of a route: one status, with a sentence and a reason.

Rule: a verdict is withheld rather than qualified: where assignment or coverage is broken, the status is "invalid",
whatever the intervals say. What each status means is in ``verdict_status``.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

from gateway.moments import to_the_second
from gateway.report import sentence
from gateway.report.account import ANSWERING, Account
from gateway.report.comparison import FEWEST_UNITS, Comparison, comparisons
from gateway.report.guardrails import Guarded, guarded
from gateway.report.verdict_status import Status
from gateway.store.rows.bounded_reads import Drawn
from gateway.store.rows.calls import json_of
from policies import Tally
from policies.statistics.means.coverage import coverage_gap
from policies.statistics.preference import unfairness_p
from policies.statistics.sample_ratio import ALARM_BELOW, Cause, SampleRatio, by_period, find_cause
from policies.statistics.sequential import mean_interval
from policies.statistics.two_shares import Trials, share_gap
from policies.types import EMPTY, Buckets
from router.exposure import exposure
from router.merge import ABOVE, CREDITED, FIRST
from router.snapshot import Metric

#: A smaller gap between coverages never withholds a verdict, even if it is certain.
LEAST_COVERAGE_GAP: Final = 0.01

#: The chance of ever withholding a sound comparison because of its coverage, split over the two intervals.
COVERAGE_ALPHA: Final = 0.01

logger = logging.getLogger(__name__)


#: The chance of ever calling fair drafts of a route unfair.
DRAFT_ALARM: Final = 0.001

#: What each measure says of a ranker whose mean differs from 0: "more often" or "less often".
_DRAFT_MEASURES: Final = {
    FIRST: "its item stood first {often} than that of {other}",
    ABOVE: "its items stood above those of {other} {often} than below",
    CREDITED: "it had the larger number of credited items {often} than {other}",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` says why the verdict decides nothing (yet); None when it decides.

    ``comparisons`` are those of the primary metric, which it is about; ``others`` those of all other metrics. A variant
    that broke one of ``guardrails`` is failing.
    """

    status: Status
    comparisons: tuple[Comparison, ...]
    sentence: str
    reason: str | None
    others: tuple[Comparison, ...] = ()
    guardrails: tuple[Guarded, ...] = ()


def sample_ratio_of(account: Account) -> SampleRatio | None:
    """Return the sample-ratio check; None where the policy does not choose the variant at random."""
    if not account.randomised:
        return None
    ledger = account.ledger
    given = ((stretch.period, (stretch.counts, stretch.shares)) for stretch in ledger.stretches)
    return by_period(given, account.route.period, ledger.sample_ratio).found


def cause_of(account: Account, drawn: Iterable[Drawn]) -> Cause | None:
    """Return the feature's value, or the hour, in which most of the requests are whose variant was chosen too often."""
    shares = {stretch.revision: stretch.shares for stretch in account.ledger.stretches}
    whole, groups = Counter[tuple[int, str]](), defaultdict[tuple[str, str], Counter[tuple[int, str]]](Counter)
    for one in drawn:
        if one.revision in shares:
            place = one.revision, one.variant
            whole[place] += 1
            hour = to_the_second(one.at_ms - one.at_ms % 3_600_000)[:16]
            for name, value in (("the hour (UTC)", hour), *one.features.items()):
                groups[name, value if isinstance(value, str) else json_of(value)][place] += 1
    return find_cause(groups, whole, shares)


def verdict(account: Account, ratio: SampleRatio | None) -> Verdict:
    """Judge a route by its primary metric, its baseline against each other variant, and by its guardrails.

    What was counted before an edit that followed an alarm of the sample ratio is set aside, and the sentence says so.
    """
    found = _verdict(in_force(account, ratio), ratio)
    if ratio is None or ratio.aside is None:
        return found
    return replace(found, sentence=f"{found.sentence} {sentence.set_aside(account, ratio)}")


def in_force(account: Account, ratio: SampleRatio | None) -> Account:
    """Return the account without what is set aside."""
    if ratio is None or ratio.aside is None:
        return account
    return replace(account, ledger=account.ledger.since(ratio.since))


def _verdict(account: Account, ratio: SampleRatio | None) -> Verdict:
    metric = account.primary
    bounds = guarded(account)
    if metric is None:
        return Verdict(
            "collecting",
            (),
            sentence.no_metric(account.route.name),
            "the route lists no metric",
            guardrails=bounds,
        )
    found = comparisons(account)
    if not any(one.primary for one in found):
        reason = f"nothing to compare: {account.route.baseline} is the only variant"
        return Verdict("collecting", (), sentence.alone(account, metric), reason)
    return replace(_of_comparisons(account, metric, found, ratio, bounds), guardrails=bounds)


def _of_comparisons(
    account: Account,
    metric: Metric,
    found: Sequence[Comparison],
    ratio: SampleRatio | None,
    bounds: Sequence[Guarded],
) -> Verdict:
    if ratio is not None and not ratio.ok:
        broken = sentence.ratio_reason(account, ratio)
        return _withheld(account, [_void(one, broken) for one in found])
    if (unfair := unfair_reason(interleaving_checks(account))) is not None:
        return _withheld(account, [one if one.votes is None else _void(one, unfair) for one in found])
    failing = sentence.failing(account, bounds)
    found = tuple(
        replace(one, status="failing", reason=failing[one.variant])
        if one.variant in failing
        else _void(one, _uncovered(account, one) or _unequally_shown(account, one))
        for one in found
    )
    judged, others = _split(found)
    if any(one.status == "invalid" for one in judged):
        return _withheld(account, found)
    text = sentence.summary(account, metric, judged, failing, others, bounds)
    why_undecided = "; ".join(failing.values()) if failing else _why_undecided(account, judged)
    return Verdict(overall(judged), judged, text, why_undecided, others)


def overall(found: Sequence[Comparison]) -> Status:
    """Return the status of a route from those of its comparisons, by the meanings in ``verdict_status``."""
    statuses: set[Status] = {one.status for one in found}
    if "invalid" in statuses:
        return "invalid"
    if "failing" in statuses:
        return "failing"
    if "better" in statuses:
        return "better"
    if statuses == {"worse"}:
        return "worse"
    return "collecting" if "collecting" in statuses or not statuses else "no_difference_yet"


def coverage_tally(account: Account, variant: str, metric: Metric) -> Tally:
    """Return the tally of which predictions have a value once their window has closed: M of D.

    Closed windows are not counted by unit. A unit can have no more of them than it has calls, so the most calls of any
    unit bound how heavy one unit may be: that keeps the interval exact however alike a unit's values are.
    """
    calls, closed = account.calls(variant, ANSWERING), sum(_answered(account, variant, metric).values())
    valued = min(account.own(variant, metric, "mature", ANSWERING).d, closed)
    heaviest = max(calls.d_max, 1.0) if account.route.by_unit else 1.0
    return Tally(n=max(calls.n, 1), m=valued, d=closed, d_max=heaviest)


def _void(one: Comparison, why: str | None) -> Comparison:
    """Return a comparison that cannot be trusted, for this reason; the same one without a reason."""
    return one if why is None else replace(one, status="invalid", reason=why)


def _split(found: Iterable[Comparison]) -> tuple[tuple[Comparison, ...], tuple[Comparison, ...]]:
    """Return the comparisons of the primary metric, and the others."""
    found = tuple(found)
    return tuple(one for one in found if one.primary), tuple(one for one in found if not one.primary)


def _withheld(account: Account, found: Iterable[Comparison]) -> Verdict:
    """Return the verdict of a route where some comparisons of the primary metric cannot be trusted, and why."""
    judged, others = _split(found)
    reasons = [one.reason for one in judged if one.status == "invalid" and one.reason is not None]
    reason = "; ".join(dict.fromkeys(reasons))
    return Verdict("invalid", judged, sentence.untrusted(account.route.name, reason), reason, others)


def _uncovered(account: Account, one: Comparison) -> str | None:
    """Return why unequal coverage makes a comparison invalid (values are seldom missing by chance); None if not."""
    if one.paired or one.votes is not None:
        return None  # both sides answered the same requests, so what is missing is missing from both
    metric, names = account.snapshot.metrics[one.metric], (account.route.baseline, one.variant)
    theirs, ours = (coverage_tally(account, name, metric).mean for name in names)
    if ours is None or theirs is None or abs(ours - theirs) <= LEAST_COVERAGE_GAP:
        return None
    try:
        apart = _is_covered_otherwise(account, metric, names)
    except Exception:
        logger.exception("the coverage of %s on route %s cannot be compared", metric.name, account.route.name)
        return None
    return sentence.coverage_reason(account, metric, one.variant, ours, theirs) if apart else None


def _unequally_shown(account: Account, one: Comparison) -> str | None:
    """Return why unequal exposure makes a comparison invalid: then those who count are others; None if it is equal.

    It is the sample ratio of exposed units: where assignment is sound, they are as unequal as the shares of units that
    were exposed. Of a unit that is in several periods only one is independent: the largest period is looked at.
    """
    if not account.route.require_exposure or one.paired or one.votes is not None:
        return None
    metric, names = exposure(account.metrics), (account.route.baseline, one.variant)
    shown = [account.periods(name, metric) for name in names]
    called = [account.calls_by_period(name, ANSWERING) for name in names]
    periods = called[0].keys() & called[1].keys()
    if not periods:
        return None
    period = max(periods, key=lambda one: (min(side[one].n for side in called), one))
    trials = Trials(*(n for side in (0, 1) for n in (shown[side].get(period, EMPTY).positive, called[side][period].n)))
    low, high = share_gap([trials], alpha=ALARM_BELOW)
    if low <= 0 <= high:
        return None
    theirs, ours = trials.k0 / trials.n0, trials.k1 / trials.n1
    return (
        f"{ours:.1%} of the {sentence.counted(account)} of {one.variant} were exposed and {theirs:.1%} of those of "
        f"{account.route.baseline}, so the exposed ones were not split by chance alone"
    )


def _is_covered_otherwise(account: Account, metric: Metric, names: tuple[str, str]) -> bool:
    """Return whether the shares of predictions with a value differ, not by chance: (baseline, variant).

    Requests are counted as they are. Units are compared in buckets, each of which weighs as much as two typical ones at
    most, so that no heavy unit decides, nor hides what the others show.
    """
    if not account.route.by_unit:
        closed = [_answered(account, name, metric) for name in names]
        valued = [account.periods(name, metric) for name in names]
        trials = [
            Trials(*(n for side in (0, 1) for n in (valued[side].get(period, EMPTY).d, closed[side][period])))
            for period in sorted(closed[0].keys() & closed[1].keys())
        ]
        low, high = share_gap(trials, alpha=COVERAGE_ALPHA)
        return low > 0 or high < 0
    found = coverage_gap(*(_covered(account, name, metric) for name in names), alpha=COVERAGE_ALPHA)
    if found is not None:
        return found.decides(COVERAGE_ALPHA)
    sides = [coverage_tally(account, name, metric) for name in names]
    one, other = (mean_interval(side, bounds=(0.0, 1.0), alpha=COVERAGE_ALPHA / 2) for side in sides)
    return one is not None and other is not None and (one.low > other.high or other.low > one.high)


def _answered(account: Account, variant: str, metric: Metric) -> Mapping[int, float]:
    """Return by period the predictions that coverage is a share of: those with a closed window.

    A value that counts on arrival may be of an open window. So where requests are counted as they are, it is one of all
    that the variant answered: the share of closed ones would vary by more than chance does.
    """
    if metric.mature == "arrival" and not account.route.by_unit:
        return {period: tally.d for period, tally in account.calls_by_period(variant, ANSWERING).items()}
    return account.closed_by_period(variant, metric)


def _covered(account: Account, name: str, metric: Metric) -> tuple[Buckets, Buckets]:
    """Return a variant's predictions with closed windows, and those of them with values, in buckets of units."""
    closed, valued = account.buckets(name, metric, "closed"), account.buckets(name, metric, "mature")
    return sum(closed.values(), Buckets()), sum(valued.values(), Buckets())


def _why_undecided(account: Account, found: Sequence[Comparison]) -> str | None:
    status = overall(found)
    withheld = [one.reason for one in found if one.reason is not None]
    if withheld and status in ("collecting", "no_difference_yet"):
        return "; ".join(dict.fromkeys(withheld))
    if status == "collecting":
        never = [one.reason for one in found if one.paired and one.found is None and one.reason is not None]
        if never:
            return "; ".join(dict.fromkeys(never))
        few = [one.variant for one in found if one.status == "collecting"]
        counted = sentence.counted(account)
        return (
            f"too few {counted} with a closed window yet for {' and '.join(few)}: it takes {FEWEST_UNITS} on each side"
        )
    if status == "no_difference_yet":
        described = all(one.found is None or one.found.described for one in found)
        return "the evidence does not suffice yet" if described else "the interval contains 0"
    return None


@dataclass(frozen=True, slots=True)
class DraftCheck:
    """One measure of two rankers over ``n`` lists: its mean in [−1, 1], and the always-valid p-value of 0."""

    measure: str
    ranker: str
    other: str
    n: int
    mean: float | None
    p: float
    ok: bool


def interleaving_checks(account: Account) -> tuple[DraftCheck, ...]:
    """Return what must be even of each two rankers; empty where no lists were merged in a known order."""
    found = []
    for one, other in combinations(sorted(account.variants), 2):
        for measure in _DRAFT_MEASURES:
            tally = account.pooled(one, ("draft",), measure, "", "live", other)
            if tally.n > 0:
                found.append((measure, one, other, tally))
    level = DRAFT_ALARM / max(len(found), 1)
    return tuple(
        DraftCheck(measure, one, other, tally.n, tally.mean, p, p > level)
        for measure, one, other, tally in found
        for p in (unfairness_p(tally),)
    )


def unfair_reason(checks: Sequence[DraftCheck]) -> str | None:
    """Return why no preference can be trusted, by the check that says it most clearly; None if all is even."""
    worst = min((check for check in checks if not check.ok), key=lambda check: check.p, default=None)
    if worst is None:
        return None
    often = "more often" if (worst.mean or 0.0) > 0 else "less often"
    what = _DRAFT_MEASURES[worst.measure].format(other=worst.other, often=often)
    return f"interleaving is not fair: of {worst.ranker}, in {worst.n:,} lists, {what} (p = {worst.p:.2g})"


def checks_as_json(checks: Sequence[DraftCheck]) -> dict[str, Any]:
    """Return the checks as the report shows them."""
    return {
        "applies": bool(checks),
        "ok": all(check.ok for check in checks),
        "tests": [
            {
                "measure": check.measure.removeprefix("@"),
                "variant": check.ranker,
                "against": check.other,
                "n": check.n,
                "mean": check.mean,
                "p": check.p,
                "ok": check.ok,
            }
            for check in checks
        ],
    }
