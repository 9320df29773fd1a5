"""The law of accounting: the statuses add up to all events sent, in any order, wherever they are shown."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from gateway.admin.metrics.metrics import Metrics
from gateway.journal.segments import PREDICTIONS
from gateway.report import report
from gateway.store.rows.feedback_status import STATUSES, UNKNOWN
from gateway.store.schema import row_tables
from router.records import Feedback, Prediction, mark_line
from router.snapshot import Backend
from tests.gateway.control.builders import T0, WRITER, Desk
from tests.gateway.control.record.test_any_order import METRICS, Line, journals

Account = dict[tuple[str, str, str], int]


async def story(desk: Desk, lines: list[Line], pauses: set[int], refused: int) -> tuple[Account, Account, Any]:
    """Record the lines, and return the account by the counters, by the rows, and the ledger."""
    async with desk:
        desk.journal.write(PREDICTIONS, [mark_line("rejected", T0, events=refused)] if refused else [], WRITER)
        for index, line in enumerate(lines):
            desk.journal.write(line.folder, [line.content], line.writer)
            if index in pauses:
                await desk.recorder.step()
        ledger = await desk.record()
        counted = dict(await desk.store.feedback_total())
        place = (row_tables.feedback.c.counted, row_tables.feedback.c.metric, row_tables.feedback.c.status)
        async with desk.store.begin() as connection:
            rows = await connection.execute(select(*place, func.count()).group_by(*place))
            return counted, {(route, metric, status): n for route, metric, status, n in rows}, ledger


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    journal=journals(),
    pauses=st.sets(st.integers(0, 40), max_size=8),
    refused=st.integers(0, 3),
    exposure=st.booleans(),
)
def test_the_statuses_add_up_to_what_was_sent(
    new_store: Callable[[], str],
    journal: tuple[list[Prediction], list[Feedback], int, list[Line]],
    pauses: set[int],
    refused: int,
    exposure: bool,
) -> None:
    _, events, _, lines = journal
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder), *METRICS, store=new_store(), require_exposure=exposure, key_rule="all")
        counted, rows, ledger = asyncio.run(story(desk, lines, pauses, refused))
    sent = Counter(event.metric for event in events)
    if refused:
        sent[UNKNOWN] = refused
        rows[UNKNOWN, UNKNOWN, "rejected"] = refused
    assert by_metric(counted) == sent, "by metric, over all routes"
    assert counted == rows, "the counters are what the rows say"
    assert min(counted.values(), default=1) > 0
    told: Counter[tuple[str, str, str]] = Counter()
    for one in desk.status_deltas:
        told[one.route, one.metric, one.status] += one.n
    assert {place: n for place, n in told.items() if n} == counted, "as was told when it happened"
    assert shown(desk, counted) == sent, "Prometheus"
    backends = {name: Backend(name=name, urls=("http://h",), version="1", model="m") for name in "ab"}
    found = report(replace(desk.snapshot, backends=backends), ledger)
    of_route = {place: n for place, n in counted.items() if place[0] == "r"}
    assert {name: sum(statuses.values()) for name, statuses in found["accounting"].items()} == by_metric(of_route)
    assert sum(found["feedback"].values()) == sum(of_route.values()), "the report"


def by_metric(account: Account) -> Counter[str]:
    total: Counter[str] = Counter()
    for (_, metric, status), n in account.items():
        assert status in STATUSES
        total[metric] += n
    return total


def shown(desk: Desk, account: Account) -> Counter[str]:
    """What the gauge adds up to, by metric. "stray" is no metric of the file."""
    metrics = Metrics(lambda: desk.snapshot, started_ms=T0, clock=lambda: 0.0)
    metrics.refresh_account(account)
    total: Counter[str] = Counter()
    for family in metrics.series.registry.collect():
        for sample in family.samples:
            if sample.name == "turnout_feedback_events":
                total[sample.labels["metric"]] += int(sample.value)
    strays = sum(n for (_, metric, _), n in account.items() if metric == "stray")
    if strays:
        total["stray"], total[UNKNOWN] = strays, total[UNKNOWN] - strays
    return +total
