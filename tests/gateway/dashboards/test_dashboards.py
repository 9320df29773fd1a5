"""The dashboard and the alerts: well-formed, by the rules of Grafana's linter, and only of series that exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any

import promql_parser
import pytest

from gateway import dashboards
from gateway.admin.metrics.series import Series
from gateway.dashboards import Query, filled, panel_queries, panels

QUERIES = panel_queries()
OF_PROMETHEUS_ITSELF = {"up"}


@cache
def declared() -> dict[str, str]:
    """Every name that a query can use, with the type of its family."""
    found: dict[str, str] = {}
    for family in Series().registry.collect():
        if family.type == "counter":
            found[f"{family.name}_total"] = "counter"
        elif family.type == "histogram":
            found |= {f"{family.name}_{part}": "counter" for part in ("bucket", "sum", "count")}
        else:
            found[family.name] = family.type
    return found


def selectors(node: Any, within: str = "") -> Iterator[tuple[str, str]]:
    """Yield (series, function around its range) for every selector of a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name or "", within
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector.name or "", within
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from selectors(argument, node.func.name)
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from selectors(node.lhs)
        yield from selectors(node.rhs)
    elif isinstance(node, promql_parser.AggregateExpr | promql_parser.ParenExpr | promql_parser.UnaryExpr):
        yield from selectors(node.expr, within)


def names(expr: str) -> list[tuple[str, str]]:
    found = list(selectors(promql_parser.parse(expr)))
    assert found, f"no series in {expr}"
    return found


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.panel} {query.ref}")
def test_a_query_names_only_series_that_are_declared(query: Query) -> None:
    for name, function in names(query.expr):
        assert name in declared()
        if function in {"rate", "increase", "irate"}:
            assert declared()[name] == "counter", f"{name} is no counter"
        elif declared()[name] == "counter":
            pytest.fail(f"{name} is a counter: its bare value says only when the controller started")


