"""The tables of the operator's file: every key, what it may hold and what it means.

Rule: nouns; units in the name (``timeout_ms``) or as a quoted duration ("24h"); shares in [0, 1]; secrets only by
reference. What a key means is said here once, for editors (``router.schema``); its default is the field's of the value
that is made of it. The settings of a policy are the fields of its class and stand in its own file.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from policies.types import Policy
from router import scores
from router.config import spellings
from router.config.findings import quoted
from router.config.placeholders import placeholders
from router.config.tables import Setting, Table, many, mapping, some, spelled, table_of, table_of_fields
from router.extract import Pointer
from router.records import LARGEST
from router.scores import Better, Score
from router.snapshot import Backend, Capture, ClientErrors, EventType, Gateway, KeyRule, Route, RouteMirror, Sink
from router.unit import TOKEN, reference

#: Framing and hop-by-hop: the gateway's own business on each connection.
_OWN_HEADERS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def _token(text: str) -> str:
    if not TOKEN.fullmatch(text):
        raise ValueError("must be the name of a header: letters, digits and -")
    return text.lower()


def _request_header(text: str) -> str:
    name = _token(text)
    if name in _OWN_HEADERS:
        raise ValueError("must not be a header that belongs to the connection")
    return name


def _event_header(text: str) -> str:
    name = _request_header(text)
    if name == "content-type" or name.startswith("ce-"):
        raise ValueError("must not be a header that says what an event is")
    return name


def _each_once(given: object) -> object:
    if isinstance(given, dict):
        first: dict[str, str] = {}
        for name in given:
            if first.setdefault(name.lower(), name) != name:
                raise ValueError(f"must name a header once, and {quoted(first[name.lower()])} is {quoted(name)}")
    return given


def _line(text: str) -> str:
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError("must be one line of text, without spaces at its ends")
    return text


def _header_value(text: str) -> str:
    if not text.isascii():
        raise ValueError("must be ASCII, as the value of a header")
    return _line(text)


def _sent_value(text: str) -> str:
    placeholders(text)
    return _header_value(text)


def _store(text: str) -> str:
    if text != "sqlite" and not text.startswith(("postgresql://", "postgres://")):
        raise ValueError('must be "sqlite" or a URL that begins with "postgresql://"')
    userinfo, at, _ = text.partition("://")[2].rpartition("@")
    if (at and ":" in userinfo) or "password=" in text:
        raise ValueError("must not hold the password; put it into a file and name that in store_password_file")
    return text


def _share(given: float) -> float:
    if not 0 <= given <= 1:
        raise ValueError("must lie in [0, 1]")
    return given


def _missing(given: object) -> object:
    if given == "exclude":
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not abs(given) < float("inf"):
        raise ValueError('must be "exclude" or a finite number')
    if abs(given) > LARGEST:
        raise ValueError(f'must be "exclude" or lie in [{-LARGEST:g}, {LARGEST:g}], as every value does')
    return float(given)


def _bounds(given: object) -> object:
    if isinstance(given, tuple) and len(given) == 2:
        low, high = given
        if all(isinstance(end, int | float) and not isinstance(end, bool) for end in given) and low < high:
            if max(abs(low), abs(high)) > LARGEST:
                raise ValueError(f"must lie in [{-LARGEST:g}, {LARGEST:g}], as every value does")
            return given
    raise ValueError("must be two numbers, [low, high], the lower one first")


Text = Annotated[str, Field(min_length=1)]
Line = spelled(_line)
Positive = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, AfterValidator(_share), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
Duration = spelled(spellings.duration_ms, spellings.DURATION)
Address = spelled(spellings.address, keep=True)
PointerText = spelled(Pointer, "(/.*)?", keep=True)
ReferenceText = spelled(reference, "(header|cookie|query|body):.*", keep=True)
Methods = some(spelled(spellings.method, spellings.METHOD))
Features: Any = Annotated[
    Annotated[many(ReferenceText), Tag("[list]")] | Annotated[mapping(Text, ReferenceText), Tag("[table]")],
    Discriminator(lambda given: "[list]" if isinstance(given, tuple) else "[table]"),
]
Missing = Annotated[
    float | None, BeforeValidator(_missing), WithJsonSchema({"oneOf": [{"const": "exclude"}, {"type": "number"}]})
]
Range = Annotated[tuple[float, float], BeforeValidator(_bounds)]


GATEWAY: Final = table_of(
    Gateway,
    {
        "listen": Setting(Address, 'Where requests come in, "host:port".'),
        "admin": Setting(Address, 'Where operators, Prometheus and the console come in, "host:port".'),
        "workers": Setting(Annotated[int, Field(ge=1, le=100)], "Processes that carry traffic."),
        "data_dir": Setting(Text, "The folder of the journal, the snapshot and the SQLite store."),
        "store": Setting(
            spelled(_store),
            '"sqlite", or the URL of a PostgreSQL database without its password: nodes with the same one are a fleet.',
            secret=True,
        ),
        "store_password_file": Setting(Text, "A file with the password of the database."),
        "admin_token_file": Setting(
            Text,
            "A file with tokens, one a line and each valid, that the admin port asks for. It is read again when it "
            "changes, as every file of tokens and certificates is.",
        ),
        "admin_read_token_file": Setting(Text, "A file with tokens that read on the admin port and change nothing."),
        "admin_open": Setting(
            bool, "Whether an admin port that other machines reach is served without a token; if not, it is refused."
        ),
        "metrics_open": Setting(bool, "Whether /metrics on the admin port needs no token."),
        "admin_tls_cert_file": Setting(Text, "The certificate chain (PEM) with which the admin port speaks TLS."),
        "admin_tls_key_file": Setting(Text, "The certificate's private key (PEM)."),
        "feedback_token_file": Setting(
            Text, "A file with tokens, one a line, of which feedback must carry one; without it, it is open."
        ),
        "feedback_origins": Setting(
            many(spelled(spellings.origin)),
            'The sites whose pages may send feedback, as in ["https://shop.example"]; pages of others get 403.',
        ),
        "force_token_file": Setting(
            Text, "A file with tokens, one a line, that let a client force a variant on any route."
        ),
        "unit_key_file": Setting(
            Text,
            "A file with keys, one a line: units are logged and stored as keyed hashes under the first; what is stored "
            "under the others is still found to be erased.",
        ),
        "assignment_key_file": Setting(
            Text,
            "A file with the key that assignment is hashed with, so that no client can tell beforehand which variant "
            "it will meet. Without it the key is made once and kept in data_dir, or in PostgreSQL for all of a fleet.",
        ),
        "tls_cert_file": Setting(Text, "The certificate chain (PEM) with which listen speaks TLS."),
        "tls_key_file": Setting(Text, "The certificate's private key (PEM)."),
        "tls_client_ca_file": Setting(Text, "The authorities (PEM) that a client's certificate must come from."),
        "trusted_proxies": Setting(
            many(spelled(spellings.network, keep=True)),
            "Addresses and networks of the proxies in front of listen: what they say in X-Forwarded-For, -Proto and "
            "-Host is passed on; of others it is replaced.",
        ),
        "max_new_units_per_client": Setting(
            Whole,
            "New units per client address, minute and worker that are counted; requests of further ones are answered "
            "and logged, and no number of a report knows them. Without it 600 where trusted_proxies says whose "
            "addresses are clients', else no bound; given, it holds for who connects directly too; 0 is no bound.",
        ),
        "max_header_bytes": Setting(
            Annotated[int, Field(ge=1_024)], "Largest head of a request; a larger one gets 431."
        ),
        "max_headers": Setting(Positive, "Most header fields of a request; one more gets 431."),
        "underscores_in_headers": Setting(
            bool,
            "Whether request fields with an underscore in their name pass; if not they are dropped and counted. Those "
            "that imitate framing or what a gateway says (X_Forwarded_For) never pass.",
        ),
        "max_target_bytes": Setting(
            Annotated[int, Field(ge=256)],
            "Longest request target, path and query; a longer one gets 414. At most max_header_bytes.",
        ),
        "max_body_bytes": Setting(Positive, "Largest body of a request; a larger one gets 413."),
        "max_parsed_body_bytes": Setting(
            Positive,
            "Largest body that is read for a route's unit, key or features; a larger one gets 413 there. While one is "
            "read the worker does nothing else: some 40 ms for each MiB at worst.",
        ),
        "max_connections": Setting(
            Positive, "Open connections per worker, as far as there are descriptors for them; one more gets 503."
        ),
        "admission": Setting(
            Literal["adaptive", "fixed", "off"],
            "Who is turned away with 503: adaptive, whom a worker that cannot keep up cannot carry, and beyond "
            "max_in_flight; fixed, beyond max_in_flight; off, nobody.",
        ),
        "max_in_flight": Setting(Positive, "Requests under way per worker; one more gets 503."),
        "header_timeout_ms": Setting(Positive, "How long a client may take for the head of a request."),
        "body_timeout_ms": Setting(Positive, "How long a client may pause between bytes of a body."),
        "min_body_bytes_per_second": Setting(
            Annotated[int, Field(ge=0)],
            "How fast a body must come on the whole, after body_timeout_ms; 0 lets it drip for ever.",
        ),
        "min_read_bytes_per_second": Setting(
            Annotated[int, Field(ge=0)],
            "How fast a client must take its answer, in each body_timeout_ms; a slower one is cut. 0: some byte.",
        ),
        "max_buffer_bytes": Setting(
            Annotated[int, Field(ge=2**20)],
            "Memory per worker for what clients are slow to send or to take, beyond 64 KiB of each; at least 1 MiB. "
            "Without it a body that has to be whole gets 503, and a backend waits for who reads its answer.",
        ),
        "keepalive_timeout_ms": Setting(Positive, "How long a connection may stay idle between requests."),
        "drain_timeout_ms": Setting(
            Annotated[int, Field(ge=0)], "How long requests may take to finish when serving ends."
        ),
        "mirror_max_concurrency": Setting(
            Annotated[int, Field(ge=0)], "Copies under way per worker; one more is dropped and counted."
        ),
        "mirror_max_body_bytes": Setting(
            Annotated[int, Field(ge=0)], "Largest body that is copied; a request with a larger one is not."
        ),
        "mirror_timeout_ms": Setting(Positive, "How long a copy may take in all, its answer included."),
        "max_journal_bytes": Setting(
            Annotated[int, Field(ge=2**20)], "Largest journal that has not been recorded yet; at least 1 MiB."
        ),
        "max_feedback_journal_bytes": Setting(
            Annotated[int, Field(ge=2**20)],
            "Largest part of the journal that is feedback, beside max_journal_bytes: beyond it feedback gets 503.",
        ),
        "max_feedback_per_second": Setting(
            Annotated[int, Field(ge=0)],
            "Feedback events a second that a worker takes, over ten seconds; beyond it feedback gets 429. 0: no bound.",
        ),
        "max_feedback_per_second_per_client": Setting(
            Annotated[int, Field(ge=0)],
            "The same of one client, by its address (behind trusted_proxies, the one that they name).",
        ),
        "journal_full": Setting(
            Literal["shed", "refuse"], "When it is reached: answer without logging, and count; or refuse with 503."
        ),
        "journal_fsync_ms": Setting(Positive, "How often predictions are forced to disk."),
        "prediction_retention": Setting(
            Duration,
            "How long predictions are kept, and with them the feedback about them; without it, for ever. At least the "
            "longest window, with window_before. Tallies stay, unless tally_retention says how long.",
        ),
        "feedback_retention": Setting(Duration, "How long feedback is kept that found no prediction, or was a repeat."),
        "max_orphans": Setting(
            Positive, "Most events that are kept without their prediction; beyond it the oldest go, and are counted."
        ),
        "body_retention": Setting(
            Duration, "How long captured bodies are kept; without it, as long as their predictions."
        ),
        "tally_retention": Setting(
            Duration,
            "How long after it was left what is counted of an epoch is kept, with its plans; without it, for ever. At "
            "least prediction_retention.",
        ),
        "tracing": Setting(
            bool,
            "Whether requests and calls leave OpenTelemetry spans; OTEL_ environment variables say where they go. "
            "Needs the extra of that name.",
        ),
    },
    "The process itself. Relative files are looked for in the directory it is started in.",
)

BACKEND: Final = table_of(
    Backend,
    {
        "url": Setting(
            spelled(spellings.backend_url),
            'Where it is, http or https, perhaps with a base path; or a socket, "unix:/run/model.sock" or '
            '"unix:/run/model.sock:/base".',
            None,
        ),
        "urls": Setting(some(spelled(spellings.backend_url)), "Its replicas, instead of url.", None),
        "path": Setting(
            spelled(spellings.absolute_path), "Replaces the client's path; without it that goes on unchanged."
        ),
        "model": Setting(Line, "The model's name; without it the backend's.", None),
        "version": Setting(Line, "The model's version: what every statistic is kept by."),
        "reported_version": Setting(
            PointerText, "JSON Pointer to the version that the backend itself reports in an answer."
        ),
        "client_errors": Setting(
            ClientErrors,
            "What its 4xx are: pass, a class of their own; fail, failures of it as its 5xx are. Clients get them all.",
        ),
        "timeout_ms": Setting(Positive, "How long until the head of an answer."),
        "connect_timeout_ms": Setting(Positive, "How long until a connection stands."),
        "idle_timeout_ms": Setting(Positive, "How long between bytes of an answer; a stream has no total."),
        "total_timeout_ms": Setting(
            Positive, "How long until the end of an answer, waiting and retries included; without it, no total."
        ),
        "max_concurrency": Setting(Positive, "Requests at a time per worker; one more waits."),
        "max_waiting": Setting(Whole, "Requests per worker that wait for a place; one more gets 503 at once."),
        "wait_timeout_ms": Setting(Positive, "How long they may wait before they get 503."),
        "retries": Setting(
            Annotated[int, Field(ge=0, le=10)],
            "How often a failed request is sent again, to another replica: where nothing was sent, or where the method "
            "is idempotent and no byte of an answer came.",
        ),
        "eject_after": Setting(
            Whole, "Failures in a row, of connections or of answers (5xx), that take a replica out of use; 0: none do."
        ),
        "eject_ms": Setting(Positive, "For how long the first time; the second time twice as long, and so on."),
        "max_ejected_share": Setting(Share, "The largest share of the replicas that failures may take out of use."),
        "health_path": Setting(
            spelled(spellings.absolute_path),
            "The path, on each replica's host, that is asked with GET whether it is well; without it nothing is asked.",
        ),
        "health_interval_ms": Setting(Annotated[int, Field(ge=100)], "How often each worker asks; at least 100."),
        "health_timeout_ms": Setting(Positive, "How long until a 2xx is there, or it is not well."),
        "unhealthy_after": Setting(Positive, "Failed questions in a row that take a replica out of use."),
        "healthy_after": Setting(Positive, "Good answers in a row that bring it back."),
        "tls_ca_file": Setting(
            Text, "The authorities (PEM) that https replicas' certificates must come from; without it the system's."
        ),
        "request_headers": Setting(
            Annotated[mapping(spelled(_request_header), spelled(_sent_value)), BeforeValidator(_each_once)],
            'Headers added to each request. Secrets by reference: "${NAME}", "${file:PATH}".',
            {},
        ),
    },
    "A running model version.",
)


def metric_table() -> Table:
    """Return the table of a metric, with the scores of ``SCORES``."""
    return _metric_table(scores.SCORES)


@cache
def _metric_table(known: tuple[Score, ...]) -> Table:
    each = " ".join(f"{score.name}: {_summary(type(score))}" for score in known)
    lower = " and ".join(score.name for score in known if score.better == "lower")
    return Table(
        {
            "kind": Setting(
                Literal["event", "value", "label"],
                "event: it happened or not, 0 or 1. value: a number. label: the truth, scored against the prediction.",
            ),
            "score": Setting(
                Literal[tuple(score.name for score in known)],
                f'How a label scores a prediction. {each} Default "{known[0].name}".',
                None,
            ),
            "better": Setting(Better, f'Which direction is good. Default "higher", for {lower} "lower".', None),
            "window": Setting(
                Duration,
                "How long after its prediction feedback still counts.",
                spellings.duration_ms("24h"),
                written="24h",
            ),
            "window_before": Setting(
                Duration,
                "How long before its prediction feedback may have happened. Without it, any time where it names the "
                "prediction's id (clocks differ), and never where it is looked up by key.",
                None,
            ),
            "mature": Setting(
                Literal["window", "arrival"],
                "When a value may be learned from: when its window has closed or, where the delay cannot depend on the "
                "outcome, on arrival.",
                "window",
            ),
            "missing": Setting(
                Missing, 'What a window that closes empty counts as: a number, or "exclude".', None, written="exclude"
            ),
            "fold": Setting(
                Literal["any", "first", "last", "sum", "mean", "max"],
                'How several events of one prediction become one value. Default "any" for events, else "last".',
                None,
            ),
            "range": Setting(Range, "The lowest and the highest value there is: makes intervals exact.", None),
        },
        "What feedback means.",
    )


MIRROR: Final = table_of(
    RouteMirror,
    {
        "variant": Setting(Text, "The backend that gets copies and whose answers are thrown away."),
        "share": Setting(Share, "The share of requests that is copied, by unit when there is one.", 1.0),
        "methods": Setting(Methods, "Methods that may be sent twice; without it, every one."),
    },
    "A backend that gets copies of a route's requests.",
)

CAPTURE: Final = table_of(
    Capture,
    {
        "share": Setting(Share, "The share of requests of which bodies are kept."),
        "max_bytes": Setting(Annotated[int, Field(ge=1, le=2**20)], "A longer body is not kept; at most 1 MiB."),
        "request": Setting(many(PointerText), 'JSON Pointers to what is kept of a request; "" is all of it.'),
        "answer": Setting(many(PointerText), "JSON Pointers to what is kept of an answer."),
        "redact": Setting(many(PointerText), "JSON Pointers to what is replaced in requests and answers before."),
    },
    "What is kept of requests and answers, beside what is logged of every one.",
)

ROUTE: Final = table_of(
    Route,
    {
        "path": Setting(spelled(spellings.route_path), 'An exact path, or a prefix that ends in "/*".'),
        "strip_prefix": Setting(
            spelled(spellings.prefix),
            "What the path begins with here and not at the backends: it is cut off before a request goes on.",
        ),
        "methods": Setting(Methods, "Methods that it takes; without it, every one."),
        "headers": Setting(
            Annotated[mapping(spelled(_token), spelled(_header_value)), BeforeValidator(_each_once)],
            "Headers that a request must carry, with their values.",
            {},
        ),
        "unit": Setting(
            ReferenceText, "Who is randomised: header:NAME, cookie:NAME, query:NAME or body:/json/pointer."
        ),
        "key": Setting(ReferenceText, "A key of the caller's own by which feedback may name the request."),
        "key_rule": Setting(
            KeyRule,
            "Which of several predictions with the key feedback is about: latest, the last one before it; first, the "
            "first one; all of them. Where there is none before it, the first after it within window_before.",
        ),
        "features": Setting(
            Features, "Values logged with each prediction: a table of references by name, or a list of them.", {}
        ),
        "prediction": Setting(PointerText, "JSON Pointer to the prediction in an answer; labels need it."),
        "metrics": Setting(many(Text), "The metrics that apply here."),
        "primary_metric": Setting(Text, "The metric of the verdict; without it the first."),
        "baseline": Setting(Text, "The variant that the others are compared with; without it the policy's own.", None),
        "mirrors": Setting(
            tuple[Any, ...],
            "Backends that get copies of this route's requests. Saying so is saying that they may be sent twice.",
        ),
        "fallback": Setting(Text, "The backend that answers when the chosen variant fails."),
        "expose_variant": Setting(bool, "Whether answers name their variant in a turnout-variant header."),
        "require_exposure": Setting(
            bool, 'Whether a prediction counts only once an event of the metric "exposed" says that somebody met it.'
        ),
        "allow_force": Setting(bool, "Whether any client may choose the variant with turnout-force-variant."),
        "capture": Setting(dict[str, Any], "What is kept of bodies; without it, nothing."),
        "policy": Setting(dict[str, Any], "Which variant answers."),
    },
    "What a path serves.",
)

SINK: Final = table_of(
    Sink,
    {
        "kind": Setting(
            Literal["cloudevents", "stdout"],
            "cloudevents: CloudEvents 1.0 over HTTP, to url. stdout: the same as JSON Lines, on standard output.",
        ),
        "url": Setting(spelled(spellings.sink_url), "Where CloudEvents are sent with POST, http or https.", None),
        "mode": Setting(
            Literal["batch", "structured", "binary"],
            "batch: many events in a request. structured: each in its own, as JSON. binary: each in its own, its "
            "attributes as headers.",
        ),
        "events": Setting(
            some(Literal[*get_args(EventType)]),
            "What is told: request, decision, response, feedback, outcome; and body, what a route captures, which has "
            "to be named.",
        ),
        "routes": Setting(some(Text), "The routes of which it is told; without it, every one."),
        "type_prefix": Setting(Line, "What an event's type begins with: with the default it is turnout.request."),
        "headers": Setting(
            Annotated[mapping(spelled(_event_header), spelled(_sent_value)), BeforeValidator(_each_once)],
            'Headers added to each request. Secrets by reference: "${NAME}", "${file:PATH}".',
            {},
        ),
        "timeout_ms": Setting(Positive, "How long a request may take in all, before it is sent again."),
        "max_pending_bytes": Setting(
            Annotated[int, Field(ge=2**20)],
            "Events that wait in the store at most, at least 1 MiB; beyond it new ones are dropped and counted.",
        ),
        "tls_ca_file": Setting(
            Text, "The authorities (PEM) that an https url's certificate must come from; without it the system's."
        ),
    },
    "Somebody who is told what is recorded, beside the store: at least once, and in order where many go in a request.",
)

#: What every policy may say besides its own settings.
COMMON: Final = {
    "salt": Setting(
        Text, "What is hashed with the unit; routes with one salt assign alike. Default: the route's name.", None
    )
}


@cache
def policy_table(policy: type[Policy]) -> Table:
    """Return the table of a policy: its kind, the fields of its class, and what every policy may say."""
    own = table_of_fields(policy, _summary(policy))
    kind = Setting(Literal[policy.kind], own.description)
    return Table({"kind": kind, **own.settings, **COMMON}, own.description)


def _summary(kind: type) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
