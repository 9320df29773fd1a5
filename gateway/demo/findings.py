"""What the demo found: the gateway's reports, compared with the truth and with what the users counted.

Rule: pure. It reads reports as the admin API gives them to any client, and claims nothing that is not in them. A
verdict that contradicts the truth is shown, not hidden; the demo fails only when the counts do not add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from types import MappingProxyType
from typing import Any

from gateway.amounts import probability
from gateway.demo.scenario import CANARY_SHARE, SCENES, Scene
from gateway.demo.traffic import UserCounts

#: A share counts as configured when it differs by no more than this many standard errors.
STANDARD_ERRORS = 4.0

#: The kind of event by which a route tells that it moved.
MOVED = "rollout"

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CheckedComparison:
    """A variant less the baseline, as reported; ``truth`` is the same difference on the held-out images.

    ``described``: low and high only describe where it lies now.

    For merged rankers the difference is the share of the votes less one half; of its truth only the sign is known.
    """

    variant: str
    baseline: str
    status: str
    difference: float | None
    low: float | None
    high: float | None
    truth: float | None
    described: bool = False

    @property
    def covers(self) -> bool | None:
        """Whether the interval contains the truth; None when there is no interval or no truth."""
        if self.low is None or self.high is None or self.truth is None:
            return None
        return self.low <= self.truth <= self.high


@dataclass(frozen=True, slots=True)
class Balance:
    """Two counts of the same thing, one by the users and one by the gateway."""

    what: str
    users: int
    gateway: int

    @property
    def holds(self) -> bool:
        return self.users == self.gateway


@dataclass(frozen=True, slots=True)
class RouteResult:
    """The result of one route. ``right`` is None when nothing was decided, else whether the truth agrees.

    ``failing_after_seconds`` is when a variant was first reported as failing, from the first request on; None: never.
    """

    route: str
    claim: str
    right: bool | None
    comparison: CheckedComparison | None
    share: float | None
    balances: tuple[Balance, ...]
    failing_after_seconds: float | None = None


def find(
    reports: Mapping[str, Report],
    accounts: Mapping[str, UserCounts],
    truth: Mapping[str, float],
    failing_after: Mapping[str, float] = MappingProxyType({}),
) -> tuple[RouteResult, ...]:
    """Return the result of each route, in the order of the scenes."""
    return tuple(
        _finding(scene, reports[scene.route], accounts[scene.route], truth, failing_after.get(scene.route))
        for scene in SCENES
    )


def moves(events: Iterable[Mapping[str, Any]], route: str, began_ms: int) -> list[str]:
    """Return what a route did by itself, in its order: when, counted from the first request, what, and why."""
    return [
        f"after {max(one['at_ms'] - began_ms, 0) / 1000:.0f} s: {one['detail']}"
        for one in sorted(events, key=lambda one: int(one["at_ms"]))
        if one["route"] == route and one["kind"] == MOVED
    ]


def failing(report: Report) -> bool:
    """Return whether any variant is reported as failing."""
    return any(one["status"] == "failing" for one in report["verdict"]["comparisons"])


def complete(report: Report, account: UserCounts, scene: Scene) -> bool:
    """Return whether the gateway has counted everything that the users counted, and every window has closed."""
    pending = sum(metric["pending"] for variant in report["variants"] for metric in variant["metrics"].values())
    return pending == 0 and all(balance.holds for balance in _balances(scene, report, account))


def as_json(findings: tuple[RouteResult, ...]) -> list[dict[str, Any]]:
    """Return the findings as plain values."""
    return [
        {
            **asdict(finding),
            "covers": None if finding.comparison is None else finding.comparison.covers,
            "balances": [{**asdict(balance), "holds": balance.holds} for balance in finding.balances],
        }
        for finding in findings
    ]


def _finding(
    scene: Scene, report: Report, account: UserCounts, truth: Mapping[str, float], failing_after: float | None
) -> RouteResult:
    comparison = _comparison(scene, report, truth)
    right = (
        {"better": not scene.fails, "worse": False, "failing": scene.fails}.get(comparison.status)
        if comparison
        else None
    )
    share = next((float(v["share"]) for v in report["variants"] if v["name"] == scene.better), None)
    claim = " ".join(filter(None, (_moved(scene, report), _claim(scene, comparison), _split(scene, account))))
    if comparison is not None and comparison.status == "failing":
        after = "" if failing_after is None else f", found {failing_after:.0f} s after the first request"
        claim = f"{scene.better} is failing{after}: {report['verdict']['reason']}. So it is not better. {claim}"
    balances = _balances(scene, report, account)
    return RouteResult(scene.route, claim, right, comparison, share, balances, failing_after)


def _comparison(scene: Scene, report: Report, truth: Mapping[str, float]) -> CheckedComparison | None:
    found = next((c for c in report["verdict"]["comparisons"] if c["variant"] == scene.better), None)
    if found is None:
        return None
    expected = truth[scene.better] - truth[scene.baseline] if scene.task == "digits" else None
    numbers = found["difference"], found["low"], found["high"]
    described = bool(found.get("described"))
    return CheckedComparison(scene.better, scene.baseline, found["status"], *numbers, expected, described)


def _claim(scene: Scene, comparison: CheckedComparison | None) -> str:
    if comparison is None or comparison.difference is None or comparison.low is None or comparison.high is None:
        return f"too little was seen to compare {scene.better} with {scene.baseline}."
    verbs = {"better": "is better than", "worse": "is worse than", "failing": "against"}
    verb = verbs.get(comparison.status, "is not yet told apart from")
    sentence = f"{scene.better} {verb} {scene.baseline}"
    if comparison.truth is None:
        low, share, high = (0.5 + bound for bound in (comparison.low, comparison.difference, comparison.high))
        return (
            f"{sentence}: {share:.0%} of the users with a preference prefer it (95 % certain: {low:.0%} to {high:.0%})."
        )
    low, difference, high = (100 * bound for bound in (comparison.low, comparison.difference, comparison.high))
    inside = "inside" if comparison.covers else "OUTSIDE"
    promise = "as it looks now" if comparison.described else "95 % certain, however often one looks"
    return (
        f"{sentence}: {difference:+.1f} points of accuracy ({promise}: {low:+.1f} to "
        f"{high:+.1f}); the held-out difference, {100 * comparison.truth:+.1f}, lies {inside}."
    )


def _moved(scene: Scene, report: Report) -> str:
    """Return a sentence on where a bandit's traffic went: it began with equal shares."""
    if scene.route != "bandit":
        return ""
    variant = next(one for one in report["variants"] if one["name"] == scene.better)
    before, after = 1 / len(report["variants"]), float(variant["share"])
    verb = "moved its traffic to" if after > before else "did not move its traffic to"
    best = f" (P(best) {probability(variant['p_best'])})" if variant.get("p_best") is not None else ""
    return f"The bandit {verb} {scene.better}: share {before:.0%} at the start, {after:.0%} at the end{best}."


