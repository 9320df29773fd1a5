"""Observations become series: predictions, feedback, datagrams and reports, under labels that are bounded.

Rule: every label value is a name of the operator's file, a word of this program, or "unknown". Whatever comes in,
counting never raises: a metric must not stop what it measures.
"""

from __future__ import annotations

import platform
import re
from collections import Counter as Counter_
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, get_args

from gateway.admin.metrics.gauges import Gauges
from gateway.admin.metrics.replicas import backends
from gateway.admin.metrics.series import Series
from gateway.admin.metrics.workers import Workers
from gateway.compiled import build
from gateway.control.membership import FleetView
from gateway.control.progress import Progress
from gateway.proxy.client.health import STATES
from gateway.proxy.log.worker_series import COUNTERS, GAUGES
from gateway.report.comparison import STATUSES as VERDICTS
from gateway.sinks.sinks import RESULTS
from gateway.store.rows.calls import CallRow, StoredCall, by_shared_fields
from gateway.store.rows.feedback_status import STATUSES, UNKNOWN
from gateway.store.rows.shared_fields import SharedFields
from router.records import EXPOSED, VARIANT_FAULTS, Fault, Role
from router.settings.backend import replica_name
from router.snapshot import Snapshot

#: Names kept over all reloads of one controller, or twice as many as the first configuration has. Beyond it something
#: generates them, and they become "unknown".
MOST_NAMES: Final = 2_000

#: What is wrong with journal lines, as the recorder counts it.
FAULTS_OF_LINES: Final = ("corrupt", "torn", "lost", "unrecordable", "duplicate")

#: Nodes that are shown each by itself.
MOST_NODES: Final = 200

#: Different reasons a worker may give, per process: they are words of this program, so there are few.
MOST_REASONS: Final = 50

