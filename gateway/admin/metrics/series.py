"""Every Prometheus series, declared once: the controller's here, the workers' in ``gateway.proxy.log.worker_series``.

Rule: prefix ``turnout_``, base units in the name, help that says what one unit of it is. Labels are names from the
operator's file or words of this program, never a unit, an id or anything a client chose; see ``metrics.Names``.
Counters are since the controller's start.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import fsum, inf
from typing import Final, TypeVar, overload

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.admin.metrics.gauges import Gauges, exposition
from gateway.proxy.log.worker_series import COUNTERS, GAUGES

Declared = TypeVar("Declared", bound=Collector)

#: OpenTelemetry's buckets for HTTP durations, and 30 and 60 s for models that generate text.
REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)

#: From 50 µs, which is the overhead of a request when nothing is wrong.
OVERHEAD_BUCKETS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)

#: From a second to three months: labels may arrive that late.
DELAY_BUCKETS: Final = (1, 5, 15, 60, 300, 900, 3600, 14400, 43200, 86400, 259200, 604800, 1209600, 2592000, 7776000)

_VARIANT = ("route", "variant")
_CALL = ("route", "variant", "version", "role")
_QUALITY = ("route", "variant", "version", "metric")
_DIFFERENCE = ("route", "variant", "metric")


class Durations(Collector):
    """A histogram of seconds that takes a list of milliseconds: the library's takes one value, behind four locks."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> None:
        self._name = name
        self._help_text = help_text
        self._labels = labels
        self._bounds = (*buckets, inf)
        #: By labels: how many fell into each bucket, and their sum in seconds.
        self._found: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def observe(self, labels: tuple[str, ...], durations_ms: Sequence[float]) -> None:
        """Count these durations."""
        if not durations_ms:
            return
        if labels not in self._found:
            self._found[labels] = [0] * len(self._bounds), [0.0]
        counts, total = self._found[labels]
        for milliseconds in durations_ms:
            counts[bisect_left(self._bounds, milliseconds / 1000)] += 1
        total[0] += fsum(durations_ms) / 1000

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._help_text, labels=self._labels)
        bounds = [floatToGoString(bound) for bound in self._bounds]  # type: ignore[no-untyped-call]
        for labels, (counts, total) in self._found.items():
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total[0])
        yield family


