"""The report's numbers: what each key holds, and that nothing is shown as known before it is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

import policies
from gateway.report import report
from gateway.store.counts.ledger import Ledger
from gateway.store.rows.feedback_status import STATUSES
from policies import Evidence, Policy, Tally, Thompson, Weighted
from policies.rollouts.standing import START, Standing
from policies.statistics.sequential import mean_interval
from policies.types import Path
from router.scores import Agreement
from router.snapshot import RouteMirror, Snapshot
from tests.gateway.ledgers import CORRECT, ERROR, Book, draft_route, route, shadow_route, snapshot


def of(book: Book, *, given: Snapshot | None = None, policy: Policy | None = None) -> dict[str, Any]:
    found = report(given or snapshot(route()), book.ledger(), policy)
    assert orjson.loads(orjson.dumps(found)) == found
    return found


def variant(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["variants"] if one["name"] == name)


def test_the_keys_of_the_interface_are_all_there() -> None:
    found = of(Book().rate("old", "correct", 80, 100).rate("new", "correct", 90, 100))
    assert {"route", "policy", "epoch", "revision", "variants", "checks", "verdict", "feedback"} <= found.keys()
    assert {"name", "model", "version", "share", "predictions", "failures", "latency_ms", "metrics"} <= found[
        "variants"
    ][0].keys()
    assert found["variants"][0]["latency_ms"].keys() == {"p50", "p95", "p99"}
    assert found["variants"][0]["metrics"]["correct"].keys() == {
        *("live", "mature", "pending", "not_exposed", "oldest_pending_seconds", "coverage")
    }
    assert {"n", "mean"} <= found["variants"][0]["metrics"]["correct"]["live"].keys()
    assert {"n", "mean", "low", "high"} <= found["variants"][0]["metrics"]["correct"]["mature"].keys()
    assert {"status", "metric", "baseline", "comparisons", "sentence", "reason"} <= found["verdict"].keys()
    assert {"variant", "status", "difference", "low", "high"} <= found["verdict"]["comparisons"][0].keys()
    assert {"p", "ok"} <= found["checks"]["sample_ratio"].keys()


def test_a_route_without_traffic_knows_nothing_and_says_so() -> None:
    found = of(Book())
    for one in found["variants"]:
        assert one["predictions"] == 0
        assert one["latency_ms"] == {"p50": None, "p95": None, "p99": None}
        assert one["metrics"]["correct"]["mature"] == {
            "n": 0, "mean": None, "low": None, "high": None, "method": None, "units": 0, "unit_of_analysis": "unit",
        }  # fmt: skip
        assert one["metrics"]["correct"]["coverage"] is None
    assert found["verdict"]["status"] == "collecting"


def test_values_are_counted_and_intervals_are_by_unit() -> None:
    """20 values of one user are not 20 users: the interval is that of the units' tally."""
    found = of(Book().rate("new", "correct", 30, 40, each=20))
    mature = variant(found, "new")["metrics"]["correct"]["mature"]
    expected = mean_interval(Tally.of_units([(20, 20)] * 30 + [(0, 20)] * 10), bounds=(0, 1))
    assert expected is not None
    assert (mature["n"], mature["units"], mature["mean"]) == (800, 40, 0.75)
    assert (mature["low"], mature["high"], mature["method"]) == (expected.low, expected.high, "exact")


def test_requests_are_the_units_where_nothing_is_sticky() -> None:
    found = of(Book().rate("new", "correct", 3, 4), given=snapshot(route(by_unit=False)))
    assert variant(found, "new")["metrics"]["correct"]["mature"]["unit_of_analysis"] == "request"


