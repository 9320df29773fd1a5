"""The report of a route as plain JSON values: what the API, the console and the command line all show.

Rule: the keys are the product's public interface; later versions add keys and never change one. What a new statistic
says of one variant is computed in ``variants``, of a variant and the baseline in ``comparison``, of the route here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from math import isfinite
from typing import Any

from gateway.moments import rfc3339
from gateway.report.account import Account, account_of
from gateway.report.comparison import Comparison, alpha_of
from gateway.report.guardrails import FAILING, shown
from gateway.report.methods import METHODS
from gateway.report.problems import is_ongoing, problems_of, warning
from gateway.report.sentence import counted, days_needed
from gateway.report.variants import earlier_versions, holdout, pending_seconds, unit_of_analysis, variants
from gateway.report.verdict import Verdict, checks_as_json, interleaving_checks, sample_ratio_of, verdict
from gateway.store.counts.ledger import Ledger
from gateway.store.rows.feedback_status import STATUSES
from policies import Policy
from policies.statistics.sample_ratio import Cause, SampleRatio
from router.records import FROZEN, UNCOUNTED
from router.snapshot import Metric, Snapshot


def report(
    snapshot: Snapshot,
    ledger: Ledger,
    policy: Policy | None = None,
    cause: Cause | None = None,
    heard: Callable[[Account, Verdict], None] = lambda *_: None,
) -> dict[str, Any]:
    """Return the report of the ledger's route, as plain JSON values.

    ``policy`` is the route's policy with its settings; without it P(best) is null. ``cause`` is where the shares
    are off most, if that was looked for. ``heard`` is called with what the verdict was made of, and the verdict. Takes
    milliseconds to some tens of milliseconds: not for an event loop that carries traffic. Raises KeyError if the
    snapshot has no such route.

    | key            | meaning                                                                                       |
    |----------------|-----------------------------------------------------------------------------------------------|
    | counted_in     | what units are called: "users", "units" or "requests"                                         |
    | test           | what was declared of the primary metric's test, and when that changed; null if nothing was    |
    | past           | whether this is about an epoch that has ended                                                 |
    | variants       | one entry each, of its present version; ``role`` says whether its own numbers are of answers   |
    |                | or of copies ("shadow")                                                                       |
    | .metrics       | ``live`` moves at once; ``mature`` (closed windows) has the interval, ``method`` "exact" or   |
    |                | "asymptotic", and ``units`` of ``unit_of_analysis`` behind it; ``n`` counts values            |
    | .shadow        | the copies it got: calls, agreement with the answer beside that of another copy of the        |
    |                | baseline itself (``noise_floor``), how ``predictions`` differ, and the same label's score for |
    |                | both                                                                                          |
    | .p_best        | with ``evidence``: what an adaptive policy believes, and from what; null for others           |
    | .client_errors | 4xx of its backend: no failures, unless its ``client_errors`` is "fail"                       |
    | earlier_versions | those that ran in this epoch before: in none of the numbers of the present ones             |
    | holdout        | units that are never treated beside all others, by metric; ``difference`` is treated less held |
    | verdict        | the primary metric, baseline against each other variant; they share ``alpha``                 |
    | comparisons    | each variant and the baseline on each metric: ``p`` at most ``level`` decides, ``progress`` of |
    |                | the evidence is there, about ``needs`` more units would decide, in ``needs_days`` at the      |
    |                | traffic so far; ``described``: an interval that decides nothing                               |
    | guardrails     | for each variant: ``state`` "broken", "clean" or "undecided"; the interval is of the          |
    |                | difference from the baseline, or of the value where there is a ``limit``                      |
    | .warning       | which of the ``problems`` a reader must know first                                            |
    | problems       | what is wrong, in words: ``n`` of ``of``, since when, whether ongoing, and how to end it      |
    | feedback       | events of the route over all epochs by status; they add up to what was sent                   |
    | accounting     | the same by metric                                                                            |
    | faults         | calls without a complete answer, by variant, role and fault                                   |
    | forced         | requests whose client chose the variant: in none of the other numbers                         |
    | frozen         | requests of a route that a person froze to one variant: in none of the other numbers          |
    | uncounted      | requests of units beyond ``max_new_units_per_client``: in none of the other numbers           |
    | watermark      | RFC 3339: everything before it is counted; null before any heartbeat                          |
    | rollout        | where the route stands; the API adds it, because it changes with time. Null if nothing moves it |
    | freeze         | to which variant it is frozen, by whom and why; the API adds it. Null if it is not              |
    """
    account = account_of(snapshot, ledger, policy)
    ratio, problems = sample_ratio_of(account), problems_of(account)
    if ratio is not None and not ratio.ok:
        ratio = replace(ratio, cause=cause)
    judged = verdict(account, ratio)
    heard(account, judged)
    return {
        **_route(account),
        "variants": variants(account),
        "earlier_versions": earlier_versions(account, ledger),
        "holdout": holdout(account, ledger),
        "checks": {
            "sample_ratio": _sample_ratio(ratio),
            "interleaving": checks_as_json(interleaving_checks(account)),
        },
        "verdict": _verdict(account, judged, problems),
        "comparisons": [_comparison(account, one) for one in (*judged.comparisons, *judged.others)],
        "guardrails": [
            shown(one) for one in judged.guardrails if one.guardrail is not FAILING or one.state == "broken"
        ],
        "problems": problems,
        **_counts(account),
        "watermark": _watermark(ledger),
        "rollout": None,
        "freeze": None,
    }


def update_watermark(report: dict[str, Any], ledger: Ledger) -> None:
    """Change a report to what it is at the ledger's watermark, when nothing else moved since the report was made.

    Of the ledger, ``oldest_ms`` and ``watermark_ms`` are read.
    """
    report["watermark"] = _watermark(ledger)
    for variant in report["variants"]:
        for metric, values in variant["metrics"].items():
            values["oldest_pending_seconds"] = pending_seconds(ledger, variant["name"], metric)
    for problem in report["problems"]:
        problem["ongoing"] = is_ongoing(problem["last"], ledger.watermark_ms)


def _route(account: Account) -> dict[str, Any]:
    """Return what the numbers are of: the route as it is configured, and the epoch."""
    route = account.route
    return {
        "route": route.name,
        "policy": route.policy,
        "epoch": account.ledger.epoch,
        "past": False,
        "revision": route.revision,
        "adaptive": account.adaptive,
        "unit_of_analysis": unit_of_analysis(account),
        "counted_in": counted(account),
        "test": _test(account),
        "definitions": {metric.name: _definition(metric) for metric in account.metrics},
    }


def _test(account: Account) -> dict[str, Any] | None:
    """Return what was declared of the test; ``changed``: since when, if values were known before that."""
    test, changed = account.route.test, account.ledger.test_changed_ms
    if test is None or account.primary is None:
        return None
    return {
        "metric": account.primary.name,
        "smallest_effect": test.smallest_effect,
        "units": test.units,
        "until": None if test.until is None else rfc3339(test.until),
        "expected_units": test.expected_units,
        "alpha": test.alpha,
        "changed": None if changed is None else rfc3339(changed),
    }


def _sample_ratio(ratio: SampleRatio | None) -> dict[str, Any]:
    if ratio is None:
        return {"p": None, "ok": True, "applies": False, "since": None, "set_aside_p": None, "cause": None}
    since = None if ratio.aside is None else rfc3339(ratio.since)
    cause = None if ratio.cause is None else asdict(ratio.cause)
    return {
        "p": ratio.p,
        "ok": ratio.ok,
        "applies": True,
        "since": since,
        "set_aside_p": ratio.aside,
        "cause": cause,
    }


def _verdict(account: Account, judged: Verdict, problems: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "status": judged.status,
        "metric": None if account.primary is None else account.primary.name,
        "baseline": account.route.baseline,
        "alpha": alpha_of(account),
        "comparisons": [_comparison(account, one) for one in judged.comparisons],
        "sentence": judged.sentence,
        "reason": judged.reason,
        "warning": warning(problems),
    }


def _comparison(account: Account, one: Comparison) -> dict[str, Any]:
    found = one.found
    relative = None if found is None else found.relative
    shown: dict[str, Any] = {
        "variant": one.variant,
        "metric": one.metric,
        "primary": one.primary,
        "status": one.status,
        "difference": one.difference,
        "low": _finite(one.low),
        "high": _finite(one.high),
        "relative": None if relative is None else dict(zip(("difference", "low", "high"), relative, strict=True)),
        "method": one.method,
        "method_in_words": None if one.method is None else METHODS[one.method],
        "described": found is not None and found.described,
        "p": None if found is None or one.withheld is not None else found.p,
        "level": one.level,
        "paired": one.paired,
        "units": {"variant": one.units[0], "baseline": one.units[1]},
        "withheld": one.withheld,
        "reason": one.reason,
        "progress": one.progress,
        "needs": one.needs,
        "needs_days": days_needed(account, one),
    }
    if one.paired:
        shown["ab_test_needs"] = one.times
    if one.votes is not None:
        votes = one.votes
        shown["preference"] = {
            "wins": votes.wins,
            "losses": votes.losses,
            "ties": votes.ties,
            "share": votes.share,
            "low": votes.low,
            "high": votes.high,
            "p": votes.p,
        }
    return shown


def _finite(bound: float | None) -> float | None:
    return bound if bound is not None and isfinite(bound) else None


def _counts(account: Account) -> dict[str, Any]:
    """Return how many events and requests there were, by what became of them."""
    ledger, uncounted, frozen = account.ledger, account.seen_in_requests(UNCOUNTED), account.seen_in_requests(FROZEN)
    return {
        "feedback": _feedback(ledger),
        "accounting": _accounting(ledger),
        "faults": _faults(ledger),
        "forced": ledger.forced,
        "frozen": 0 if frozen is None else frozen.n,
        "uncounted": 0 if uncounted is None else uncounted.n,
    }


def _feedback(ledger: Ledger) -> dict[str, int]:
    total = dict.fromkeys(map(str, STATUSES), 0)
    for (_, status), count in ledger.feedback.items():
        total[status] = total.get(status, 0) + count
    return total


def _accounting(ledger: Ledger) -> dict[str, dict[str, int]]:
    """What events ended as, metric by metric; those that name none that exists are under "unknown"."""
    found: dict[str, dict[str, int]] = {}
    for (metric, status), n in sorted(ledger.feedback.items()):
        found.setdefault(metric, dict.fromkeys(map(str, STATUSES), 0))[status] = n
    return found


def _faults(ledger: Ledger) -> dict[str, dict[str, dict[str, int]]]:
    found: dict[str, dict[str, dict[str, int]]] = {}
    for (variant, role, fault), count in sorted(ledger.faults.items()):
        found.setdefault(variant, {}).setdefault(role, {})[fault] = count
    return found


def _definition(metric: Metric) -> dict[str, Any]:
    return {
        "kind": metric.kind,
        "score": metric.score,
        "better": metric.better,
        "binary": metric.binary,
        "window_ms": metric.window_ms,
        "cap": metric.cap,
    }


def _watermark(ledger: Ledger) -> str | None:
    return None if ledger.watermark_ms is None else rfc3339(ledger.watermark_ms)
