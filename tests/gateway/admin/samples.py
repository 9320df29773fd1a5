"""Metrics filled with one of everything, as a controller with traffic would fill them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gateway.admin.metrics.metrics import Metrics
from gateway.control.membership import FleetView
from gateway.files.overrides import Override
from gateway.report import report
from gateway.store.counts.ledger import Seen
from gateway.store.fleet.nodes import ABSENT_MS, Node
from gateway.store.rows.feedback_status import STATUSES
from policies import Tally, Thompson, Weighted
from policies.rollouts.standing import Standing
from router.records import Prediction
from tests.gateway.admin.fake import Control, control
from tests.gateway.control.builders import row
from tests.gateway.ledgers import Book, route, snapshot

NOW_MS = 1_760_000_000_000
REPLICA = "127.0.0.1:9100"
POLICIES = {"bandit": Thompson(variants=("old", "new"), reward="correct")}


def writer(spawned_ms: int = NOW_MS, slot: int = 0) -> str:
    return f"{NOW_MS:012x}-{slot:02d}-{spawned_ms:012x}"


def prediction(variant: str = "old", **changes: object) -> Prediction:
    values: dict[str, object] = {
        "id": "01990000-0000-7000-8000-000000000000",
        "at_ms": NOW_MS,
        "route": "digits",
        "epoch": "e1",
        "period": 1000,
        "revision": 7,
        "variant": variant,
        "model": "digits",
        "version": {"old": "1.3.0", "new": "2.0.0"}.get(variant, "3.0.0"),
        "role": "primary",
        "reason": "unit",
        "propensity": 0.5,
        "status": 200,
        "latency_ms": 12.0,
        "overhead_ms": 0.2,
    }
    return Prediction(**(values | changes))  # type: ignore[arg-type]


def datagram(
    counters: list[list[object]], *, name: str | None = None, revision: int = 7, slot: int = 0
) -> dict[str, object]:
    return {
        "writer": name or writer(slot=slot),
        "slot": slot,
        "pid": 1234,
        "at_ms": NOW_MS,
        "revision": revision,
        "gauges": [
            ["in_flight", {"route": "digits"}, 3],
            ["connections", {}, 5],
            ["in_flight_limit", {}, 100],
            ["journal_bytes", {}, 4096],
            ["replicas", {"variant": "new", "replica": REPLICA, "state": "ejected"}, 1],
            ["waiting", {"variant": "new"}, 2],
        ],
        "counters": counters,
    }


def filled_control() -> Control:
    """The routes of ``control()`` and a bandit: every kind of number that a report can hold."""
    fake = control()
    bandit = route("thompson", Weighted((("old", 0.2), ("new", 0.8)), sticky=False), name="bandit", by_unit=False)
    stood = Standing(number=3, policy="ab", state="paused", changed_ms=NOW_MS, detail={"said": "no_data"})
    ab = replace(fake.snapshot.routes["digits"], standing=stood)
    fake.snapshot = snapshot(*{**fake.snapshot.routes, "digits": ab}.values(), bandit)
    book = Book(route="bandit").rate("old", "correct", 70, 100).rate("new", "correct", 90, 100)
    learned = book.stretch({"old": 100, "new": 100}, {"old": 0.5, "new": 0.5}).ledger()
    assert learned.watermark_ms is not None
    oldest_ms = {("old", "correct"): learned.watermark_ms - 7_500}
    signs = {("new", "primary", "other_version"): Seen(40, learned.watermark_ms - 9_000, learned.watermark_ms, "1.9.0")}
    fake.books["bandit"] = replace(learned, oldest_ms=oldest_ms, signs=signs)
    shadowed = Book(route="shadowed").rate("old", "correct", 80, 100).rate("new", "correct", 90, 100, role="shadow")
    shadowed.put("new", "@agreement", Tally.of_units([(1, 1)] * 90 + [(0, 1)] * 10), phase="live", role="shadow")
    fake.books["shadowed"] = shadowed.pairs("new", "correct", [1.0] * 12 + [0.0] * 88).ledger()
    fake.counted = {("digits", "correct", "joined"): 2000, ("unknown", "unknown", "rejected"): 1}
    return fake


def observe(metrics: Metrics, round_: int = 1) -> None:
    """Give the metrics one of every observation; each further round counts on."""
    for variant in ("old", "new"):
        metrics.observe_calls([row(prediction(variant))])
        metrics.observe_calls([row(prediction(variant, status=None, fault="timeout"))])
    metrics.observe_calls([row(prediction("new", role="shadow", route="shadowed"))])
    for variant in ("old", "new"):
        metrics.observe_calls([row(prediction(variant, role="draft", route="search"))])
    for status in STATUSES:
        metrics.observe_status("digits", "correct", status, 1, 30.0 if status == "joined" else None)
    metrics.observe_lines({"lost_lines": 1, "torn_lines": 0, "unsettled_events": 1})
    metrics.observe_expired("predictions", 5)
    variant_labels = {"route": "digits", "variant": "new"}
    metrics.observe_datagram(
        datagram(
            [
                ["mirror_drops", {**variant_labels, "reason": "full"}, 2 * round_],
                ["shed", {"reason": "overload"}, round_],
                ["slow_clients", {"reason": "answer"}, round_],
                ["unfinished_requests", {"route": "digits"}, round_],
                ["unit_fallbacks", {"route": "digits"}, round_],
                ["uncounted_requests", {"route": "digits"}, round_],
                ["merge_failures", {"route": "search", "reason": "not_json"}, round_],
                ["extraction_failures", variant_labels, round_],
                ["version_mismatches", variant_labels, round_],
                ["feedback_commits", {}, round_],
                ["feedback_token_uses", {"token": "web"}, round_],
                ["journal_fsync_failures", {}, round_],
                ["capture_drops", {"route": variant_labels["route"], "reason": "answer_too_large"}, round_],
                ["journal_shed", {}, round_],
                ["journal_refused", {}, round_],
                ["snapshot_errors", {}, round_],
                ["feedback_rejected", {"reason": "not_json"}, round_],
                ["retries", {"variant": "new", "reason": "refused"}, round_],
                ["retry_budget_exhausted", {"variant": "new"}, round_],
                ["ejections", {"variant": "new", "replica": REPLICA, "reason": "connection"}, round_],
            ]
        )
    )


def fleet(*, holder: str = "web-1", cut_off_seconds: float | None = None) -> FleetView:
    """Three nodes as the second sees them: one holds the lease, one has another config, one is absent."""
    nodes = (
        Node("web-1", "aa11", 7, 200),
        Node("web-2", "aa11", 7, 100),
        Node("web-3", "bb22", 6, 300),
        Node("web-4", "aa11", 5, ABSENT_MS + 5_000),
    )
    return FleetView("web-2", holder, "aa11", nodes, {"web-3": 4_096}, cut_off_seconds)


SINK: Final = {
    "name": "lake",
    "kind": "cloudevents",
    "made": 10,
    "delivered": 5,
    "refused": 1,
    "dropped": 2,
    "erased": 0,
    "dead": 0,
    "pending": 2,
    "pending_bytes": 700,
    "oldest_seconds": 1.5,
    "sending": True,
    "trouble": "it answers 503",
    "disabled": False,
}


def refresh(metrics: Metrics, fake: Control) -> None:
    metrics.refresh_plans()
    asked = {("freeze", "api", "done"): 1 + sum(metrics.moving._acts.values())}  # one more at each scrape
    metrics.moving.refresh_acts(fake.snapshot, {"digits": Override(to="old", at_ms=NOW_MS)}, asked)
    metrics.refresh_fleet(fleet())
    metrics.refresh_health(lag=fake.parts.readiness.lag(), progress=fake.parts.readiness.progress())
    metrics.refresh_account(fake.counted)
    metrics.refresh_sinks([SINK])
    metrics.refresh_ages({"reports": 0.5})
    metrics.refresh_quality(report(fake.snapshot, book, POLICIES.get(name)) for name, book in fake.books.items())
