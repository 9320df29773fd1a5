"""Guardrails: broken where harm is shown, clean where it is excluded, and undecided while neither is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.report import report
from gateway.report.account import account_of
from gateway.report.guardrails import FAILING, MEASURES, guarded, judging, lasting
from gateway.store.counts.ledger import CALLS, Ledger, Seen, TallyKey
from policies import Tally
from policies.statistics.burn import Count, FailureWatch, watched
from policies.types import EMPTY
from router.settings.declared import MEASURES as DECLARED
from router.settings.declared import Guardrail
from tests.gateway.ledgers import VERSIONS, Book, route, snapshot

Units = list[tuple[float, float]]


def calls(book: Book, variant: str, units: Sequence[tuple[float, float]], **where: Any) -> Book:
    """Calls of units, each given as (failures, calls)."""
    return book.put(variant, CALLS, Tally.of_units(units), phase="live", **where)


def states(book: Book | Ledger, *declared: Guardrail, **settings: Any) -> dict[str, str]:
    ledger = book if isinstance(book, Ledger) else book.ledger()
    found = report(snapshot(route(guardrails=declared, **settings)), ledger)["guardrails"]
    return {f"{one['variant']} {one['metric']}": one["state"] for one in found}


def test_every_measure_that_can_be_declared_can_be_judged() -> None:
    assert MEASURES.keys() == DECLARED.keys()


def test_of_570_answers_that_are_502s_the_variant_is_failing_and_never_better() -> None:
    """Of 6,000; where they come from users with one request and from heavy ones, and where every request is drawn."""
    for fresh in (False, True):
        book = Book().rate("old", "correct", 3000, 6000).rate("new", "correct", 3600, 6000)
        book.tallies = {key: tally for key, tally in book.tallies.items() if key.metric != CALLS}
        heavy: Sequence[tuple[float, float]] = [(1, 1)] * 470 + [(0, 1)] * 4530 + [(100, 1000)]
        calls(
            calls(book, "old", [(0, 1)] * 5000 + [(0, 1000)]),
            "new",
            heavy if not fresh else [(1, 1)] * 570 + [(0, 1)] * 5430,
        )
        found = report(snapshot(route(by_unit=not fresh)), book.ledger())
        [one] = found["verdict"]["comparisons"]
        assert (one["status"], found["verdict"]["status"]) == ("failing", "failing")
        assert found["verdict"]["sentence"].startswith("new fails 9.5% of its 6,000 calls, old 0.0% of its 6,000.")
        assert [(one["metric"], one["state"]) for one in found["guardrails"]] == [("failures", "broken")]


def test_half_of_its_calls_fail_and_the_variant_is_failing_whatever_the_baseline_does() -> None:
    book = calls(calls(Book(), "old", [(1, 1)] * 190 + [(0, 1)] * 10), "new", [(1, 1)] * 190 + [(0, 1)] * 10)
    found = report(snapshot(route()), book.ledger())
    assert found["verdict"]["status"] == "failing"
    assert [(one["limit"], one["state"]) for one in found["guardrails"]] == [(None, "undecided"), (0.5, "broken")]


def test_a_bound_is_clean_once_harm_is_excluded_and_no_data_is_not_good_news() -> None:
    assert states(Book()) == {"new failures": "undecided"}
    few = calls(calls(Book(), "old", [(0, 1)] * 50), "new", [(0, 1)] * 50)
    many = calls(calls(Book(), "old", [(0, 1)] * 5000), "new", [(0, 1)] * 5000)
    for fresh in (False, True):
        assert states(few, by_unit=not fresh) == {"new failures": "undecided"}
        assert states(many, by_unit=not fresh) == {"new failures": "clean"}


def test_one_unit_that_fails_a_thousand_times_is_one_unit() -> None:
    """By calls the variant fails 50 %; of its users 1 in 1,001 met a failure."""
    book = calls(calls(Book(), "old", [(0, 1)] * 1000), "new", [(0, 1)] * 1000 + [(1000, 1000)])
    assert states(book) == {"new failures": "undecided"}


def test_a_ramp_during_an_outage_of_both_breaks_nothing() -> None:
    """5 % of the traffic until the outage, 50 % in it: pooled, the variant would fail three times as often."""
    for fresh in (False, True):
        book = Book()
        for period, share, rate in ((1, 0.05, 0.01), (2, 0.5, 0.2)):
            for name, part in (("new", share), ("old", 1 - share)):
                n = int(4000 * part)
                calls(book, name, [(1, 1)] * int(n * rate) + [(0, 1)] * (n - int(n * rate)), period=period)
        assert states(book, by_unit=not fresh)["new failures"] != "broken"


def visits(rng: np.random.Generator, users: int, rate: float) -> Units:
    """Users of the demo: three to five requests each, of which each fails at this rate."""
    each = rng.integers(3, 6, users)
    return list(zip(map(float, rng.binomial(each, rate)), map(float, each), strict=True))


def test_a_tenth_of_a_canarys_requests_failing_is_seen_within_ten_seconds_and_none_is_not() -> None:
    """40 requests a second in users of three to five, a fifth of them to the canary; looked at every second."""
    rng, seen, wrong, times = np.random.default_rng(1), 0, 0, 60
    for _ in range(times):
        for rate in (0.1, 0.0):
            old, new, broken = Units(), Units(), False
            for _ in range(10):
                old, new = old + visits(rng, 8, 0.0), new + visits(rng, 2, rate)
                book = calls(calls(Book(), "old", old), "new", new)
                account = account_of(snapshot(route()), book.ledger())
                broken = broken or any(one.state == "broken" for one in guarded(account))
            seen, wrong = seen + (broken and rate > 0), wrong + (broken and rate == 0)
    assert seen >= 0.8 * times
    assert wrong == 0


def test_refusals_and_latency_have_bounds_against_the_baseline_and_of_their_own() -> None:
    bounds = (
        Guardrail(metric="client_errors", worse_by=0.05),
        Guardrail(metric="latency_ms.p95", worse_by=50.0),
        Guardrail(metric="latency_ms.p50", limit=30.0),
    )
    for refused, slow, expected in ((400, 900.0, "broken"), (10, 101.0, "clean")):
        book = calls(calls(Book(), "old", [(0, 1)] * 2000), "new", [(0, 1)] * 2000)
        book.latencies("old", [20.0] * 1000 + [100.0] * 1000).latencies("new", [slow / 5] * 1200 + [slow] * 800)
        signs = {
            ("new", "primary", "client_error"): Seen(refused, 1, 2),
            ("old", "primary", "client_error"): Seen(10, 1, 2),
        }
        found = states(replace(book.ledger(), signs=signs), *bounds, by_unit=False)
        assert found == {
            "new failures": "clean",
            "new client_errors": expected,
            "new latency_ms.p95": expected,
            "new latency_ms.p50": expected,
        }


@pytest.mark.parametrize(("complaints", "state"), [(300, "broken"), (202, "clean"), (240, "undecided")])
def test_a_metric_has_a_bound_in_its_own_direction(complaints: int, state: str) -> None:
    book = Book().rate("old", "complaint", 800, 8000).rate("new", "complaint", 4 * complaints, 8000)
    for declared in (Guardrail(metric="complaint", worse_by=0.02), Guardrail(metric="complaint", limit=0.122)):
        found = states(book, declared, metrics=("correct", "complaint"))
        assert found["new complaint"] == state
    falls = Book().rate("old", "correct", 7200, 8000).rate("new", "correct", 8000 - 4 * complaints, 8000)
    for declared in (Guardrail(metric="correct", worse_by=0.02), Guardrail(metric="correct", limit=0.878)):
        assert states(falls, declared)["new correct"] == state


def test_a_bandits_metric_is_bounded_by_a_band_that_holds_at_every_look() -> None:
    """Two points more complaints than a bound of one: at one look sure enough, at every look not."""
    bound = Guardrail(metric="complaint", worse_by=0.01)
    for complaints, state in ((1000, "undecided"), (1500, "broken"), (700, "clean")):
        book = Book(shares={"old": 0.5, "new": 0.5}).rate("old", "complaint", 800, 8000)
        book.rate("new", "complaint", complaints, 8000)
        found = states(book, bound, metrics=("correct", "complaint"), policy="thompson", by_unit=False)
        assert found["new complaint"] == state


def test_a_broken_guardrail_makes_a_better_variant_failing_with_the_number() -> None:
    book = Book().rate("old", "correct", 700, 1000).rate("new", "correct", 850, 1000)
    book.latencies("old", [20.0] * 1000).latencies("new", [400.0] * 1000)
    bound = Guardrail(metric="latency_ms.p95", worse_by=100.0)
    found = report(snapshot(route(guardrails=(bound,))), book.ledger())["verdict"]
    assert found["status"] == "failing"
    assert found["reason"] == "new's 95th percentile of latency is 399 ms, old's 19.9 ms: worse by more than 100 ms"


def test_a_guardrail_that_cannot_be_computed_says_so_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("no calls")

    monkeypatch.setattr(judging, "MEASURES", {**MEASURES, "failures": broken})
    book = Book().rate("old", "correct", 700, 1000).rate("new", "correct", 850, 1000)
    found = report(snapshot(route()), book.ledger())
    assert found["verdict"]["status"] == "better"
    assert found["guardrails"][0]["state"] == "undecided"
    assert found["guardrails"][0]["reason"] == "cannot be computed: ZeroDivisionError: no calls"


def ramped(book: Book, cycle: tuple[float, float], *, refused: tuple[float, float] = (0, 0)) -> Ledger:
    """1 % of the traffic while the first rate of calls is refused, then 50 % while the second is: of both alike."""
    signs, latency = dict[tuple[str, str, str], Seen](), dict[str, list[float]]()
    for period, (share, rate) in enumerate(zip((0.01, 0.5), cycle, strict=True), 1):
        for name, part, more in (("old", 1 - share, refused[0]), ("new", share, refused[1])):
            n = int(20_000 * part)
            calls(book, name, [(0, 1)] * n, period=period)
            key, k = (name, "primary", "client_error"), int(n * (rate + more))
            signs[key] = Seen(k, 1, 2) + signs.get(key, Seen(0, 1, 2))
            latency[name] = latency.get(name, []) + [500.0] * k + [20.0] * (n - k)
    for name, each in latency.items():
        book.latencies(name, each)
    return replace(book.ledger(), signs=signs)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_ramp_while_clients_err_more_and_calls_are_slower_breaks_nothing(fresh: bool) -> None:
    """Pooled, the variant has 10 % of 4xx and the baseline 4 %; its 95th percentile is 500 ms to 20 ms (Simpson)."""
    bounds = (Guardrail(metric="client_errors", worse_by=0.02), Guardrail(metric="latency_ms.p95", worse_by=50.0))
    found = states(ramped(Book(), (0.01, 0.1)), *bounds, by_unit=not fresh)
    assert (found["new client_errors"], found["new latency_ms.p95"]) == ("undecided", "undecided")
    found = states(ramped(Book(), (0.01, 0.01), refused=(0.0, 0.5)), *bounds, by_unit=not fresh)
    assert (found["new client_errors"], found["new latency_ms.p95"]) == ("broken", "broken")


def test_a_heavy_client_that_is_refused_and_slow_breaks_nothing() -> None:
    bounds = (Guardrail(metric="client_errors", worse_by=0.02), Guardrail(metric="latency_ms.p95", worse_by=50.0))
    book = calls(calls(Book(), "old", [(0, 2)] * 2000), "new", [(0, 2)] * 2000 + [(0, 1000)])
    book.latencies("old", [20.0] * 4000).latencies("new", [20.0] * 4000 + [900.0] * 1000)
    signs = {("new", "primary", "client_error"): Seen(1000, 1, 2)}
    found = states(replace(book.ledger(), signs=signs), *bounds)
    assert (found["new client_errors"], found["new latency_ms.p95"]) == ("undecided", "undecided")


def test_a_bandits_shares_that_move_during_an_outage_of_both_break_nothing() -> None:
    """It gives the variant 5 % of its requests, then 50 % while a fifth of all calls fail."""
    tallies: dict[TallyKey, Tally] = {}
    plans = {7: (0.05, 0.01), 8: (0.5, 0.2)}
    for revision, (share, rate) in plans.items():
        for name, part in (("old", 1 - share), ("new", share)):
            n = int(4000 * part)
            values = Tally.of_units([(1, 1)] * (n // 2) + [(0, 1)] * (n - n // 2))
            tallies[TallyKey(1, name, VERSIONS[name], "primary", "", "correct", "d-correct", "mature", revision)] = (
                values
            )
            made = Tally.of_units([(1, 1)] * int(n * rate) + [(0, 1)] * (n - int(n * rate)))
            of_calls = TallyKey(1, name, VERSIONS[name], "primary", "", CALLS, "", "live")
            tallies[of_calls] = tallies.get(of_calls, EMPTY) + made
    shares = {revision: {"old": 1 - share, "new": share} for revision, (share, _) in plans.items()}
    ledger = Ledger("digits", "e1", tallies, shares=shares, watermark_ms=1_700_000_000_000)
    assert states(ledger, policy="thompson", by_unit=False)["new failures"] == "undecided"


def test_units_that_come_again_in_each_period_are_few_units() -> None:
    """90 of 200 users have 4 % of failures and more, in each of ten periods: as if they were 2,000 users."""
    units = [(2.0, 20.0)] * 90 + [(0.0, 20.0)] * 110
    for distinct, state in ((200, "undecided"), (2000, "broken")):
        book = calls(Book(), "old", [(0, 20)] * 2000)
        for period in range(10):
            one = Tally.of_units(units)
            book.put("new", CALLS, replace(one, distinct=distinct // 10), phase="live", period=period)
        assert states(book, Guardrail(metric="failures", limit=0.037))["new failures"] == state


def held(book: Book, *declared: Guardrail, seconds: float, watch: FailureWatch | None = None) -> dict[str, bool]:
    """Which guardrails would be in the same state without any ten seconds, so long after the first period began."""
    ledger = replace(book.ledger(), watermark_ms=1000 + round(seconds * 1000))
    account = account_of(snapshot(route(guardrails=declared)), ledger)
    return {
        one.guardrail.metric: lasting(account, one, watch)
        for one in guarded(account)
        if one.state != "undecided" and one.guardrail is not FAILING
    }


def test_what_a_restart_broke_is_not_acted_on() -> None:
    """5 s of failures in 200 s: 2.5 points, where one is allowed; a real difference of that size is known as one."""
    restart = calls(calls(Book(), "old", [(0, 1)] * 20_000), "new", [(1, 1)] * 500 + [(0, 1)] * 19_500)
    assert held(restart, seconds=200) == {"failures": False}
    assert held(restart, seconds=2000) == {"failures": True}
    for spread in (False, True):
        totals, watch = dict.fromkeys(("old", "new"), Count()), None
        for second in range(201):
            failed = 2.5 if spread else 100 * (50 <= second < 55)
            watch = watched(watch, 1000, 1000 + 1000 * second, totals, "old")
            totals = {
                "old": totals["old"].and_also(Count(100, 0, 100, 0)),
                "new": totals["new"].and_also(Count(100, 0, 100, failed)),
            }
        assert held(restart, seconds=200, watch=watch) == {"failures": spread}


def test_what_is_clean_only_because_the_baseline_was_down_is_not_passed() -> None:
    """The variant fails 1.5 points more, where one is allowed; with 5 s in 500 s in which the baseline failed, half."""
    book = calls(calls(Book(), "old", [(1, 1)] * 1000 + [(0, 1)] * 99_000), "new", [(1, 1)] * 1500 + [(0, 1)] * 98_500)
    assert held(book, seconds=500) == {"failures": False}
    assert held(book, seconds=10_000) == {"failures": True}


def test_slow_calls_of_ten_seconds_are_taken_off_a_latency() -> None:
    book = calls(calls(Book(), "old", [(0, 1)] * 5000), "new", [(0, 1)] * 5000)
    book.latencies("old", [20.0] * 5000).latencies("new", [20.0] * 4500 + [900.0] * 500)
    bound = Guardrail(metric="latency_ms.p95", worse_by=50.0)
    assert held(book, bound, seconds=150)["latency_ms.p95"] is False
    assert held(book, bound, seconds=1000)["latency_ms.p95"] is True
