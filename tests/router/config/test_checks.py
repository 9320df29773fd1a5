"""Each mistake is marked in the text: the diagnostic must underline what stands between ‹ and ›."""

from __future__ import annotations

import pytest

from router.config.diagnostics import Diagnostic
from tests.router.builders import BACKENDS, CANARY, ROUTE, SMALL, changed, diagnostics_of, messages_of, with_policy

POLICY = "routes.digits.policy"


def marked(text: str) -> tuple[str, int, int, int]:
    """Return the text without its marks, and the line, column and width of what they enclosed."""
    before, _, rest = text.partition("‹")
    inside, _, after = rest.partition("›")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return before + inside + after, line, column, len(inside)


def only(text: str) -> tuple[Diagnostic, tuple[int, int, int]]:
    """Return the one diagnostic of a marked text, and the marked place."""
    plain, *place = marked(text)
    found = diagnostics_of(plain)
    assert len(found) == 1, [str(diagnostic) for diagnostic in found]
    return found[0], (place[0], place[1], place[2])


def in_gateway(text: str) -> str:
    return f"[gateway]\n{text}\n{SMALL}"


def in_metric(text: str) -> str:
    return f"{SMALL}\n[metrics.more]\n{text}\n"


def in_backend(text: str) -> str:
    return f'{SMALL}\n[backends.more]\nversion = "4"\n{text}\n'


def in_sink(text: str) -> str:
    return f"{SMALL}\n[sinks.lake]\n{text}\n"


def in_trigger(text: str) -> str:
    return f"{SMALL}\n[triggers.retrain]\n{text}\n"


def in_route(text: str) -> str:
    return BACKENDS + ROUTE + text + "\n" + CANARY


def metrics(names: str) -> str:
    return changed(ROUTE, ('["correct", "click"]', names))


THOMPSON = '{ kind = "thompson", variants = ["v1", "v2"], reward = ‹"%s"› }'
INTERLEAVE = '{ kind = "interleave", rankers = ["v1", "v2"], items = "/hits", length = 3 }'


def hiding(text: str) -> str:
    """Return a file with a route whose units are stored as keyed hashes."""
    route = changed(ROUTE, ('unit = "header:x-user-id"', text))
    return '[gateway]\nunit_key_file = "units"\n' + BACKENDS + route + CANARY


HIDDEN = "would log the unit as it is, and gateway.unit_key_file hides it"


def capturing(text: str, *, unit: str = "header:x-user", gateway: str = "") -> str:
    route = changed(ROUTE, ('"header:x-user-id"', f'"{unit}"'))
    return f"[gateway]\n{gateway}\n{BACKENDS}{route}[routes.digits.capture]\n{text}\n{CANARY}"


CAPTURE = "routes.digits.capture"