def test_an_unbounded_metric_has_an_asymptotic_interval_and_none_for_few_units() -> None:
    few = Book().put("new", "error", Tally.of_units([(float(i % 7), 1) for i in range(50)]))
    many = Book().put("new", "error", Tally.of_units([(float(i % 7), 1) for i in range(500)]))
    given = snapshot(route(metrics=("error",), primary_metric="error"))
    hidden = variant(of(few, given=given), "new")["metrics"]["error"]["mature"]
    shown = variant(of(many, given=given), "new")["metrics"]["error"]["mature"]
    assert (hidden["low"], hidden["method"]) == (None, None)
    assert shown["method"] == "asymptotic"
    assert shown["low"] < shown["mean"] < shown["high"]


def test_pending_counts_open_windows_and_coverage_is_the_share_of_closed_ones_with_a_value() -> None:
    book = Book().calls("new", 100)
    book.put("new", "correct", Tally(d=80), phase="closed")
    book.put("new", "correct", Tally.of_units([(1, 1)] * 60))
    found = variant(of(book), "new")["metrics"]["correct"]
    assert (found["pending"], found["coverage"]) == (20, 0.75)


def test_a_copy_waits_for_no_event() -> None:
    """Events score only what the client saw, so a shadow that waited for them would be pending for ever."""
    given = snapshot(shadow_route(metrics=("correct", "click")))
    found = variant(of(Book().calls("new", 10, role="shadow"), given=given), "new")["metrics"]
    assert (found["correct"]["pending"], found["click"]["pending"]) == (10, 0)


def test_calls_and_failures_are_the_variants_own() -> None:
    book = Book().calls("new", 10, 3, failed=2).latencies("new", [10.0] * 99 + [1000.0])
    book.faults["new", "primary", "timeout"] = 2
    found = of(book)
    assert (variant(found, "new")["predictions"], variant(found, "new")["failures"]) == (30, 2)
    assert variant(found, "new")["latency_ms"]["p50"] == pytest.approx(10, rel=0.01)
    assert variant(found, "new")["latency_ms"]["p99"] <= 1010
    assert found["faults"] == {"new": {"primary": {"timeout": 2}}}


def test_versions_of_a_period_are_pooled() -> None:
    book = Book().rate("new", "correct", 3, 4, period=1).rate("new", "correct", 1, 4, period=2)
    assert variant(of(book), "new")["metrics"]["correct"]["mature"]["mean"] == 0.5


def test_a_metric_defined_anew_starts_without_its_old_values() -> None:
    book = Book().rate("new", "correct", 3, 4)
    book.tallies = {
        key if key.metric != "correct" else key._replace(definition="older"): tally
        for key, tally in book.tallies.items()
    }
    assert variant(of(book), "new")["metrics"]["correct"]["mature"]["n"] == 0


def test_a_shadow_is_read_from_its_copies() -> None:
    book = Book().rate("old", "correct", 80, 100).rate("new", "correct", 90, 100, role="shadow")
    book.put(
        "new", Agreement.name, Tally.of_units([(1, 1)] * 85 + [(0, 1)] * 15), phase="live", role="shadow", against="old"
    )
    book.pairs("new", "correct", [1] * 12 + [-1] * 2 + [0] * 84).latencies("new", [5.0], "shadow")
    shadow = variant(of(book, given=snapshot(shadow_route())), "new")
    assert (shadow["role"], shadow["share"], shadow["predictions"]) == ("shadow", 0.0, 100)
    assert shadow["latency_ms"]["p50"] == pytest.approx(5, rel=0.01)
    assert shadow["shadow"]["calls"] == 100
    agreement = shadow["shadow"]["agreement"]
    assert (agreement["n"], agreement["mean"]) == (100, 0.85)
    assert agreement["low"] < 0.85 < agreement["high"]
    paired = shadow["shadow"]["paired"]["correct"]
    assert (paired["against"], paired["n"], paired["incomplete"]) == ("old", 98, 2)
    assert paired["difference"] == pytest.approx(10 / 98)
    assert paired["low"] < 10 / 98 < paired["high"]


