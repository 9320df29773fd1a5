"""Units that a route never treats are counted apart, and compared with all others as a whole."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.report.route_report import report
from policies.types import Tally
from tests.gateway.ledgers import Book, route, snapshot


def judged(book: Book, **changes: Any) -> dict[str, Any]:
    given = snapshot(route(holdout="q4", holdout_share=0.1, holdout_salt="holdout/q4", **changes))
    return report(given, book.ledger())


def test_a_holdout_is_beside_the_treated_as_a_whole_and_in_no_comparison_of_variants() -> None:
    book = Book().rate("old", "correct", 1_000, 2_000).rate("new", "correct", 1_010, 2_000)
    without = judged(book)
    assert without["holdout"]["metrics"]["correct"]["difference"] is None
    book.rate("old", "correct", 300, 1_000, role="holdout")
    found = judged(book)
    assert found["verdict"] == without["verdict"]
    assert found["variants"] == without["variants"]
    held = found["holdout"]
    assert (held["name"], held["share"], held["calls"]) == ("q4", 0.1, 1_000)
    apart = held["metrics"]["correct"]
    assert apart["holdout"] == {"units": 1_000, "n": 1_000, "mean": 0.3}
    assert apart["treated"] == {"units": 4_000, "n": 4_000, "mean": pytest.approx(2_010 / 4_000)}
    assert apart["difference"] == pytest.approx(2_010 / 4_000 - 0.3)
    assert 0 < apart["low"] < apart["difference"] < apart["high"]
    assert apart["p"] < 0.001


def test_a_route_without_one_has_none() -> None:
    book = Book().rate("old", "correct", 1_000, 2_000).rate("new", "correct", 1_010, 2_000)
    assert report(snapshot(route()), book.ledger())["holdout"] is None


def test_a_plan_learns_nothing_from_a_holdout() -> None:
    ledger = Book().rate("old", "correct", 1, 10).rate("old", "correct", 9, 10, role="holdout").ledger()
    definition = next(key.definition for key in ledger.tallies if key.metric == "correct")
    assert ledger.evidence({"correct": definition}).tally("old", "correct") == Tally.of_units([(1, 1)] + [(0, 1)] * 9)
