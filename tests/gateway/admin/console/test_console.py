"""The console shows what the API says, without a script, another host or an unescaped name."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from gateway.admin.console.forest import ForestRow, forest, steps
from router.snapshot import Backend, Guardrail
from tests.gateway.admin.fake import Control, ask, control
from tests.gateway.ledgers import Book, route, snapshot

VOID = {"meta", "link", "path", "rect", "line", "circle", "br", "img", "input"}


class Outline(HTMLParser):
    """Every start tag with its attributes; fails on a tag that is not closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    found.close()
    assert found.open == []
    return found


@pytest.mark.parametrize("path", ["/", "/routes/digits", "/routes/shadowed", "/routes/search", "/routes/nowhere"])
def test_a_page_is_whole_and_needs_nothing_from_elsewhere(path: str) -> None:
    page = outline(ask(control(), path).text)
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object"}
        assert "style" not in attributes, "the policy forbids inline styles"
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src"):
            assert (attributes.get(name) or "/").startswith("/")


def test_the_overview_shows_each_route_with_its_sentence() -> None:
    text = ask(control(), "/").text
    assert "new gets 15.0 points more right than old" in text
    assert 'href="/routes/digits"' in text
    assert text.count("<article") == 3


def test_a_route_shows_a_chart_and_the_same_numbers_as_text() -> None:
    text = ask(control(), "/routes/digits").text
    assert "<svg" in text
    assert "85.0 %" in text
    assert ">+15.0 points (+9.1 to +20.9 points)</td>" in text


def test_a_shadow_and_a_preference_have_their_own_words() -> None:
    assert "100 pairs" in ask(control(), "/routes/shadowed").text
    assert "40 won, 20 lost, 3 tied" in ask(control(), "/routes/search").text


def test_a_route_that_is_nearly_spelled_is_suggested() -> None:
    answer = ask(control(), "/routes/digit")
    assert answer.status_code == 404
    assert "did you mean &#34;digits&#34;?" in answer.text


def test_names_are_text_and_never_markup() -> None:
    fake = control()
    backend = Backend(name="old", urls=("http://127.0.0.1:1",), version="<script>1</script>", model='"><b>')
    fake.snapshot = replace(fake.snapshot, backends={**fake.snapshot.backends, "old": backend})
    for path in ("/", "/routes/digits", "/routes/<script>alert(1)"):
        assert "<script" not in ask(fake, path).text


def test_a_store_that_is_not_open_is_said_and_the_page_stands() -> None:
    fake = control()
    fake.store_ready = False
    answer = ask(fake, "/")
    assert answer.status_code == 200
    assert "Traffic goes on" in answer.text
    assert ask(fake, "/routes/digits").status_code == 503


def test_a_route_without_any_traffic_has_a_page() -> None:
    fake = control()
    fake.books.clear()
    for name in fake.snapshot.routes:
        assert ask(fake, f"/routes/{name}").status_code == 200


def test_the_style_sheet_is_kept_by_browsers_because_its_address_changes_with_it() -> None:
    fake = control()
    href = re.search(r'href="(/static/console\.css\?\w+)"', ask(fake, "/").text)
    assert href is not None
    answer = ask(fake, href[1])
    assert answer.headers["content-type"].startswith("text/css")
    assert "immutable" in answer.headers["cache-control"]


def test_a_chart_holds_every_interval_in_order() -> None:
    chart = forest([ForestRow("a", 0.2, 0.3, 0.4), ForestRow("b", 0.1, 0.5, 0.6)], percent=True, zero=True)
    assert chart is not None
    for mark in chart.marks:
        assert chart.left <= mark.low <= mark.middle <= mark.high <= chart.right
    assert chart.zero is not None
    assert chart.zero < chart.marks[1].low
    assert [tick.text for tick in chart.ticks] == ["0.0 %", "20.0 %", "40.0 %", "60.0 %"]