def _split(scene: Scene, account: UserCounts) -> str:
    """Return a sentence on how many users the canary answered, by the users' count."""
    if scene.route != "canary" or not account.met:
        return ""
    met = sum(variant == scene.better for variant in account.met.values()) / len(account.met)
    error = sqrt(CANARY_SHARE * (1 - CANARY_SHARE) / len(account.met))
    off = abs(met - CANARY_SHARE) / error
    judged = "as configured" if off <= STANDARD_ERRORS else "NOT as configured"
    return (
        f"{met:.1%} of {len(account.met):,} users met the candidate, {judged} "
        f"({CANARY_SHARE:.0%}, {off:.1f} standard errors off); {account.flickers} changed variant."
    )


def _balances(scene: Scene, report: Report, account: UserCounts) -> tuple[Balance, ...]:
    """Every answer received has one primary row, or one draft row per ranker; every event has one status."""
    received = len(account.prediction_ids)
    rows: dict[str, list[int]] = {"primary": [], "draft": [], "shadow": []}
    for variant in report["variants"]:
        rows[variant["role"]].append(int(variant["predictions"]))
    if rows["draft"]:
        answers = [Balance("answers received, drafts of each ranker", received, drafts) for drafts in rows["draft"]]
    else:
        answers = [Balance("answers received, primary rows", received, sum(rows["primary"]))]
    events = sum(report["feedback"].values())
    return (*answers, Balance("events acknowledged, their statuses", account.events, events))
