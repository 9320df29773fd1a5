"""The series: counted right, with a bounded set of labels, in text that Prometheus accepts."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import replace
from shutil import which
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.admin.api import api, reports
from gateway.admin.app import create
from gateway.admin.metrics.metrics import MOST_NAMES, Metrics
from gateway.admin.metrics.workers import MOST_WRITERS, SILENT_SECONDS
from gateway.compiled import build
from gateway.store.rows.feedback_status import STATUSES
from router.records import Prediction
from router.snapshot import Guardrail, Snapshot
from tests.gateway.admin.fake import Control, ask, control
from tests.gateway.admin.samples import (
    NOW_MS,
    REPLICA,
    datagram,
    filled_control,
    fleet,
    observe,
    prediction,
    refresh,
    writer,
)
from tests.gateway.control.builders import row
from tests.gateway.ledgers import Book, route, snapshot


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def new(fake: Control | None = None, *, started_ms: int = NOW_MS, clock: Callable[[], float] | None = None) -> Metrics:
    held = fake or control()
    return Metrics(lambda: held.snapshot, started_ms=started_ms, clock=clock or Clock())


def text(metrics: Metrics) -> str:
    return metrics.exposition("text/plain")[0].decode()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.series.registry.get_sample_value(f"turnout_{name}", labels)


def test_the_build_that_runs_is_a_label() -> None:
    assert f'build="{build()}"' in next(line for line in text(new()).splitlines() if "turnout_build_info{" in line)


def test_a_call_is_counted_under_its_variant_version_role_and_class() -> None:
    metrics = new()
    metrics.observe_calls([row(prediction(status=503))])
    labels = {"route": "digits", "variant": "old", "version": "1.3.0", "role": "primary"}
    assert value(metrics, "requests_total", **labels, status_class="5xx") == 1
    assert value(metrics, "request_seconds_count", **labels) == 1
    assert value(metrics, "request_seconds_sum", **labels) == pytest.approx(0.012)
    assert value(metrics, "overhead_seconds_bucket", route="digits", le="0.00025") == 1
    assert value(metrics, "overhead_seconds_bucket", route="digits", le="0.0001") == 0


def test_a_call_without_an_answer_has_no_status_but_a_fault() -> None:
    metrics = new()
    metrics.observe_calls([row(prediction(status=None, fault="timeout", latency_ms=None))])
    labels = {"route": "digits", "variant": "old", "version": "1.3.0", "role": "primary"}
    assert value(metrics, "requests_total", **labels, status_class="none") == 1
    assert value(metrics, "request_seconds_count", **labels) is None
    assert value(metrics, "faults_total", route="digits", variant="old", role="primary", fault="timeout") == 1


@pytest.mark.parametrize(
    "covered",
    [
        {"status": 200, "served": "new"},
        {"status": 200, "served": "new", "fault": "refused"},
        {"status": 200, "role": "draft", "fault": "timeout"},
    ],
)
def test_a_failure_that_another_variant_made_good_is_still_a_failure(covered: dict[str, Any]) -> None:
    """Otherwise a variant that is down behind its fallback would not show."""
    metrics = new()
    metrics.observe_calls([row(replace(prediction(), **covered))])
    labels = {"route": "digits", "variant": "old", "version": "1.3.0", "role": covered.get("role", "primary")}
    assert value(metrics, "requests_total", **labels, status_class="5xx") == 1
    assert value(metrics, "requests_total", **labels, status_class="2xx") is None


def test_overhead_is_counted_once_per_request() -> None:
    """A shadow has none of its own, and the rankers of one request share theirs."""
    metrics = new()
    for variant in ("old", "new"):
        metrics.observe_calls([row(prediction(variant, role="draft", route="search"))])
    metrics.observe_calls([row(prediction("new", role="shadow", route="search"))])
    assert value(metrics, "overhead_seconds_count", route="search") == 1


@pytest.mark.parametrize(
    "changes",
    [{"route": "u-12345"}, {"variant": "u-12345"}, {"version": "u-12345"}, {"role": "u-12345"}, {"fault": "u-12345"}],
)
def test_a_label_value_that_is_not_configured_is_unknown(changes: dict[str, Any]) -> None:
    metrics = new()
    made = row(prediction())
    metrics.observe_calls([made._replace(shared=replace(made.shared, **changes))])
    assert "u-12345" not in text(metrics)
    assert 'unknown"' in text(metrics)


def test_a_name_that_a_reload_removed_is_still_shown() -> None:
    """For a moment after a new configuration is in force, answers of the old one are still logged."""
    fake = control()
    metrics = new(fake)
    metrics.observe_calls([row(prediction())])
    fake.snapshot = snapshot(route(name="another"))
    metrics.observe_calls([row(prediction())])
    assert 'requests_total{role="primary",route="digits"' in text(metrics)
    assert 'status_class="2xx",variant="old",version="1.3.0"} 2.0' in text(metrics)


def test_names_that_something_generates_do_not_pile_up() -> None:
    fake = control()
    metrics = new(fake)
    for batch in range(5):
        fake.snapshot = snapshot(*(route(name=f"r{batch}-{index}") for index in range(MOST_NAMES // 2)))
        metrics.observe_calls([row(replace(prediction(), route=f"r{batch}-1"))])
    assert len(metrics._names._known) <= MOST_NAMES
    assert 'route="unknown"' in text(metrics)


def test_a_file_of_many_routes_and_backends_has_all_its_names() -> None:
    """At 30d391e a file with more than 2,000 names had none: everything was route "unknown"."""
    fake = control()
    fake.snapshot = snapshot(*(route(name=f"r{index}") for index in range(MOST_NAMES + 1)))
    metrics = new(fake)
    metrics.observe_calls([row(replace(prediction(), route="r1500"))])
    assert 'route="r1500"' in text(metrics)


@pytest.mark.parametrize("fault", ["corrupt", "torn", "lost", "unrecordable", "duplicate"])
def test_a_faulty_line_is_counted_by_its_fault_from_zero_on(fault: str) -> None:
    """The alert asks by how much each fault grew, and a series whose first value is 1 has not grown."""
    metrics = new()
    assert value(metrics, "journal_faulty_lines_total", fault=fault) == 0
    metrics.observe_lines({f"{fault}_{'rows' if fault == 'duplicate' else 'lines'}": 2})
    assert value(metrics, "journal_faulty_lines_total", fault=fault) == 2


@pytest.mark.parametrize("kind", ["events", "predictions"])
def test_what_cannot_be_joined_is_counted_from_zero_on(kind: str) -> None:
    metrics = new()
    assert value(metrics, "unsettled_total", kind=kind) == 0
    metrics.observe_lines({f"unsettled_{kind}": 1})
    assert value(metrics, "unsettled_total", kind=kind) == 1


def test_feedback_is_counted_by_status_and_a_decrease_is_no_event() -> None:
    metrics = new()
    metrics.observe_status("digits", "correct", "joined", 3)
    metrics.observe_status("digits", "correct", "waiting", -3)
    metrics.observe_status("gone", "u-1", "strange")
    assert value(metrics, "feedback_total", route="digits", metric="correct", status="joined") == 3
    assert value(metrics, "feedback_total", route="digits", metric="correct", status="waiting") is None
    assert value(metrics, "feedback_total", route="unknown", metric="unknown", status="unknown") == 1


def test_feedback_delay_reaches_from_seconds_to_months() -> None:
    metrics = new()
    for delay in (0.5, 7_000_000.0, -3.0):
        metrics.observe_status("digits", "correct", "joined", 1, delay, "old")
    where = {"route": "digits", "metric": "correct", "variant": "old"}
    assert value(metrics, "feedback_delay_seconds_bucket", **where, le="1.0") == 2
    assert value(metrics, "feedback_delay_seconds_bucket", **where, le="7.776e+06") == 3


def drops(number: int, reason: str = "full") -> list[list[object]]:
    return [["mirror_drops", {"route": "digits", "variant": "new", "reason": reason}, number]]


DROPS = {"route": "digits", "variant": "new", "reason": "full"}


def test_a_worker_counter_grows_by_differences_and_workers_add_up() -> None:
    metrics = new()
    for number in (2, 5, 5):
        metrics.observe_datagram(datagram(drops(number)))
    metrics.observe_datagram(datagram(drops(4), name=writer(slot=1), slot=1))
    assert value(metrics, "mirror_drops_total", **DROPS) == 9


def test_a_worker_that_restarts_counts_from_zero_and_takes_nothing_back() -> None:
    metrics = new()
    metrics.observe_datagram(datagram(drops(5)))
    metrics.observe_datagram(datagram(drops(1), name=writer(NOW_MS + 60_000)))
    assert value(metrics, "mirror_drops_total", **DROPS) == 6


def test_a_worker_older_than_the_controller_is_counted_from_its_first_datagram() -> None:
    """Counters are since the controller's start: what an earlier controller showed is not shown twice."""
    metrics = new(started_ms=NOW_MS + 3_600_000)
    metrics.observe_datagram(datagram(drops(100)))
    assert value(metrics, "mirror_drops_total", **DROPS) is None
    metrics.observe_datagram(datagram(drops(103)))
    assert value(metrics, "mirror_drops_total", **DROPS) == 3