_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Names:
    """Which label values may appear: everything the snapshots of this process have named."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._read: Snapshot | None = None
        self._most = 0
        self._known: set[tuple[str, ...]] = {("role", role) for role in get_args(Role)}
        self._known |= {("fault", fault) for fault in get_args(Fault)}
        self._known |= {("status", status) for status in STATUSES}
        self._reasons: set[str] = set()

    def of(self, label: str, *value: str) -> str:
        """Return the last part of ``value`` if it is a known value of the label, else "unknown"."""
        self._learn()
        return value[-1] if (label, *value) in self._known else UNKNOWN

    def reason(self, word: str) -> str:
        """Return a reason that a worker gave: any short word, but only so many different ones."""
        if word not in self._reasons:
            if len(self._reasons) >= MOST_REASONS or not _WORD.fullmatch(word):
                return UNKNOWN
            self._reasons.add(word)
        return word

    def _learn(self) -> None:
        snapshot = self._snapshot()
        if snapshot is self._read:
            return
        self._read = snapshot
        named: set[tuple[str, ...]] = {("route", name) for name in snapshot.routes}
        named |= {("metric", name) for name in (*snapshot.metrics, EXPOSED)}
        for backend in snapshot.backends.values():
            named |= {("variant", backend.name), ("version", backend.name, backend.version)}
            named |= {("replica", replica_name(url)) for url in backend.urls}
        self._most = self._most or max(MOST_NAMES, 2 * len(named))
        if len(self._known | named) <= self._most:
            self._known |= named


class Metrics:
    """What the controller tells as it happens, and ``/metrics`` as text.

    ``snapshot`` gives the one in force; ``started_ms`` is when this controller began to count (Unix milliseconds);
    ``clock`` is monotonic, in seconds.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], *, started_ms: int, clock: Callable[[], float]) -> None:
        self.series = Series()
        self._snapshot = snapshot
        self._names = Names(snapshot)
        self._workers = Workers(started_ms=started_ms, clock=clock)
        self.series.build_info.labels(_release(), platform.python_version(), build()).set(1)
        # Alerts ask how much these grew, and a series that begins at 1 has not grown.
        for fault in FAULTS_OF_LINES:
            self.series.journal_faulty_lines.labels(fault)
        for kind in ("events", "predictions"):
            self.series.unsettled.labels(kind)
        # The configuration that this controller started from was valid, or it would not have started.
        self.observe_reload(ok=True, at_ms=started_ms)

    def observe_calls(self, calls: Iterable[StoredCall]) -> None:
        """Count finished calls."""
        for shared, rows in by_shared_fields(calls).items():
            self._observe_shared(shared, rows)

    def _observe_shared(self, shared: SharedFields, rows: Sequence[CallRow]) -> None:
        names, series = self._names, self.series
        route, variant = names.of("route", shared.route), names.of("variant", shared.variant)
        release = names.of("version", shared.variant, shared.version)
        role = names.of("role", shared.role)
        series.requests.labels(route, variant, release, role, _status_class(shared)).inc(len(rows))
        if shared.fault is not None:
            series.faults.labels(route, variant, role, names.of("fault", shared.fault)).inc(len(rows))
        latencies_ms = [row.latency_ms for row in rows if row.latency_ms is not None]
        series.request_seconds.observe((route, variant, release, role), latencies_ms)
        if self._speaks_for_its_request(shared):
            overheads_ms = [row.overhead_ms for row in rows if row.overhead_ms is not None]
            series.overhead_seconds.observe((route,), overheads_ms)

    def observe_status(
        self,
        route: str,
        metric: str,
        status: str,
        n: int = 1,
        delay_seconds: float | None = None,
        variant: str | None = None,
    ) -> None:
        """Count ``n`` feedback events that came to ``status``; ``delay_seconds`` is from prediction to event."""
        names = self._names
        route, metric = names.of("route", route), names.of("metric", metric)
        if n > 0:
            self.series.feedback.labels(route, metric, names.of("status", status)).inc(n)
        if delay_seconds is not None:
            # An event dated before its prediction is the caller's clock, not a negative delay.
            whose = names.of("variant", variant or "")
            self.series.feedback_delay_seconds.labels(route, metric, whose).observe(max(delay_seconds, 0.0))

    def observe_lines(self, met: Mapping[str, int]) -> None:
        """Count what was wrong with journal lines ("corrupt_lines" and the like), and what could not be settled."""
        for name, n in met.items():
            if n and name.startswith("unsettled_"):
                self.series.unsettled.labels(name.partition("_")[2]).inc(n)
            elif n:
                self.series.journal_faulty_lines.labels(name.partition("_")[0]).inc(n)

    def observe_expired(self, kind: str, n: int) -> None:
        """Count rows that were removed from the store because their retention had passed."""
        self.series.expired.labels(kind).inc(n)

    def observe_datagram(self, datagram: Mapping[str, Any]) -> None:
        """Add what a worker's counters grew by since its last datagram."""
        try:
            increases = self._workers.hear(datagram)
        except ValueError:
            self.series.datagrams_refused.inc()
            return
        for increase in increases:
            counter = self.series.worker_counters.get(increase.name)
            if counter is None:
                self.series.datagrams_refused.inc()
                continue
            labels = COUNTERS[increase.name].labels
            values = [self._label(label, increase.labels.get(label, UNKNOWN)) for label in labels]
            (counter.labels(*values) if labels else counter).inc(increase.by)

    def backends(self) -> list[dict[str, Any]]:
        """Return what the workers see of the backends right now."""
        return backends(self._snapshot(), self._workers.gauges())

    def observe_reload(self, *, ok: bool, at_ms: int) -> None:
        """Note whether a configuration was taken over or refused."""
        self.series.config_last_reload_successful.set(int(ok))
        if ok:
            self.series.config_last_reload_success_timestamp_seconds.set(at_ms / 1000)

    def refresh_plans(self) -> None:
        """Set what the snapshot and the workers say: cheap, done at every scrape."""
        snapshot, series = self._snapshot(), self.series
        series.plan_revision.set(snapshot.revision)
        series.share.clear()
        for route in snapshot.routes.values():
            for variant, share in route.plan.shares.items():
                series.share.labels(route.name, variant).set(share)
        gauges, revisions = self._workers.gauges(), self._workers.revisions()
        series.workers.set(len(revisions))
        series.worker_plan_revision.clear()
        for slot, revision in revisions.items():
            series.worker_plan_revision.labels(str(slot)).set(revision)
        values = _label_values(snapshot)
        for name, gauge in series.worker_gauges.items():
            gauge.clear()
            labels = GAUGES[name].labels
            for these in values[labels]:
                place = name, tuple(sorted(zip(labels, these, strict=True)))
                gauge.labels(*these).set(gauges.get(place, 0.0))

    def refresh_fleet(self, fleet: FleetView | None) -> None:
        """Set what this node knows of the others; where there are none, there is nothing to say."""
        if fleet is None:
            return
        series, differing = self.series, {node.name for node in fleet.differing}
        series.lease_held.set(int(fleet.holder == fleet.node))
        series.store_cut_off_seconds.set(fleet.cut_off_seconds or 0.0)
        series.intake_bytes.set(sum(fleet.waiting_bytes.values()))
        for gauge in (series.node_plan_revision, series.node_config_differs, series.node_silent_seconds):
            gauge.clear()
        for node in fleet.nodes[:MOST_NODES]:
            series.node_plan_revision.labels(node.name).set(node.revision)
            series.node_config_differs.labels(node.name).set(int(node.name in differing))
            series.node_silent_seconds.labels(node.name).set(max(0, node.silent_ms) / 1000)

    def refresh_health(self, *, lag: tuple[float, int], progress: Progress, refused_segments: int = 0) -> None:
        """Set how far the store is behind the journal, as (seconds, bytes), and how much of it is not read at all."""
        self.series.journal_refused_segments.set(refused_segments)
        self.series.journal_lag_seconds.set(lag[0])
        self.series.journal_lag_bytes.set(lag[1])
        self.series.store_ready.set(int(not progress.stalled))
        self.series.recording_stalled_seconds.set(progress.stalled_seconds)
        self.series.watermark_age_seconds.set(progress.watermark_age_seconds or 0.0)

    def refresh_quality(self, reports: Iterable[Mapping[str, Any]]) -> None:
        """Set what the newest reports say, and forget what they no longer say."""
        for gauge in self.series.quality():
            gauge.clear()
        for report in reports:
            self._set_verdict(report)
            self._set_problems(report)
            for variant in report["variants"]:
                self._set_variant(report["route"], variant)

    def refresh_account(self, account: Mapping[tuple[str, str, str], int]) -> None:
        """Set what every feedback event ended as, by (route, metric, status): together they are what was sent."""
        found: Counter_[tuple[str, str, str]] = Counter_()
        for (route, metric, status), n in account.items():
            names = self._names
            found[names.of("route", route), names.of("metric", metric), names.of("status", status)] += n
        self.series.feedback_events.clear()
        for labels, n in found.items():
            self.series.feedback_events.labels(*labels).set(n)

    def refresh_sinks(self, sinks: Iterable[Mapping[str, Any]]) -> None:
        """Set what became of each sink's events, and what waits."""
        series = self.series
        for gauge in (series.sink_events, series.sink_pending_bytes, series.sink_lag_seconds, series.sink_ready):
            gauge.clear()
        for sink in sinks:
            for result in RESULTS:
                series.sink_events.labels(sink["name"], result).set(sink[result])
            series.sink_pending_bytes.labels(sink["name"]).set(sink["pending_bytes"])
            series.sink_lag_seconds.labels(sink["name"]).set(sink["oldest_seconds"])
            if sink["sending"]:
                series.sink_ready.labels(sink["name"]).set(int(sink["trouble"] is None))

    def refresh_ages(self, ages: Mapping[str, float]) -> None:
        """Set how old what the store was read for is, part by part, in seconds."""
        for part, seconds in ages.items():
            self.series.reading_age_seconds.labels(part).set(seconds)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return all series as text, and its content type, in the best format that ``accept`` allows."""
        return self.series.exposition(accept)

    def _set_verdict(self, report: Mapping[str, Any]) -> None:
        series, route, verdict = self.series, report["route"], report["verdict"]
        for status in VERDICTS:
            series.verdict.labels(route, status).set(int(status == verdict["status"]))
        if report["checks"]["sample_ratio"]["p"] is not None:
            series.sample_ratio_p.labels(route).set(report["checks"]["sample_ratio"]["p"])
        series.feedback_waiting.labels(route).set(report["feedback"]["waiting"])
        for one in verdict["comparisons"]:
            labels = (route, one["variant"], verdict["metric"])
            _set(series.difference, labels, one["difference"])
            _set(series.difference_low, labels, one["low"])
            _set(series.difference_high, labels, one["high"])

    def _set_problems(self, report: Mapping[str, Any]) -> None:
        shares: dict[str, float] = {}
        for one in report["problems"]:
            if one["ongoing"]:
                shares[one["problem"]] = max(one["share"], shares.get(one["problem"], 0.0))
        for problem, share in shares.items():
            self.series.route_problem.labels(report["route"], problem).set(share)

    def _set_variant(self, route: str, variant: Mapping[str, Any]) -> None:
        series, name = self.series, variant["name"]
        _set(series.best_probability, (route, name), variant["p_best"])
        if variant["shadow"] is not None:
            _set(series.agreement_ratio, (route, name), variant["shadow"]["agreement"]["mean"])
        for metric, values in variant["metrics"].items():
            labels, mature = (route, name, variant["version"], metric), values["mature"]
            _set(series.quality_mean, labels, mature["mean"])
            _set(series.quality_low, labels, mature["low"])
            _set(series.quality_high, labels, mature["high"])
            _set(series.quality_units, labels, mature["units"])
            _set(series.quality_live_mean, labels, values["live"]["mean"])
            _set(series.coverage_ratio, (route, name, metric), values["coverage"])
            _set(series.pending_predictions, (route, name, metric), values["pending"])
            _set(series.oldest_pending_seconds, (route, name, metric), values["oldest_pending_seconds"])
            _set(series.unexposed_predictions, (route, name, metric), values["not_exposed"])

    def _speaks_for_its_request(self, shared: SharedFields) -> bool:
        """Return whether the request's overhead is counted with this call: once per request, whoever is called."""
        if shared.role == "draft":
            route = self._snapshot().routes.get(shared.route)
            return route is not None and route.variants[0] == shared.variant
        return shared.role == "primary"

    def _label(self, label: str, value: str) -> str:
        return self._names.reason(value) if label == "reason" else self._names.of(label, value)


