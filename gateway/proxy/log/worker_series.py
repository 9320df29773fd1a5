"""The series that every worker reports to the controller once a second: counters since its start, and gauges.

Rule: a series is declared here and nowhere else, with the standard library alone, since workers import it. What a
worker can count, the entries of its datagram, the Prometheus series, and the series that the tests of dashboards and
alerts know all derive from ``COUNTERS`` and ``GAUGES``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: A number of a series, as a datagram carries it: name, labels, number.
Sample = tuple[str, dict[str, str], float]


# Compared by identity, because counting looks one up: a hash over its fields would cost more than the count.
@dataclass(frozen=True, slots=True, eq=False)
class WorkerSeries:
    """A series: ``name`` is its name in datagrams, ``exposed`` the one on /metrics, there with the prefix turnout_."""

    name: str
    exposed: str
    help_text: str
    labels: tuple[str, ...] = ()

    def sample(self, number: float, **labels: str) -> Sample:
        """Return this number under these labels."""
        return self.name, labels, number


class WorkerCounter(WorkerSeries):
    """What one worker counts since it started."""

    __slots__ = ()


class WorkerGauge(WorkerSeries):
    """What one worker sees right now; the controller exposes the sum over the workers."""

    __slots__ = ()


#: By name. Filled by the declarations below.
COUNTERS: Final[dict[str, WorkerCounter]] = {}
GAUGES: Final[dict[str, WorkerGauge]] = {}


def _counter(name: str, help_text: str, *labels: str, exposed: str | None = None) -> WorkerCounter:
    declared = COUNTERS[name] = WorkerCounter(name, f"{exposed or name}_total", help_text, labels)
    return declared


def _gauge(name: str, help_text: str, *labels: str, exposed: str | None = None) -> WorkerGauge:
    declared = GAUGES[name] = WorkerGauge(name, exposed or name, help_text, labels)
    return declared


SHED: Final = _counter(
    "shed",
    "Requests answered 503 before anything was done for them, by reason: overload (the worker cannot keep up), "
    "max_in_flight, max_connections, max_buffer_bytes (no room for a body that has to be whole).",
    "reason",
)
SLOW_CLIENTS: Final = _counter(
    "slow_clients",
    "Requests ended for their client's slowness, by reason: body or answer (others waited for its place at the "
    "backend), unread (it took its answer below min_read_bytes_per_second), memory (others needed "
    "what was held for it).",
    "reason",
)
UNFINISHED_REQUESTS: Final = _counter(
    "unfinished_requests",
    "Requests whose client left, or was too slow, before enough of the body was there to call anybody: no row.",
    "route",
)
DROPPED_FIELDS: Final = _counter(
    "dropped_fields", "Header fields of requests that were dropped for an underscore in their name."
)
UNIT_FALLBACKS: Final = _counter(
    "unit_fallbacks", "Requests that carried no unit, so that the request itself was randomised.", "route"
)
UNCOUNTED_REQUESTS: Final = _counter(
    "uncounted_requests",
    "Requests that count in no report: their unit was one too many new ones of their client within a minute.",
    "route",
)
MIRROR_DROPS: Final = _counter(
    "mirror_drops", "Copies for a shadow that were never sent, by reason.", "route", "variant", "reason"
)
MERGE_FAILURES: Final = _counter(
    "merge_failures", "Interleaved requests answered by one list as it came, by reason.", "route", "reason"
)
EXTRACTION_FAILURES: Final = _counter(
    "extraction_failures", "Answers in which the prediction was not where its pointer says.", "route", "variant"
)
VERSION_MISMATCHES: Final = _counter(
    "version_mismatches", "Answers that reported another version than the file declares.", "route", "variant"
)
CAPTURE_DROPS: Final = _counter(
    "capture_drops", "Bodies that were to be captured and were not, by reason.", "route", "reason"
)
RETRIES: Final = _counter(
    "retries",
    "Calls sent again to another replica of their variant, by what had happened to them.",
    "variant",
    "reason",
)
RETRY_BUDGET_EXHAUSTED: Final = _counter(
    "retry_budget_exhausted", "Calls that were not sent again because too many were being repeated already.", "variant"
)
EJECTIONS: Final = _counter(
    "ejections",
    "Times a worker took a replica out of use, by what had failed (connection, answer).",
    "variant",
    "replica",
    "reason",
    exposed="replica_ejections",
)
FEEDBACK_REJECTED: Final = _counter("feedback_rejected", "Feedback events refused with a 4xx, by reason.", "reason")
FEEDBACK_TOKEN_USES: Final = _counter(
    "feedback_token_uses", "Requests with feedback that came with this named token.", "token"
)
FEEDBACK_COMMITS: Final = _counter(
    "feedback_commits", "Times the disk was asked to confirm feedback, each for everything that waited."
)
JOURNAL_FSYNC_FAILURES: Final = _counter(
    "journal_fsync_failures", "Times predictions could not be made safe from a loss of power."
)
JOURNAL_SHED: Final = _counter(
    "journal_shed", "Calls answered but not logged, because the journal was full or could not be written."
)
JOURNAL_REFUSED: Final = _counter(
    "journal_refused", "Requests and feedback refused with 503, because the journal was full or could not be written."
)
SNAPSHOT_ERRORS: Final = _counter(
    "snapshot_errors", "Times a worker could not read the published snapshot and kept its own."
)
OVERRIDE_ERRORS: Final = _counter(
    "override_errors", "Times a worker could not read overrides.json and kept what it had read before."
)

REPLICAS: Final = _gauge(
    "replicas",
    "Workers that see the replica in this state: fit, ejected (calls failed) or unhealthy (probes failed).",
    "variant",
    "replica",
    "state",
    exposed="replica_state",
)
WAITING: Final = _gauge(
    "waiting", "Calls that wait for a place under max_concurrency right now.", "variant", exposed="waiting_calls"
)
IN_FLIGHT: Final = _gauge("in_flight", "Requests being answered right now.", "route", exposed="in_flight_requests")
IN_FLIGHT_LIMIT: Final = _gauge(
    "in_flight_limit", "Requests that may be under way, over all workers, as admission has it now; 0 when it is off."
)
CONNECTIONS: Final = _gauge("connections", "Client connections open right now.")
CONNECTIONS_LIMIT: Final = _gauge(
    "connections_limit", "Client connections that may be open: max_connections, or what descriptors allow."
)
BUFFER_BYTES: Final = _gauge(
    "buffer_bytes", "Memory held for slow clients beyond 64 KiB of each, of max_buffer_bytes per worker."
)
JOURNAL_BYTES: Final = _gauge("journal_bytes", "Journal on disk, as the workers last said.")