def test_a_counter_that_falls_changes_nothing() -> None:
    metrics = new()
    for number in (5, 3):
        metrics.observe_datagram(datagram(drops(number)))
    assert value(metrics, "mirror_drops_total", **DROPS) == 5


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"writer": "x"},
        datagram(drops(1)) | {"writer": "no-spawn-time-zz"},
        datagram(drops(1)) | {"counters": [["mirror_drops"]]},
        datagram(drops(1)) | {"counters": 3},
        datagram(drops(1)) | {"counters": [["mirror_drops", {}, "many"]]},
        datagram(drops(1)) | {"counters": [["mirror_drops", {}, float("inf")]]},
        datagram(drops(1)) | {"revision": None},
        datagram([["surprise", {}, 1]]),
    ],
)
def test_a_datagram_that_makes_no_sense_is_counted_and_raises_nothing(broken: dict[str, object]) -> None:
    metrics = new()
    metrics.observe_datagram(broken)
    assert value(metrics, "datagrams_refused_total") == 1


def test_reasons_are_words_and_few() -> None:
    metrics = new()
    for index in range(200):
        metrics.observe_datagram(datagram(drops(1, f"r{index}"), name=writer(NOW_MS + index)))
    metrics.observe_datagram(datagram(drops(1, "Two Words"), name=writer(NOW_MS + 999)))
    assert text(metrics).count("turnout_mirror_drops_total{") <= 51
    assert "Two Words" not in text(metrics)