MISTAKES = [
    # what is kept of bodies
    (capturing('request = ["/a"]\nredact = [‹"/b"›]'), f"{CAPTURE}.redact[0] has no effect: nothing is kept there"),
    (
        capturing('answer = ["/a", ‹"/a"›]'),
        f'{CAPTURE}.answer[1] repeats "/a"; {CAPTURE}.answer names each pointer once',
    ),
    (capturing('answer = [""]\nmax_bytes = ‹2000000›'), f"{CAPTURE}.max_bytes must be at most 1048576, got 2000000"),
    (
        capturing('request = [‹"/user"›]', unit="body:/user/id", gateway='unit_key_file = "units"'),
        f"{CAPTURE}.request[0] would keep the unit as it is, and gateway.unit_key_file hides it",
    ),
    # the process
    (
        hiding('unit = "header:x-user"\nfeatures = { who = ‹"header:X-User"› }'),
        f"routes.digits.features.who {HIDDEN}",
    ),
    (hiding('unit = "body:/user/id"\nfeatures = [‹"body:/user"›]'), f"routes.digits.features[0] {HIDDEN}"),
    (hiding('unit = "query:u"\nkey = ‹"query:u"›'), f"routes.digits.key {HIDDEN}"),
    (
        hiding('unit = ‹"header:x-request-id"›'),
        "routes.digits.unit is logged as it is with each prediction, and gateway.unit_key_file hides units",
    ),
    (
        in_gateway('tls_cert_file = ‹"c.pem"›'),
        "gateway.tls_cert_file needs tls_key_file, the private key of the certificate",
    ),
    (in_gateway('tls_key_file = ‹"k.pem"›'), "gateway.tls_key_file needs tls_cert_file, or it has no effect"),
    (
        in_gateway('tls_client_ca_file = ‹"a.pem"›'),
        "gateway.tls_client_ca_file needs tls_cert_file, or it has no effect",
    ),
    (in_gateway('store_password_file = ‹"p"›'), 'gateway.store_password_file has no effect with store = "sqlite"'),
    (in_gateway('admin = ‹"127.0.0.1:8080"›'), 'gateway.admin must differ from listen, which has "127.0.0.1:8080"'),
    (
        in_gateway('tally_retention = ‹"30d"›'),
        "gateway.tally_retention has no effect without prediction_retention",
    ),
    (
        in_gateway('prediction_retention = "30d"\ntally_retention = ‹"20d"›'),
        "gateway.tally_retention must be at least prediction_retention, 30d, got 20d",
    ),
    (
        in_gateway('prediction_retention = ‹"24h"›\n[metrics.slow]\nkind = "event"\nwindow = "36h"'),
        "gateway.prediction_retention must be at least the longest window, 36h of metrics.slow, got 1d",
    ),
    (
        in_gateway(
            'prediction_retention = ‹"48h"›\n[metrics.slow]\nkind = "event"\nwindow = "36h"\nwindow_before = "24h"'
        ),
        "gateway.prediction_retention must be at least the longest window, 60h of metrics.slow, got 2d",
    ),
    (in_gateway("workers = ‹0›"), "gateway.workers must be at least 1, got 0"),
    (in_gateway("workers = ‹101›"), "gateway.workers must be at most 100, got 101"),
    (in_gateway("workers = ‹true›"), "gateway.workers must be a whole number, got true"),
    (in_gateway("max_body_bytes = ‹0›"), "gateway.max_body_bytes must be at least 1, got 0"),
    (
        in_gateway("max_header_bytes = 2_000\nmax_target_bytes = ‹2_001›"),
        "gateway.max_target_bytes must be at most max_header_bytes, 2000, got 2001: a target is part of the head",
    ),
    (in_gateway("max_headers = ‹0›"), "gateway.max_headers must be at least 1, got 0"),
    (in_gateway("min_body_bytes_per_second = ‹-1›"), "gateway.min_body_bytes_per_second must be at least 0, got -1"),
    (
        in_gateway('trusted_proxies = ["::1", ‹"10.0.0.1/8"›]'),
        'gateway.trusted_proxies[1] must have no bits set behind its prefix, as in "10.0.0.0/8", got "10.0.0.1/8"',
    ),
    (in_gateway('trusted_proxies = ‹"10.0.0.0/8"›'), 'gateway.trusted_proxies must be a list, got "10.0.0.0/8"'),
    (in_gateway("max_journal_bytes = ‹1_000›"), "gateway.max_journal_bytes must be at least 1048576, got 1000"),
    (in_gateway('journal_full = ‹"refuze"›'), 'gateway.journal_full must be "shed" or "refuse", got "refuze"'),
    (in_gateway('data_dir = ‹""›'), 'gateway.data_dir must not be empty, got ""'),
    (in_gateway('store = ‹"mysql://x"›'), 'gateway.store must be "sqlite" or a URL that begins with "postgresql://"'),
    (in_gateway('‹listn› = "127.0.0.1:1"'), 'gateway: unknown setting "listn"'),
    ("schema_version = ‹2›\n" + SMALL, "schema_version must be 1, got 2"),
    # backends
    (
        in_backend('url = "http://a"\nurls = ‹["http://b"]›'),
        "backends.more.urls and url are both given; write all replicas in urls",
    ),
    (
        in_backend('urls = ["http://a", ‹"http://a/"›]'),
        'backends.more.urls[1] repeats "http://a"; backends.more.urls names each replica once',
    ),
    (in_backend("urls = ‹[]›"), "backends.more.urls must not be empty, got an empty list"),
    (
        changed(in_backend(""), ("[backends.more]", "‹[backends.more]›")),
        "backends.more needs url, or urls for several replicas",
    ),
    (in_backend('url = "http://a"\nmax_concurrency = ‹0›'), "backends.more.max_concurrency must be at least 1, got 0"),
    (in_backend('url = "http://a"\nretries = ‹11›'), "backends.more.retries must be at most 10, got 11"),
    (
        in_backend('url = "http://a"\nmax_waiting = 0\nwait_timeout_ms = ‹5›'),
        "backends.more.wait_timeout_ms has no effect with max_waiting = 0",
    ),
    (
        in_backend('url = "http://a"\neject_after = 0\nmax_ejected_share = ‹0.1›'),
        "backends.more.max_ejected_share has no effect with eject_after = 0",
    ),
    (
        in_backend('url = "http://a"\nunhealthy_after = ‹1›'),
        "backends.more.unhealthy_after has no effect without health_path",
    ),
    (
        in_backend('url = "http://a"\nhealth_path = "/up"\nhealth_interval_ms = 500\nhealth_timeout_ms = ‹501›'),
        "backends.more.health_timeout_ms must not exceed health_interval_ms, 500, got 501",
    ),
    (
        in_backend('url = "http://a"\nhealth_path = "/up"\nhealth_interval_ms = ‹500›'),
        "backends.more.health_interval_ms must be at least health_timeout_ms, 1000, got 500",
    ),
    (
        in_backend('url = "http://a"\ntls_ca_file = ‹"ca.pem"›'),
        "backends.more.tls_ca_file has no effect without an https url",
    ),
    (
        changed(in_sink('kind = "cloudevents"'), ("[sinks.lake]", "‹[sinks.lake]›")),
        "sinks.lake needs url, where events are sent",
    ),
    (
        in_sink('kind = "stdout"\nurl = ‹"http://a/"›'),
        'sinks.lake.url has no effect with kind = "stdout"',
    ),
    (
        in_sink('kind = "stdout"\nmode = ‹"binary"›'),
        'sinks.lake.mode has no effect with kind = "stdout"',
    ),
    (
        in_sink('kind = "stdout"\nroutes = [‹"digit"›]'),
        'sinks.lake.routes[0]: unknown route "digit"',
    ),
    (
        in_sink('kind = "stdout"\nevents = ["request", ‹"request"›]'),
        'sinks.lake.events[1] repeats "request"; sinks.lake.events names each kind of event once',
    ),
    (
        in_sink('kind = "stdout"\nevents = ‹["body"]›'),
        "sinks.lake.events names body, and none of the routes captures any: add [routes.NAME.capture]",
    ),
    (
        in_sink('kind = "cloudevents"\nurl = ‹"http://u:p@a/"›'),
        'sinks.lake.url must not hold a user or password; send them with headers, got "http://u:p@a/"',
    ),
    (
        in_sink('kind = "cloudevents"\nurl = "http://a/"\n[sinks.lake.headers]\n‹ce-id› = "7"'),
        'sinks.lake.headers.ce-id must not be a header that says what an event is, got "ce-id"',
    ),
    (
        in_sink('kind = "cloudevents"\nurl = "http://a/"\nsecret = ‹"${HOOK}"›'),
        'sinks.lake.secret has no effect with kind = "cloudevents"',
    ),
    (
        changed(
            in_sink('kind = "webhook"\nevents = ["act"]\nurl = "https://a.example/"'),
            ("[sinks.lake]", "‹[sinks.lake]›"),
        ),
        "sinks.lake needs secret, which its requests are signed with",
    ),
    (
        in_sink('kind = "webhook"\nevents = ["act"]\nurl = "https://a.example/"\nsecret = ‹"whsec_MfKQ9r8GKYqr"›'),
        'sinks.lake.secret must refer to the secret, as "${NAME}" or "${file:PATH}", and not hold it',
    ),
    (
        in_sink('kind = "webhook"\nevents = ["act"]\nsecret = "${HOOK}"\nurl = ‹"hook"›'),
        'sinks.lake.url must be a URL such as "http://127.0.0.1:8090/events" or "https://broker.example/default", '
        'got "hook"',
    ),
    (
        in_sink('kind = "webhook"\nevents = ["act"]\nsecret = "${HOOK}"\nurl = ‹"http://169.254.169.254/"›'),
        'sinks.lake.url must be a host of the public internet, got "http://169.254.169.254/"',
    ),
    (
        in_sink('kind = "webhook"\nsecret = "${HOOK}"\nurl = "https://a.example/"\nevents = ["act", ‹"request"›]'),
        'sinks.lake.events[1] must be "verdict", "rollout", "act" or "trigger" for a webhook, got "request"',
    ),
    (
        in_sink(
            'kind = "webhook"\nevents = ["act"]\nsecret = "${HOOK}"\nurl = "https://a/"\nheaders = ‹{webhook-id="1"}›'
        ),
        "sinks.lake.headers must not have webhook-id, which says what is sent",
    ),
    (
        changed(in_sink('kind = "webhook"\nsecret = "${H}"\nurl = "https://a/"'), ("[sinks.lake]", "‹[sinks.lake]›")),
        "sinks.lake names no events, and no trigger sends to it",
    ),
    (
        in_trigger('route = ‹"digit"›\nany = [{ kind = "request" }]'),
        'triggers.retrain.route: unknown route "digit"',
    ),
    (
        in_trigger('route = "digits"\nany = [{ kind = "metric", metric = ‹"corect"›, below = 0.9 }]'),
        'triggers.retrain.any[0].metric: unknown metric of routes.digits "corect"',
    ),
    (
        in_trigger('route = "digits"\nany = [{ kind = "request" }]\nwebhook = ‹"hook"›'),
        'triggers.retrain.webhook: unknown sink "hook"',
    ),
    (
        in_trigger('route = "digits"\nany = [{ kind = "schedule", cron = ‹"0 0 30 2 *"› }]'),
        'triggers.retrain.any[0].cron never comes, got "0 0 30 2 *"',
    ),
    (
        in_trigger('route = "digits"\nany = [{ kind = "schedule", cron = ‹"0 25 * * *"› }]'),
        'triggers.retrain.any[0].cron must have hours of 0 to 23, got "25"',
    ),
    (
        in_trigger('route = "digits"\nany = [{ kind = "schedule", cron = "0 4 * * *", zone = ‹"Berlin"› }]'),
        'triggers.retrain.any[0].zone must be a time zone that this machine knows, as in "Europe/Berlin", got "Berlin"',
    ),
    (
        in_trigger('route = "digits"\nany = [{ kind = ‹"metrics"› }]'),
        'triggers.retrain.any[0].kind must be "metric", "past", "baseline", "labels", "age", "schedule", "coverage", '
        '"verdict", "guardrail" or "request", got "metrics"',
    ),
    (
        in_trigger('route = "digits"\nany = [‹{ kind = "baseline", metric = "correct", worse_by = 0.1 }›]'),
        "triggers.retrain.any[0] compares a variant with the baseline, and needs one",
    ),
    (
        in_trigger('route = "digits"\nall = [{ kind = "verdict", status = ‹["worst"]› }]'),
        "triggers.retrain.all[0].status must be of failing, better, worse, no_difference_yet, collecting, invalid, "
        'got "worst"',
    ),
    (
        in_trigger('route = "digits"\nany = [{ kind = "request" }]\nfreeze = ‹"v9"›'),
        'triggers.retrain.freeze: unknown variant of routes.digits "v9"',
    ),
    (
        in_trigger(
            'route = "digits"\nany = [{ kind = "request" }]\nfreeze = "v1"\n'
            '[triggers.other]\nroute = "digits"\nany = [{ kind = "request" }]\nfreeze = ‹"v2"›'
        ),
        'triggers.other.freeze acts against triggers.retrain, which freezes routes.digits to "v1"',
    ),
    (
        in_trigger('route = "digits"\nany = [{ kind = "request" }]\nmin_coverage = ‹0.5›'),
        "triggers.retrain.min_coverage has no effect without a condition on a metric",
    ),
    (
        changed(in_trigger('route = "digits"'), ("[triggers.retrain]", "‹[triggers.retrain]›")),
        "triggers.retrain needs conditions, in any or in all",
    ),
    (
        in_sink('kind = "cloudevents"\nurl = "http://a/"\nmax_pending_bytes = ‹5›'),
        "sinks.lake.max_pending_bytes must be at least 1048576, got 5",
    ),
    (
        in_sink('kind = "cloudevents"\nurl = "http://a/"\ntls_ca_file = ‹"ca.pem"›'),
        "sinks.lake.tls_ca_file has no effect without an https url",
    ),
    (
        in_backend('url = ‹"unix:run/m.sock"›'),
        'backends.more.url must name a socket by its whole path, as in "unix:/run/model.sock" or '
        '"unix:/run/model.sock:/base", got "unix:run/m.sock"',
    ),
    (
        in_backend(f'url = ‹"unix:/{"x" * 107}"›'),
        f'backends.more.url must name a socket by a path of at most 107 bytes, got "unix:/{"x" * 53}…"',
    ),
    (
        in_backend('urls = ["unix:/run/m.sock", ‹"unix:///run/m.sock"›]'),
        'backends.more.urls[1] repeats "unix:/run/m.sock"; backends.more.urls names each replica once',
    ),
    (
        in_backend('url = "http://a"\nreported_version = ‹"version"›'),
        "backends.more.reported_version must be a JSON Pointer: "
        'empty, or beginning with "/", as in "/version", got "version"',
    ),
    (
        in_backend('url = "http://a"\nrequest_headers = { ‹connection› = "close" }'),
        "backends.more.request_headers.connection must not be a header that belongs to the connection, "
        'got "connection"',
    ),
    (
        in_backend('url = "http://a"\nrequest_headers = ‹{ x-a = "1", X-A = "2" }›'),
        'backends.more.request_headers must name a header once, and "x-a" is "X-A", got a table',
    ),
    (
        in_backend('url = "http://a"\nrequest_headers = { x-a = ‹"a\\nb"› }'),
        'backends.more.request_headers.x-a must be one line of text, without spaces at its ends, got "a\\nb"',
    ),
    (
        in_backend('url = "http://a"\nrequest_headers = { x-a = ‹"é"› }'),
        'backends.more.request_headers.x-a must be ASCII, as the value of a header, got "é"',
    ),
    (
        in_backend('url = "http://a"\nrequest_headers = { x-a = ‹"${a b}"› }'),
        'backends.more.request_headers.x-a must refer to a secret as "${NAME}" or "${file:PATH}", '
        'and write "$${" for a plain "${", got "${a b}"',
    ),
    # metrics
    (
        in_metric('kind = "event"\nscore = ‹"match"›'),
        'metrics.more.score has no meaning for kind = "event": only labels are scored against predictions',
    ),
    (
        in_metric('kind = "event"\nfold = ‹"sum"›'),
        'metrics.more.fold must be "any", "first", "last" or "max" for kind = "event", got "sum"',
    ),
    (
        in_metric('kind = "label"\nfold = ‹"mean"›'),
        'metrics.more.fold must be "last" or "first" for kind = "label", got "mean"',
    ),
    (in_metric('kind = "event"\nrange = ‹[0, 1]›'), "metrics.more.range has no effect: every value is 0 or 1"),
    (
        in_metric('kind = "value"\nrange = ‹[1, 0]›'),
        "metrics.more.range must be two numbers, [low, high], the lower one first, got a list",
    ),
    (
        in_metric('kind = "value"\nfold = "sum"\nrange = ‹[0, 1]›'),
        "metrics.more.range cannot be held by a sum of any number of events; leave it out",
    ),
    (
        in_metric('kind = "label"\nmissing = ‹0.5›'),
        'metrics.more.missing must be 0, 1 or "exclude", as every value is 0 or 1, got 0.5',
    ),
    (
        in_metric('kind = "value"\nrange = [0, 9]\nmissing = ‹10›'),
        "metrics.more.missing must lie in range, [0, 9], got 10",
    ),
    (
        in_metric('kind = "value"\nmissing = ‹"none"›'),
        'metrics.more.missing must be "exclude" or a finite number, got "none"',
    ),
    (
        in_metric('kind = "value"\nmissing = ‹nan›'),
        'metrics.more.missing must be "exclude" or a finite number, got nan',
    ),
    (
        in_metric('kind = "value"\nmissing = ‹2e15›'),
        'metrics.more.missing must be "exclude" or lie in [-1e+15, 1e+15], as every value does, got 2000000000000000.0',
    ),
    (
        in_metric('kind = "value"\nrange = ‹[0, inf]›'),
        "metrics.more.range must lie in [-1e+15, 1e+15], as every value does, got a list",
    ),
    (in_metric('kind = "value"\nwindow = ‹24›'), "metrics.more.window must be text in quotes, got 24"),
    (changed(in_metric('window = "1h"'), ("[metrics.more]", "‹[metrics.more]›")), "metrics.more.kind is required"),
    # names
    (
        changed(SMALL, ("[backends.v3]", '[backends.‹"@v3"›]')),
        'backends."@v3": a name must begin with a letter or "_" and go on with letters, digits, "_", "-" and "."',
    ),
    (
        changed(SMALL, ("[routes.digits]", "[routes.‹unknown›]"), ("routes.digits.", "routes.unknown.")),
        "routes.unknown: this name is kept for feedback of no known route",
    ),
    # routes
    (
        changed(SMALL, ('"/digits"', '‹"/-/digits"›')),
        'routes.digits.path must not begin with "/-/", which Turnout keeps for itself, got "/-/digits"',
    ),
    (
        changed(SMALL, ('["correct", "click"]', '["correct", ‹"clik"›]')),
        'routes.digits.metrics[1]: unknown metric "clik"',
    ),
    (
        changed(SMALL, ('["correct", "click"]', '["click", ‹"click"›]')),
        'routes.digits.metrics[1] repeats "click"; routes.digits.metrics names each metric once',
    ),
    (
        in_route('primary_metric = ‹"seconds"›'),
        'routes.digits.primary_metric must be one of the route\'s metrics, got "seconds"',
    ),
    (in_route('fallback = ‹"v4"›'), 'routes.digits.fallback: unknown backend "v4"'),
    (in_route('baseline = ‹"v3"›'), 'routes.digits.baseline must be one of the policy\'s variants, got "v3"'),
    (in_route("methods = ‹[]›"), "routes.digits.methods must not be empty, got an empty list"),
    (
        in_route('methods = [‹"post"›]'),
        'routes.digits.methods[0] must be a method in capitals, as in "POST", got "post"',
    ),
    (
        in_route('features = { a = ‹"form:b"› }'),
        'routes.digits.features.a must be header:NAME, cookie:NAME, query:NAME or body:/json/pointer, got "form:b"',
    ),
    (
        in_route('features = ["query:a", ‹"query:a"›]'),
        'routes.digits.features[1] repeats "query:a"; routes.digits.features names each reference once',
    ),
    (in_route('mirrors = [{ variant = ‹"v4"› }]'), 'routes.digits.mirrors[0].variant: unknown backend "v4"'),
    (
        in_route('mirrors = [{ variant = "v3", share = ‹1.5› }]'),
        "routes.digits.mirrors[0].share must lie in [0, 1], got 1.5",
    ),
    (
        in_route('mirrors = [{ variant = "v3" }, { variant = ‹"v3"› }]'),
        'routes.digits.mirrors[1].variant names "v3" again; one mirror per variant',
    ),
    (
        in_route('methods = ["GET"]\nmirrors = [{ variant = "v3", methods = ["GET", ‹"PUT"›] }]'),
        'routes.digits.mirrors[0].methods[1] has no effect: the route does not take "PUT"',
    ),
    (
        changed(SMALL, ('prediction = "/answer"', ""), ("[routes.digits]", "‹[routes.digits]›")),
        'routes.digits.prediction is required: "correct" is a label and scores it',
    ),
    (
        changed(SMALL, (ROUTE, ""), (CANARY, "")) + '[routes.digits]\npath = "/digits"\n‹policy› = {}\n',
        f"{POLICY}.kind is required",
    ),
    # policies
    (changed(SMALL, ("0.05", "‹5.0›")), f"{POLICY}.share must lie in [0, 1], got 5.0"),
    (
        changed(SMALL, ('"canary"', '‹"canry"›')),
        f'{POLICY}.kind must be "single", "shadow", "canary", "rollout", "ab", "interleave" or "thompson", got "canry"',
    ),
    (changed(SMALL, ('candidate = "v2"', 'candidate = ‹"v4"›')), f'{POLICY}.candidate: unknown backend "v4"'),
    (
        changed(SMALL, ("[routes.digits.policy]", "‹[routes.digits.policy]›"), ('stable = "v1"', "")),
        f"{POLICY}.stable is required",
    ),
    (
        with_policy('{ kind = "shadow", primary = "v1", shadows = { ‹v4› = 1.0 } }'),
        f'{POLICY}.shadows: unknown backend "v4"',
    ),
    (
        with_policy('{ kind = "thompson", variants = ‹["v1"]›, reward = "click" }'),
        f'{POLICY}.variants needs at least two different variants, got "v1"',
    ),
    (
        with_policy(
            '{ kind = "ab", shares = { v1 = 0.5, v2 = 0.5 } }', changed(ROUTE, ("[routes.digits]", "‹[routes.digits]›"))
        ),
        'routes.digits.baseline is required for kind = "ab"',
    ),
    (
        with_policy(THOMPSON % "seconds", metrics('["seconds"]')),
        f'{POLICY}.reward must be a metric scored 0 or 1 (an event, or a label with match), got "seconds", a value',
    ),
    (with_policy(THOMPSON % "seconds"), f'{POLICY}.reward must be one of the route\'s metrics, got "seconds"'),
    (with_policy(THOMPSON % "clicks"), f'{POLICY}.reward: unknown metric "clicks"'),
    (
        with_policy(THOMPSON % "bad", metrics('["bad"]')) + '[metrics.bad]\nkind = "event"\nbetter = "lower"\n',
        f'{POLICY}.reward must be a metric of which higher is better, got "bad"',
    ),
    (
        with_policy('{ kind = "single", variant = "v1" }', ROUTE + 'fallback = ‹"v1"›\n'),
        'routes.digits.fallback has no effect: "v1" is asked for every request already',
    ),
    (
        with_policy(INTERLEAVE, metrics('["click"]') + 'mirrors = [{ variant = ‹"v2"› }]\n'),
        'routes.digits.mirrors[0].variant has no effect: "v2" is asked for every request already',
    ),
    (
        changed(SMALL, ('stable = "v1"', 'stable = ‹"stable"›')),
        f'{POLICY}.stable: unknown backend "stable"',
    ),
    # between routes
    (
        SMALL + '[routes.again]\npath = ‹"/digits"›\npolicy = { kind = "single", variant = "v1" }\n',
        "routes.again.path takes requests that routes.digits takes too",
    ),
    (
        changed(SMALL, ('metrics = ["correct"', 'key_rule = ‹"first"›\nmetrics = ["correct"')),
        "routes.digits.key_rule has no effect without key",
    ),
    (
        changed(
            with_policy('{ kind = "single", variant = "v1" }'),
            ('unit = "header:x-user-id"', 'holdout = ‹"all_year"›'),
        ),
        "routes.digits.holdout needs a unit: requests cannot be held out one by one",
    ),
    (
        changed(SMALL, ('metrics = ["correct"', 'holdout_share = ‹0.1›\nmetrics = ["correct"')),
        "routes.digits.holdout_share has no effect without holdout",
    ),
    (
        changed(SMALL, ("[metrics.correct]", "[metrics.‹exposed›]\nkind = 'event'\n[metrics.correct]")),
        "metrics.exposed: this name is kept for require_exposure",
    ),
    (
        in_gateway('admin = ‹"[::]:9090"›'),
        "gateway.admin is open to other machines, and anybody who reaches it may read, reload and change; "
        "name a file with a token in admin_token_file",
    ),
    (
        in_gateway('admin = "[::]:9090"\nadmin_open = ‹true›\nadmin_token_file = "/t"'),
        "gateway.admin_open has no effect with admin_token_file",
    ),
    (
        in_gateway('admin_tls_cert_file = ‹"/c"›'),
        "gateway.admin_tls_cert_file needs admin_tls_key_file, the private key of the certificate",
    ),
    (
        in_gateway('admin_tls_key_file = ‹"/c"›'),
        "gateway.admin_tls_key_file needs admin_tls_cert_file, or it has no effect",
    ),
    (
        in_gateway('admin_read_token_file = ‹"/t"›'),
        "gateway.admin_read_token_file needs admin_token_file, or it has no effect",
    ),
    (in_gateway("metrics_open = ‹true›"), "gateway.metrics_open needs admin_token_file, or it has no effect"),
    (
        changed(SMALL, ('path = "/digits"', 'path = "/digits"\nstrip_prefix = ‹"/dig"›')),
        'routes.digits.strip_prefix must be what path begins with, whole segments of "/digits", got "/dig"',
    ),
    (
        changed(SMALL, ('path = "/digits"', 'path = "/digits/*"\nstrip_prefix = ‹"/digits/"›')),
        'routes.digits.strip_prefix must be whole segments without a final "/" or "*", as in "/ab", got "/digits/"',
    ),
    (
        changed(SMALL, ('path = "/digits"', 'path = ‹"/digits/%2E./x"›')),
        'routes.digits.path must not have the segments "." and "..", encoded or not, got "/digits/%2E./x"',
    ),
    (
        changed(SMALL, ('prediction = "/answer"', "prediction = ‹'outputs[0].data[0]'›")),
        'routes.digits.prediction must be a JSON Pointer: empty, or beginning with "/", as in "/outputs/0/data/0", '
        'got "outputs[0].data[0]"',
    ),
    (
        changed(SMALL, ('unit = "header:x-user-id"', "unit = ‹'header:x_user_id'›")),
        "routes.digits.unit is never there: fields with an underscore in their name are dropped",
    ),
    (
        changed(SMALL, ('path = "/digits"', 'path = "/digits"\nheaders = { x_stage = ‹"a"› }')),
        "routes.digits.headers.x_stage is never there: fields with an underscore in their name are dropped",
    ),
]

