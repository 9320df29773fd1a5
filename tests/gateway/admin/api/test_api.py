"""The API answers with what the report says, and an error says what is valid."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway import amounts
from gateway.admin.api import api, reports
from gateway.admin.app import create
from gateway.control.plan.in_force import ReloadResult
from gateway.control.progress import Progress
from gateway.files.overrides import Override
from gateway.report import report
from gateway.store.counts.ledger import Ledger, TallyKey
from policies import Evidence, Tally
from policies.statistics.best_arm import probabilities_best
from router.compile import compile_snapshot
from router.config.config import parse
from router.config.diagnostics import Diagnostic
from router.snapshot import Backend
from tests.gateway.admin.fake import ask, control
from tests.gateway.admin.samples import SINK, fleet


def problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert body["status"] == answer.status_code
    assert "Traceback" not in answer.text
    return dict(body)


def test_a_route_is_the_report_of_its_ledger() -> None:
    fake = control()
    assert ask(fake, "/api/v1/routes/digits").json() == report(fake.snapshot, fake.books["digits"])


def test_a_frozen_route_says_so_by_whom_and_why_above_all_else() -> None:
    fake = control()
    fake.frozen["digits"] = Override(to="logreg", at_ms=1_700_000_000_000, who="ann", why="incident 7")
    said = ask(fake, "/api/v1/routes/digits").json()
    assert said["freeze"] == {"to": "logreg", "since": "2023-11-14T22:13:20.000Z", "who": "ann", "why": "incident 7"}
    assert amounts.stands(said)[0] == "FROZEN to logreg since 2023-11-14T22:13Z by ann: incident 7"
    fake.frozen["digits"] = Override(to=None, at_ms=1_700_000_000_001)
    assert ask(fake, "/api/v1/routes/digits").json()["freeze"] is None


def test_all_routes_come_in_the_order_of_the_file() -> None:
    fake = control()
    answer = ask(fake, "/api/v1/routes").json()
    assert [one["route"] for one in answer["routes"]] == ["digits", "shadowed", "search"]
    assert answer["routes"][0] == ask(fake, "/api/v1/routes/digits").json()
    assert answer["revision"] == 7


def test_a_route_that_is_nearly_spelled_is_suggested() -> None:
    found = problem(ask(control(), "/api/v1/routes/digit"))
    assert (found["status"], found["detail"]) == (404, 'no route is named "digit"; did you mean "digits"?')


def test_an_unknown_path_is_a_problem_and_not_a_page() -> None:
    assert (
        problem(ask(control(), "/api/v1/route"))["detail"]
        == 'no path is named "/api/v1/route"; did you mean "/api/v1/routes"?'
    )


def test_a_method_that_is_not_possible_says_which_are() -> None:
    answer = ask(control(), "/-/reload")
    assert problem(answer)["status"] == 405
    assert answer.headers["allow"] == "POST"


def test_a_prediction_is_shown_with_all_that_came_of_it() -> None:
    fake = control()
    fake.predictions["p1"] = {"prediction_id": "p1", "calls": [{"variant": "old"}], "feedback": [], "outcomes": []}
    assert ask(fake, "/api/v1/predictions/p1").json() == fake.predictions["p1"]


def test_a_prediction_that_is_not_recorded_is_a_404() -> None:
    assert 'no prediction "p2" is recorded' in problem(ask(control(), "/api/v1/predictions/p2"))["detail"]


def test_events_come_newest_first_and_bounded() -> None:
    fake = control()
    fake.events = [{"at_ms": at, "kind": "plan moved", "route": "digits", "detail": ""} for at in range(1000)]
    found = ask(fake, "/api/v1/events").json()["events"]
    assert (len(found), found[0]["at_ms"]) == (api.MOST_EVENTS, 999)


def test_a_reload_says_which_revision_is_in_force() -> None:
    answer = ask(control(), "/-/reload", method="POST")
    assert (answer.status_code, answer.json()) == (200, {"revision": 8})


def test_a_refused_reload_says_every_problem_with_its_place() -> None:
    fake = control()
    fake.result = ReloadResult(
        False, 7, (Diagnostic("turnout.toml", 31, 1, "routes.a", "unknown setting", "did you mean b?"),)
    )
    found = problem(ask(fake, "/-/reload", method="POST"))
    assert (found["status"], found["detail"]) == (422, "1 problem; revision 7 stays in force")
    assert found["diagnostics"] == [
        {
            "file": "turnout.toml",
            "line": 31,
            "column": 1,
            "path": "routes.a",
            "message": "unknown setting",
            "hint": "did you mean b?",
            "severity": "error",
        }
    ]


def test_the_configuration_is_shown_without_its_secrets() -> None:
    fake = control(store="postgresql://turnout:hush@db/turnout?password=hush", admin="0.0.0.0:9090")
    backend = Backend(
        name="old",
        urls=("http://me:hush@127.0.0.1:9000/base",),
        version="1.3.0",
        model="digits",
        request_headers=(("authorization", "Bearer ${TOKEN}"), ("x-key", "hush"), ("x-odd", "$${hush}")),
    )
    fake.snapshot = replace(fake.snapshot, backends={**fake.snapshot.backends, "old": backend})
    answer = ask(fake, "/api/v1/config")
    assert "hush" not in answer.text
    shown = answer.json()
    assert shown["gateway"]["store"] == "postgresql://***@db/turnout?password=***"
    assert shown["backends"]["old"]["urls"] == ["http://***@127.0.0.1:9000/base"]
    assert shown["backends"]["old"]["request_headers"]["authorization"] == "***${TOKEN}"
    assert shown["routes"]["digits"]["shares"] == {"old": 0.5, "new": 0.5}


@pytest.mark.parametrize("path", ["/api/v1/routes", "/api/v1/routes/digits", "/api/v1/predictions/p1"])
def test_a_store_that_is_not_open_is_a_503_that_says_traffic_goes_on(path: str) -> None:
    fake = control()
    fake.store_ready = False
    answer = ask(fake, path)
    assert "traffic goes on" in problem(answer)["detail"]
    assert answer.status_code == 503


@pytest.mark.parametrize("path", ["/api/v1/routes/digits", "/api/v1/predictions/p1"])
def test_a_store_that_fails_is_a_503_and_not_a_traceback(path: str) -> None:
    fake = control()
    fake.fails = RuntimeError("disk on fire")
    found = problem(ask(fake, path))
    assert (found["status"], "RuntimeError" in found["detail"], "on fire" in found["detail"]) == (503, True, False)


def test_a_store_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "DEADLINE_SECONDS", 0.05)
    fake = control()
    fake.slow = 5.0
    assert problem(ask(fake, "/api/v1/routes/digits"))["status"] == 503


def test_a_fault_of_our_own_is_a_500_without_its_story() -> None:
    fake = control()
    fake.fails = ValueError("secret detail")
    answer = ask(fake, "/-/reload", method="POST")
    assert problem(answer)["status"] == 500
    assert "secret detail" not in answer.text


def test_a_crowd_of_readers_costs_one_report() -> None:
    fake = control()
    fake.slow = 0.02
    app = create(fake.parts)

    async def crowd() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            answers = await asyncio.gather(*(client.get("/api/v1/routes/digits") for _ in range(50)))
            return [answer.status_code for answer in answers]

    assert asyncio.run(crowd()) == [200] * 50
    assert fake.asked == 1


def test_a_new_revision_is_reported_at_once() -> None:
    fake = control()

    async def twice() -> tuple[Any, Any]:
        app = create(fake.parts)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            before = await client.get("/api/v1/routes/digits")
            changed = replace(fake.snapshot.routes["digits"], revision=9)
            fake.snapshot = replace(fake.snapshot, routes={**fake.snapshot.routes, "digits": changed})
            after = await client.get("/api/v1/routes/digits")
        return before.json()["revision"], after.json()["revision"]

    assert asyncio.run(twice()) == (7, 9)


def test_being_alive_asks_nothing_else() -> None:
    fake = control()
    fake.store_ready = False
    assert (ask(fake, "/livez").status_code, ask(fake, "/livez").text) == (200, "ok\n")


def test_being_ready_needs_the_store_and_says_what_is_missing() -> None:
    fake = control()
    assert ask(fake, "/readyz").status_code == 200
    fake.store_ready = False
    assert ask(fake, "/readyz").status_code == 503
    assert ask(fake, "/readyz?verbose").text == (
        "[+]snapshot ok\n[-]store failed\n[+]recording ok\n"
        "recording: nothing committed yet, something to record for 0.0 s, no watermark yet\nnot ready: store\n"
    )


def test_being_ready_is_progress_and_not_presence() -> None:
    """In every fault that stopped recording the store was open, and so the node was called ready."""
    fake = control()
    detail = "row (4711) violates a constraint"
    fake.stalled = Progress(41.6, "recording fails (DatabaseError)", detail, 45.2, 42.0, 41.6)
    answer = ask(fake, "/readyz")
    assert (answer.status_code, answer.text) == (503, "not ready: recording fails (DatabaseError), for 42 s\n")
    verbose = ask(fake, "/readyz?verbose").text
    assert "last commit 41.6 s ago, something to record for 42.0 s, watermark 45.2 s old" in verbose
    assert detail not in verbose, "this path needs no token"
    series = ask(fake, "/metrics").text
    assert "turnout_recording_stalled_seconds 41.6" in series
    assert "turnout_watermark_age_seconds 45.2" in series
    assert "turnout_store_ready 0.0" in series
    page = ask(fake, "/").text
    assert page.index("Nothing new is counted: recording fails") < page.index("<h1>")


def test_being_ready_tells_of_the_other_nodes() -> None:
    fake = control()
    fake.fleet = fleet()
    answer = ask(fake, "/readyz?verbose")
    assert answer.status_code == 200
    assert answer.text.splitlines() == [
        "[+]snapshot ok",
        "[+]store ok",
        "[+]recording ok",
        "recording: nothing committed yet, something to record for 0.0 s, no watermark yet",
        "[+]fleet node web-2 of 3, web-1 holds the lease, revision 7",
        "[-]config node web-3 runs configuration bb22, the holder another",
        "[-]node web-4 was not heard of for 125 s",
        "ok",
    ]


def test_a_node_that_is_cut_off_from_the_store_says_so() -> None:
    fake = control()
    fake.fleet = fleet(cut_off_seconds=12.4)
    answer = ask(fake, "/readyz?verbose")
    assert answer.status_code == 503
    assert "[-]fleet node web-2, cut off from the store for 12 s; revision 7 stays in force" in answer.text


def test_the_fleet_is_listed_with_who_holds_the_lease_and_who_runs_what() -> None:
    fake = control()
    assert ask(fake, "/api/v1/fleet").json()["nodes"] == []
    fake.fleet = fleet()
    shown = ask(fake, "/api/v1/fleet").json()
    assert (shown["node"], shown["holder"], shown["cut_off_seconds"]) == ("web-2", "web-1", None)
    assert [one["node"] for one in shown["nodes"] if one["config_differs"]] == ["web-3"]
    assert [one["node"] for one in shown["nodes"] if one["absent"]] == ["web-4"]


def test_a_head_request_is_a_get_without_its_body() -> None:
    answer = ask(control(), "/api/v1/routes", method="HEAD")
    assert (answer.status_code, answer.content) == (200, b"")


def test_nothing_is_cached() -> None:
    assert ask(control(), "/api/v1/routes").headers["cache-control"] == "no-store"


BANDIT = """
[backends.old]
url = "http://127.0.0.1:9001"
version = "1.3.0"
[backends.new]
url = "http://127.0.0.1:9002"
version = "2.0.0"
[metrics.click]
kind = "event"
missing = 0
[routes.bandit]
path = "/bandit"
metrics = ["click"]
[routes.bandit.policy]
kind = "thompson"
variants = ["old", "new"]
reward = "click"
prior = [1, 9]
"""


def test_what_a_bandit_believes_follows_its_own_settings() -> None:
    config = parse(BANDIT, "turnout.toml")
    fake = control()
    fake.config = config
    fake.snapshot = compile_snapshot(config, previous=None, evidence=lambda *_: Evidence(), now_ms=1, revision=1)
    definition = config.metrics["click"].definition
    place = TallyKey(1, "new", "2.0.0", "primary", "", "click", definition, "mature")
    ledger = Ledger("bandit", fake.snapshot.routes["bandit"].epoch, {place: Tally.of_units([(1, 1)] * 9)})
    fake.books = {"bandit": ledger}
    found = {one["name"]: one["p_best"] for one in ask(fake, "/api/v1/routes/bandit").json()["variants"]}
    assert found["new"] == pytest.approx(probabilities_best([(1, 9), (10, 9)])[1])


def test_the_account_of_feedback_adds_up_to_what_was_sent() -> None:
    fake = control()
    fake.counted = {
        ("digits", "correct", "joined"): 5,
        ("digits", "correct", "late"): 2,
        ("unknown", "unknown", "rejected"): 1,
    }
    found = ask(fake, "/api/v1/feedback").json()
    assert found["sent"] == 8
    assert [(one["route"], one["metric"], one["sent"], one["late"]) for one in found["account"]] == [
        ("digits", "correct", 7, 2),
        ("unknown", "unknown", 1, 0),
    ]


def test_what_became_of_a_sinks_events_is_told_by_the_api_and_in_series() -> None:
    fake = control()
    fake.sinks = [dict(SINK)]
    assert ask(fake, "/api/v1/sinks").json() == {"sinks": fake.sinks}
    text = ask(fake, "/metrics").text
    assert 'turnout_sink_events{result="dropped",sink="lake"} 2.0' in text
    assert 'turnout_sink_pending_bytes{sink="lake"} 700.0' in text
    assert 'turnout_sink_lag_seconds{sink="lake"} 1.5' in text
    assert 'turnout_sink_ready{sink="lake"} 0.0' in text
    fake.fails = OSError("gone")
    assert ask(fake, "/api/v1/sinks").status_code == 503


def test_a_series_is_of_calls_or_of_a_metric_of_the_route() -> None:
    fake = control()
    path = "/api/v1/routes/digits/series"
    assert ask(fake, f"{path}?since=7").json() == {
        "route": "digits",
        "metric": "@calls",
        "series": [{"asked": ["digits", "@calls", 7]}],
    }
    assert ask(fake, f"{path}?metric=correct&since=7").json()["series"] == [{"asked": ["digits", "correct", 7]}]
    missed = ask(fake, f"{path}?metric=corect")
    assert (missed.status_code, "correct" in missed.text) == (404, True)
    assert [ask(fake, one).status_code for one in ("/api/v1/routes/digit/series", f"{path}?since=x")] == [404, 400]


def test_orphans_are_listed_by_route() -> None:
    fake = control()
    fake.orphaned = [{"route": "digits", "key": "7"}, {"route": None, "key": None}]
    assert len(ask(fake, "/api/v1/feedback/orphans").json()["orphans"]) == 2
    assert ask(fake, "/api/v1/feedback/orphans?route=digits&limit=5").json() == {"orphans": [fake.orphaned[0]]}
    assert ask(fake, "/api/v1/feedback/orphans?route=digit").status_code == 404
    assert ask(fake, "/api/v1/feedback/orphans?limit=0").status_code == 400
    fake.fails = OSError("gone")
    assert ask(fake, "/api/v1/feedback/orphans").status_code == 503