def test_a_replica_is_in_as_many_states_as_there_are_workers_that_see_it() -> None:
    metrics = new()
    metrics.observe_datagram(datagram([]))
    metrics.observe_datagram(datagram([], slot=1))
    metrics.refresh_plans()
    labels = {"variant": "new", "replica": REPLICA}
    assert value(metrics, "replica_state", **labels, state="ejected") == 2
    assert value(metrics, "replica_state", **labels, state="fit") == 0
    assert value(metrics, "waiting_calls", variant="new") == 4
    assert value(metrics, "waiting_calls", variant="old") == 0


def test_a_replica_that_is_not_configured_is_unknown() -> None:
    metrics = new()
    metrics.observe_datagram(
        datagram([["ejections", {"variant": "new", "replica": "10.0.0.1:1", "reason": "answer"}, 1]])
    )
    assert value(metrics, "replica_ejections_total", variant="new", replica="unknown", reason="answer") == 1


def test_a_worker_that_reports_no_more_is_left_out() -> None:
    clock = Clock()
    metrics = new(clock=clock)
    metrics.observe_datagram(datagram([]))
    metrics.observe_datagram(datagram([], name=writer(slot=1), slot=1))
    metrics.refresh_plans()
    assert value(metrics, "in_flight_requests", route="digits") == 6
    assert value(metrics, "workers") == 2
    clock.now = SILENT_SECONDS + 1
    metrics.observe_datagram(datagram([], revision=8))
    metrics.refresh_plans()
    assert value(metrics, "in_flight_requests", route="digits") == 3
    assert value(metrics, "worker_plan_revision", slot="0") == 8
    assert value(metrics, "worker_plan_revision", slot="1") is None


def test_workers_that_come_and_go_are_forgotten() -> None:
    metrics = new()
    for index in range(MOST_WRITERS * 2):
        metrics.observe_datagram(datagram([], name=writer(NOW_MS + index)))
    assert len(metrics._workers._workers) == MOST_WRITERS


