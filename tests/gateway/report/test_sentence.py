"""The sentence of a verdict, word for word, because people read it like an interface."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.report import report
from policies import Tally, Thompson, Weighted
from router.snapshot import DeclaredTest, Guardrail, Route, Snapshot
from tests.gateway.ledgers import METRICS, Book, draft_route, route, shadow_route, snapshot

SURE = "95 % sure however often you look"
HALVES = {"old": 0.5, "new": 0.5}
SEQUENCE = " Method: confidence sequence."


def sentence(book: Book, given: Route | Snapshot | None = None) -> str:
    made = given if isinstance(given, Snapshot) else snapshot(given or route())
    found: dict[str, Any] = report(made, book.ledger())
    return str(found["verdict"]["sentence"])


def of(metric: str) -> Route:
    return route(metrics=(metric,), primary_metric=metric)


def test_better_at_being_right() -> None:
    book = Book().rate("old", "correct", 700, 1000).rate("new", "correct", 850, 1000)
    assert sentence(book) == (
        f"new gets 15.0 points more right than old (between 9.1 and 20.9, {SURE}), "
        f"over 1,000 and 1,000 users.{SEQUENCE}"
    )


def test_worse_at_being_right() -> None:
    book = Book().rate("old", "correct", 850, 1000).rate("new", "correct", 700, 1000)
    assert sentence(book) == (
        f"new gets 15.0 points less right than old (between 9.1 and 20.9, {SURE}), "
        f"over 1,000 and 1,000 users.{SEQUENCE}"
    )


def test_lower_is_better_never_reads_the_wrong_way_round() -> None:
    less = Book().rate("old", "complaint", 300, 1000).rate("new", "complaint", 150, 1000)
    more = Book().rate("old", "complaint", 150, 1000).rate("new", "complaint", 300, 1000)
    assert "new's complaint rate is 15.0 points lower than old's" in sentence(less, of("complaint"))
    assert sentence(less, of("complaint")).endswith(f"That is better: lower is better.{SEQUENCE}")
    assert "new's complaint rate is 15.0 points higher than old's" in sentence(more, of("complaint"))
    assert sentence(more, of("complaint")).endswith(f"That is worse: lower is better.{SEQUENCE}")


def test_no_difference_says_what_is_still_possible_both_ways() -> None:
    book = Book().rate("old", "correct", 800, 1000).rate("new", "correct", 810, 1000)
    assert sentence(book) == (
        "No difference yet between new and old: new is somewhere between 4.7 points worse and 6.7 points better "
        f"on correct ({SURE}), over 1,000 and 1,000 users. To decide one as large as it looks now is out of "
        f"reach at today's traffic: it takes years.{SEQUENCE}"
    )


def test_no_difference_follows_the_direction_of_the_metric() -> None:
    book = Book().rate("old", "complaint", 800, 1000).rate("new", "complaint", 810, 1000)
    assert "between 6.7 points worse and 4.7 points better on complaint" in sentence(book, of("complaint"))


def test_collecting_says_how_much_there_is_and_how_much_it_takes() -> None:
    book = Book().rate("old", "correct", 8, 9).rate("new", "correct", 8, 12)
    assert sentence(book) == (
        "Not enough feedback yet to compare new with old: 12 and 9 users have a result so far, "
        "and it takes at least 30."
    )


def test_collecting_says_what_waits_for_its_window() -> None:
    book = Book().rate("old", "correct", 8, 9).rate("new", "correct", 8, 12)
    book.put("new", "correct", Tally.of_units([(1, 1)] * 52), phase="live")
    assert sentence(book).endswith("it takes at least 30. 52 more values count once their windows have closed.")


def test_values_are_given_in_their_own_unit() -> None:
    book = Book()
    for name, base in (("old", 10.0), ("new", 12.0)):
        units = Tally.of_units([(base + index % 5, 1) for index in range(1000)])
        book.put(name, "revenue", units).calls(name, 1000, closed="revenue")
    assert sentence(book, of("revenue")).startswith("new's mean revenue is 2 higher than old's (between 1.")


def test_an_error_is_called_by_what_its_score_measures() -> None:
    for score, noun in (
        ("absolute_error", "error"),
        ("squared_error", "squared error"),
        ("percentage_error", "relative error"),
    ):
        made = replace(snapshot(of("error")), metrics={"error": replace(METRICS["error"], score=score)})
        book = Book().rate("old", "error", 700, 1000).rate("new", "error", 300, 1000)
        assert sentence(book, made).startswith(f"new's mean {noun} is 0.4 lower than old's (between")
        assert sentence(book, made).endswith(f"That is better: lower is better.{SEQUENCE}")


def test_units_that_are_no_users_are_called_units_and_requests_requests() -> None:
    book = Book().rate("old", "correct", 700, 1000).rate("new", "correct", 850, 1000)
    assert "over 1,000 and 1,000 units. Method" in sentence(book, route(unit="cookie:device"))
    book = Book(shares=HALVES).rate("old", "correct", 700, 1000).rate("new", "correct", 850, 1000)
    assert "over 1,000 and 1,000 requests. Method" in sentence(book, route(by_unit=False))


def test_people_who_come_back_in_each_period_are_counted_once() -> None:
    """80 people over 40 edits of the shares are 80 people, never 3,200."""
    book = Book()
    for period in range(40):
        for name, right in (("old", 24), ("new", 28)):
            whole = Tally.of_units([(3, 3)] * right + [(0, 3)] * (40 - right))
            whole = replace(whole, distinct=40 if period == 0 else 0)
            book.put(name, "correct", whole, period=1_000 + period)
    found = report(snapshot(route()), book.ledger())
    assert found["comparisons"][0]["units"] == {"variant": 40, "baseline": 40}
    assert [one["metrics"]["correct"]["mature"]["units"] for one in found["variants"]] == [40, 40]
    assert "over 40 and 40 users" in found["verdict"]["sentence"]


def test_a_shadow_was_judged_on_the_same_requests() -> None:
    book = Book().pairs("new", "correct", [1.0] * 60 + [-1.0] * 10 + [0.0] * 430)
    assert sentence(book, shadow_route()).endswith("over the same 500 users. Method: bets on pairs.")


def test_a_preference_is_given_in_votes() -> None:
    given = snapshot(draft_route())
    won = Book(route="search").votes("new", "click", 300, 200, 50)
    assert sentence(won, given) == (
        f"Of the 500 users with a preference by click, 60% prefer new over old (between 53% and 67%, {SURE}). "
        "Method: bets on pairs."
    )
    open_ = Book(route="search").votes("new", "click", 26, 24)
    assert sentence(open_, given).startswith(
        "No difference yet between new and old: of the 50 users with a preference by click, 52% prefer new (between "
    )
    few = Book(route="search").votes("new", "click", 3, 1)
    assert "4 of the users have a preference so far" in sentence(few, given)


def test_the_best_variant_leads_and_the_others_follow() -> None:
    plan = Weighted((("old", 0.34), ("new", 0.33), ("third", 0.33)))
    book = Book().rate("old", "correct", 600, 1000)
    book.rate("new", "correct", 400, 1000).rate("third", "correct", 800, 1000)
    found = sentence(book, route(plan=plan, variants=("old", "new", "third")))
    assert found.startswith("third gets 20.0 points more right than old")
    assert found.endswith("new is worse than old.")


def test_of_variants_that_show_no_difference_the_most_promising_leads() -> None:
    plan = Weighted((("old", 0.34), ("new", 0.33), ("third", 0.33)))
    book = Book().rate("old", "correct", 600, 1000)
    book.rate("new", "correct", 601, 1000).rate("third", "correct", 620, 1000)
    found = sentence(book, route(plan=plan, variants=("old", "new", "third")))
    assert found.startswith("No difference yet between third and old")
    assert found.endswith("new shows no difference yet.")


def test_a_bandit_says_where_its_traffic_went() -> None:
    plan = Weighted((("old", 0.16), ("new", 0.84)), sticky=False)
    book = Book(shares=plan.shares).rate("old", "correct", 700, 1000).rate("new", "correct", 850, 1000)
    given = snapshot(route("thompson", plan, by_unit=False))
    assert sentence(book, given) == (
        "new now gets 84% of the requests. new gets 15.0 points more right than old (as it looks now; that it is more "
        f"is {SURE}), over 1,000 and 1,000 requests. Method: bets on every request."
    )
    policy = Thompson(variants=("old", "new"), reward="correct")
    said = report(given, book.ledger(), policy)["verdict"]["sentence"]
    assert said.startswith(
        "new now gets 84% of the requests: the bandit takes it for the best with probability above 99.9%, which is no "
        "verdict. new gets"
    )


def test_numbers_that_cannot_be_trusted_are_left_out() -> None:
    book = Book().rate("old", "correct", 700, 1000).rate("new", "correct", 850, 1000)
    found = sentence(book.stretch({"old": 1500, "new": 1000}, {"old": 0.5, "new": 0.5}))
    assert found.startswith("The comparison on digits cannot be trusted: users did not reach the variants")
    assert "points" not in found


def test_what_was_declared_is_said_and_that_it_came_too_late() -> None:
    book = Book().rate("old", "correct", 700, 1000).rate("new", "correct", 710, 1000)
    planned = route(test=DeclaredTest(units=20_000))
    assert sentence(book, planned).endswith(
        "the first of its planned looks is made at 20% of what was declared. So far it is over 1,000 and 1,000 users. "
        "Planned for 20,000 users, of which 10% is there."
    )
    meant = route(test=DeclaredTest(smallest_effect=0.02, alpha=0.01))
    said = sentence(book, meant)
    assert "99 % sure however often you look" in said
    assert "To decide one of 2.0 points is out of reach at today's traffic: it takes about " in said
    assert said.endswith("Method: confidence sequence for the declared effect.")
    late = report(snapshot(meant), replace(book.ledger(), test_changed_ms=1_700_000_000_000))["verdict"]["sentence"]
    assert late.endswith(
        "The test was declared otherwise on 2023-11-14 22:13:20, when values were known: what was promised of it does "
        "not hold for those."
    )


def test_a_capped_metric_is_called_by_its_cap() -> None:
    capped = replace(snapshot(of("revenue")), metrics={"revenue": replace(METRICS["revenue"], cap=200.0)})
    book = Book()
    for name, base in (("old", 10.0), ("new", 12.0)):
        book.put(name, "revenue", Tally.of_units([(base + index % 5, 1) for index in range(1000)]))
    assert sentence(book, capped).startswith("new's mean revenue up to 200 is 2 higher than old's (between ")


def test_other_metrics_that_differ_and_declared_guardrails_have_a_clause() -> None:
    bound = Guardrail(metric="latency_ms.p95", worse_by=10.0)
    book = Book().latencies("old", [20.0] * 1000).latencies("new", [20.0] * 1000)
    for metric, old, new in (("correct", 500, 700), ("click", 400, 600), ("complaint", 300, 310)):
        book.rate("old", metric, old, 1000).rate("new", metric, new, 1000)
    said = sentence(book, route(metrics=("correct", "click", "complaint"), guardrails=(bound,)))
    assert said.endswith(
        " Besides, click is 20.0 points higher, which is better. It is within its bounds on latency_ms.p95."
    )


def test_every_metric_has_a_sentence_in_every_status() -> None:
    """No sentence may fail on a metric that was added after it was written."""
    for metric in METRICS.values():
        for better in ("higher", "lower"):
            changed = replace(metric, better=better)
            made = replace(snapshot(of(metric.name)), metrics={metric.name: changed})
            for new in (0, 15, 500, 520, 900):
                book = Book().rate("old", metric.name, 500, 1000).rate("new", metric.name, new, max(new, 30))
                assert sentence(book, made)
