"""A preference is believed only where merged lists treated the rankers alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.report.account import Account
from gateway.report.route_report import report
from gateway.report.verdict import interleaving_checks
from policies.statistics.preference import unfairness_p
from policies.types import Tally
from tests.gateway.ledgers import Book, draft_route, snapshot

GIVEN = snapshot(draft_route())


def lists(up: int, down: int, even: int = 0) -> Tally:
    return Tally.of_units([(1, 1)] * up + [(-1, 1)] * down + [(0, 1)] * even)


def book(first: Tally, *, credited: Tally | None = None) -> Book:
    """300 of 500 votes prefer "new"; the measures are those of "new" against "old"."""
    made = Book("search").votes("new", "click", 300, 200)
    for measure, tally in (("@first", first), ("@above", first), ("@credited", credited or lists(0, 0, first.n))):
        made.put("new", measure, tally, phase="live", role="draft", against="old")
    return made


def judged(made: Book) -> dict[str, Any]:
    return report(GIVEN, made.ledger())


def test_fair_drafts_leave_the_verdict_alone_and_are_shown() -> None:
    found = judged(book(lists(5_100, 4_900)))
    assert found["verdict"]["status"] == "better"
    assert found["checks"]["interleaving"]["applies"]
    assert found["checks"]["interleaving"]["ok"]
    first = found["checks"]["interleaving"]["tests"][0]
    assert (first["measure"], first["variant"], first["against"], first["n"]) == ("first", "new", "old", 10_000)
    assert first["mean"] == pytest.approx(0.02)


def test_uneven_drafts_withhold_the_verdict_and_say_what_is_uneven() -> None:
    found = judged(book(lists(5_400, 4_600)))["verdict"]
    assert found["status"] == "invalid"
    assert found["reason"].startswith(
        "interleaving is not fair: of new, in 10,000 lists, its item stood first more often than that of old (p = "
    )
    assert found["reason"] in found["sentence"]


def test_one_ranker_with_more_items_is_not_fair() -> None:
    found = judged(book(lists(50, 50), credited=lists(0, 40, 60)))["verdict"]
    assert "it had the larger number of credited items less often than old" in found["reason"]


def test_without_merged_lists_there_is_nothing_to_check() -> None:
    found = judged(Book("search").votes("new", "click", 300, 200))
    assert found["checks"]["interleaving"] == {"applies": False, "ok": True, "tests": []}
    assert found["verdict"]["status"] == "better"


def test_impossible_sums_raise_nothing() -> None:
    odd = [Tally(n=-3, m=5.0), Tally(positive=5, m=float("nan")), Tally(positive=5, m=float("inf"))]
    assert [unfairness_p(tally) for tally in odd] == [1.0, 1.0, 1.0]


def test_fair_coins_seldom_alarm_at_any_look_and_small_unfairness_is_found() -> None:
    """The level of the report, .001 over three checks, would need 10,000 runs: here .05, looked at 100 times."""
    rng = np.random.default_rng(3)
    coins = np.cumsum(rng.choice([-1.0, 1.0], (600, 60, 20)).sum(axis=2), axis=1)
    p = [[unfairness_p(Tally(positive=20 * (look + 1), m=m)) for look, m in enumerate(run)] for run in coins.tolist()]
    assert np.mean(np.min(p, axis=1) <= 0.05) <= 0.05
    checked = Account(GIVEN, book(lists(5_250, 4_750)).ledger())
    assert [check.ok for check in interleaving_checks(checked)] == [False, False, True]
