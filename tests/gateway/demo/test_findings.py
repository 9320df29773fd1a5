"""What the demo claims, from reports made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.demo.findings import Balance, RouteResult, complete, find, moves
from gateway.demo.scenario import SCENES
from gateway.demo.traffic import UserCounts

TRUTH = {"digits_v1": 0.90, "digits_v2": 0.94, "digits_v3": 0.99, "digits_v4": 0.99}
TRUTH |= {"search_rows": 0.72, "search_pixels": 0.93}
SCENE = {scene.route: scene for scene in SCENES}


def variant(
    name: str, predictions: int, *, role: str = "primary", share: float = 0.5, pending: int = 0
) -> dict[str, Any]:
    metric = {"live": {"n": 0}, "mature": {"n": 0}, "pending": pending, "coverage": 1.0}
    metrics = {"correct": metric, "click": metric}
    return {"name": name, "role": role, "share": share, "predictions": predictions, "metrics": metrics, "p_best": share}


def report(
    *variants: dict[str, Any], better: str, status: str, low: float, difference: float, high: float, joined: int = 0
) -> dict[str, Any]:
    comparison = {"variant": better, "status": status, "difference": difference, "low": low, "high": high}
    return {
        "variants": list(variants),
        "verdict": {"comparisons": [comparison], "sentence": "", "reason": "digits_v4 fails 10 of 100 calls"},
        "feedback": {"joined": joined, "waiting": 0},
    }


REPORTS = {
    "shadow": report(
        variant("digits_v2", 3), variant("digits_v3", 3, role="shadow"),
        better="digits_v3", status="better", low=0.01, difference=0.04, high=0.07,
    ),
    "canary": report(
        variant("digits_v1", 2), variant("digits_v2", 1),
        better="digits_v2", status="no_difference_yet", low=-0.01, difference=0.03, high=0.08,
    ),
    "ab": report(
        variant("digits_v1", 1), variant("digits_v3", 2),
        better="digits_v3", status="better", low=0.11, difference=0.15, high=0.19,
    ),
    "search": report(
        variant("search_rows", 3, role="draft"), variant("search_pixels", 3, role="draft"),
        better="search_pixels", status="better", low=0.21, difference=0.30, high=0.38,
    ),
    "bandit": report(
        variant("digits_v1", 0, share=0.04), variant("digits_v3", 3, share=0.96),
        better="digits_v3", status="worse", low=-0.3, difference=-0.2, high=-0.1,
    ),
    "faulty": report(
        variant("digits_v1", 1), variant("digits_v4", 2),
        better="digits_v4", status="failing", low=0.02, difference=0.09, high=0.16,
    ),
    "rollout": report(
        variant("digits_v1", 1, share=0.0), variant("digits_v3", 2, share=1.0),
        better="digits_v3", status="better", low=0.02, difference=0.09, high=0.16,
    ),
    "rollback": report(
        variant("digits_v1", 2, share=1.0), variant("digits_v4", 1, share=0.0),
        better="digits_v4", status="failing", low=0.02, difference=0.09, high=0.16,
    ),
}  # fmt: skip


def accounts(**events: int) -> dict[str, UserCounts]:
    found = {route: UserCounts(events=events.get(route, 0), prediction_ids=["a", "b", "c"]) for route in SCENE}
    found["canary"].met = {f"u{n}": "digits_v2" if n < 210 else "digits_v1" for n in range(1000)}
    return found


@pytest.fixture
def found() -> dict[str, RouteResult]:
    return {finding.route: finding for finding in find(REPORTS, accounts(), TRUTH)}


def test_the_truth_of_a_comparison_is_the_difference_on_the_held_out_images(found: dict[str, RouteResult]) -> None:
    comparison = found["shadow"].comparison
    assert comparison is not None
    assert comparison.truth == pytest.approx(0.05)
    assert comparison.covers


def test_the_claim_says_when_an_interval_misses_the_truth(found: dict[str, RouteResult]) -> None:
    assert found["ab"].comparison is not None
    assert found["ab"].comparison.covers is False
    assert "OUTSIDE" in found["ab"].claim


def test_a_verdict_is_right_wrong_or_none(found: dict[str, RouteResult]) -> None:
    assert {route: finding.right for route, finding in found.items()} == {
        "shadow": True,
        "canary": None,
        "ab": True,
        "search": True,
        "bandit": False,
        "faulty": True,
        "rollout": True,
        "rollback": True,
    }


def test_what_fails_is_not_better_and_it_is_said_when_that_was_found(found: dict[str, RouteResult]) -> None:
    begins = "digits_v4 is failing: digits_v4 fails 10 of 100 calls. So it is not better. digits_v4 against digits_v1: "
    assert found["faulty"].claim.startswith(begins)
    [timed] = [one for one in find(REPORTS, accounts(), TRUTH, {"faulty": 8.4}) if one.route == "faulty"]
    assert "is failing, found 8 s after the first request: " in timed.claim


def test_merged_rankers_are_described_by_preference(found: dict[str, RouteResult]) -> None:
    """The difference is the share of the votes less one half, which means nothing to a reader."""
    assert "80% of the users with a preference prefer it (95 % certain: 71% to 88%)" in found["search"].claim
    assert found["search"].comparison is not None
    assert found["search"].comparison.covers is None


def test_the_bandit_says_where_its_traffic_went(found: dict[str, RouteResult]) -> None:
    assert "share 50% at the start, 96% at the end (P(best) 96.0%)" in found["bandit"].claim
    assert found["bandit"].share == 0.96


def test_the_canary_says_how_many_users_met_it(found: dict[str, RouteResult]) -> None:
    assert (
        "21.0% of 1,000 users met the candidate, as configured (20%, 0.8 standard errors off)" in found["canary"].claim
    )


def test_every_answer_and_every_event_is_accounted_for(found: dict[str, RouteResult]) -> None:
    assert all(balance.holds for finding in found.values() for balance in finding.balances)
    assert len(found["search"].balances) == 3


@pytest.mark.parametrize("route", list(SCENE))
def test_an_event_without_a_status_does_not_add_up(route: str) -> None:
    (broken,) = (f for f in find(REPORTS, accounts(**{route: 1}), TRUTH) if f.route == route)
    assert [balance for balance in broken.balances if not balance.holds] == [
        Balance("events acknowledged, their statuses", 1, 0)
    ]


def test_a_report_is_not_complete_before_every_window_has_closed() -> None:
    account = accounts(shadow=2)["shadow"]
    sides: dict[str, Any] = {
        "better": "digits_v3",
        "status": "better",
        "low": 0.0,
        "difference": 0.0,
        "high": 0.0,
        "joined": 2,
    }
    shadow = variant("digits_v3", 3, role="shadow")
    assert complete(report(variant("digits_v2", 3), shadow, **sides), account, SCENE["shadow"])
    assert not complete(report(variant("digits_v2", 3, pending=1), shadow, **sides), account, SCENE["shadow"])
    assert not complete(report(variant("digits_v2", 2), shadow, **sides), account, SCENE["shadow"])


def test_what_a_route_did_by_itself_is_told_in_its_order_with_the_time_since_the_first_request() -> None:
    def event(at_ms: int, kind: str, detail: str, route: str = "rollout") -> dict[str, Any]:
        return {"at_ms": at_ms, "kind": kind, "route": route, "detail": detail}

    told = [
        event(31_000, "rollout", "step 2 of 4 is passed"),
        event(11_400, "rollout", "step 1 of 4 is passed"),
        event(5_000, "verdict_changed", "digits_v3: better"),
        event(2_000, "rollout", "rolled back", "rollback"),
        event(900, "rollout", "it begins"),
    ]
    assert moves(told, "rollout", 1_000) == [
        "after 0 s: it begins",
        "after 10 s: step 1 of 4 is passed",
        "after 30 s: step 2 of 4 is passed",
    ]
    assert moves(told, "ab", 1_000) == []