def test_equal_values_still_make_a_chart_and_no_values_none() -> None:
    assert forest([], percent=True) is None
    assert forest([ForestRow("a", 0.5, 0.5, 0.5)], percent=True) is not None
    assert forest([ForestRow("a", 0.0, 0.0, 0.0)], percent=False) is not None


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.031, 0.087), (1e-7, 3e-7), (-5000.0, 12000.0), (0.95, 1.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = steps(low, high)
    assert 2 <= len(found) <= 7
    assert all(low <= value <= high for value in found)


ID = "01990000-0000-7000-8000-000000000000"
CALL = {"route": "digits", "variant": "new", "version": "2.0.0", "role": "primary", "at_ms": 1_760_000_000_000}
CALL |= {"status": 200, "fault": None, "propensity": 0.5, "latency_ms": 3.0, "predicted": True, "prediction": "<7>"}
EVENT = {"metric": "correct", "value": 7, "status": "not_exposed", "received_ms": 1_760_000_000_500, "revision": 0}
EVENT |= {"item": None, "key": "loan-17"}
VALUE = {"metric": "click", "variant": "new", "against": None, "live": 0.0, "mature": 0.0}
PREDICTION = {
    "prediction_id": ID,
    "calls": [CALL],
    "feedback": [EVENT],
    "states": {
        "correct": {"state": "not_exposed", "closed": False, "closes_at_ms": 1_760_000_086_400},
        "click": {"state": "defaulted", "closed": True, "closes_at_ms": 1_760_000_001_800},
    },
    "outcomes": [VALUE],
}


def test_a_prediction_shows_how_it_stands_under_each_metric() -> None:
    fake = control()
    fake.predictions = {ID: PREDICTION}
    text = ask(fake, f"/predictions/{ID}").text
    outline(text)
    assert "not exposed" in text
    assert "defaulted" in text
    assert "new: 0" in text
    assert "&lt;7&gt;" in text
    assert "loan-17" in text
    assert "2025-10-09 08:54:46" in text, "until when its window is open"


def test_a_prediction_is_found_by_its_id() -> None:
    found = ask(control(), f"/predictions?id=%20{ID}%20")
    assert (found.status_code, found.headers["location"]) == (303, f"/predictions/{ID}")
    assert ask(control(), f"/predictions/{ID}").status_code == 404
    assert ask(replace(control(), store_ready=False), f"/predictions/{ID}").status_code == 503


def test_a_route_shows_every_metric_its_method_and_its_guardrails() -> None:
    book = Book()
    for metric, old, new in (("correct", 700, 850), ("click", 400, 410)):
        book.rate("old", metric, old, 1000).rate("new", metric, new, 1000)
    book.latencies("old", [20.0] * 500).latencies("new", [20.0] * 500)
    bound = Guardrail(metric="latency_ms.p95", limit=100.0)
    given = snapshot(route(metrics=("correct", "click"), guardrails=(bound,)))
    text = ask(Control(given, {"digits": book.ledger()}), "/routes/digits").text
    assert "Every metric, compared with old" in text
    assert 'click <span class="kind">secondary</span>' in text
    assert "a confidence sequence, valid at every look once there are many units" in text
    assert "at most 100 ms" in text
    assert '<span class="status better">clean</span>' in text


@pytest.mark.parametrize("path", ["/", "/routes/digits", "/routes/shadowed", "/routes/search", "/events"])
def test_every_cell_names_its_column_for_screens_without_columns(path: str) -> None:
    """A narrow screen shows rows as lists: a cell without its heading would be a bare number."""
    text = ask(control(), path).text
    for table in re.findall(r"<table>.*?</table>", text, re.DOTALL):
        headings = {re.sub("<[^>]+>", "", one).strip() for one in re.findall(r"<th scope=.col.[^>]*>(.*?)</th>", table)}
        for row in re.findall(r"<tr(?: class=.sub.)?>(.*?)</tr>", table.partition("</thead>")[2], re.DOTALL):
            cells = re.findall(r"<td(?![^>]*colspan)[^>]*>", row)
            found = [re.search(r'data-label="([^"]*)"', cell) for cell in cells]
            assert all(one is not None and one[1] in headings for one in found), row