def test_quality_is_what_the_report_says() -> None:
    fake = filled_control()
    metrics = new(fake)
    refresh(metrics, fake)
    labels = {"route": "digits", "variant": "new", "version": "2.0.0", "metric": "correct"}
    low, mean, high = (value(metrics, f"quality_{name}", **labels) for name in ("low", "mean", "high"))
    assert low is not None
    assert high is not None
    assert low < 0.85 < high
    assert mean == 0.85
    assert value(metrics, "verdict", route="digits", status="better") == 1
    assert value(metrics, "verdict", route="digits", status="invalid") == 0
    assert value(metrics, "difference", route="digits", variant="new", metric="correct") == pytest.approx(0.15)
    assert value(metrics, "sample_ratio_p", route="digits") == 1
    assert value(metrics, "feedback_waiting", route="digits") == 3
    assert value(metrics, "agreement_ratio", route="shadowed", variant="new") == 0.9
    assert value(metrics, "share", route="bandit", variant="new") == 0.8
    best = value(metrics, "best_probability", route="bandit", variant="new")
    assert best is not None
    assert best > 0.99


def test_a_route_that_is_gone_leaves_no_gauge_behind() -> None:
    fake = filled_control()
    metrics = new(fake)
    observe(metrics)
    refresh(metrics, fake)
    fake.snapshot = snapshot(route(name="another"))
    fake.books.clear()
    fake.counted.clear()
    refresh(metrics, fake)
    gauges = [family for family in metrics.series.registry.collect() if family.type == "gauge"]
    routes = {sample.labels["route"] for family in gauges for sample in family.samples if "route" in sample.labels}
    assert routes == {"another"}


def test_a_number_that_is_not_known_is_absent_and_not_zero() -> None:
    fake = control()
    fake.books.clear()
    metrics = new(fake)
    refresh(metrics, fake)
    assert "turnout_quality_mean{" not in text(metrics)


def test_a_refused_reload_keeps_the_time_of_the_last_good_one() -> None:
    metrics = new(started_ms=5_000)
    metrics.observe_reload(ok=False, at_ms=9_000)
    assert value(metrics, "config_last_reload_successful") == 0
    assert value(metrics, "config_last_reload_success_timestamp_seconds") == 5
    metrics.observe_reload(ok=True, at_ms=11_000)
    assert value(metrics, "config_last_reload_successful") == 1
    assert value(metrics, "config_last_reload_success_timestamp_seconds") == 11


def test_a_scrape_shows_everything_and_does_not_wait_for_a_store_that_hangs() -> None:
    fake = filled_control()
    assert "turnout_quality_mean{" in ask(fake, "/metrics").text
    fake.store_ready = False
    answer = ask(fake, "/metrics")
    assert answer.status_code == 200
    assert "turnout_store_ready 0.0" in answer.text
    assert "turnout_journal_lag_seconds 1.5" in answer.text


