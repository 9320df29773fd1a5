"""What a route's traffic can decide: days for an effect, the effect within days, and why there is neither."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.report.account import account_of
from gateway.report.planning import planning
from gateway.store.counts.ledger import Ledger
from policies import Weighted
from router.snapshot import DeclaredTest, Route
from tests.gateway.ledgers import Book, draft_route, route, shadow_route, snapshot

DAY = 86_400_000
#: The first period began at 1,000 ms; windows are a day.
TEN_DAYS = 1_000 + 11 * DAY
BANDIT = {"policy": "thompson", "plan": Weighted((("old", 0.5), ("new", 0.5)), sticky=False), "by_unit": False}


def planned(book: Book, given: Route | None = None, watermark_ms: int = TEN_DAYS, **asked: Any) -> dict[str, Any]:
    ledger: Ledger = replace(book.ledger(), watermark_ms=watermark_ms)
    return planning(account_of(snapshot(given or route()), ledger), **asked)


def even(rate: float = 0.05, units: int = 10_000) -> Book:
    right = round(rate * units)
    return Book().rate("old", "correct", right, units).rate("new", "correct", right, units)


def test_days_are_units_by_the_traffic_so_far_and_the_delay() -> None:
    found = planned(even(), effects=[0.01])
    [new] = found["variants"]
    assert found["supposed"] == {"since": "1970-01-01T00:00:01.000Z", "days": 10.0, "delay_days": 1.0}
    assert (new["method"], new["units_per_day"], new["mean"], new["share"]) == ("asymptotic", 2000, 0.05, 0.5)
    [row] = new["effects"]
    assert row["days"] == pytest.approx(row["units"] / 2000 + 1, rel=1e-3)
    assert row["relative"] == pytest.approx(0.2)
    # A test with a single look at a power of 80 % takes 16,310 units; this one may be looked at whenever one likes.
    assert 1.2 * 16_310 < row["units"] < 2.2 * 16_310


def test_what_is_decided_within_days_takes_those_days() -> None:
    [new] = planned(even(), days=[10, 40, 160])["variants"]
    effects = [row["effect"] for row in new["within"]]
    assert effects == sorted(effects, reverse=True)
    [again] = planned(even(), effects=effects)["variants"]
    assert [row["days"] for row in again["effects"]] == pytest.approx([10, 40, 160], rel=0.02)


def test_a_declared_effect_is_listed_first_and_found_sooner() -> None:
    declared = route(test=DeclaredTest(smallest_effect=0.01))
    [one], [other] = planned(even(), effects=[0.01])["variants"], planned(even(), declared)["variants"]
    assert other["method"] == "mixture"
    assert other["effects"][0]["effect"] == 0.01
    assert other["effects"][0]["units"] < 0.85 * one["effects"][0]["units"]


def test_a_declared_end_says_what_it_decides() -> None:
    for test in (DeclaredTest(units=40_000), DeclaredTest(until=1_000 + 21 * DAY)):
        [new] = planned(even(), route(test=test), days=[21])["variants"]
        assert new["method"] == "group_sequential"
        assert new["maximum"] == new["within"][0] | {"units": 40_000}


def test_the_smaller_the_share_the_longer_it_takes() -> None:
    canary = route(plan=Weighted((("old", 0.95), ("new", 0.05))))
    [one], [other] = planned(even(), effects=[0.01])["variants"], planned(even(), canary, effects=[0.01])["variants"]
    assert 4 < other["effects"][0]["days"] / one["effects"][0]["days"] < 6.5


def test_of_several_variants_each_has_its_part_of_the_error() -> None:
    three = route(plan=Weighted((("old", 0.4), ("new", 0.4), ("third", 0.2))), variants=("old", "new", "third"))
    found = planned(even().rate("third", "correct", 500, 10_000), three, effects=[0.01])
    assert found["alpha"] == 0.025
    assert [one["units_per_day"] for one in found["variants"]] == pytest.approx([2400, 1800])
    declared = replace(three, test=DeclaredTest(units=60_000))
    found = planned(even().rate("third", "correct", 500, 10_000), declared)
    assert [one["maximum"]["days"] for one in found["variants"]] == pytest.approx([21, 21])


def test_each_way_of_comparing_is_planned_by_its_method() -> None:
    pairs = Book().rate("old", "correct", 900, 1_000).pairs("new", "correct", [1] * 60 + [-1] * 40 + [0] * 900)
    votes = Book("search").votes("new", "click", 500, 480, 20)
    assert planned(even(), route(**BANDIT))["variants"][0]["method"] == "e_process"  # type: ignore[arg-type]
    assert planned(pairs, shadow_route())["variants"][0]["method"] == "paired_e_process"
    [by_votes] = planned(votes, draft_route())["variants"]
    assert [row["effect"] for row in by_votes["effects"]] == [0.01, 0.02, 0.05, 0.1]
    assert [row["why"] for row in by_votes["effects"]] == [None] * 4
    sticky = planned(even(), route(**BANDIT | {"by_unit": True}))["variants"][0]  # type: ignore[arg-type]
    assert (sticky["method"], sticky["effects"]) == (None, [])
    assert "follow the evidence" in sticky["withheld"]


@pytest.mark.parametrize(
    ("book", "given", "watermark_ms", "effect", "why"),
    [
        (Book(), route(), TEN_DAYS, 0.01, "no values of old are mature yet"),
        (even(), route(), 1_000 + DAY, 0.01, "no values of old are mature yet"),
        (even(1.0), route(), TEN_DAYS, 0.01, "all values of old are equal so far"),
        (even(), route(plan=Weighted((("old", 1.0), ("new", 0.0)))), TEN_DAYS, 0.01, "new gets no traffic"),
        (even(), route(), TEN_DAYS, 0.96, "no difference can be larger than 0.95"),
        (even(), route(), TEN_DAYS, 1e-5, "it would take more than ten years of this traffic"),
        (even(), route(**BANDIT), TEN_DAYS, 1e-4, "it is much smaller than what this method looks for"),  # type: ignore[arg-type]
        (Book(), shadow_route(), TEN_DAYS, 0.01, "no pair of values is mature yet"),
    ],
)
def test_what_is_out_of_reach_has_a_reason(
    book: Book, given: Route, watermark_ms: int, effect: float, why: str
) -> None:
    [new] = planned(book, given, watermark_ms, effects=[effect])["variants"]
    [row] = new["effects"]
    assert row["days"] is None
    assert row["why"].startswith(why)


def test_there_may_be_nothing_to_plan() -> None:
    assert planned(Book(), route(metrics=(), primary_metric=None))["metric"] is None
    alone = route("single", Weighted((("old", 1.0),)), variants=("old",))
    assert planned(even(), alone)["variants"] == []


def test_less_is_better_plans_for_the_fall_of_a_rate() -> None:
    fewer = route(metrics=("complaint",), primary_metric="complaint")
    book = Book().rate("old", "complaint", 500, 10_000).rate("new", "complaint", 500, 10_000)
    [new] = planned(book, fewer, effects=[0.01, 0.05])["variants"]
    more = planned(even(), effects=[0.01])["variants"][0]["effects"][0]
    assert new["mean"] == 0.05
    assert new["effects"][0]["units"] < more["units"]  # rarer is surer
    assert new["effects"][1]["why"] == "no difference can be larger than 0.05"
