"""The verdict: when each status is given, and that a verdict is withheld where the numbers do not support one."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from gateway.report import comparison, report
from gateway.report.comparison import Comparison
from gateway.report.verdict import overall
from gateway.report.verdict_status import Status
from gateway.store.counts.ledger import TallyKey
from policies import Tally, Weighted
from policies.statistics.means.compare import compare
from policies.statistics.paired import paired_difference
from policies.statistics.preference import preference
from policies.types import Buckets
from router.exposure import exposure
from router.snapshot import Snapshot
from tests.gateway.ledgers import CORRECT, VERSIONS, Book, draft_route, route, shadow_route, snapshot

THREE = Weighted((("old", 0.34), ("new", 0.33), ("third", 0.33)))


def verdict(book: Book, given: Snapshot | None = None) -> dict[str, Any]:
    found = report(given or snapshot(route()), book.ledger())["verdict"]
    assert isinstance(found, dict)
    return found


def statuses(found: dict[str, Any]) -> dict[str, str]:
    return {one["variant"]: one["status"] for one in found["comparisons"]}


def test_an_interval_above_zero_is_better_and_below_it_worse() -> None:
    up = verdict(Book().rate("old", "correct", 500, 1000).rate("new", "correct", 700, 1000))
    down = verdict(Book().rate("old", "correct", 700, 1000).rate("new", "correct", 500, 1000))
    assert (up["status"], down["status"]) == ("better", "worse")
    assert up["comparisons"][0]["low"] > 0 > down["comparisons"][0]["high"]
    assert (up["reason"], down["reason"]) == (None, None)


def test_swapping_the_variants_negates_the_interval() -> None:
    one = verdict(Book().rate("old", "correct", 510, 1000).rate("new", "correct", 620, 900))["comparisons"][0]
    other = verdict(Book().rate("new", "correct", 510, 1000).rate("old", "correct", 620, 900))["comparisons"][0]
    assert one["difference"] == pytest.approx(-other["difference"])
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))


@pytest.mark.parametrize(("new", "status"), [(300, "worse"), (100, "better")])
def test_less_is_better_where_the_metric_says_so(new: int, status: Status) -> None:
    given = snapshot(route(metrics=("complaint",), primary_metric="complaint"))
    found = verdict(Book().rate("old", "complaint", 200, 1000).rate("new", "complaint", new, 1000), given)
    assert found["status"] == status


def test_equal_variants_show_no_difference_once_enough_units_are_in() -> None:
    found = verdict(Book().rate("old", "correct", 80, 100).rate("new", "correct", 81, 100))
    assert (found["status"], found["reason"]) == ("no_difference_yet", "the interval contains 0")


def test_few_units_are_collecting_and_not_equal() -> None:
    found = verdict(Book().rate("old", "correct", 8, 10).rate("new", "correct", 800, 1000))
    assert found["status"] == "collecting"
    assert "too few users" in found["reason"]


def test_the_interval_is_that_of_the_strata() -> None:
    """A ramp during a bad day would otherwise fake an effect (Simpson)."""
    book = Book()
    for period, size, rate in ((1, 100, 0.9), (2, 900, 0.5)):
        book.rate("new", "correct", int(size * rate), size, period=period)
        book.rate("old", "correct", int((1000 - size) * rate), 1000 - size, period=period)
    found = verdict(book)["comparisons"][0]
    assert found["difference"] == pytest.approx(0, abs=1e-9)
    assert verdict(book)["status"] == "no_difference_yet"


def test_comparisons_share_the_chance_of_an_error() -> None:
    """Of two, the first is held to half of it; once it decides, the second has all of it (Holm)."""
    given = snapshot(route(plan=THREE, variants=("old", "new", "third")))
    book = Book().rate("old", "correct", 400, 1000)
    book.rate("new", "correct", 450, 1000).rate("third", "correct", 500, 1000)
    sides = [Tally.of_units([(1, 1)] * right + [(0, 1)] * (1000 - right)) for right in (400, 450)]
    for status, level in (("better", 0.05), ("no_difference_yet", 0.025)):
        if status != "better":
            book.put("third", "correct", Tally.of_units([(0, 1)] * 200))
        found = {one["variant"]: one for one in verdict(book, given)["comparisons"]}
        expected = compare([(sides[0], sides[1])], bounds=(0, 1), alpha=level)
        assert expected is not None
        assert (found["third"]["status"], found["new"]["status"]) == (status, "no_difference_yet")
        assert (found["new"]["low"], found["new"]["high"]) == (expected.low, expected.high)


def test_every_metric_is_compared_and_the_primary_one_alone_decides() -> None:
    given = snapshot(route(metrics=("correct", "click", "complaint")))
    book = Book()
    for metric, old, new in (("correct", 500, 505), ("click", 400, 600), ("complaint", 300, 400)):
        book.rate("old", metric, old, 1000).rate("new", metric, new, 1000)
    found = report(given, book.ledger())
    assert [(one["metric"], one["primary"], one["status"]) for one in found["comparisons"]] == [
        ("correct", True, "no_difference_yet"),
        ("click", False, "better"),
        ("complaint", False, "worse"),
    ]
    assert found["comparisons"][:1] == found["verdict"]["comparisons"]
    assert found["verdict"]["status"] == "no_difference_yet"


def test_secondary_metrics_share_the_errors_among_what_they_claim() -> None:
    """Two metrics of which one differs: both are held to half of the rate of errors; if both differ, to all of it."""
    given = snapshot(route(metrics=("correct", "click", "complaint")))
    for complaints, level in ((305, 0.025), (500, 0.05)):
        book = Book().rate("old", "correct", 500, 1000).rate("new", "correct", 500, 1000)
        book.rate("old", "click", 400, 1000).rate("new", "click", 600, 1000)
        book.rate("old", "complaint", 300, 1000).rate("new", "complaint", complaints, 1000)
        found = report(given, book.ledger())["comparisons"]
        assert [one["level"] for one in found] == [0.05, level, level]
        for one in found:
            assert (one["low"] > 0 or one["high"] < 0) == (one["p"] <= one["level"])


def test_a_statistic_that_fails_is_said_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator with ten metrics keeps the nine that can be computed."""
    given = snapshot(route(metrics=("correct", "click")))
    book = Book().rate("old", "correct", 500, 1000).rate("new", "correct", 700, 1000)
    whole = comparison._by_strata

    def failing(account: Any, metric: Any, nothing: Any) -> Any:
        if metric.name == "click":
            raise ZeroDivisionError("no values")
        return whole(account, metric, nothing)

    monkeypatch.setattr(comparison, "_by_strata", failing)
    found = report(given, book.ledger())
    assert found["verdict"]["status"] == "better"
    assert found["comparisons"][1]["reason"] == "cannot be computed: ZeroDivisionError: no values"