@pytest.mark.parametrize("panel", list(panels()), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_in_which_unit_from_the_chosen_source(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert 'job=~"$job"' in target["expr"]
        assert 'instance=~"$instance"' in target["expr"]
        assert target["legendFormat"]
        for interval in re.findall(r"\[([^]]+)\]", target["expr"]):
            assert interval == "$__rate_interval"


def test_the_dashboard_has_the_variables_its_queries_use() -> None:
    given = {one["name"]: one for one in dashboards.dashboard()["templating"]["list"]}
    assert list(given) == ["datasource", "job", "instance", "route"]
    for name in ("job", "instance", "route"):
        assert (given[name]["refresh"], given[name]["allValue"]) == (2, ".+")
        selector = re.fullmatch(r"label_values\((.+), \w+\)", given[name]["query"]["query"])
        assert selector is not None
        assert all(series in declared() for series, _ in names(filled(selector[1], dashboards.VARIABLES)))


def test_the_dashboard_is_of_a_schema_that_grafana_imports_and_that_stays_as_shipped() -> None:
    found = dashboards.dashboard()
    assert (found["schemaVersion"], found["uid"], found["editable"]) == (39, "turnout", False)
    for annotation in found["annotations"]["list"]:
        assert names(filled(annotation["expr"], dashboards.VARIABLES))


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    found = dashboards.dashboard()["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_series_of_traffic_or_quality_is_on_the_dashboard_or_listed_here_with_the_reason() -> None:
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for query in QUERIES for name, _ in names(query.expr)}
    families = {f"{f.name}_total" if f.type == "counter" else f.name for f in Series().registry.collect()}
    unseen = {name for name in families if name.startswith("turnout_")} - shown
    assert unseen == {
        "turnout_admin_ignored_users_total",  # the log names the address
        "turnout_build_info",  # a variable of the dashboard is read from it
        "turnout_buffer_bytes",  # below its limit it does no harm; beyond it, shed and slow clients show
        "turnout_capture_drops_total",  # captured bodies are an extra beside the log
        "turnout_connections",
        "turnout_connections_limit",  # at the limit, shed shows
        "turnout_datagrams_refused_total",
        "turnout_dropped_fields_total",  # the fault of clients: names that two servers read differently
        "turnout_feedback_commits_total",
        "turnout_feedback_token_uses_total",  # turnout token list says when each was last used
        "turnout_guardrail_state",  # a broken one makes the verdict failing, which is shown and alerted
        "turnout_progress",  # the report says what else a decision takes
        "turnout_journal_faulty_lines_total",  # alerts are about these three
        "turnout_journal_fsync_failures_total",
        "turnout_journal_refused_segments",
        "turnout_recording_stalled_seconds",  # an alert is about it, and /readyz?verbose shows both
        "turnout_watermark_age_seconds",
        "turnout_expired_total",
        "turnout_uncounted_requests_total",  # the route's problem of that name and its alert show it
        "turnout_unsettled_total",  # an alert is about it
        "turnout_oldest_pending_seconds",  # their number is on the dashboard
        "turnout_quality_live_mean",
        "turnout_reading_age_seconds",  # an alert is about it
        "turnout_slow_clients_total",  # the fault of clients
        "turnout_unfinished_requests_total",
        "turnout_snapshot_errors_total",
        "turnout_override_errors_total",  # a person edited the file by hand, and the log of each worker says so
        # Only of several nodes: alerts are about two, and /readyz?verbose shows the rest.
        "turnout_intake_bytes",
        "turnout_lease_held",
        "turnout_node_config_differs",
        "turnout_node_plan_revision",
        "turnout_node_silent_seconds",
        "turnout_store_cut_off_seconds",
        # Alerts are about two, and /api/v1/sinks shows all.
        "turnout_sink_events",
        "turnout_sink_lag_seconds",
        "turnout_sink_pending_bytes",
        "turnout_sink_ready",
        "turnout_rollout_changed_timestamp_seconds",  # an annotation and an alert
        "turnout_held_variants",  # their shares are on the dashboard
    }


def test_a_variable_without_a_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="variable"):
        filled('up{job="$job"}', {})


def test_an_export_holds_everything_and_can_be_repeated(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    for _ in range(2):
        written = dashboards.export(target)
    assert sorted(path.name for path in written) == ["README.md", "prometheus.yaml", "rules.yaml", "turnout.json"]
    assert json.loads((target / "turnout.json").read_text()) == dashboards.dashboard()


promtool = pytest.mark.skipif(which("promtool") is None, reason="promtool (Debian package prometheus) is not installed")


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)


@promtool
def test_prometheus_takes_the_example_and_the_rules(tmp_path: Path) -> None:
    dashboards.export(tmp_path)
    checked = run(tmp_path, "check", "config", "prometheus.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {sum('alert: ' in line for line in rule_lines())} rules found" in checked.stdout


def rule_lines() -> list[str]:
    return (Path(dashboards.__file__).parent / "rules.yaml").read_text().splitlines()


def test_rules_name_only_series_that_are_declared() -> None:
    text = "\n".join(line for line in rule_lines() if "summary" not in line and "description" not in line)
    used = set(re.findall(r"\b(turnout_\w+|up)\b", text))
    assert used <= declared().keys() | OF_PROMETHEUS_ITSELF


#: Alert → (series that must make it fire, with values per minute; series that must not).
FIRING = {
    "TurnoutDown": ("up{job='turnout', instance='i'}", "0x20", "1x20"),
    "TurnoutNoWorker": ("turnout_workers{instance='i'}", "0x20", "1x20"),
    "TurnoutVariantFailing": (
        "turnout_requests_total{instance='i', role='primary', status_class='5xx', route='r', variant='v'}",
        "0+10x20",
        "0x20",
    ),
    "TurnoutVariantWorse": ("turnout_verdict{instance='i', route='r', status='worse'}", "1x20", "0x20"),
    "TurnoutVerdictFailing": ("turnout_verdict{instance='i', route='r', status='failing'}", "1x20", "0x20"),
    "TurnoutFeedbackOfNoRoute": (
        "turnout_feedback_events{instance='i', route='unknown', metric='m', status='orphaned'}",
        "9x20",
        "0x20",
    ),
    "TurnoutRouteProblem": ("turnout_route_problem{instance='i', route='r', problem='no_unit'}", "1x20", "0x20"),
    "TurnoutComparisonInvalid": ("turnout_verdict{instance='i', route='r', status='invalid'}", "1x20", "0x20"),
    "TurnoutSampleRatioMismatch": ("turnout_sample_ratio_p{instance='i', route='r'}", "0.0001x20", "0.2x20"),
    "TurnoutStoreBehind": ("turnout_journal_lag_seconds{instance='i'}", "90x20", "2x20"),
    "TurnoutRecordingStalled": ("turnout_recording_stalled_seconds{instance='i'}", "45x20", "0x20"),
    "TurnoutReadingsOld": ("turnout_reading_age_seconds{instance='i', part='reports'}", "90x20", "1x20"),
    "TurnoutNodeCutOff": ("turnout_store_cut_off_seconds{instance='i'}", "90x20", "0x20"),
    "TurnoutNodesDisagree": ("turnout_node_config_differs{instance='i', node='n'}", "1x20", "0x20"),
    "TurnoutConfigRefused": ("turnout_config_last_reload_successful{instance='i'}", "0x20", "1x20"),
    "TurnoutReplicaOut": (
        "turnout_replica_state{instance='i', variant='v', replica='h:1', state='ejected'}",
        "1x20",
        "0x20",
    ),
    "TurnoutUnsettled": ("turnout_unsettled_total{instance='i', kind='events'}", "0+1x20", "4x20"),
    "TurnoutJournalNotDurable": ("turnout_journal_fsync_failures_total{instance='i'}", "0+1x20", "4x20"),
    "TurnoutShedding": ("turnout_shed_total{instance='i', reason='overload'}", "0+5x20", "5x20"),
    "TurnoutSinkBehind": ("turnout_sink_lag_seconds{instance='i', sink='s'}", "300x20", "2x20"),
    "TurnoutSinkLoses": ("turnout_sink_events{instance='i', sink='s', result='dropped'}", "0+5x20", "5x20"),
    "TurnoutMirrorDrops": (
        "turnout_mirror_drops_total{instance='i', route='r', variant='v', reason='full'}",
        "0+5x20",
        "5x20",
    ),
    "TurnoutRolloutStuck": ("turnout_rollout_held_up{instance='i', route='r', reason='no_data'}", "1x20", "_x20"),
    "TurnoutFrozenTooLong": (
        "turnout_frozen_timestamp_seconds{instance='i', route='r', variant='v'}",
        "-90000x20",
        "0x20",
    ),
    "TurnoutDeadLetters": ("turnout_sink_events{instance='i', sink='s', result='dead'}", "2x20", "0x20"),
    "TurnoutRolledBack": ("turnout_rollout_state{instance='i', route='r', state='rolled_back'}", "1x20", "0x20"),
}
TWO_SERIES = {
    "TurnoutPausedTooLong": (
        {
            "turnout_rollout_state{instance='i', route='r', state='paused'}": "1x20",
            "turnout_rollout_changed_timestamp_seconds{instance='i', route='r'}": "-90000x20",
        },
        {
            "turnout_rollout_state{instance='i', route='r', state='paused'}": "1x20",
            "turnout_rollout_changed_timestamp_seconds{instance='i', route='r'}": "0x20",
        },
    ),
    "TurnoutJournalFull": (
        {"turnout_journal_shed_total{instance='i'}": "0+1x20", "turnout_journal_refused_total{instance='i'}": "0x20"},
        {"turnout_journal_shed_total{instance='i'}": "4x20", "turnout_journal_refused_total{instance='i'}": "0x20"},
    ),
    "TurnoutJournalDamaged": (
        {
            "turnout_journal_faulty_lines_total{instance='i', fault='lost'}": "0+1x20",
            "turnout_journal_refused_segments{instance='i'}": "0x20",
        },
        {
            "turnout_journal_faulty_lines_total{instance='i', fault='torn'}": "0+1x20",
            "turnout_journal_refused_segments{instance='i'}": "0x20",
        },
    ),
    "TurnoutWorkerBehind": (
        {"turnout_plan_revision{instance='i'}": "8x20", "turnout_worker_plan_revision{instance='i', slot='0'}": "7x20"},
        {"turnout_plan_revision{instance='i'}": "8x20", "turnout_worker_plan_revision{instance='i', slot='0'}": "8x20"},
    ),
}
CASES = {alert: ({series: bad}, {series: good}) for alert, (series, bad, good) in FIRING.items()} | TWO_SERIES


def test_every_alert_has_a_case() -> None:
    alerts = [line.split("alert: ")[1] for line in rule_lines() if "alert: " in line]
    assert sorted(alerts) == sorted(CASES)


@promtool
def test_each_alert_fires_on_its_trouble_and_keeps_quiet_without(tmp_path: Path) -> None:
    dashboards.export(tmp_path)
    for alert, (bad, good) in CASES.items():
        for fires, series in ((True, bad), (False, good)):
            test = {
                "rule_files": ["rules.yaml"],
                "evaluation_interval": "1m",
                "tests": [
                    {
                        "interval": "1m",
                        "input_series": [{"series": name, "values": values} for name, values in series.items()],
                        "promql_expr_test": [
                            {
                                "expr": f"count(ALERTS{{alertname='{alert}', alertstate='firing'}})",
                                "eval_time": "15m",
                                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                            }
                        ],
                    }
                ],
            }
            (tmp_path / "case.json").write_text(json.dumps(test))  # JSON is YAML
            checked = run(tmp_path, "test", "rules", "case.json")
            assert checked.returncode == 0, f"{alert}, fires={fires}: {checked.stdout}{checked.stderr}"