def test_another_copy_of_the_baseline_shows_the_noise() -> None:
    """No variant can be expected to agree with the baseline more often than the baseline does with itself."""
    mirrors = tuple(RouteMirror(variant=name, share=1.0) for name in ("new", "third"))
    given = snapshot(route("single", Weighted((("old", 1.0),)), variants=("old",), mirrors=mirrors))
    backends = {**given.backends, "old": replace(given.backends["old"], version=given.backends["third"].version)}
    book = Book().calls("new", 100, role="shadow").calls("third", 100, role="shadow")
    for name, agreed in (("new", 80), ("third", 95)):
        units = [(1, 1)] * agreed + [(0, 1)] * (100 - agreed)
        book.put(name, Agreement.name, Tally.of_units(units), phase="live", role="shadow")
    found = of(book, given=replace(given, backends=backends))
    floor = variant(found, "new")["shadow"]["noise_floor"]
    assert (floor["variant"], floor["n"], floor["mean"]) == ("third", 100, 0.95)
    assert variant(found, "third")["shadow"]["noise_floor"] is None
    assert variant(of(book, given=given), "new")["shadow"]["noise_floor"] is None


def test_how_predictions_differ_is_shown_by_each_measure_of_their_kind() -> None:
    book = Book().calls("new", 4, role="shadow")
    book.put("new", "@difference", Tally.of_units([(1, 1), (-1, 1), (3, 1), (1, 1)]), phase="live", role="shadow")
    shown = variant(of(book, given=snapshot(shadow_route())), "new")["shadow"]["predictions"]
    assert shown == {"difference": {"n": 4, "mean": 1.0, "deviation": pytest.approx(2**0.5)}}


def test_a_variant_that_answers_and_gets_copies_keeps_the_two_apart() -> None:
    given = snapshot(route("canary", mirrors=(RouteMirror(variant="new", share=0.1),)))
    book = Book().rate("new", "correct", 9, 10).calls("new", 40, role="shadow", failed=1)
    found = variant(of(book, given=given), "new")
    assert (found["role"], found["predictions"]) == ("primary", 10)
    assert (found["shadow"]["calls"], found["shadow"]["failures"]) == (40, 1)
    assert variant(of(book, given=given), "old")["shadow"] is None


def test_a_mirror_of_the_route_is_a_variant_of_the_report() -> None:
    given = snapshot(route(mirrors=(RouteMirror(variant="third", share=1.0),)))
    found = of(Book(), given=given)
    assert [one["name"] for one in found["variants"]] == ["old", "new", "third"]
    assert variant(found, "third")["role"] == "shadow"


def test_rankers_of_a_merged_list_are_drafted() -> None:
    book = Book(route="search").calls("old", 5, role="draft").calls("new", 5, role="draft")
    found = of(book, given=snapshot(draft_route()))
    assert [(one["role"], one["share"], one["predictions"]) for one in found["variants"]] == [("draft", 1.0, 5)] * 2


def test_feedback_shows_every_status_over_all_metrics() -> None:
    book = Book()
    book.feedback = {("correct", "joined"): 3, ("other", "joined"): 1, ("correct", "late"): 2}
    found = of(book)["feedback"]
    assert tuple(found) == tuple(STATUSES)
    assert (found["joined"], found["late"], sum(found.values())) == (4, 2, 6)


def test_an_adaptive_policy_shows_p_best_and_its_evidence() -> None:
    policy = Thompson(variants=("old", "new"), reward="correct", prior=(1, 1), floor=0.0)
    book = Book().rate("old", "correct", 5, 10).rate("new", "correct", 9, 10)
    given = snapshot(route("thompson", by_unit=False))
    found = of(book, given=given, policy=policy)
    evidence = Evidence({("old", "correct"): Tally(10, 5, d=10), ("new", "correct"): Tally(10, 9, d=10)})
    plan = policy.plan(evidence)
    assert variant(found, "new")["p_best"] == pytest.approx(plan.shares["new"], abs=1e-12)
    assert variant(found, "new")["evidence"] == {"metric": "correct", "successes": 9, "trials": 10}
    unknown = variant(of(book, given=given), "new")
    assert unknown["p_best"] is None, "P(best) needs the settings of the policy"
    assert unknown["evidence"] == {"metric": "correct", "successes": 9, "trials": 10}


