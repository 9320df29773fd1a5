"""Where events go besides the store: a table of the file's ``[sinks]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from router.settings.keys import Bounds, Line, Positive, Some, Text, described, setting

#: The events that a sink may get: what came in, what was chosen for it, the result of each call, what was learned
#: later, how that changed a value, how a verdict changed, and captured bodies.
EventType = Literal["request", "decision", "response", "feedback", "outcome", "verdict", "body"]

SinkUrl = Annotated[str, "sink_url"]
SinkHeaders = Annotated[tuple[tuple[str, str], ...], "sink_headers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """A receiver of recorded events besides the store. Only the controller uses it.

    An empty ``routes`` means every route. ``mode`` is that of CloudEvents over HTTP: many events in one request, or
    each in its own, as JSON or with its attributes as headers.
    """

    name: str
    kind: Literal["cloudevents", "stdout"] = field(
        metadata=described(
            "cloudevents: CloudEvents 1.0 over HTTP, to url. stdout: the same as JSON Lines, on standard output."
        )
    )
    url: SinkUrl | None = setting(None, "Where CloudEvents are sent with POST, http or https.")
    mode: Literal["batch", "structured", "binary"] = setting(
        "batch",
        "batch: many events in a request. structured: each in its own, as JSON. binary: each in its own, its "
        "attributes as headers.",
    )
    events: Some[EventType] = setting(
        ("request", "decision", "response", "feedback", "outcome", "verdict"),
        "The events that it gets: request, decision, response, feedback, outcome, verdict; and body, what a route "
        "captures, which has to be named.",
    )
    routes: Some[Text] = setting((), "The routes whose events it gets; without it, every one.")
    type_prefix: Line = setting("turnout.", "What an event's type begins with: with the default it is turnout.request.")
    headers: SinkHeaders = setting(
        (), 'Headers added to each request. Secrets by reference: "${NAME}", "${file:PATH}".'
    )
    timeout_ms: Positive = setting(10_000, "How long a request may take in all, before it is sent again.")
    max_pending_bytes: Annotated[int, Bounds(2**20)] = setting(
        256 * 2**20,
        "Events that wait in the store at most, at least 1 MiB; beyond it new ones are dropped and counted.",
    )
    tls_ca_file: Text | None = setting(
        None, "The authorities (PEM) that an https url's certificate must come from; without it the system's."
    )
