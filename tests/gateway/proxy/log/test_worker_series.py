"""A series of the workers is declared once, in the table, and everything else follows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson
import pytest

import gateway.proxy
from gateway.admin.metrics.metrics import Metrics
from gateway.proxy.log import worker_series
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.worker_series import COUNTERS, GAUGES, WorkerCounter, WorkerGauge, WorkerSeries
from tests.gateway.admin.fake import control
from tests.gateway.admin.samples import NOW_MS, datagram
from tests.gateway.dashboards.test_dashboards import declared

NAMED: Final = {name: one for name, one in vars(worker_series).items() if isinstance(one, WorkerSeries)}


def metrics() -> Metrics:
    fake = control()
    return Metrics(lambda: fake.snapshot, started_ms=NOW_MS, clock=lambda: 0.0)


def test_a_counter_in_the_table_is_on_metrics_and_known_to_the_dashboards_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, one of four places left out made a counter vanish into ``datagrams_refused_total``."""
    toy = WorkerCounter("toys", "toy_breakages_total", "Toys that broke, by reason.", ("route", "reason"))
    monkeypatch.setitem(COUNTERS, toy.name, toy)
    counts, exposed = Counts(), metrics()
    counts.add(toy, 3, route="digits", reason="dropped")
    exposed.observe_datagram(datagram(orjson.loads(orjson.dumps(counts.samples()))))
    text = exposed.exposition("text/plain")[0].decode()
    assert "# HELP turnout_toy_breakages_total Toys that broke, by reason.\n" in text
    assert "# TYPE turnout_toy_breakages_total counter\n" in text
    assert 'turnout_toy_breakages_total{reason="dropped",route="digits"} 3.0\n' in text
    assert "turnout_datagrams_refused_total 0.0\n" in text
    assert declared.__wrapped__()["turnout_toy_breakages_total"] == "counter"


def test_a_gauge_in_the_table_is_on_metrics_for_every_value_of_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = WorkerGauge("toys", "toys", "Toys in use.", ("route",))
    monkeypatch.setitem(GAUGES, toy.name, toy)
    exposed = metrics()
    exposed.observe_datagram(datagram([]) | {"gauges": [toy.sample(2, route="digits")]})
    exposed.refresh_plans()
    text = exposed.exposition("text/plain")[0].decode()
    assert 'turnout_toys{route="digits"} 2.0\n' in text
    assert 'turnout_toys{route="search"} 0.0\n' in text
    assert declared.__wrapped__()["turnout_toys"] == "gauge"


def test_each_declaration_is_in_the_table_under_its_name() -> None:
    assert list(NAMED.values()) == [*COUNTERS.values(), *GAUGES.values()]
    assert [*COUNTERS, *GAUGES] == [one.name for one in NAMED.values()]


def uses() -> Iterator[tuple[str, set[str]]]:
    """Yield (series, labels) of every place in the data plane that counts or reports one."""
    for file in Path(gateway.proxy.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            named = {"add": node.args[:1], "sample": [node.func.value]}.get(node.func.attr, [])
            for series in named:
                if isinstance(series, ast.Name) and series.id in NAMED:
                    yield series.id, {str(keyword.arg) for keyword in node.keywords}


def test_a_series_is_used_with_the_labels_it_declares_and_each_is_used() -> None:
    """A label left out would be "unknown" on /metrics, and one too many would be lost."""
    found = list(uses())
    assert [(name, labels) for name, labels in found if labels != set(NAMED[name].labels)] == []
    assert {name for name, _ in found} == set(NAMED)
