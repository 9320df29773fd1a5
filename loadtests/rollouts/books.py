"""A route with a rollout as the controller sees it: what its store would hold after some steps, and what it finds.

Rule: values are built here and judged by the product: guardrails, what lasts, what burns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from gateway.control.steer import route_findings
from gateway.report.account import Account
from gateway.report.guardrails import guarded
from gateway.report.verdict import Verdict
from gateway.store.counts.ledger import CALLS, CHECKED, Ledger, Phase, Seen, TallyKey
from loadtests.rollouts.traffic import IN_BUCKET, Step
from loadtests.rollouts.world import DAY, SIDES
from policies.rollouts.rollout import Rollout
from policies.rollouts.standing import Findings, Standing
from policies.statistics.burn import FailureWatch, burning, sentence
from policies.types import Evidence, Tally
from router.records import Role
from router.scores import Agreement
from router.settings.declared import Guardrail
from router.snapshot import Backend, Metric, Route, Snapshot

BASE_MS: Final = 1_700_000_000_000

#: Metrics of the route, with the hours until their values are mature.
WINDOWS: Final = {"complaint": 3600.0, "correct": DAY}

#: Five guardrails: each bound is what a team would write, a third to a half of the daily rate.
GUARDRAILS: Final = (
    Guardrail(metric="failures", worse_by=0.01),
    Guardrail(metric="client_errors", worse_by=0.02),
    Guardrail(metric="latency_ms.p95", worse_by=50.0),
    Guardrail(metric="complaint", worse_by=0.01),
    Guardrail(metric="correct", worse_by=0.02),
)


@dataclass(frozen=True, slots=True)
class Part:
    """One step of a rollout, up to a bin: its period began at ``began_ms``."""

    began_ms: int
    step: Step
    at: int


@cache
def metric_named(name: str) -> Metric:
    return Metric(
        name=name,
        kind="event" if name == "complaint" else "label",
        score=None if name == "complaint" else "match",
        better="lower" if name == "complaint" else "higher",
        window_ms=round(WINDOWS[name] * 1000),
        mature="window",
        missing=None,
        fold="any" if name == "complaint" else "last",
        range=None,
        definition=name,
    )


def account_of(policy: Rollout, standing: Standing, parts: Sequence[Part]) -> Account:
    """Return the account of the route at the end of the last part."""
    now = parts[-1]
    now_ms = now.began_ms + round(float(now.step.ends[now.at]) * 1000)
    tallies: dict[TallyKey, Tally] = {}
    latency: dict[tuple[str, Role], dict[int, int]] = {}
    signs: dict[tuple[str, str, str], Seen] = {}
    shares: dict[int, dict[str, float]] = {}
    for number, part in enumerate(parts, 1):
        # Of requests that are drawn anew mature values are kept by plan, with its shares.
        revision = 0 if policy.sticky or part.step.shadow else number
        shares[revision] = dict(zip(SIDES, part.step.share, strict=True))
        for side, name in enumerate(SIDES):
            role: Role = "shadow" if part.step.shadow and side else "primary"
            calls = part.step.calls(part.at, side)
            if not calls.d:
                continue
            _put(tallies, part.began_ms, name, role, CALLS, calls, "live")
            if role == "shadow":
                pairs = _pairs(part)
                _put(tallies, part.began_ms, name, role, Agreement.name, pairs, "live")
            for metric, window in WINDOWS.items() if role == "primary" else ():
                matured = min(part.step.at((now_ms - part.began_ms) / 1000 - window), part.at)
                _put(
                    tallies,
                    part.began_ms,
                    name,
                    role,
                    metric,
                    part.step.values(matured, side, metric),
                    "mature",
                    revision,
                )
            last = part.began_ms + round(float(part.step.ends[part.at]) * 1000)
            for word, n in (("client_error", part.step.sums["refused"][part.at, side]), (CHECKED, calls.d)):
                seen, key = Seen(int(n), part.began_ms, last), (name, role, word)
                signs[key] = signs[key] + seen if key in signs else seen
            counts = latency.setdefault((name, role), dict.fromkeys(IN_BUCKET, 0))
            for index, n in zip(IN_BUCKET, part.step.latency[part.at, side], strict=True):
                counts[index] += int(n)
    ledger = Ledger("r", "e", tallies, latency=latency, signs=signs, shares=shares, watermark_ms=now_ms)
    return Account(snapshot_of(policy, standing, parts[-1].began_ms), ledger, policy)


def _put(
    tallies: dict[TallyKey, Tally],
    period: int,
    name: str,
    role: Role,
    metric: str,
    tally: Tally,
    phase: Phase,
    revision: int = 0,
) -> None:
    definition = metric if metric in WINDOWS else ""
    tallies[TallyKey(period, name, "1", role, "", metric, definition, phase, revision)] = tally


def _pairs(part: Part) -> Tally:
    n, m = float(part.step.sums["units"][part.at, 1]), float(part.step.sums["agreed"][part.at, 1])
    return Tally(int(n), m, m, n, n, m, int(m), 0, 1.0, distinct=int(n))


def snapshot_of(policy: Rollout, standing: Standing, period: int) -> Snapshot:
    route = Route(
        name="r",
        path="/r",
        baseline=SIDES[0],
        policy=policy.kind,
        salt="r",
        epoch="e",
        period=period,
        revision=1,
        plan=policy.plan(Evidence(), standing),
        variants=SIDES,
        by_unit=policy.sticky,
        unit="header:x-user-id" if policy.sticky else None,
        metrics=tuple(WINDOWS),
        primary_metric="correct",
        guardrails=GUARDRAILS,
    )
    backends = {name: Backend(name=name, urls=(), version="1", model=name) for name in SIDES}
    metrics = {name: metric_named(name) for name in WINDOWS}
    return Snapshot(revision=1, config="c", backends=backends, metrics=metrics, routes={"r": route})


def nothing_known() -> Findings:
    """Return what is known of a route before its first call."""
    return Findings(baseline=SIDES[0], versions=dict.fromkeys(SIDES, "1"))


def findings_of(policy: Rollout, standing: Standing, parts: Sequence[Part], watch: FailureWatch | None) -> Findings:
    """Return what the controller finds at the end of the last part."""
    account = account_of(policy, standing, parts)
    judged = Verdict("collecting", (), "", None, guardrails=guarded(account))
    return burnt(route_findings.findings_of(account, judged, standing, watch), watch)


def burnt(findings: Findings, watch: FailureWatch | None) -> Findings:
    """Return findings with the variants that fail fast, each with what is said of it."""
    said, alone = dict[str, str](), dict[str, str]()
    for one in burning(watch) if watch is not None else ():
        where = alone if one.reason == "alone" else said
        where[one.variant] = sentence(one, SIDES[0])
    return replace(findings, burning=said, alone=alone)
