"""What a trigger sees of a route is what its report says of it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.report.account import account_of
from gateway.triggers.trigger_reading import labels_in, needs_of, readings_of
from router.settings.trigger import Trigger
from router.triggers.condition import Condition, Since
from router.triggers.conditions.against_baseline import WorseThanBaseline
from router.triggers.conditions.coverage import CoverageBelow
from router.triggers.conditions.guardrail_broken import GuardrailBroken
from router.triggers.readings import Need, TriggerReadings
from tests.gateway.ledgers import METRICS, Book, route, snapshot


def seen(book: Book, *conditions: Condition, variant: str = "new", **more: Any) -> TriggerReadings:
    trigger = Trigger(name="t", route="digits", variant=variant, any=conditions, **more)
    ledger = book.ledger()
    found = readings_of(ledger, account_of(snapshot(route()), ledger), variant, needs_of(trigger))
    of = {"at_ms": 10**12, "route": "digits", "epoch": "e1", "variant": variant, "baseline": "old", "version": "1"}
    return TriggerReadings(**of, **found)  # type: ignore[arg-type]


def state(book: Book, condition: Condition, variant: str = "new") -> str:
    return condition.judge(seen(book, condition, variant=variant), Since(at_ms=0)).state


def both(right: int, of: int = 2_000) -> Book:
    """The baseline is right in nine of ten, the other so often."""
    return Book("digits").rate("old", "correct", of * 9 // 10, of).rate("new", "correct", right, of)


@pytest.mark.parametrize(
    ("right", "expected"), [(1_000, "met"), (1_800, "clear"), (1_950, "clear"), (1_590, "between")]
)
def test_worse_than_the_baseline_by_the_whole_interval(right: int, expected: str) -> None:
    assert state(both(right), WorseThanBaseline(metric="correct", worse_by=0.1)) == expected


def test_failures_are_worse_where_there_are_more_of_them() -> None:
    book = Book("digits").calls("old", 2_000, failed=20).calls("new", 2_000, failed=600)
    condition = WorseThanBaseline(metric="failures", worse_by=0.05)
    assert state(book, condition) == "met"
    assert seen(book, condition).harm["failures"].value == pytest.approx(0.29)


def test_coverage_is_of_predictions_whose_window_has_closed() -> None:
    book = Book("digits").rate("new", "correct", 90, 100).calls("new", 900, closed="correct")
    assert seen(book, CoverageBelow(metric="correct", below=0.3)).coverage["correct"].value == pytest.approx(0.1)
    assert state(book, CoverageBelow(metric="correct", below=0.3)) == "met"
    assert state(book, CoverageBelow(metric="correct", below=0.01)) == "clear"


@pytest.mark.parametrize("variant", ["new", "old"])
def test_a_broken_guardrail_is_seen_of_the_variant_and_from_the_baseline(variant: str) -> None:
    book = Book("digits").calls("old", 2_000, failed=20).calls("new", 2_000, failed=600)
    assert state(book, GuardrailBroken(), variant) == "met"
    assert state(book, GuardrailBroken(metric="failures"), variant) == "met"
    assert state(book, GuardrailBroken(metric="latency_ms.p95"), variant) == "unknown"


def test_labels_are_counted_over_all_variants() -> None:
    assert labels_in(both(1_000).ledger(), METRICS["correct"]) == 4_000


def test_only_what_is_needed_is_read_as_far_back_as_any_condition_asks() -> None:
    both_ways = (WorseThanBaseline(metric="correct", worse_by=0.1), CoverageBelow(metric="correct", below=0.5))
    needs = needs_of(Trigger(name="t", route="digits", variant="new", any=both_ways, min_coverage=0.2))
    assert needs == {Need("harm", "correct"), Need("coverage", "correct")}