def test_a_policy_that_does_not_learn_has_no_p_best() -> None:
    found = of(Book().rate("new", "correct", 9, 10))
    assert variant(found, "new")["p_best"] is None
    assert variant(found, "new")["evidence"] is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy(Policy):
    """A policy unknown to the program: it learns, chooses at random, and computes no posterior."""

    kind = "toy"
    adaptive = True
    randomised = True

    one: str
    other: str
    reward: str = "click"

    def references(self) -> tuple[tuple[Path, str], ...]:
        return (("one",), self.one), (("other",), self.other)

    def plan(self, evidence: Evidence, standing: Standing = START) -> Weighted:
        return Weighted(((self.one, 0.5), (self.other, 0.5)), sticky=False)


def test_a_new_policy_is_reported_by_its_own_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "POLICIES", (*policies.POLICIES, Toy))
    toy = Toy(one="old", other="new")
    given = snapshot(route("toy", toy.plan(Evidence()), metrics=("correct", "click"), by_unit=False))
    book = (
        Book()
        .rate("old", "click", 1, 10)
        .rate("new", "click", 9, 10)
        .stretch({"old": 10, "new": 10}, {"old": 0.5, "new": 0.5})
    )
    found = of(book, given=given, policy=toy)
    assert (found["adaptive"], found["checks"]["sample_ratio"]["applies"]) == (True, True)
    assert variant(found, "new")["evidence"] == {"metric": "click", "successes": 9, "trials": 10}
    assert variant(found, "new")["p_best"] is None, "it computes no P(best)"


def test_the_sample_ratio_is_checked_where_the_policy_is_random() -> None:
    book = Book().stretch({"old": 500, "new": 520}, {"old": 0.5, "new": 0.5})
    assert of(book)["checks"]["sample_ratio"] == {
        "p": 1.0,
        "ok": True,
        "applies": True,
        "since": None,
        "set_aside_p": None,
        "cause": None,
    }
    fixed = of(Book(), given=snapshot(shadow_route()))["checks"]["sample_ratio"]
    assert fixed == {"p": None, "ok": True, "applies": False, "since": None, "set_aside_p": None, "cause": None}


def test_a_policy_unknown_to_this_release_is_still_reported() -> None:
    found = of(Book().rate("new", "correct", 9, 10), given=snapshot(route("from_the_future")))
    assert (found["policy"], found["adaptive"]) == ("from_the_future", False)


def test_the_watermark_is_a_time_people_can_read() -> None:
    assert of(Book())["watermark"] == "2023-11-14T22:13:20.000Z"
    assert report(snapshot(route()), Ledger("digits", "e1"))["watermark"] is None


def test_a_route_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="gone"):
        report(snapshot(route()), Ledger("gone", "e1"))


def test_definitions_tell_a_reader_how_to_print_a_metric() -> None:
    given = snapshot(route(metrics=("correct", "error")))
    found = of(Book(), given=given)["definitions"]
    assert found["correct"]["binary"]
    assert not found["error"]["binary"]
    assert found["error"]["better"] == ERROR.better
    assert found["correct"]["window_ms"] == CORRECT.window_ms


def test_a_variant_whose_share_fell_to_zero_keeps_its_numbers() -> None:
    """The numbers of a canary that was rolled back must not vanish with its share."""
    given = snapshot(route("canary", Weighted((("old", 1.0),))))
    found = variant(of(Book().rate("new", "correct", 9, 10), given=given), "new")
    assert (found["role"], found["predictions"], found["share"]) == ("primary", 10, 0.0)