class Series:
    """The series of one controller, in a registry of their own."""

    def __init__(self) -> None:
        # A _created series beside each would double their number, for a time that Prometheus finds out without it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._written_by_library = CollectorRegistry()
        self._written_here: list[Gauges] = []
        self._by_library(ProcessCollector(registry=self.registry))
        #: By the names that workers report them under.
        self.worker_counters = {
            one.name: self._counter(one.exposed, one.help_text, one.labels) for one in COUNTERS.values()
        }
        self.worker_gauges = {one.name: self._gauge(one.exposed, one.help_text, one.labels) for one in GAUGES.values()}
        self._declare_traffic()
        self._declare_feedback()
        before = len(self._written_here)
        self._declare_reported()
        #: The gauges that are set from reports, and cleared before each new set of reports.
        self.reported = tuple(self._written_here[before:])
        self._declare_health()
        self._declare_fleet()
        self._declare_sinks()
        self._declare_rollouts()

    def _counter(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Counter:
        return self._by_library(Counter(f"turnout_{name}", help_text, labels, registry=self.registry))

    @overload
    def _gauge(self, name: str, help_text: str) -> Gauge: ...
    @overload
    def _gauge(self, name: str, help_text: str, labels: tuple[str, ...]) -> Gauges: ...
    def _gauge(self, name: str, help_text: str, labels: tuple[str, ...] | None = None) -> Gauge | Gauges:
        if labels is None:
            return self._by_library(Gauge(f"turnout_{name}", help_text, registry=self.registry))
        declared = Gauges(f"turnout_{name}", help_text, labels)
        self.registry.register(declared)
        self._written_here.append(declared)
        return declared

    def _histogram(self, name: str, help_text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
        return self._by_library(
            Histogram(f"turnout_{name}", help_text, labels, buckets=buckets, registry=self.registry)
        )

    def _by_library(self, declared: Declared) -> Declared:
        self._written_by_library.register(declared)
        return declared

    def _durations(self, name: str, help_text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Durations:
        declared = Durations(f"turnout_{name}", help_text, labels, buckets)
        self.registry.register(declared)
        return self._by_library(declared)

    def _declare_traffic(self) -> None:
        self.requests = self._counter(
            "requests_total",
            "Calls to a variant, by role (primary, shadow, draft) and class of its status (none: no answer came; 5xx "
            "too when a fallback or another ranker made its failure good).",
            (*_CALL, "status_class"),
        )
        self.faults = self._counter(
            "faults_total",
            "Calls without a complete answer, by what happened; client_gone and dropped are nobody's fault.",
            (*_VARIANT, "role", "fault"),
        )
        self.request_seconds = self._durations(
            "request_seconds",
            "Time from sending a request to a variant until the last byte of its answer.",
            _CALL,
            REQUEST_BUCKETS,
        )
        self.overhead_seconds = self._durations(
            "overhead_seconds",
            "Time of a request spent in the gateway: until its answer (of a stream, the head) less the waiting for "
            "backends and for the client's body.",
            ("route",),
            OVERHEAD_BUCKETS,
        )
        self.share = self._gauge("share", "Probability that the variant answers a request, from 0 to 1.", _VARIANT)

    def _declare_feedback(self) -> None:
        self.feedback = self._counter(
            "feedback_total",
            "Feedback events by what they came to; one that waited is counted again when it joins.",
            ("route", "metric", "status"),
        )
        self.feedback_events = self._gauge(
            "feedback_events",
            "Feedback events by what they are now: over all statuses, everything that was ever sent. Of no known "
            'prediction, or refused, they are under route "unknown".',
            ("route", "metric", "status"),
        )
        self.feedback_delay_seconds = self._histogram(
            "feedback_delay_seconds",
            "Time from a variant's prediction to the feedback that joined it.",
            ("route", "metric", "variant"),
            DELAY_BUCKETS,
        )

    def _declare_reported(self) -> None:
        self.feedback_waiting = self._gauge(
            "feedback_waiting", "Feedback events whose prediction is not recorded yet.", ("route",)
        )
        self.quality_mean = self._gauge("quality_mean", "Mean of the metric over closed windows.", _QUALITY)
        self.quality_low = self._gauge(
            "quality_low", "Lower end of the mean's interval, 95 % sure at every look.", _QUALITY
        )
        self.quality_high = self._gauge(
            "quality_high", "Upper end of the mean's interval, 95 % sure at every look.", _QUALITY
        )
        self.quality_units = self._gauge("quality_units", "Units (or requests) behind the mean.", _QUALITY)
        self.quality_live_mean = self._gauge(
            "quality_live_mean",
            "Mean of the metric over all that is known so far; early feedback may tilt it.",
            _QUALITY,
        )
        self.coverage_ratio = self._gauge(
            "coverage_ratio", "Share of predictions with a value, among those whose window has closed.", _DIFFERENCE
        )
        self.pending_predictions = self._gauge(
            "pending_predictions", "Predictions whose window has not closed yet.", _DIFFERENCE
        )
        self.oldest_pending_seconds = self._gauge(
            "oldest_pending_seconds",
            "Age, in event time, of the oldest prediction whose window has not closed yet.",
            _DIFFERENCE,
        )
        self.unexposed_predictions = self._gauge(
            "unexposed_predictions", "Predictions that do not count because their window closed unexposed.", _DIFFERENCE
        )
        self.difference = self._gauge(
            "difference", "The variant less the baseline on each of the route's metrics.", _DIFFERENCE
        )
        self.difference_low = self._gauge("difference_low", "Lower end of the difference's interval.", _DIFFERENCE)
        self.difference_high = self._gauge("difference_high", "Upper end of the difference's interval.", _DIFFERENCE)
        self.progress = self._gauge(
            "progress", "Share of the evidence that a decision on the variant and the metric takes.", _DIFFERENCE
        )
        self.guardrail_state = self._gauge(
            "guardrail_state",
            "1 for the state that a variant's guardrail on a metric or measure is in, 0 for the others: broken, "
            "undecided, clean. Of several on one metric, the worst.",
            ("route", "variant", "metric", "state"),
        )
        self.agreement_ratio = self._gauge(
            "agreement_ratio", "Share of copied requests on which the shadow gave the primary's prediction.", _VARIANT
        )
        self.best_probability = self._gauge(
            "best_probability",
            "Probability that the variant is the best one, as an adaptive policy believes.",
            _VARIANT,
        )
        self.sample_ratio_p = self._gauge(
            "sample_ratio_p",
            "p-value of the shares being as set, valid at every look; below 0.001 is an alarm.",
            ("route",),
        )
        self.route_problem = self._gauge(
            "route_problem",
            "Share of what a problem of the route is seen in, from 0 to 1: the largest of its variants' where it is a "
            "variant's; of problems that go on. The route's report says them in words.",
            ("route", "problem"),
        )
        self.verdict = self._gauge(
            "verdict", "1 for the status that the route's verdict has, 0 for the others.", ("route", "status")
        )

    def _declare_health(self) -> None:
        self.journal_lag_seconds = self._gauge(
            "journal_lag_seconds", "Age of the oldest journal line that is not in the store yet."
        )
        self.journal_lag_bytes = self._gauge("journal_lag_bytes", "Journal that is not in the store yet.")
        self.journal_faulty_lines = self._counter(
            "journal_faulty_lines_total",
            "Journal lines that are corrupt, torn, unrecordable, duplicate or lost (their number is missing).",
            ("fault",),
        )
        self.unsettled = self._counter(
            "unsettled_total", "Stored events and predictions that could not be joined, and were set aside.", ("kind",)
        )
        self.journal_refused_segments = self._gauge(
            "journal_refused_segments", "Journal files that this program cannot read and leaves as they are."
        )
        self.expired = self._counter(
            "expired_total", "Rows removed from the store because their retention had passed.", ("kind",)
        )
        self.datagrams_refused = self._counter(
            "datagrams_refused_total", "Reports of workers that could not be understood."
        )
        self.admin_ignored_users = self._counter(
            "admin_ignored_users_total",
            "Requests of the admin port whose user was ignored, since no proxy of trusted_proxies named it.",
        )
        self.config_last_reload_successful = self._gauge(
            "config_last_reload_successful", "1 when the configuration as last read is in force, 0 when it was refused."
        )
        self.config_last_reload_success_timestamp_seconds = self._gauge(
            "config_last_reload_success_timestamp_seconds", "Unix time at which a configuration was last taken over."
        )
        self.plan_revision = self._gauge("plan_revision", "Revision of the published snapshot.")
        self.worker_plan_revision = self._gauge(
            "worker_plan_revision", "Revision of the snapshot that each worker routes by.", ("slot",)
        )
        self.workers = self._gauge("workers", "Workers heard from in the last seconds.")
        self.store_ready = self._gauge("store_ready", "1 when the store is open and recording makes progress.")
        self.recording_stalled_seconds = self._gauge(
            "recording_stalled_seconds", "Since when recording makes no progress; 0 when it does."
        )
        self.watermark_age_seconds = self._gauge(
            "watermark_age_seconds", "Age of the time before which every call is known: windows close by it."
        )
        self.reading_age_seconds = self._gauge(
            "reading_age_seconds",
            "How old the series are that the store is read for, by part (reports: quality, verdicts; feedback: "
            "feedback_events; sinks). When it cannot be read in time they keep their last values.",
            ("part",),
        )
        self.build_info = self._gauge(
            "build_info", "Always 1; the labels say what runs.", ("version", "python", "build")
        )

    def _declare_fleet(self) -> None:
        self.lease_held = self._gauge("lease_held", "1 at the node that joins, plans and acts for all of them.")
        self.store_cut_off_seconds = self._gauge(
            "store_cut_off_seconds", "Since when this node sees nothing of the store that nodes share; 0 when it does."
        )
        self.intake_bytes = self._gauge(
            "intake_bytes", "Journal lines of all nodes that wait in the store for the holder of the lease."
        )
        self.node_plan_revision = self._gauge("node_plan_revision", "Revision in force at each node.", ("node",))
        self.node_config_differs = self._gauge(
            "node_config_differs", "1 where a node runs another configuration than the holder of the lease.", ("node",)
        )
        self.node_silent_seconds = self._gauge(
            "node_silent_seconds", "Time since each node last wrote anything into the store.", ("node",)
        )

    def _declare_sinks(self) -> None:
        self.sink_events = self._gauge(
            "sink_events",
            "Events of a sink by what became of them: as many were made as are delivered, refused, dropped, erased, "
            "dead or pending.",
            ("sink", "result"),
        )
        self.sink_pending_bytes = self._gauge("sink_pending_bytes", "Events that wait for a sink.", ("sink",))
        self.sink_lag_seconds = self._gauge("sink_lag_seconds", "Age of the oldest event that waits for it.", ("sink",))
        self.sink_ready = self._gauge(
            "sink_ready",
            "1 when the sink takes events, 0 when it is in trouble; said by the node that sends.",
            ("sink",),
        )

    def _declare_rollouts(self) -> None:
        self.rollout_step = self._gauge("rollout_step", "The step that a route is at, counted from 1.", ("route",))
        self.rollout_state = self._gauge(
            "rollout_state",
            "1 for the state that a route is in which moves by itself or by hand, 0 for the others: running, paused, "
            "rolled_back, done.",
            ("route", "state"),
        )
        self.rollout_changed_timestamp_seconds = self._gauge(
            "rollout_changed_timestamp_seconds", "Unix time at which a route's step or state last changed.", ("route",)
        )
        self.held_variants = self._gauge(
            "held_variants",
            "How many variants of a route a guardrail or a person holds out, or at the floor.",
            ("route",),
        )
        self.rollout_held_up = self._gauge(
            "rollout_held_up",
            "1 while a route cannot be judged, by the reason: no_data, measuring_error, baseline_failing.",
            ("route", "reason"),
        )

        self.frozen_timestamp_seconds = self._gauge(
            "frozen_timestamp_seconds",
            "Unix time since which a route is frozen to the variant; there is none for a route that is not.",
            _VARIANT,
        )
        self.acts = self._counter(
            "acts_total",
            "Acts that were asked for at this node, by how (via) and what came of it: done, dry_run, refused, failed.",
            ("verb", "via", "result"),
        )

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return all series as text, and its content type, in the best format that ``accept`` allows."""
        return exposition(self._written_by_library, self._written_here, accept)
