"""Terminal and console show every number of a report with its unit, and what decides where a band does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from gateway.cli.report_tables import of_route
from gateway.report import report
from policies.plans import Weighted
from policies.types import Tally
from router.snapshot import DeclaredTest, Guardrail, Snapshot
from tests.gateway.admin.console.test_console import outline
from tests.gateway.admin.fake import Control, ask
from tests.gateway.ledgers import METRICS, Book, draft_route, route, snapshot
from tests.test_report_reference import copies, with_a_second_copy

AB = Book().rate("old", "correct", 700, 1000).rate("new", "correct", 710, 1000)


def terminal(given: Snapshot, book: Book) -> str:
    name = next(iter(given.routes))
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(of_route(report(given, replace(book.ledger(), route=name))))
        return console.export_text()


def page(given: Snapshot, book: Book) -> str:
    name = next(iter(given.routes))
    text = ask(Control(given, {name: replace(book.ledger(), route=name)}), f"/routes/{name}").text
    outline(text)
    return " ".join(text.split())


both = pytest.mark.parametrize("shown", [terminal, page])
Shown = Callable[[Snapshot, Book], str]


@both
def test_what_decides_where_a_band_only_describes_is_named_by_the_method(shown: Shown) -> None:
    """A note that bets decide was printed below planned looks and sticky bandits too, where nothing bets."""
    uneven = Weighted((("old", 0.16), ("new", 0.84)), sticky=False)
    fresh = Book(shares=uneven.shares).rate("old", "correct", 700, 1000).rate("new", "correct", 850, 1000)
    said = {
        "bets": shown(snapshot(route("thompson", uneven, by_unit=False)), fresh),
        "planned looks": shown(snapshot(route(test=DeclaredTest(units=2_500))), AB),
        "nothing is decided": shown(snapshot(route("thompson")), AB),
        "": shown(snapshot(route()), AB),
    }
    notes = {word: text.partition("* a description of where it lies now: ")[2][:50] for word, text in said.items()}
    assert notes.pop("") == ""
    for word, note in notes.items():
        assert word in note
        assert [other for other in notes if other in note] == [word]


@both
def test_why_a_comparison_decides_nothing_and_what_it_needs_is_said(shown: Shown) -> None:
    drawn = shown(snapshot(route(by_unit=False)), AB)
    assert "the shares that these requests were drawn with are not known" in drawn
    assert "out of reach at today" in shown(snapshot(route()), AB)


@both
def test_a_guardrail_has_units_and_says_why_it_cannot_be_computed(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = (
        Guardrail(metric="correct", worse_by=0.05),
        Guardrail(metric="correct", limit=0.6),
        Guardrail(metric="latency_ms.p95", worse_by=10.0),
    )
    book = Book().rate("old", "correct", 700, 1000).rate("new", "correct", 710, 1000)
    book.latencies("old", [20.0] * 900).latencies("new", [20.0] * 900)
    text = shown(snapshot(route(guardrails=bounds)), book)
    for said in ("at most 5 points worse", "at least 60.0%", "at most 10 ms worse", " points", " ms"):
        assert said in text

    def fails(*_: object) -> None:
        raise ArithmeticError("no root")

    monkeypatch.setattr("gateway.report.methods.at_every_look", fails)
    assert "cannot be computed: ArithmeticError: no root" in shown(snapshot(route(guardrails=bounds[:1])), book)


@both
def test_the_declared_effect_and_the_cap_of_a_secondary_metric_are_shown(shown: Shown) -> None:
    declared = route(test=DeclaredTest(smallest_effect=0.02), metrics=("correct", "revenue"))
    capped = replace(METRICS["revenue"], cap=200.0)
    given = snapshot(declared)
    given = replace(given, metrics={**given.metrics, "revenue": capped})
    book = Book().rate("old", "correct", 700, 1000).rate("new", "correct", 710, 1000)
    for name, base in (("old", 10.0), ("new", 12.0)):
        book.put(name, "revenue", Tally.of_units([(base + index % 5, 1) for index in range(1000)]))
    text = shown(given, book)
    assert "smallest effect 2.0 points, alpha 0.05 on correct" in text
    assert "revenue up to 200" in text
    assert report(given, book.ledger())["test"]["smallest_effect"] == 0.02


@both
def test_a_preference_is_in_points_of_its_share(shown: Shown) -> None:
    drafts = Book("search").calls("old", 9, role="draft").calls("new", 9, role="draft").votes("new", "click", 50, 8)
    drafts.put(
        "new", "@first", Tally.of_units([(1, 1)] * 30 + [(-1, 1)] * 29), phase="live", role="draft", against="old"
    )
    text = shown(snapshot(draft_route()), drafts)
    assert "+36.2 points" in text
    assert "even" in text


@both
def test_the_holdout_and_the_noise_of_copies_are_shown(shown: Shown) -> None:
    held = Book().rate("old", "correct", 1_000, 2_000).rate("new", "correct", 1_010, 2_000)
    held.rate("old", "correct", 300, 1_000, role="holdout")
    text = shown(snapshot(route(holdout="q4", holdout_share=0.1, holdout_salt="h")), held)
    assert "q4" in text
    assert "+20.2 points" in text
    text = shown(with_a_second_copy(), copies())
    assert "third, another copy of the baseline, agrees on 90.0%" in text
    assert "distance 0.9 ± 0.3" in text