def _label_values(snapshot: Snapshot) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """Return every value of the labels that workers' gauges have: a gauge that no worker reports is 0, not absent."""
    backends = snapshot.backends.values()
    return {
        (): [()],
        ("route",): [(name,) for name in snapshot.routes],
        ("variant",): [(backend.name,) for backend in backends],
        ("variant", "replica", "state"): [
            (backend.name, replica_name(url), state) for backend in backends for url in backend.urls for state in STATES
        ],
    }


def _set(gauge: Gauges, labels: tuple[str, ...], value: float | None) -> None:
    """Set the gauge, or leave it out where there is nothing to say: a gap is honest, a 0 is not."""
    if value is not None:
        gauge.labels(*labels).set(value)


def _status_class(call: SharedFields) -> str:
    """Return the class of the status with which the variant answered.

    The row has the status that the client saw. Of a variant whose failure a fallback or another ranker made good, that
    is the other's: a dead variant must not look well because it is covered for.
    """
    status = call.status
    faulty = call.fault in VARIANT_FAULTS and not call.client_error  # of that, the status is the variant's own
    if call.served is not None or (call.role == "draft" and faulty):
        status = 502
    return f"{status // 100}xx" if status is not None and 100 <= status < 600 else "none"


def _release() -> str:
    try:
        return version("turnout")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return UNKNOWN