def test_a_scrape_of_a_store_that_hangs_has_what_was_read_last_and_says_how_old_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 30d391e series were left out when 500 routes took longer than two seconds to read."""
    monkeypatch.setattr(api, "SCRAPE_SECONDS", 0.2)
    monkeypatch.setattr(reports, "FRESH_SECONDS", 0.0)
    fake = filled_control()

    async def story() -> tuple[list[str], list[str]]:
        app = create(fake.parts)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            whole = (await client.get("/metrics")).text.splitlines()
            fake.slow = 60.0
            await asyncio.sleep(0.1)
            return whole, (await client.get("/metrics")).text.splitlines()

    whole, later = asyncio.run(story())
    kept = {line.partition(" ")[0] for line in whole if line.startswith("turnout_")}
    assert kept == {line.partition(" ")[0] for line in later if line.startswith("turnout_")}
    age = next(line for line in later if line.startswith('turnout_reading_age_seconds{part="reports"}'))
    assert float(age.split()[-1]) >= 0.1


def test_a_node_with_another_config_has_a_series_that_says_so() -> None:
    fake = control()
    assert "turnout_node_" not in "".join(
        line for line in ask(fake, "/metrics").text.splitlines() if not line.startswith("#")
    )
    fake.fleet = fleet()
    shown = ask(fake, "/metrics").text
    assert 'turnout_node_config_differs{node="web-3"} 1.0' in shown
    assert 'turnout_node_config_differs{node="web-2"} 0.0' in shown
    assert 'turnout_node_plan_revision{node="web-3"} 6.0' in shown
    assert "turnout_lease_held 0.0" in shown
    assert "turnout_intake_bytes 4096.0" in shown


def test_a_scrape_in_openmetrics_is_answered_in_it() -> None:
    answer = ask(control(), "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_every_series_has_help_and_a_name_by_the_rules() -> None:
    fake = filled_control()
    metrics = new(fake)
    observe(metrics)
    refresh(metrics, fake)
    for family in text_string_to_metric_families(text(metrics)):
        assert family.documentation, family.name
        assert family.name.startswith(("turnout_", "process_"))
        assert family.samples, f"{family.name} is never set by anything"


def test_no_label_can_hold_a_unit_or_an_id() -> None:
    fake = filled_control()
    metrics = new(fake)
    observe(metrics)
    odd: Prediction = prediction(unit="u-77", key="k-77", request_id="x-77")
    metrics.observe_calls([row(odd)])
    refresh(metrics, fake)
    allowed = {
        *("route", "variant", "version", "role", "metric", "status"),
        *(
            "status_class",
            "fault",
            "reason",
            "slot",
            "python",
            "build",
            "le",
            "replica",
            "state",
            "kind",
            "token",
            "node",
            "sink",
            "result",
            "problem",
            "part",
            "verb",
            "via",
        ),
    }
    for family in text_string_to_metric_families(text(metrics)):
        for sample in family.samples:
            assert set(sample.labels) <= allowed
    assert "-77" not in text(metrics)


def test_the_number_of_series_is_bounded_by_the_configuration() -> None:
    """A thousand different values of everything that clients can vary add no series."""
    fake = filled_control()
    metrics = new(fake)
    observe(metrics)
    before = text(metrics).count("\n")
    for index in range(1000):
        metrics.observe_calls([row(prediction(unit=f"u{index}", key=f"k{index}", request_id=f"x{index}"))])
        metrics.observe_status("digits", "correct", [*STATUSES][index % len(STATUSES)], 1, float(index))
    assert text(metrics).count("\n") == before


@pytest.mark.skipif(which("promtool") is None, reason="promtool (Debian package prometheus) is not installed")
def test_promtool_finds_nothing_to_complain_about() -> None:
    fake = filled_control()
    metrics = new(fake)
    observe(metrics)
    refresh(metrics, fake)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text(metrics), capture_output=True, text=True, timeout=30
    )
    assert (checked.stdout + checked.stderr, checked.returncode) == ("", 0)


def test_the_snapshot_is_asked_again_after_a_reload() -> None:
    fake = control()
    metrics = new(fake)
    metrics.refresh_plans()
    changed: Snapshot = replace(fake.snapshot, revision=99)
    fake.snapshot = changed
    metrics.refresh_plans()
    assert value(metrics, "plan_revision") == 99


def test_the_age_of_the_oldest_pending_prediction_is_shown() -> None:
    fake = filled_control()
    metrics = new(fake)
    refresh(metrics, fake)
    line = 'turnout_oldest_pending_seconds{metric="correct",route="bandit",variant="old"} 7.5'
    assert line in text(metrics)


def test_every_metric_of_a_route_and_its_guardrails_have_series() -> None:
    book = Book()
    for metric, old, new in (("correct", 700, 850), ("click", 400, 410)):
        book.rate("old", metric, old, 1000).rate("new", metric, new, 1000)
    bounds = (Guardrail(metric="click", worse_by=0.2), Guardrail(metric="click", worse_by=0.0))
    given = snapshot(route(metrics=("correct", "click"), guardrails=bounds))
    text = ask(Control(given, {"digits": book.ledger()}), "/metrics").text
    for metric, progress in (("correct", 1.0), ("click", None)):
        assert f'turnout_difference{{metric="{metric}",route="digits",variant="new"}}' in text
        line = f'turnout_progress{{metric="{metric}",route="digits",variant="new"}} '
        assert line in text
        assert progress is None or f"{line}{progress}" in text
    states = {
        (metric, state): f'{{metric="{metric}",route="digits",state="{state}",variant="new"}} '
        for metric in ("failures", "click")
        for state in ("broken", "clean", "undecided")
    }
    on = {place for place, labels in states.items() if f"turnout_guardrail_state{labels}1.0" in text}
    assert on == {("failures", "clean"), ("click", "undecided")}  # of two on one metric, the worse