def test_requests_that_are_drawn_anew_are_compared_by_bets_whether_shares_move_or_not() -> None:
    shares = {"old": 0.5, "new": 0.5}
    book = Book(shares=shares).rate("old", "correct", 500, 1000).rate("new", "correct", 600, 1000)
    for policy in ("ab", "thompson"):
        [one] = verdict(book, snapshot(route(policy, by_unit=False)))["comparisons"]
        assert (one["method"], one["described"], one["status"]) == ("e_process", True, "better")


def test_what_is_missing_is_said_where_it_is_not_units() -> None:
    drawn = Book().rate("old", "correct", 500, 1000).rate("new", "correct", 600, 1000)
    found = verdict(drawn, snapshot(route(by_unit=False)))
    assert found["reason"] == "the shares that these requests were drawn with are not known"
    assert found["sentence"].endswith(f"1,000 and 1,000 requests have a result so far, and {found['reason']}.")
    free = Book()
    for name in ("old", "new"):
        free.put(name, "error", Tally.of_units([(float(i % 7), 1) for i in range(50)]))
    found = verdict(free, snapshot(route(metrics=("error",), primary_metric="error")))
    assert found["reason"] == "values without known bounds take 100 on each side"


def test_units_that_keep_their_variant_while_the_shares_move_have_no_verdict_and_it_says_why() -> None:
    book = Book().rate("old", "correct", 300, 1000).rate("new", "correct", 600, 1000)
    found = verdict(book, snapshot(route("thompson")))
    [one] = found["comparisons"]
    assert (one["status"], one["p"]) == ("collecting", None)
    assert one["withheld"].startswith("units keep their variant while the shares follow the evidence")
    assert "No verdict on new and old by correct: units keep their variant" in found["sentence"]
    assert found["reason"] == one["withheld"]


