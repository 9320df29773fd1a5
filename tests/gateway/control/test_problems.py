"""What is wrong with a route is shown: from journal lines to report, console, command line and series."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from gateway.cli.report_tables import of_route
from gateway.report import problems, report
from gateway.report.account import Account
from gateway.report.problems import Found, Problem
from gateway.store.counts.ledger import Ledger, Seen
from policies.plans import TeamDraft, Weighted
from router.records import WRONG, Feedback, Prediction
from router.snapshot import Backend, Snapshot
from tests.gateway.admin.fake import Control, ask
from tests.gateway.control.builders import T0, Desk, at_desk, call, event, keyed, metric, statuses

CLICK = metric("event", missing=0.0)
LABEL = metric("label")
SHARES = Weighted((("a", 0.5), ("b", 0.5)))
MERGED = TeamDraft(("a", "b"), "/items", "/id", 10)


def both(number: int, **more: Any) -> Sequence[Prediction]:
    """Request ``number`` answered by a or b in turn; what is said of a is under "a"."""
    variant, of_a = "ab"[number % 2], more.pop("a", {})
    return [call(number, variant, **(more | (of_a if variant == "a" else {})))]


def merged(number: int, **more: Any) -> Sequence[Prediction]:
    """Request ``number`` answered by the lists of both rankers, each with one item."""
    return [call(number, ranker, role="draft", **({"items": (ranker,)} | more)) for ranker in "ab"]


class Case(NamedTuple):
    """60 requests with the events about them, and the problem that must be shown."""

    problem: str
    says: str
    n: int
    of: int
    calls: Callable[[int], Sequence[Prediction]] = both
    events: Callable[[int], Sequence[Feedback]] = lambda number: [event(number, 1, at=100 + number)]
    route: Mapping[str, Any] = MappingProxyType({})
    variant: str | None = None
    metrics: Any = CLICK


CASES = {
    "a backend's 404s": Case(
        "client_errors", "a answers with a 4xx, last 404", 30, 30, lambda n: both(n, a={"status": 404}), variant="a"
    ),
    "404s that count as failures": Case(
        "failures",
        "a fails, last with client_error",
        30,
        30,
        lambda n: both(n, a={"status": 404, "fault": "client_error"}),
        variant="a",
    ),
    "a backend's 502s": Case(
        "failures", "a fails, last with 502", 30, 30, lambda n: both(n, a={"status": 502}), variant="a"
    ),
    "a prediction pointer that finds nothing": Case(
        "no_prediction",
        'answers of a have nothing at prediction = "/label"',
        30,
        30,
        lambda n: both(n, a={"wrong": ("no_prediction",)}),
        route={"prediction": "/label"},
        variant="a",
    ),
    "a version pointer that finds nothing": Case(
        "no_version", "reported_version", 30, 30, lambda n: both(n, a={"wrong": ("no_version",)}), variant="a"
    ),
    "another version than declared": Case(
        "other_version",
        "a is declared 1, and its answers say 2.0.0",
        30,
        30,
        lambda n: both(n, a={"reported_version": "2.0.0", "wrong": ("other_version:2.0.0",)}),
        variant="a",
    ),
    "no unit in any request": Case(
        "no_unit",
        "requests carry no unit (header:x-user-id): each of these requests counts as a unit of its own",
        60,
        60,
        lambda n: both(n, by_unit=True, wrong=("no_unit",)),
        route={"unit": "header:x-user-id", "by_unit": True},
    ),
    "no key in any request": Case(
        "no_key", "no key (body:/id)", 60, 60, lambda n: both(n, wrong=("no_key",)), route={"key": "body:/id"}
    ),
    "a feature that is in no request": Case(
        "no_feature",
        "last country (header:x-country)",
        60,
        60,
        lambda n: both(n, wrong=("no_feature:country",)),
        route={"features": (("country", "header:x-country"),)},
    ),
    "lists that are not merged": Case(
        "unmerged",
        "lists are not merged, last because of no_item_id",
        60,
        60,
        lambda n: merged(n, items=None, wrong=("unmerged:no_item_id",)),
        route={"plan": MERGED, "policy": "interleave"},
    ),
    "clicks without an item": Case(
        "not_applicable",
        "60 without `item`, about a merged list",
        60,
        60,
        merged,
        route={"plan": MERGED, "policy": "interleave"},
    ),
    "clicks on what was not shown": Case(
        "not_applicable",
        "60 of an `item` that was not shown",
        60,
        60,
        merged,
        lambda n: [event(n, 1, at=100 + n, item="elsewhere")],
        route={"plan": MERGED, "policy": "interleave"},
    ),
    "feedback of a metric that is not listed": Case(
        "not_applicable",
        "of a metric that the route does not list",
        60,
        60,
        events=lambda n: [event(n, 1, 100 + n, metric="x")],
    ),
    "feedback that comes too late": Case("late", "too late", 60, 60, events=lambda n: [event(n, 1, at=5_000 + n)]),
    "feedback by a wrong key": Case(
        "orphaned", "finds no prediction", 60, 60, events=lambda n: [keyed(f"x{n}", 1, 100 + n)]
    ),
    "labels that never come": Case(
        "uncovered",
        "windows of k close without a value for what a",
        30,
        30,
        events=lambda n: [],
        variant="a",
        metrics=LABEL,
    ),
    "copies that are dropped": Case(
        "dropped_copies",
        "copies for c are dropped",
        60,
        60,
        lambda n: [*both(n), call(n, "c", role="shadow", status=None, fault="dropped")],
        route={"variants": ("a", "b", "c")},
        variant="c",
    ),
}


def snapshot_of(case: Case, desk: Desk) -> Snapshot:
    backends = {name: Backend(name=name, urls=("http://127.0.0.1:9001",), version="1", model="m") for name in "abc"}
    return replace(desk.snapshot, backends=backends)


def counted(case: Case, path: Path, requests: int = 60) -> tuple[Snapshot, Ledger]:
    """Write a case's lines as a worker does, and return what is counted."""

    async def story(desk: Desk) -> tuple[Snapshot, Ledger]:
        for number in range(requests):
            desk.journal.calls(*case.calls(number))
            desk.journal.events(*case.events(number))
        desk.journal.beat(30_000)
        return snapshot_of(case, desk), await desk.record()

    return at_desk(Desk(path, case.metrics, **{"plan": SHARES, **case.route}), story)