WARNINGS = [
    (
        in_gateway('listen = ‹"0.0.0.0:8080"›'),
        "gateway.listen is open to other machines, and anybody who reaches it may send feedback; "
        "name a file with a token in feedback_token_file",
    ),
    (
        changed(SMALL, ('unit = "header:x-user-id"', ""), ("[routes.digits.policy]", "‹[routes.digits.policy]›")),
        f"{POLICY} keeps a unit with its variant, but the route names no unit: each request is its own",
    ),
    (
        with_policy(INTERLEAVE, metrics('[‹"correct"›, "click"]')),
        'routes.digits.metrics[0]: "correct" is a label, and a label has no meaning for a merged list',
    ),
    (
        changed(with_policy(THOMPSON % "click"), ("missing = 0\n", "")),
        f'{POLICY}.reward "click" leaves out requests without an event: unless zeros are sent, it is always 1',
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_refused_alone_and_at_its_place(text: str, message: str) -> None:
    diagnostic, place = only(text)
    assert (diagnostic.severity, diagnostic.message) == ("error", message)
    assert (diagnostic.line, diagnostic.column, diagnostic.width) == place


@pytest.mark.parametrize(("text", "message"), WARNINGS, ids=[message for _, message in WARNINGS])
def test_a_doubtful_setting_is_warned_of_and_taken(text: str, message: str) -> None:
    diagnostic, place = only(text)
    assert (diagnostic.severity, diagnostic.message) == ("warning", message)
    assert (diagnostic.line, diagnostic.column, diagnostic.width) == place


@pytest.mark.parametrize(
    "text",
    [
        SMALL,
        in_gateway('listen = "0.0.0.0:0"\nadmin = "127.0.0.1:0"\nfeedback_token_file = "t"'),
        in_gateway('store = "postgresql://turnout@db/turnout"\nstore_password_file = "p"'),
        in_metric('kind = "label"\nscore = "absolute_error"\nrange = [0, 5]\nmissing = 5'),
        in_route('fallback = "v1"\nmirrors = [{ variant = "v2" }]'),
        changed(SMALL, ("0.05", "0.0"), ('metrics = ["correct"', 'fallback = "v1"\nmetrics = ["correct"')),
        with_policy(INTERLEAVE, metrics('["click"]') + 'fallback = "v3"\n'),
        with_policy('{ kind = "single", variant = "v1" }', '[routes.digits]\npath = "/*"\n'),
        SMALL + '[routes.rest]\npath = "/*"\npolicy = { kind = "single", variant = "v1" }\n',
    ],
)
def test_what_is_right_is_not_remarked_upon(text: str) -> None:
    assert diagnostics_of(text) == ()


def test_routes_of_one_path_need_different_methods_or_header_values() -> None:
    one = '[routes.{}]\npath = "/a"\n{}\npolicy = {{ kind = "single", variant = "v1" }}\n'
    for first, second, fine in [
        ('methods = ["GET"]', 'methods = ["POST"]', True),
        ('methods = ["GET"]', "", False),
        ('methods = ["GET", "PUT"]', 'methods = ["POST", "PUT"]', False),
        ('headers = { X-A = "1" }', 'headers = { x-a = "2" }', True),
        ('headers = { x-a = "1" }', 'headers = { x-b = "2" }', False),
        ('headers = { x-a = "1" }', "", False),
    ]:
        said = messages_of(BACKENDS + one.format("a", first) + one.format("b", second))
        assert said == ([] if fine else ["routes.b.path takes requests that routes.a takes too"])


def test_a_setting_that_cannot_be_read_hides_no_other() -> None:
    """One mistake, one message: no check uses a value that could not be read, and everything else is checked."""
    text = changed(
        SMALL,
        ('path = "/digits"', "path = 5"),
        ('stable = "v1"', 'stable = "v9"'),
        ("share = 0.05", 'share = "5 %"'),
        ('prediction = "/answer"', "prediction = 1"),
        ('kind = "value"', 'kind = "number"'),
    )
    assert messages_of(text) == [
        'metrics.seconds.kind must be "event", "value" or "label", got "number"',
        "routes.digits.path must be text in quotes, got 5",
        "routes.digits.prediction must be text in quotes, got 1",
        f'{POLICY}.stable: unknown backend "v9"',
        f'{POLICY}.share must be a number, got "5 %"',
    ]


def test_what_a_label_needs_is_said_beside_what_is_wrong_with_the_policy() -> None:
    text = changed(SMALL, ('prediction = "/answer"\n', ""), ("0.05", "5.0"))
    assert messages_of(text) == [
        'routes.digits.prediction is required: "correct" is a label and scores it',
        f"{POLICY}.share must lie in [0, 1], got 5.0",
    ]


@pytest.mark.parametrize("value", ["3", "true", '"/x"', "[1]", "{ a = 1 }", '["click"]', '"nobody"'])
@pytest.mark.parametrize(
    "key",
    ["strip", "rewrite", "variant", "shares", "fall_back", "feedback", "metric", "baselin", "mirror", "timeout", "x"],
)
def test_an_unknown_setting_is_one_mistake_whatever_it_is_like(key: str, value: str) -> None:
    text = changed(SMALL, ('path = "/digits"', f'path = "/digits"\n{key} = {value}'))
    assert messages_of(text) == [f'routes.digits: unknown setting "{key}"']


def test_a_misspelt_setting_that_must_be_there_is_not_missing_as_well() -> None:
    text = changed(SMALL, ('path = "/digits"', "pth = 5"))
    assert messages_of(text) == ['routes.digits: unknown setting "pth"']


def test_a_misspelt_setting_is_one_mistake_and_is_read_as_what_was_meant() -> None:
    text = changed(SMALL, ("candidate =", "canry ="), ("0.05", "5.0"))
    assert messages_of(text) == [f'{POLICY}: unknown setting "canry"', f"{POLICY}.share must lie in [0, 1], got 5.0"]


def test_a_file_that_serves_nothing_is_refused() -> None:
    """An editor that empties a file before it writes must not take every route out of service."""
    for text in ("", "\n", "# nothing\n", "schema_version = 1\n", BACKENDS):
        assert messages_of(text) == ["the file has no routes, and would serve nothing"]


def test_an_admin_port_that_is_open_is_served_where_the_file_says_so() -> None:
    text = 'admin = "0.0.0.0:9090"\n{}\nlisten = "127.0.0.1:8080"'
    for more in ("admin_open = true", 'admin_token_file = "/t"'):
        assert diagnostics_of(in_gateway(text.format(more))) == ()


def test_fields_with_underscores_are_asked_for_where_they_pass() -> None:
    text = changed(SMALL, ('unit = "header:x-user-id"', 'unit = "header:x_user_id"'))
    assert diagnostics_of("[gateway]\nunderscores_in_headers = true\n" + text) == ()
