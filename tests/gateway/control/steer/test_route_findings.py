"""What is known of a route, as its policy asks for it."""

from __future__ import annotations

from dataclasses import replace

from gateway.control.steer.route_findings import findings_of
from gateway.report.account import account_of
from gateway.report.guardrails import guarded
from gateway.report.verdict import Verdict
from policies.rollouts.standing import Standing
from policies.statistics.burn import Count, FailureWatch, watched
from router.snapshot import Guardrail
from tests.gateway.ledgers import Book, route, snapshot


def state_after(failing_seconds: range, watch: bool) -> str:
    """The state of the guardrail on failures after 200 seconds, with 100 calls of each variant a second."""
    failed = 100 * len(failing_seconds)
    book = Book().calls("old", 20_000).calls("new", 20_000, failed=failed)
    account = account_of(snapshot(route()), replace(book.ledger(), watermark_ms=201_000))
    seen: FailureWatch | None = None
    totals = {"old": Count(), "new": Count()}
    for second in range(201):
        seen = watched(seen, 1000, 1000 + 1000 * second, totals, "old")
        now = Count(100, 0, 100, 0), Count(100, 0, 100, 100 if second in failing_seconds else 0)
        totals = {name: total.and_also(more) for (name, total), more in zip(totals.items(), now, strict=True)}
    judged = Verdict("collecting", (), "", None, guardrails=guarded(account))
    found = findings_of(account, judged, Standing(since_ms=1000), seen if watch else None)
    return next(one.state for one in found.guardrails if one.metric == "failures")


def test_a_guardrail_that_a_restart_broke_is_undecided_for_whoever_acts() -> None:
    assert state_after(range(50, 55), watch=True) == "undecided"
    assert state_after(range(0, 200, 10), watch=True) == "broken"


def test_where_the_seconds_are_not_known_as_much_is_taken_off_as_ten_could_make() -> None:
    assert state_after(range(0, 200, 25), watch=False) == "undecided"
    assert state_after(range(0, 200, 10), watch=False) == "broken"


def test_just_after_a_restart_something_is_known_although_nothing_was_counted_since() -> None:
    """Latencies are of no period: a guardrail on one is decided while every other count is empty."""
    given = snapshot(route(guardrails=(Guardrail(metric="latency_ms.p95", limit=200.0),)))
    book = Book().calls("old", 900).calls("new", 900).latencies("old", [20.0] * 900).latencies("new", [20.0] * 900)
    account = account_of(given, book.ledger())
    judged = Verdict("collecting", (), "", None, guardrails=guarded(account))
    restarted = Standing(number=4, since_ms=2_000, detail={"began_ms": 2_000})
    found = findings_of(account, judged, restarted, None)
    assert found.calls == {"old": 0, "new": 0}
    assert "clean" in {one.state for one in guarded(account) if one.guardrail.metric == "latency_ms.p95"}
