"""A running model version: a table of the file's ``[backends]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from router.settings.keys import (
    AbsolutePath,
    Bounds,
    Line,
    PointerText,
    Positive,
    Share,
    Some,
    Text,
    Whole,
    described,
    setting,
)
from router.settings.slots import VersionSlot

#: Whether a backend's 4xx answers are a class of their own, or count as its failures.
ClientErrors = Literal["pass", "fail"]

Url = Annotated[str, "backend_url"]
RequestHeaders = Annotated[tuple[tuple[str, str], ...], "request_headers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A running model version behind one or more URLs (its replicas)."""

    name: str
    urls: Some[Url] = field(metadata=described("Its replicas, instead of url.", default=None))
    version: Line = field(metadata=described("The model's version: what every statistic is kept by."))
    model: Line = field(metadata=described("The model's name; without it the backend's.", default=None))
    path: AbsolutePath | None = setting(None, "Replaces the client's path; without it that goes on unchanged.")
    reported_version: PointerText | None = setting(
        None, "JSON Pointer to the version that the backend itself reports in an answer."
    )
    client_errors: ClientErrors = setting(
        "pass",
        "What its 4xx answers are: pass, a class of their own; fail, failures as its 5xx are. Clients get both.",
    )
    timeout_ms: Positive = setting(30_000, "How long until the head of an answer.")
    connect_timeout_ms: Positive = setting(2_000, "How long until a connection is established.")
    idle_timeout_ms: Positive = setting(60_000, "How long between bytes of an answer; a stream has no total.")
    total_timeout_ms: Positive | None = setting(
        None, "How long until the end of an answer, waiting and retries included; without it, no total."
    )
    max_concurrency: Positive = setting(256, "Requests at a time per worker; one more waits.")
    max_waiting: Whole = setting(256, "Requests per worker that wait for a place; one more gets 503 at once.")
    wait_timeout_ms: Positive = setting(1_000, "How long they may wait before they get 503.")
    retries: Annotated[int, Bounds(0, 10)] = setting(
        1,
        "How often a failed request is sent again, to another replica: where nothing was sent, or where the method "
        "is idempotent and no byte of an answer came.",
    )
    eject_after: Whole = setting(
        5, "Failures in a row, of connections or of answers (5xx), that take a replica out of use; 0: none do."
    )
    eject_ms: Positive = setting(10_000, "For how long the first time; the second time twice as long, and so on.")
    max_ejected_share: Share = setting(0.5, "The largest share of the replicas that failures may take out of use.")
    health_path: AbsolutePath | None = setting(
        None,
        "The path on each replica's host of its health check, a GET; without it there are no health checks.",
    )
    health_interval_ms: Annotated[int, Bounds(100)] = setting(
        5_000, "How often each worker checks the health; at least 100."
    )
    health_timeout_ms: Positive = setting(1_000, "How long a health check may take until its 2xx, or it has failed.")
    unhealthy_after: Positive = setting(3, "Failed health checks in a row that take a replica out of use.")
    healthy_after: Positive = setting(2, "Successful health checks in a row that bring it back.")
    tls_ca_file: Text | None = setting(
        None, "The authorities (PEM) that https replicas' certificates must come from; without it the system's."
    )
    slot: Annotated[VersionSlot, "slot"] | None = setting(
        None,
        'Where its versions come from, as in { registry = "mlflow", model = "credit", alias = "challenger", '
        'url = "http://models:8000/{name}/{version}", hosts = ["models"] }: one that gets the alias replaces url '
        "and version, until these are edited. Without a registry, POST /api/v1/backends/NAME/version says it.",
    )
    request_headers: RequestHeaders = setting(
        (), 'Headers added to each request. Secrets by reference: "${NAME}", "${file:PATH}".'
    )


def replica_name(url: str) -> str:
    """Return the name of a replica in logs and metrics: its URL without http:// or https://.

    >>> replica_name("http://10.0.0.7:9001/base"), replica_name("unix:/run/model.sock")
    ('10.0.0.7:9001/base', 'unix:/run/model.sock')
    """
    return url.partition("://")[2] or url
