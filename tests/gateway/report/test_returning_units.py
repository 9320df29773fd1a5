"""Units that come in several periods, versions that are not of the same age, and values of open windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.control.plan.verdict_watch import due_looks
from gateway.report import report
from gateway.report.account import account_of
from gateway.report.comparison import comparisons
from gateway.store.counts.ledger import CALLS, Ledger, Look, Stretch, UnitsOf
from policies import Tally
from router.records import Role
from router.settings.declared import DeclaredTest, Guardrail
from tests.gateway.ledgers import CLICK, VERSIONS, Book, draft_route, route, shadow_route, snapshot

PERIODS = range(1_000, 1_040)


def returning(book: Book, variant: str, metric: str, units: Sequence[tuple[float, float]], **where: Any) -> Book:
    """Put the same units into each of forty periods."""
    whole = Tally.of_units(units)
    for period in PERIODS:
        once = whole if period == PERIODS[0] else replace(whole, distinct=0)
        book.put(variant, metric, once, period=period, **where)
    return book


def test_users_whose_calls_fail_in_every_period_are_not_new_ones_in_each() -> None:
    """Six against twelve of forty users: one such gap in nine is chance, but 240 against 480 of 1,600 is none."""
    book = Book()
    for name, failing in (("old", 6), ("new", 12)):
        returning(book, name, CALLS, [(3, 3)] * failing + [(0, 3)] * (40 - failing), phase="live")
    assert report(snapshot(route()), book.ledger())["guardrails"][0]["state"] == "undecided"


@pytest.mark.parametrize(("role", "metric"), [("draft", "click"), ("shadow", "correct")])
def test_users_who_come_in_every_period_have_one_vote_together(role: Role, metric: str) -> None:
    """44 of 80 users prefer one of two equal rankers, or are answered better by it, over and over."""
    given = draft_route() if role == "draft" else shadow_route()
    book = Book(route=given.name)
    returning(book, "new", metric, [(1, 1)] * 44 + [(-1, 1)] * 36, role=role, against="old")
    [one] = comparisons(account_of(snapshot(given), book.ledger()))
    assert one.found is not None
    assert (one.decides, one.found.p > 0.3, one.found.low < 0 < one.found.high) == (False, True, True)
    alone = Book(route=given.name).put(
        "new", metric, Tally.of_units([(1, 1)] * 44 + [(-1, 1)] * 36), role=role, against="old"
    )
    [other] = comparisons(account_of(snapshot(given), alone.ledger()))
    assert other.found is not None
    assert one.found.difference == other.found.difference


@pytest.mark.parametrize(("n", "state"), [(30, "undecided"), (100, "undecided"), (3000, "clean")])
def test_that_no_request_of_thirty_had_a_rare_event_says_little_of_how_rare_it_is(n: int, state: str) -> None:
    bound = Guardrail(metric="complaint", worse_by=0.01)
    book = Book(shares={"old": 0.5, "new": 0.5}).rate("old", "complaint", 0, n).rate("new", "complaint", 0, n)
    given = snapshot(route(by_unit=False, guardrails=(bound,), metrics=("correct", "complaint")))
    found = {one["metric"]: one["state"] for one in report(given, book.ledger())["guardrails"]}
    assert found["complaint"] == state


def test_few_users_are_not_pooled_with_days_before_the_other_side_had_its_version() -> None:
    """Everyone does better since: the variant's users were there before, the baseline's version was not."""
    units = {"old": [(6.0, 10.0)] * 75, "new": [(7.0, 20.0)] * 75}
    book = Book().put("new", "correct", Tally.of_units([(1, 10)] * 75), period=1_000)
    for name in units:
        now = Tally.of_units([(6, 10)] * 75)
        book.put(name, "correct", replace(now, distinct=0) if name == "new" else now, period=1_001)
    few = {UnitsOf(one, VERSIONS[one], "primary", "", "correct", "d-correct"): tuple(units[one]) for one in units}
    [one] = comparisons(account_of(snapshot(route()), replace(book.ledger(), few_units=few)))
    assert one.found is not None
    assert not one.decides
    assert one.found.difference == pytest.approx(0.0)


def test_values_that_count_on_arrival_are_a_share_of_all_that_was_answered() -> None:
    """Half of the windows are open, and half of the calls have a value: 4,900 and 5,050 of 10,000 are no gap."""
    metric = replace(CLICK, mature="arrival")
    book = Book(shares={"old": 0.5, "new": 0.5})
    for name, valued in (("old", 4_900), ("new", 5_050)):
        book.put(name, "click", Tally.of_units([(1, 1)] * (valued // 2) + [(0, 1)] * (valued - valued // 2)))
        book.put(name, "click", Tally(d=5_000), phase="closed").calls(name, 10_000)
    given = snapshot(route(by_unit=False, metrics=("click",), primary_metric="click"))
    given = replace(given, metrics={**given.metrics, "click": metric})
    assert report(given, book.ledger())["verdict"]["status"] != "invalid"


def planned(units: int = 1_000) -> Any:
    return snapshot(route(test=DeclaredTest(units=units), period=2_000))


def looked_at(ledger: Ledger, at_ms: int) -> Ledger:
    decided = Look(at_ms, 0.6, 4.0, 2.7, True)
    return replace(ledger, looks={("correct", "d-correct", "new", VERSIONS["new"]): (decided,)})


def test_a_look_beside_an_earlier_version_of_the_baseline_decides_nothing_and_keeps_its_number() -> None:
    book = Book().rate("new", "correct", 150, 300, period=1_000)
    for name in ("old", "new"):
        book.rate(name, "correct", 200, 400, period=2_000)
    for at_ms, decides in ((1_500, False), (2_500, True)):
        account = account_of(planned(), looked_at(book.ledger(), at_ms))
        assert comparisons(account)[0].decides is decides
        assert [number for _, number, _ in due_looks(account, 3_000)] == [2]


def test_a_baseline_that_comes_back_has_its_own_looks_alone() -> None:
    """Those made meanwhile, beside another version, are of other data; what was stored before says not beside which."""
    book = Book()
    for name in ("old", "new"):
        book.rate(name, "correct", 200, 400, period=2_000)
    ledger = looked_at(book.ledger(), 2_500)
    [(place, (look,))] = ledger.looks.items()
    for beside, decides in (("", True), (VERSIONS["old"], True), ("0.9", False)):
        there = replace(ledger, looks={place: (look._replace(beside=beside),)})
        assert comparisons(account_of(planned(), there))[0].decides is decides


def test_the_share_of_a_maximum_counts_from_when_both_variants_answered() -> None:
    """A new version that comes late has a test of its own: what the baseline did before says nothing about the two."""
    book = Book().rate("old", "correct", 300, 600, period=1_000)
    for name in ("old", "new"):
        book.rate(name, "correct", 50, 100, period=2_000)
    account = account_of(planned(), book.ledger())
    [(_, number, look)] = due_looks(account, 3_000)
    assert (number, look.fraction, look.beside) == (1, 0.2, VERSIONS["old"])
    assert look.information == pytest.approx((100 / 2) ** 2 * (2 * 0.25 / 100), rel=0.02)


def test_no_look_is_made_in_an_alarm_of_the_sample_ratio_and_those_before_are_set_aside() -> None:
    book = Book()
    for name, units in (("old", 300), ("new", 200)):
        for period in (1_000, 2_000):
            book.rate(name, "correct", units // 2, units, period=period)
    uneven = Stretch(1_000, 6, {"old": 0.5, "new": 0.5}, {"old": 3_000, "new": 2_000})
    even = Stretch(2_000, 7, {"old": 0.5, "new": 0.5}, {"old": 300, "new": 300})
    mended = looked_at(replace(book.ledger(), stretches=(uneven, even)), 1_500)
    alarm = replace(mended, stretches=(replace(uneven, period=2_000),))
    assert due_looks(account_of(planned(), alarm), 3_000) == []
    [(_, number, look)] = due_looks(account_of(planned(), mended), 3_000)
    assert (number, look.fraction) == (2, 0.5)
    assert report(planned(), mended)["verdict"]["status"] != "better"
