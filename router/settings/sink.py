"""Where events go besides the store: a table of the file's ``[sinks]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from router.settings.keys import Bounds, Line, Positive, Some, Text, described, setting

#: The events that a sink may get: what came in, what was chosen for it, the result of each call, what was learned
#: later, how that changed a value, how a verdict changed, captured bodies; how a rollout moved, what a person or a
#: program did, and that a trigger fired.
EventType = Literal[
    "request", "decision", "response", "feedback", "outcome", "verdict", "body", "rollout", "act", "trigger"
]

#: What a sink gets that names no kinds of events; a webhook then gets only what triggers send it by its name.
DEFAULT_EVENTS: Final[tuple[EventType, ...]] = (
    *("request", "decision", "response", "feedback", "outcome", "verdict"),
    *("rollout", "act", "trigger"),
)

#: The kinds that a webhook may get: those of which there are few, since each is sent in a request of its own.
WEBHOOK_EVENTS: Final[tuple[EventType, ...]] = ("verdict", "rollout", "act", "trigger")

SinkUrl = Annotated[str, "sink_url"]
SinkHeaders = Annotated[tuple[tuple[str, str], ...], "sink_headers"]
SecretText = Annotated[str, "secret"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """A receiver of recorded events besides the store. Only the controller uses it.

    An empty ``routes`` means every route. ``mode`` is that of CloudEvents over HTTP: many events in one request, or
    each in its own, as JSON or with its attributes as headers. ``pages`` is where the links in its events begin.
    """

    name: str
    kind: Literal["cloudevents", "stdout", "webhook"] = field(
        metadata=described(
            "cloudevents: CloudEvents 1.0 over HTTP, to url. stdout: the same as JSON Lines, on standard output. "
            "webhook: each event in a request of its own, signed, as Standard Webhooks says."
        )
    )
    url: SinkUrl | None = setting(None, "Where events are sent with POST, http or https.")
    mode: Literal["batch", "structured", "binary"] = setting(
        "batch",
        "batch: many events in a request. structured: each in its own, as JSON. binary: each in its own, its "
        "attributes as headers.",
    )
    events: Some[EventType] = setting(
        (),
        "The events that it gets: request, decision, response, feedback, outcome, verdict, rollout, act, trigger; and "
        "body, what a route captures, which has to be named. Without it, all others. A webhook may get verdict, "
        "rollout, act and trigger, and without it gets only what triggers send to it.",
    )
    routes: Some[Text] = setting((), "The routes whose events it gets; without it, every one.")
    type_prefix: Line = setting("turnout.", "What an event's type begins with: with the default it is turnout.request.")
    headers: SinkHeaders = setting(
        (), 'Headers added to each request. Secrets by reference: "${NAME}", "${file:PATH}".'
    )
    secret: SecretText | None = setting(
        None,
        'What a webhook is signed with, by reference: "${NAME}" or "${file:PATH}", each line of which is "whsec_" and '
        "24 to 64 bytes in base64. It is signed with each, so that a receiver can change from one to the next.",
        secret=True,
    )
    allow_private: bool = setting(
        False,
        "Whether a webhook may go to addresses of this machine or of a private network; if not, they are refused.",
    )
    timeout_ms: Positive = setting(10_000, "How long a request may take in all, before it is sent again.")
    max_pending_bytes: Annotated[int, Bounds(2**20)] = setting(
        256 * 2**20,
        "Events that wait in the store at most, at least 1 MiB; beyond it new ones are dropped and counted.",
    )
    tls_ca_file: Text | None = setting(
        None, "The authorities (PEM) that an https url's certificate must come from; without it the system's."
    )
    pages: str = ""
