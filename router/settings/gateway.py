"""The settings of the process: the file's ``[gateway]`` table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from router.settings.keys import Bounds, Duration, Positive, Text, Whole, setting
from router.settings.tokens import Scope

Address = Annotated[str, "address"]
HeaderName = Annotated[str, "header_name"]
Network = Annotated[str, "network"]
Origin = Annotated[str, "origin"]
StoreAddress = Annotated[str, "store"]
TrustedUsers = Annotated[tuple[tuple[str, Scope], ...], "trusted_users"]

#: The default of max_new_units_per_client where clients' addresses are known: new units counted within a minute.
NEW_UNITS: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The settings of the process, by the names they have in the file."""

    listen: Address = setting("127.0.0.1:8080", 'Where requests come in, "host:port".', restart=True, own=True)
    admin: Address = setting(
        "127.0.0.1:9090", 'Where operators, Prometheus and the console come in, "host:port".', restart=True, own=True
    )
    workers: Annotated[int, Bounds(1, 100)] = setting(1, "Processes that carry traffic.", restart=True, own=True)
    data_dir: Text = setting(
        "data", "The folder of the journal, the snapshot and the SQLite store.", restart=True, own=True
    )
    store: StoreAddress = setting(
        "sqlite",
        '"sqlite", or the URL of a PostgreSQL database without its password: nodes with the same one are a fleet.',
        secret=True,
        restart=True,
        own=True,
    )
    store_password_file: Text | None = setting(None, "A file with the password of the database.", restart=True)
    admin_token_file: Text | None = setting(
        None,
        "A file with tokens, one a line and each valid, that the admin port asks for. It is read again when it "
        "changes, as every file of tokens and certificates is.",
    )
    admin_read_token_file: Text | None = setting(
        None, "A file with tokens that read on the admin port and change nothing."
    )
    admin_token_required: bool = setting(
        False,
        "Whether the admin port asks for a token though there is no admin_token_file: one that `turnout token create` "
        "made.",
    )
    trusted_user_header: HeaderName | None = setting(
        None,
        "The header in which an authenticating proxy, one of trusted_proxies, names the user of the admin port, as in "
        '"X-Forwarded-User". From any other address it is ignored and counted.',
    )
    trusted_users: TrustedUsers = setting(
        (),
        'What each of these users may do: "read", "operate" or "admin"; "*" is every other user. Without an entry: '
        "nothing.",
    )
    admin_open: bool = setting(
        False,
        "Whether an admin port that other machines reach is served without a token; if not, it is refused.",
        own=True,
    )
    metrics_open: bool = setting(False, "Whether /metrics on the admin port needs no token.", own=True)
    admin_url: Origin | None = setting(
        None,
        'Where people reach the admin port, as in "https://turnout.example", for links in events; without it, admin.',
    )
    admin_tls_cert_file: Text | None = setting(
        None, "The certificate chain (PEM) with which the admin port speaks TLS.", restart=True
    )
    admin_tls_key_file: Text | None = setting(None, "The certificate's private key (PEM).", restart=True)
    feedback_token_file: Text | None = setting(
        None, "A file with tokens, one a line, of which feedback must carry one; without it, it is open."
    )
    feedback_token_required: bool = setting(
        False,
        "Whether feedback must carry a token though there is no feedback_token_file: one of scope feedback that "
        "`turnout token create` made.",
    )
    registry_secret_file: Text | None = setting(
        None, "A file with secrets, one a line, with which a model registry signs the webhooks that fill slots."
    )
    feedback_origins: tuple[Origin, ...] = setting(
        (), 'The sites whose pages may send feedback, as in ["https://shop.example"]; pages of others get 403.'
    )
    force_token_file: Text | None = setting(
        None, "A file with tokens, one a line, that let a client force a variant on any route."
    )
    unit_key_file: Text | None = setting(
        None,
        "A file with keys, one a line: units are logged and stored as keyed hashes under the first; what is stored "
        "under the others is still found to be erased.",
    )
    assignment_key_file: Text | None = setting(
        None,
        "A file with the key that assignment is hashed with, so that no client can compute which variant it will get. "
        "Without it the key is made once and kept in data_dir, or in PostgreSQL for a whole fleet.",
    )
    tls_cert_file: Text | None = setting(
        None, "The certificate chain (PEM) with which listen speaks TLS.", restart=True
    )
    tls_key_file: Text | None = setting(None, "The certificate's private key (PEM).", restart=True)
    tls_client_ca_file: Text | None = setting(
        None, "The authorities (PEM) that a client's certificate must come from.", restart=True
    )
    trusted_proxies: tuple[Network, ...] = setting(
        (),
        "Addresses and networks of the proxies in front of listen. Their X-Forwarded-For, -Proto and -Host are passed "
        "on; those of other clients are replaced. On the admin port theirs alone is the trusted_user_header.",
    )
    # None: NEW_UNITS if trusted_proxies is set, else no bound.
    max_new_units_per_client: Whole | None = setting(
        None,
        "New units per client address, minute and worker that are counted. Requests of further units are answered "
        "and logged, and left out of every report. Without it, 600 if trusted_proxies is set, else no bound; given, "
        "it holds for clients that connect directly too; 0: no bound.",
    )
    max_header_bytes: Annotated[int, Bounds(1_024)] = setting(
        65_536, "Largest head of a request; a larger one gets 431."
    )
    max_headers: Positive = setting(128, "Most header fields of a request; one more gets 431.")
    underscores_in_headers: bool = setting(
        False,
        "Whether request fields with an underscore in their name pass; if not they are dropped and counted. Those "
        "that imitate framing or a field that gateways set (X_Forwarded_For) never pass.",
    )
    max_target_bytes: Annotated[int, Bounds(256)] = setting(
        8_192, "Longest request target, path and query; a longer one gets 414. At most max_header_bytes."
    )
    max_body_bytes: Positive = setting(10_485_760, "Largest body of a request; a larger one gets 413.")
    max_parsed_body_bytes: Positive = setting(
        524_288,
        "Largest body that is read for a route's unit, key or features; a larger one gets 413 there. While one is "
        "read the worker does nothing else: some 40 ms for each MiB at worst.",
    )
    max_connections: Positive = setting(
        10_000, "Open connections per worker, as far as there are descriptors for them; one more gets 503."
    )
    admission: Literal["adaptive", "fixed", "off"] = setting(
        "adaptive",
        "Which requests get 503: adaptive, those that a worker cannot keep up with, and those beyond max_in_flight; "
        "fixed, the latter alone; off, none.",
    )
    max_in_flight: Positive = setting(10_000, "Requests under way per worker; one more gets 503.")
    header_timeout_ms: Positive = setting(10_000, "How long a client may take for the head of a request.")
    body_timeout_ms: Positive = setting(30_000, "How long a client may pause between bytes of a body.")
    min_body_bytes_per_second: Whole = setting(
        500, "How fast a body must arrive on average, once body_timeout_ms is over; 0: no bound."
    )
    min_read_bytes_per_second: Whole = setting(
        500,
        "How fast a client must take its answer, in each body_timeout_ms; a slower one is cut off. 0: any byte does.",
    )
    max_buffer_bytes: Annotated[int, Bounds(2**20)] = setting(
        64 * 2**20,
        "Memory per worker for what clients are slow to send or to read, beyond 64 KiB of each; at least 1 MiB. "
        "When it is used up, a body that must be buffered whole gets 503, and backends wait for slow readers.",
    )
    keepalive_timeout_ms: Positive = setting(75_000, "How long a connection may stay idle between requests.")
    drain_timeout_ms: Whole = setting(30_000, "How long requests may take to finish when serving ends.")
    mirror_max_concurrency: Whole = setting(128, "Copies under way per worker; one more is dropped and counted.")
    mirror_max_body_bytes: Whole = setting(
        1_048_576, "Largest body that is copied; a request with a larger one is not."
    )
    mirror_timeout_ms: Positive = setting(60_000, "How long a copy may take in all, its answer included.")
    max_journal_bytes: Annotated[int, Bounds(2**20)] = setting(
        10 * 2**30, "Largest journal that has not been recorded yet; at least 1 MiB.", own=True
    )
    max_feedback_journal_bytes: Annotated[int, Bounds(2**20)] = setting(
        2 * 2**30,
        "Largest part of the journal that is feedback, beside max_journal_bytes: beyond it feedback gets 503.",
        own=True,
    )
    max_feedback_per_second: Whole = setting(
        10_000,
        "Feedback events a second that a worker takes, over ten seconds; beyond it feedback gets 429. 0: no bound.",
    )
    max_feedback_per_second_per_client: Whole = setting(
        2_000, "The same of one client, by its address (behind trusted_proxies, the one that they name)."
    )
    journal_full: Literal["shed", "refuse"] = setting(
        "shed", "When it is reached: answer without logging, and count; or refuse with 503."
    )
    journal_fsync_ms: Positive = setting(500, "How often predictions are forced to disk.")
    prediction_retention: Duration | None = setting(
        None,
        "How long predictions are kept, and with them the feedback about them; without it, for ever. At least the "
        "longest window, with window_before. Tallies stay, unless tally_retention says how long.",
    )
    feedback_retention: Duration | None = setting(
        90 * 86_400_000, "How long feedback is kept that found no prediction, or was a repeat."
    )
    max_orphans: Positive = setting(
        1_000_000, "Most events that are kept without their prediction; beyond it the oldest go, and are counted."
    )
    body_retention: Duration | None = setting(
        None, "How long captured bodies are kept; without it, as long as their predictions."
    )
    tally_retention: Duration | None = setting(
        None,
        "How long after it was left what is counted of an epoch is kept, with its plans; without it, for ever. At "
        "least prediction_retention.",
    )
    tracing: bool = setting(
        False,
        "Whether requests and calls leave OpenTelemetry spans; OTEL_ environment variables say where they go. "
        "Needs the extra of that name.",
        restart=True,
        own=True,
    )

    @property
    def new_units_bound(self) -> int:
        """The most new units of one client that are counted within a minute; 0: no bound."""
        if self.max_new_units_per_client is None:
            return NEW_UNITS if self.trusted_proxies else 0
        return self.max_new_units_per_client