def text_of(shown: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=240).print(of_route(shown, boxed=False))
    return out.getvalue()


@pytest.mark.parametrize("name", CASES)
def test_a_misconfiguration_is_said_wherever_one_looks(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    snapshot, ledger = counted(case, tmp_path)
    shown = report(snapshot, ledger)
    [found] = [one for one in shown["problems"] if (one["problem"], one["variant"]) == (case.problem, case.variant)]
    assert case.says in found["sentence"]
    assert (found["n"], found["of"], found["share"]) == (case.n, case.of, 1.0)
    assert found["mend"]
    assert found["ongoing"]
    if case.problem != "uncovered":
        assert found["since"] < found["last"]
        assert found["since"].startswith("2023-11-14T22:13:2")
    assert shown["verdict"]["warning"]
    assert sum(statuses(ledger).values()) == sum(len(case.events(number)) for number in range(60))
    assert found["sentence"] in text_of(shown)
    assert all(line == line.rstrip() for line in text_of(shown).splitlines() if found["sentence"] in line)
    fake = Control(snapshot, {"r": ledger})
    page = ask(fake, "/routes/r").text
    assert "What is wrong" in page
    assert found["mend"].split("`")[0][:30] in page
    assert f'turnout_route_problem{{problem="{case.problem}",route="r"}} 1.0' in ask(fake, "/metrics").text


def test_what_goes_as_the_file_says_has_no_problem(tmp_path: Path) -> None:
    snapshot, ledger = counted(Case("", "", 0, 0), tmp_path)
    shown = report(snapshot, ledger)
    assert (shown["problems"], shown["verdict"]["warning"]) == ([], None)
    assert "turnout_route_problem{" not in ask(Control(snapshot, {"r": ledger}), "/metrics").text


def test_every_word_of_a_worker_has_a_problem() -> None:
    assert set(WRONG) <= {problem.name for problem in problems.PROBLEMS}


def test_a_problem_is_one_entry_and_shown_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(account: Account) -> list[Found]:
        return [Found("a", 20, 40, Seen(20, T0, T0 + 1), "toys are broken", "buy new ones")]

    monkeypatch.setattr(problems, "PROBLEMS", (Problem("toy", 0.1, find),))
    snapshot, ledger = counted(Case("", "", 0, 0), tmp_path)
    fake, said = Control(snapshot, {"r": ledger}), "toys are broken (20 of 40, 50.0%)."
    shown = ask(fake, "/api/v1/routes/r").json()
    assert [one["sentence"] for one in shown["problems"]] == [said]
    assert shown["verdict"]["warning"] == said
    assert said in text_of(shown)
    assert said in ask(fake, "/routes/r").text
    assert said in ask(fake, "/").text
    assert 'turnout_route_problem{problem="toy",route="r"} 0.5' in ask(fake, "/metrics").text


def test_what_has_stopped_is_shown_as_past_and_raises_no_alert(tmp_path: Path) -> None:
    snapshot, ledger = counted(CASES["a backend's 404s"], tmp_path)
    later = replace(ledger, watermark_ms=T0 + 3_600_000)
    [found] = [one for one in report(snapshot, later)["problems"] if one["problem"] == "client_errors"]
    assert not found["ongoing"]
    assert "turnout_route_problem{" not in ask(Control(snapshot, {"r": later}), "/metrics").text


def test_4xx_are_a_class_of_their_own_by_variant(tmp_path: Path) -> None:
    shown = report(*counted(CASES["a backend's 404s"], tmp_path))
    assert {v["name"]: (v["failures"], v["client_errors"]) for v in shown["variants"]} == {"a": (0, 30), "b": (0, 0)}
    failing = report(*counted(CASES["404s that count as failures"], tmp_path / "fail"))
    assert {v["name"]: (v["failures"], v["client_errors"]) for v in failing["variants"]} == {"a": (30, 30), "b": (0, 0)}
    assert failing["faults"] == {"a": {"primary": {"client_error": 30}}}


def test_a_variant_whose_answers_fail_is_never_better(tmp_path: Path) -> None:
    """Of 300 answers 285 are 502s. Clients send values for the answers that they could use, and those are good."""
    reward = metric("value", range=(0.0, 1.0), mature="arrival")

    def events(number: int) -> Sequence[Feedback]:
        return [event(number, 1.0 if number % 2 else 0.2, at=100)]

    case = Case(
        "failures",
        "b fails",
        0,
        0,
        lambda n: [call(n, "ab"[n % 2], status=502 if n % 2 and n % 40 != 1 else 200)],
        events,
        metrics=reward,
    )
    snapshot, ledger = counted(case, tmp_path, requests=600)
    shown = report(snapshot, ledger)
    [compared] = shown["verdict"]["comparisons"]
    means = {one["name"]: one["metrics"]["k"]["mature"]["mean"] for one in shown["variants"]}
    assert means["b"] - means["a"] > 0.1
    assert (compared["status"], shown["verdict"]["status"]) == ("failing", "failing")
    assert "b fails 95.0% of its 300 calls, a 0.0% of its 300" in shown["verdict"]["reason"]
    assert "b fails 95.0%" in shown["verdict"]["sentence"]
    assert 'turnout_verdict{route="r",status="failing"} 1.0' in ask(Control(snapshot, {"r": ledger}), "/metrics").text


def test_requests_without_a_unit_are_not_called_users(tmp_path: Path) -> None:
    shown = report(*counted(CASES["no unit in any request"], tmp_path))
    assert "users" not in shown["verdict"]["sentence"]
    assert "requests" in shown["verdict"]["sentence"]


def test_signs_add_up_whatever_the_batches(tmp_path: Path) -> None:
    case = CASES["another version than declared"]

    async def story(desk: Desk) -> Ledger:
        for number in reversed(range(60)):
            desk.journal.calls(*case.calls(number))
            await desk.recorder.drain(20)
        desk.journal.beat(30_000)
        return await desk.record()

    singly = at_desk(Desk(tmp_path / "singly", CLICK, lines=1), story)
    _, whole = counted(case._replace(events=lambda n: []), tmp_path / "whole")
    assert singly.signs == whole.signs
    assert singly.signs["a@1", "primary", "other_version"] == Seen(30, T0, T0 + 58, "2.0.0")


def test_what_an_earlier_version_recorded_does_not_hide_what_is_wrong_now(tmp_path: Path) -> None:
    """That version did not check its calls: among a million, sixty without a unit would be no share."""
    snapshot, ledger = counted(CASES["no unit in any request"], tmp_path)
    older = {key: tally for key, tally in ledger.tallies.items() if key.metric == "@calls"}
    many = {
        key._replace(period=0): replace(tally, n=10_000 * tally.n, d=10_000 * tally.d) for key, tally in older.items()
    }
    shown = report(snapshot, replace(ledger, tallies={**ledger.tallies, **many}))
    [found] = [one for one in shown["problems"] if one["problem"] == "no_unit"]
    assert (found["n"], found["of"]) == (60, 60)


def test_an_item_that_a_later_row_shows_counts_after_all(tmp_path: Path) -> None:
    """The rows of one request may be read in two batches, and the event between them."""

    async def story(desk: Desk) -> Ledger:
        first, second = merged(10)
        desk.journal.calls(first)
        desk.journal.events(event(10, 1, at=100, item="b"))
        assert statuses(await desk.record()) == {"not_applicable": 1}
        desk.journal.calls(second)
        desk.journal.beat(30_000)
        return await desk.record()

    ledger = at_desk(Desk(tmp_path, CLICK, plan=MERGED, policy="interleave"), story)
    assert statuses(ledger) == {"joined": 1}
    votes = ledger.pooled("b", "draft", "k", "mature", against="a", definition=CLICK.definition)
    assert (votes.n, votes.m) == (1, 1)


def test_a_prediction_says_why_an_event_cannot_count(tmp_path: Path) -> None:
    async def story(desk: Desk) -> Any:
        desk.journal.calls(*merged(10))
        desk.journal.events(event(10, 1, at=100), event(10, 1, at=101, item="z"), event(10, 1, at=102, item="a"))
        await desk.record()
        return await desk.store.prediction(merged(10)[0].id)

    found = at_desk(Desk(tmp_path, CLICK, plan=MERGED, policy="interleave"), story)
    assert [(one["status"], one["reason"]) for one in found["feedback"]] == [
        ("not_applicable", "no_item"),
        ("not_applicable", "item_not_shown"),
        ("joined", None),
    ]


def test_feedback_that_belongs_to_no_route_is_said_above_the_routes(tmp_path: Path) -> None:
    """A wrong prediction id names no route: no route's page could show it."""
    fake = Control(snapshot_of(CASES["a backend's 404s"], Desk(tmp_path, CLICK)))
    fake.counted = {("r", "k", "joined"): 60, ("unknown", "k", "orphaned"): 30, ("unknown", "unknown", "rejected"): 10}
    said = "Feedback belongs to no route: 30 name no prediction that is known, 10 were refused (40 of 100, 40.0%)."
    assert ask(fake, "/api/v1/routes").json()["feedback_of_no_route"]["sentence"] == said
    assert said in ask(fake, "/").text
    fake.counted = {("r", "k", "joined"): 6_000, ("unknown", "k", "orphaned"): 30}
    assert ask(fake, "/api/v1/routes").json()["feedback_of_no_route"] is None


def test_a_click_on_a_list_that_was_not_merged_cannot_count_and_says_so(tmp_path: Path) -> None:
    case = CASES["lists that are not merged"]._replace(events=lambda n: [event(n, 1, at=100 + n, item="a")])
    shown = report(*counted(case, tmp_path))
    found = {one["problem"]: one["sentence"] for one in shown["problems"]}
    assert "60 about lists that were not merged" in found["not_applicable"]