def test_a_shadow_is_compared_on_the_same_requests() -> None:
    differences = [1.0] * 60 + [-1.0] * 10 + [0.0] * 430
    found = verdict(Book().pairs("new", "correct", differences), snapshot(shadow_route()))
    expected = paired_difference(Tally.of_units([(d, 1) for d in differences]), bounds=(-1, 1))
    one = found["comparisons"][0]
    assert expected is not None
    assert (one["paired"], one["low"], one["high"], one["p"]) == (True, expected.low, expected.high, expected.p)
    assert (one["method"], found["status"]) == ("paired_e_process", "better")


def test_few_pairs_have_an_interval_within_what_differences_can_be() -> None:
    one = verdict(Book().pairs("new", "correct", [1.0] * 40), snapshot(shadow_route()))["comparisons"][0]
    assert (one["status"], one["high"]) == ("better", 1.0)
    assert 0 < one["low"] < 1


@pytest.mark.parametrize("metric", ["click", "revenue"])
def test_copies_are_never_compared_by_what_only_clients_can_do(metric: str) -> None:
    """No client ever saw a copy's answer: however long one waits, there are no pairs."""
    given = snapshot(shadow_route(metrics=(metric,), primary_metric=metric))
    found = verdict(Book().rate("old", metric, 80, 100).calls("new", 100, role="shadow"), given)
    assert found["status"] == "collecting"
    assert "never seen: it takes a label" in found["sentence"]
    assert "never seen: it takes a label" in found["reason"]


def test_pairs_say_what_an_ab_test_would_need() -> None:
    """Both are right on half of the requests and differ on a tenth: ten times as many."""
    book = Book().rate("old", "correct", 500, 1000).rate("new", "correct", 500, 1000, role="shadow")
    found = verdict(book.pairs("new", "correct", [1.0, -1.0] * 50 + [0.0] * 900), snapshot(shadow_route()))
    assert found["comparisons"][0]["ab_test_needs"] == pytest.approx(10)
    assert (
        "As both answer the same requests, this takes 1/10 of the requests that an A/B test would need."
        in found["sentence"]
    )


def test_rankers_are_compared_by_the_votes_of_units() -> None:
    found = verdict(Book(route="search").votes("new", "click", 300, 200, 50), snapshot(draft_route()))
    votes = preference(Tally(n=550, positive=300, negative=200))
    one = found["comparisons"][0]
    assert one["preference"]["share"] == 0.6
    assert (one["preference"]["wins"], one["preference"]["losses"], one["preference"]["ties"]) == (300, 200, 50)
    assert one["preference"]["p"] == votes.p
    assert one["difference"] == pytest.approx(0.1)
    assert (one["low"], one["high"]) == pytest.approx((votes.low - 0.5, votes.high - 0.5))
    assert found["status"] == "better"


def test_wrong_shares_make_every_comparison_invalid() -> None:
    book = Book().rate("old", "correct", 500, 1000).rate("new", "correct", 700, 1000)
    found = verdict(book.stretch({"old": 1500, "new": 1000}, {"old": 0.5, "new": 0.5}))
    assert (found["status"], statuses(found)) == ("invalid", {"new": "invalid"})
    assert "shares that were set" in found["reason"]
    assert found["comparisons"][0]["low"] is not None  # shown for an investigation, but not judged


def test_an_edit_after_the_alarm_sets_the_span_before_aside_and_the_verdict_says_so() -> None:
    """Before it "new" got the users whom nothing pleases; what came since is sound, and judged alone."""
    book = Book().rate("old", "correct", 900, 1000).rate("new", "correct", 100, 1000)
    book.stretch({"old": 1500, "new": 1000}, {"old": 0.5, "new": 0.5})
    book.rate("old", "correct", 500, 1000, period=2_000).rate("new", "correct", 800, 1000, period=2_000)
    shown = report(snapshot(route(period=2_000)), book.ledger())
    found = shown["verdict"]
    assert found["status"] == "better"
    assert found["comparisons"][0]["difference"] == pytest.approx(0.3, abs=0.01)
    assert found["comparisons"][0]["units"] == {"variant": 1000, "baseline": 1000}
    assert "What came before 1970-01-01 00:00:02 UTC is set aside: users did not reach" in found["sentence"]
    ratio = shown["checks"]["sample_ratio"]
    assert (ratio["ok"], ratio["p"], ratio["since"][:19]) == (True, 1.0, "1970-01-01T00:00:02")
    assert ratio["set_aside_p"] < 0.001


