"""Config + plans as one immutable value: what the controller publishes and every worker routes by.

Rule: plain frozen values, no behaviour beyond encoding. Secrets never enter: ``request_headers`` keeps its
references unresolved (``router.placeholders``) and tokens stay in the files that ``Gateway`` names; a worker resolves
both when it swaps. Of the assignment key there is what it makes of each salt (``router.assignment``), and its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Any, Final, Literal

import orjson

from policies.plans import decode_plan, encode_plan
from policies.types import Plan
from router.scores import Better, Score, score_of, scored_01

FORMAT = 1

#: Which of the predictions that share a key an event is about.
KeyRule = Literal["latest", "first", "all"]

#: What a backend's answers of 4xx are: a class of their own, or its failures.
ClientErrors = Literal["pass", "fail"]

#: What a sink is told of: what came in, what was chosen for it, what came of each call, what was learned later, how
#: that changed a value, and what was captured of bodies.
EventType = Literal["request", "decision", "response", "feedback", "outcome", "body"]


#: New units of one client that are counted within a minute, where nothing else is said and its address is known.
NEW_UNITS: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The settings of the process: the file's ``[gateway]`` table, read as in the operator's file."""

    listen: str = "127.0.0.1:8080"
    admin: str = "127.0.0.1:9090"
    workers: int = 1
    data_dir: str = "data"
    store: str = "sqlite"
    store_password_file: str | None = None
    admin_token_file: str | None = None
    admin_read_token_file: str | None = None
    admin_open: bool = False
    metrics_open: bool = False
    admin_tls_cert_file: str | None = None
    admin_tls_key_file: str | None = None
    feedback_token_file: str | None = None
    feedback_origins: tuple[str, ...] = ()
    force_token_file: str | None = None
    unit_key_file: str | None = None
    assignment_key_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_client_ca_file: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    max_new_units_per_client: int | None = None  # None: NEW_UNITS where proxies tell clients' addresses, else no bound
    max_header_bytes: int = 65_536
    max_headers: int = 128
    underscores_in_headers: bool = False
    max_target_bytes: int = 8_192
    max_body_bytes: int = 10_485_760
    max_parsed_body_bytes: int = 524_288
    max_connections: int = 10_000
    admission: Literal["adaptive", "fixed", "off"] = "adaptive"
    max_in_flight: int = 10_000
    header_timeout_ms: int = 10_000
    body_timeout_ms: int = 30_000
    min_body_bytes_per_second: int = 500
    min_read_bytes_per_second: int = 500
    max_buffer_bytes: int = 64 * 2**20
    keepalive_timeout_ms: int = 75_000
    drain_timeout_ms: int = 30_000
    mirror_max_concurrency: int = 128
    mirror_max_body_bytes: int = 1_048_576
    mirror_timeout_ms: int = 60_000
    max_journal_bytes: int = 10 * 2**30
    max_feedback_journal_bytes: int = 2 * 2**30
    max_feedback_per_second: int = 10_000
    max_feedback_per_second_per_client: int = 2_000
    journal_full: Literal["shed", "refuse"] = "shed"
    journal_fsync_ms: int = 500
    prediction_retention: int | None = None  # milliseconds; None: for ever
    feedback_retention: int | None = 90 * 86_400_000
    max_orphans: int = 1_000_000
    body_retention: int | None = None
    tally_retention: int | None = None
    tracing: bool = False

    @property
    def new_units_bound(self) -> int:
        """How many new units of one client are counted within a minute; 0: all."""
        if self.max_new_units_per_client is None:
            return NEW_UNITS if self.trusted_proxies else 0
        return self.max_new_units_per_client


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A running model version behind one or more URLs (its replicas)."""

    name: str
    urls: tuple[str, ...]
    version: str
    model: str
    path: str | None = None
    reported_version: str | None = None
    client_errors: ClientErrors = "pass"
    timeout_ms: int = 30_000
    connect_timeout_ms: int = 2_000
    idle_timeout_ms: int = 60_000
    total_timeout_ms: int | None = None
    max_concurrency: int = 256
    max_waiting: int = 256
    wait_timeout_ms: int = 1_000
    retries: int = 1
    eject_after: int = 5
    eject_ms: int = 10_000
    max_ejected_share: float = 0.5
    health_path: str | None = None
    health_interval_ms: int = 5_000
    health_timeout_ms: int = 1_000
    unhealthy_after: int = 3
    healthy_after: int = 2
    tls_ca_file: str | None = None
    request_headers: tuple[tuple[str, str], ...] = ()


class _Scored:
    """The one thing about a metric that is no field of it, since it follows from them and is not encoded."""

    __slots__ = ("scorer",)

    #: The score itself, looked up once; None unless the metric's kind is "label".
    scorer: Score | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(_Scored):
    """What feedback means. ``definition`` is the hash of every field that changes a number, the name included.

    ``before_ms`` is how long before its prediction an event may have happened; None leaves it to who names the
    prediction: by its id, at any time before (clocks differ), by a key, never.
    """

    name: str
    kind: Literal["event", "value", "label"]
    score: str | None
    better: Better
    window_ms: int
    mature: Literal["window", "arrival"]
    missing: float | None
    fold: Literal["any", "first", "last", "sum", "mean", "max"]
    range: tuple[float, float] | None
    definition: str
    before_ms: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if there is no such score."""
        object.__setattr__(self, "scorer", score_of(self.kind, self.score))

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval every value lies in, when known: [0, 1] where all are 0 or 1, ``range``, or the score's own."""
        if self.binary:
            return 0.0, 1.0
        if self.range is None and self.scorer is not None and all(map(isfinite, self.scorer.bounds)):
            return self.scorer.bounds
        return self.range

    @property
    def binary(self) -> bool:
        """True when every value is 0 or 1."""
        return scored_01(self.kind, self.scorer)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMirror:
    """A mirror declared on a route; an empty ``methods`` means every method."""

    variant: str
    share: float
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What is kept of bodies: of a share of the requests, the fields that ``request`` and ``answer`` point at.

    ``redact`` points at what is replaced in either before. A body that is longer than ``max_bytes`` is not kept.
    """

    share: float = 1.0
    max_bytes: int = 16_384
    request: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    redact: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What a path serves, with the plan in force.

    ``unit``, ``key`` and the values of ``features`` are references as written in the file ("header:x-user-id",
    "body:/user/id"). ``variants`` are the policy's, mirrors of the route's own not included. ``epoch`` is the hash
    within which statistics may be added up, ``period`` the Unix time in milliseconds at which the present shares were
    set, ``revision`` the snapshot revision at which ``plan`` last changed. ``by_unit`` says that units, not requests,
    are what is counted. ``settings`` is the hash of the policy's own settings: when it changes, the period ends.
    ``salt`` is what chance is drawn with: what the assignment key makes of the file's, or that itself without a key.
    """

    name: str
    path: str
    policy: str
    salt: str
    epoch: str
    period: int
    revision: int
    plan: Plan
    variants: tuple[str, ...]
    baseline: str
    by_unit: bool
    methods: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    unit: str | None = None
    key: str | None = None
    key_rule: KeyRule = "latest"
    features: tuple[tuple[str, str], ...] = ()
    prediction: str | None = None
    metrics: tuple[str, ...] = ()
    primary_metric: str | None = None
    mirrors: tuple[RouteMirror, ...] = ()
    fallback: str | None = None
    strip_prefix: str | None = None
    expose_variant: bool = False
    require_exposure: bool = False
    allow_force: bool = False
    capture: Capture | None = None
    settings: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """Somebody who is told what is recorded, beside the store; the controller's business alone.

    An empty ``routes`` means every route. ``mode`` is that of CloudEvents over HTTP: many events in one request, or
    each in its own, as JSON or with its attributes as headers.
    """

    name: str
    kind: Literal["cloudevents", "stdout"]
    url: str | None = None
    mode: Literal["batch", "structured", "binary"] = "batch"
    events: tuple[EventType, ...] = ("request", "decision", "response", "feedback", "outcome")
    routes: tuple[str, ...] = ()
    type_prefix: str = "turnout."
    headers: tuple[tuple[str, str], ...] = ()
    timeout_ms: int = 10_000
    max_pending_bytes: int = 256 * 2**20
    tls_ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One revision of everything a worker needs, and of what the controller goes on with when the file is spoilt.

    ``config`` is the hash of the operator's file, as parsed, and ``assignment`` the name of the assignment key ("":
    none). Plans aside, the two make all of it.
    """

    revision: int
    config: str
    gateway: Gateway = field(default_factory=Gateway)
    backends: Mapping[str, Backend] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    sinks: Mapping[str, Sink] = field(default_factory=dict)
    assignment: str = ""

    @property
    def source(self) -> tuple[str, str]:
        """What the snapshot was made of, plans aside: two with the same differ in their plans alone."""
        return self.config, self.assignment


def encode(snapshot: Snapshot) -> bytes:
    """Return the snapshot as JSON; ``decode`` is the inverse."""
    return orjson.dumps(
        {
            "format": FORMAT,
            "revision": snapshot.revision,
            "config": snapshot.config,
            "assignment": snapshot.assignment,
            "gateway": asdict(snapshot.gateway),
            "backends": [asdict(backend) for backend in snapshot.backends.values()],
            "metrics": [asdict(metric) for metric in snapshot.metrics.values()],
            "routes": [_encode_route(route) for route in snapshot.routes.values()],
            "sinks": [asdict(sink) for sink in snapshot.sinks.values()],
        },
        option=orjson.OPT_INDENT_2,
    )


#: What a snapshot said of each route, and the route that was made of it.
Known = dict[str, tuple[dict[str, Any], Route]]


def decode(data: bytes, known: Known | None = None) -> Snapshot:
    """Return the snapshot that ``encode`` wrote.

    ``known`` is what the one before said, and becomes what this one says: routes that say the same are not made anew.
    A bandit's plan moves one of perhaps hundreds every second, and who reads it answers requests meanwhile.

    Raises ValueError if the bytes are not JSON, or were written by another format of this program.
    """
    try:
        value = orjson.loads(data)
        if value["format"] != FORMAT:
            raise ValueError(f"snapshot format {value['format']} is not {FORMAT}")
        return Snapshot(
            revision=value["revision"],
            config=value["config"],
            gateway=Gateway(**_tuples(value["gateway"])),
            backends={b["name"]: Backend(**_tuples(b)) for b in value["backends"]},
            metrics={m["name"]: Metric(**_tuples(m)) for m in value["metrics"]},
            routes=_decode_routes(value["routes"], {} if known is None else known),
            sinks={s["name"]: Sink(**_tuples(s)) for s in value.get("sinks", ())},
            assignment=value.get("assignment", ""),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a snapshot: {error!r}") from error


def _encode_route(route: Route) -> dict[str, Any]:
    value = {f.name: getattr(route, f.name) for f in fields(route)}
    value["plan"] = encode_plan(route.plan)
    value["mirrors"] = [asdict(mirror) for mirror in route.mirrors]
    value["capture"] = None if route.capture is None else asdict(route.capture)
    return value


def _decode_routes(said: list[dict[str, Any]], known: Known) -> dict[str, Route]:
    fresh: Known = {}
    for value in said:
        before = known.get(value["name"])
        fresh[value["name"]] = before if before is not None and before[0] == value else (value, _decode_route(value))
    known.clear()
    known.update(fresh)
    return {name: route for name, (_, route) in fresh.items()}


def _decode_route(said: Mapping[str, Any]) -> Route:
    value = dict(said)
    plan = decode_plan(value.pop("plan"))
    mirrors = tuple(RouteMirror(**_tuples(mirror)) for mirror in value.pop("mirrors"))
    captured = value.pop("capture", None)
    capture = None if captured is None else Capture(**_tuples(captured))
    return Route(**_tuples(value), plan=plan, mirrors=mirrors, capture=capture)


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    """JSON arrays back to tuples, one level of nesting deep."""
    return {name: _tuple(content) if isinstance(content, list) else content for name, content in value.items()}


def _tuple(items: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(item) if isinstance(item, list) else item for item in items)