@pytest.mark.parametrize(("shown", "status"), [(1500, "invalid"), (1880, "better")])
def test_units_that_are_unequally_exposed_withhold_the_verdict(shown: int, status: str) -> None:
    """A slower page loses the impatient users before it is shown: those who stay are no random part."""
    metric = exposure((CORRECT,))
    book = Book().rate("old", "correct", 500, 1900).rate("new", "correct", 900, 1900)
    for variant, n in (("old", 1900), ("new", shown)):
        book.calls(variant, 100)
        key = TallyKey(1_000, variant, VERSIONS[variant], "primary", "", metric.name, metric.definition, "mature")
        book.tallies[key] = Tally.of_units([(1, 1)] * n)
    found = verdict(book, snapshot(route(require_exposure=True)))
    assert found["status"] == status
    assert ("75.0% of the users of new were exposed and 95.0% of those of old" in found["sentence"]) == (shown == 1500)
    assert verdict(book, snapshot(route()))["status"] == "better"


def missing(variant: str, of: int, valued: int, book: Book) -> Book:
    book.calls(variant, of, closed="correct")
    return book.put(variant, "correct", Tally.of_units([(1, 1)] * (valued // 2) + [(0, 1)] * (valued - valued // 2)))


def test_labels_that_are_missing_unevenly_withhold_the_verdict() -> None:
    found = verdict(missing("new", 2000, 1600, missing("old", 2000, 1900, Book())))
    assert found["status"] == "invalid"
    assert "correct is known for 80.0% of what new answered but for 95.0%" in found["reason"]


@pytest.mark.parametrize("valued", [1900, 1890, 1881])
def test_labels_that_are_missing_evenly_do_not(valued: int) -> None:
    found = verdict(missing("new", 2000, valued, missing("old", 2000, 1900, Book())))
    assert found["status"] == "no_difference_yet"


def test_a_gap_in_coverage_within_chance_does_not() -> None:
    found = verdict(missing("new", 40, 36, missing("old", 40, 39, Book())))
    assert found["status"] == "no_difference_yet"


def test_coverage_of_heavy_users_is_not_taken_for_that_of_many() -> None:
    """One user with 500 unlabelled requests is one user, not 500 proofs that labels go missing."""
    book = missing("old", 1000, 1000, Book())
    book.calls("new", 500, closed="correct").put("new", "correct", Tally.of_units([(1, 1)] * 250 + [(0, 1)] * 250))
    book.calls("new", 1, 500, closed="correct")
    assert verdict(book)["status"] == "no_difference_yet"


def in_buckets(units: list[tuple[float, float]]) -> Buckets:
    """Units, each given as (M, D), in the order of their buckets."""
    m, d = [0.0] * 64, [0.0] * 64
    for index, one in enumerate(units):
        m[index % 64] += one[0]
        d[index % 64] += one[1]
    return Buckets(tuple(m), tuple(d))


@pytest.mark.parametrize(("valued", "status"), [(0.6, "invalid"), (0.8, "no_difference_yet")])
def test_one_heavy_unit_does_not_blind_the_coverage_gate(valued: float, status: Status) -> None:
    """3,000 users with one request each and one with 1,000, whose values all came: the others show 60 against 80 %."""
    book, split, chance = Book(), dict[Any, Buckets](), Random(16)
    for name, share in (("old", 0.8), ("new", valued)):
        heavy: list[tuple[float, float]] = [(500, 1000)] if name == "new" else [(0, 0)]
        light: list[tuple[float, float]] = [
            (index % 2, 1) if chance.random() < share else (0, 0) for index in range(3000)
        ]
        book.calls(name, 3000, closed="correct").put(name, "correct", Tally.of_units([*light, *heavy]))
        if name == "new":
            book.calls(name, 1, 1000, closed="correct")
        for phase, units in (("closed", [(0.0, 1.0)] * 3000 + heavy), ("mature", [*light, *heavy])):
            key = next(key for key in book.tallies if (key.variant, key.phase) == (name, phase))
            split[key] = in_buckets(units)
    found = report(snapshot(route()), replace(book.ledger(), buckets=split))["verdict"]
    assert found["status"] == status


def test_coverage_of_requests_is_counted_exactly() -> None:
    book = missing("new", 2000, 1800, missing("old", 2000, 1900, Book(shares={"old": 0.5, "new": 0.5})))
    assert verdict(book, snapshot(route(by_unit=False)))["status"] == "invalid"


def test_guard_maturity_values_whose_windows_are_open_decide_nothing() -> None:
    """Good news comes first: early values would make the faster variant better."""
    book = Book().rate("old", "correct", 500, 1000).rate("new", "correct", 500, 1000)
    book.put("new", "correct", Tally.of_units([(1, 1)] * 5000), phase="live")
    assert verdict(book)["status"] == "no_difference_yet"


def test_guard_clustering_the_values_of_one_user_are_no_independent_proof() -> None:
    """220 users of 50 alike values each: 55 against 45 % of 5,500 values a side, of 110 users that is chance."""
    book = Book().rate("old", "correct", 50, 110, each=50).rate("new", "correct", 60, 110, each=50)
    assert verdict(book)["status"] == "no_difference_yet"
    alone = Book().rate("old", "correct", 2500, 5500).rate("new", "correct", 3000, 5500)
    assert verdict(alone)["status"] == "better"


def test_guard_skew_a_few_large_values_decide_nothing_until_there_are_enough_or_they_are_capped() -> None:
    """5 % of the users buy, and what they spend is lognormal with σ 1.5: of 40,000 a twentieth get the variant."""
    chance, largest = Random(4), 50.0

    def spend() -> tuple[float, float]:
        return (chance.lognormvariate(3, 1.5) if chance.random() < 0.05 else 0.0, 1.0)

    sides = {name: [spend() for _ in range(n)] for name, n in (("old", 38_000), ("new", 2_000))}
    free, capped = Book(), Book()
    for name, units in sides.items():
        free.put(name, "revenue", Tally.of_units(units))
        capped.put(name, "revenue", Tally.of_units([(min(m, largest), d) for m, d in units]))
    given = snapshot(route(metrics=("revenue",), primary_metric="revenue"))
    found = verdict(free, given)
    assert found["status"] == "collecting"
    assert "so few large values decide the mean" in found["sentence"]
    assert found["comparisons"][0]["needs"] > 0
    assert verdict(capped, given)["status"] == "no_difference_yet"


def test_pairs_and_votes_need_no_equal_coverage() -> None:
    book = Book().calls("old", 900, closed="correct").calls("new", 900, closed="correct", role="shadow")
    book.pairs("new", "correct", [0.0] * 300).rate("old", "correct", 500, 600)
    assert verdict(book, snapshot(shadow_route()))["status"] == "no_difference_yet"


def test_one_invalid_comparison_makes_the_route_invalid_and_leaves_the_others_as_they_are() -> None:
    given = snapshot(route(plan=THREE, variants=("old", "new", "third")))
    book = missing("new", 2000, 1000, missing("old", 2000, 1900, missing("third", 2000, 1900, Book())))
    found = verdict(book, given)
    assert found["status"] == "invalid"
    assert statuses(found) == {"new": "invalid", "third": "no_difference_yet"}


def test_a_route_without_metrics_has_no_verdict_but_says_why() -> None:
    found = verdict(Book(), snapshot(route(metrics=(), primary_metric=None)))
    assert (found["status"], found["metric"], found["comparisons"]) == ("collecting", None, [])
    assert found["reason"] == "the route lists no metric"


def test_a_route_of_one_variant_has_nothing_to_compare() -> None:
    alone = route("single", Weighted((("old", 1.0),)), variants=("old",))
    found = verdict(Book().rate("old", "correct", 93, 100), snapshot(alone))
    assert (found["status"], found["comparisons"]) == ("collecting", [])
    assert found["sentence"].startswith("old answers alone: it gets 93.0% right (between ")


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["better"], "better"),
        (["worse", "better", "collecting"], "better"),
        (["worse", "worse"], "worse"),
        (["worse", "no_difference_yet"], "no_difference_yet"),
        (["worse", "collecting"], "collecting"),
        (["no_difference_yet", "collecting"], "collecting"),
        (["better", "invalid"], "invalid"),
        ([], "collecting"),
    ],
)
def test_the_status_of_a_route_follows_from_its_comparisons(parts: list[Status], whole: Status) -> None:
    one = Comparison("new", "correct", True, "collecting", (0, 0))
    assert overall([replace(one, status=status) for status in parts]) == whole
