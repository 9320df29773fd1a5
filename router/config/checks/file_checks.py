"""Checks of several settings together.

Rule: a check uses only settings that could be read, so no mistake is reported twice. A setting that would never have an
effect is refused rather than ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from policies.types import Path
from router.config import spellings
from router.config.checks.alert_checks import alert_findings
from router.config.checks.route_checks import overlaps, route_findings
from router.config.checks.trigger_checks import trigger_findings
from router.config.draft import Draft
from router.config.file import BACKEND, SINK
from router.config.findings import Finding, dotted, listed, quoted, repeated, unknown, wrong
from router.config.tables import TableDraft
from router.scores import score_of, scored_01
from router.settings.sink import WEBHOOK_EVENTS


def findings_of(draft: Draft) -> Iterator[Finding]:
    """Yield every problem that several settings make together, warnings included."""
    yield from _gateway(draft.gateway)
    for backend in draft.backends.values():
        yield from _backend(backend)
        yield from _slot(draft.gateway, backend)
    for metric in draft.metrics.values():
        yield from _metric(metric)
    if not draft.routes and not draft.findings:
        # An empty or half-written file must not take every route out of service.
        yield Finding((), "the file has no routes, and would serve nothing", "begin with [routes.NAME]", "table")
    yield from _retention(draft)
    yield from _tally_retention(draft.gateway)
    for route in draft.routes.values():
        yield from route_findings(draft, route)
    yield from overlaps(draft.routes.values())
    for name, sink in draft.sinks.items():
        yield from _sink(draft, sink, name)
    yield from trigger_findings(draft)
    yield from alert_findings(draft)


#: Settings of the gateway, each with the setting without which it has no effect.
_USELESS_WITHOUT: Final = (
    ("tls_key_file", "tls_cert_file"),
    ("tls_client_ca_file", "tls_cert_file"),
    ("admin_tls_key_file", "admin_tls_cert_file"),
    ("admin_read_token_file", "admin_token_file"),
    ("trusted_users", "trusted_user_header"),
)
#: What makes the admin port ask who somebody is.
_ADMIN_ASKS: Final = ("admin_token_file", "admin_token_required", "trusted_user_header")


def _gateway(gateway: TableDraft) -> Iterator[Finding]:
    has: Callable[[str], Any] = gateway.values.get
    for port in ("", "admin_"):
        cert, key = f"{port}tls_cert_file", f"{port}tls_key_file"
        if has(cert) and not has(key) and key not in gateway.broken:
            yield wrong(gateway.path, cert, f"needs {key}, the private key of the certificate")
    for name, needed in _USELESS_WITHOUT:
        if has(name) and not has(needed) and needed not in gateway.broken:
            yield wrong(gateway.path, name, f"needs {needed}, or it has no effect")
    if has("metrics_open") and not any(has(one) or one in gateway.broken for one in _ADMIN_ASKS):
        yield wrong(gateway.path, "metrics_open", "needs admin_token_file, or it has no effect")
    if has("store_password_file") and has("store") == "sqlite":
        yield wrong(gateway.path, "store_password_file", 'has no effect with store = "sqlite"')
    listen, admin = has("listen"), has("admin")
    if listen and admin and _same_socket(listen, admin):
        yield wrong(gateway.path, "admin", f"must differ from listen, which has {quoted(listen)}")
    head, target = has("max_header_bytes"), has("max_target_bytes")
    if head is not None and target is not None and target > head:
        message = f"must be at most max_header_bytes, {head}, got {target}: a target is part of the head"
        yield wrong(gateway.path, "max_target_bytes", message)
    for asked in _ADMIN_ASKS:
        if has("admin_open") and has(asked):
            yield wrong(gateway.path, "admin_open", f"has no effect with {asked}")
    if has("trusted_user_header") and not has("trusted_proxies") and "trusted_proxies" not in gateway.broken:
        message = "needs trusted_proxies, the addresses of the proxies whose word it is, or it has no effect"
        yield wrong(gateway.path, "trusted_user_header", message)
    if has("trusted_user_header") and not has("trusted_users") and "trusted_users" not in gateway.broken:
        message = 'needs trusted_users, which says what each may do, as in { "*" = "read" }; without it, nothing'
        yield wrong(gateway.path, "trusted_user_header", message)
    if _is_open(gateway, "listen", "feedback_token_file", "feedback_token_required"):
        words = "is open to other machines, and anybody who reaches it may send feedback"
        message = f"{words}; name a file with a token in feedback_token_file"
        yield wrong(gateway.path, "listen", message, warning=True)
    if _is_open(gateway, "admin", *_ADMIN_ASKS) and not has("admin_open") and "admin_open" not in gateway.broken:
        words = "is open to other machines, and anybody who reaches it may read, reload and change"
        hint = "or write admin_open = true, where something else keeps others away"
        yield wrong(gateway.path, "admin", f"{words}; name a file with a token in admin_token_file", hint)


def _is_open(gateway: TableDraft, name: str, *settings: str) -> bool:
    """Return whether other machines can surely reach this address, and none of these asks who somebody is."""
    where: str | None = gateway.values.get(name)
    asks = any(gateway.values.get(one) or one in gateway.broken for one in settings)
    return where is not None and not asks and not spellings.is_loopback(where)


def _slot(gateway: TableDraft, backend: TableDraft) -> Iterator[Finding]:
    """A registry's word is believed by its signature alone."""
    slot, secret = backend.values.get("slot"), "registry_secret_file"
    if (
        slot is not None
        and slot.registry is not None
        and not gateway.values.get(secret)
        and secret not in gateway.broken
    ):
        message = f"has a registry, and that needs gateway.{secret}, the secret that it signs with"
        yield wrong(backend.path, "slot", message)


def _retention(draft: Draft) -> Iterator[Finding]:
    """A prediction must be kept until its last window has closed."""
    kept = draft.gateway.values.get("prediction_retention")
    has = {name: metric.values.get for name, metric in draft.metrics.items()}
    # An event that happened before its prediction waits for it as long as the prediction may still arrive.
    windows = {name: (get("window") or 0) + (get("window_before") or 0) for name, get in has.items()}
    longest = max(windows, key=lambda name: windows[name], default=None)
    if kept is not None and longest is not None and kept < windows[longest]:
        window = spellings.duration(windows[longest])
        message = f"must be at least the longest window, {window} of metrics.{longest}, got {spellings.duration(kept)}"
        yield wrong(draft.gateway.path, "prediction_retention", message)


def _tally_retention(gateway: TableDraft) -> Iterator[Finding]:
    """Tallies must be kept as long as predictions that may still change them."""
    tallies, predictions = (gateway.values.get(name) for name in ("tally_retention", "prediction_retention"))
    if tallies is None or "prediction_retention" in gateway.broken:
        return
    if predictions is None:
        yield wrong(gateway.path, "tally_retention", "has no effect without prediction_retention")
    elif tallies < predictions:
        message = f"must be at least prediction_retention, {spellings.duration(predictions)}"
        yield wrong(gateway.path, "tally_retention", f"{message}, got {spellings.duration(tallies)}")


def _same_socket(one: str, other: str) -> bool:
    (host, port), (other_host, other_port) = spellings.address(one), spellings.address(other)
    anywhere = {"0.0.0.0", "::"}
    return port == other_port != 0 and (host == other_host or bool(anywhere & {host, other_host}))


#: A setting of a backend, the value of it that makes others useless, and those others.
_IDLE: Final = (
    ("max_waiting", 0, ("wait_timeout_ms",)),
    ("eject_after", 0, ("eject_ms", "max_ejected_share")),
    ("health_path", None, ("health_interval_ms", "health_timeout_ms", "unhealthy_after", "healthy_after")),
)


def _backend(backend: TableDraft) -> Iterator[Finding]:
    yield from _replicas(backend)
    has: Callable[[str], Any] = backend.values.get
    for name, off, others in _IDLE:
        if name in backend.broken or has(name) != off:
            continue
        for other in others:
            # A default that is written out does no harm.
            if has(other) not in (None, BACKEND.settings[other].default):
                because = f"with {name} = {off}" if off is not None else f"without {name}"
                yield wrong(backend.path, other, f"has no effect {because}")
    interval, timeout = has("health_interval_ms"), has("health_timeout_ms")
    if has("health_path") and interval and timeout and timeout > interval:
        if timeout != BACKEND.settings["health_timeout_ms"].default:
            words = f"must not exceed health_interval_ms, {interval}, got {timeout}"
            yield wrong(backend.path, "health_timeout_ms", words)
        else:
            words = f"must be at least health_timeout_ms, {timeout}, got {interval}"
            yield wrong(backend.path, "health_interval_ms", words)


def _replicas(backend: TableDraft) -> Iterator[Finding]:
    if backend.broken & {"url", "urls"}:
        return
    url, urls = backend.values["url"], backend.values["urls"]
    if url is None and urls is None:
        yield Finding(backend.path, f"{dotted(backend.path)} needs url, or urls for several replicas", at="table")
    if url is not None and urls is not None:
        yield wrong(backend.path, "urls", "and url are both given; write all replicas in urls")
    yield from repeated((*backend.path, "urls"), urls or (), "names each replica once")
    known = urls or ((url,) if url else ())
    if backend.values.get("tls_ca_file") and known and not any(one.startswith("https:") for one in known):
        yield wrong(backend.path, "tls_ca_file", "has no effect without an https url")


def _metric(metric: TableDraft) -> Iterator[Finding]:
    values, path = metric.values, metric.path
    if metric.broken & {"kind", "score", "fold"}:
        return
    kind: str = values["kind"]
    score, fold, span, missing, cap = (values.get(name) for name in ("score", "fold", "range", "missing", "cap"))
    binary = scored_01(kind, score_of(kind, score))
    if score is not None and kind != "label":
        yield wrong(path, "score", f'has no meaning for kind = "{kind}": only labels are scored against predictions')
    folds = {"event": ("any", "first", "last", "max"), "label": ("last", "first")}.get(
        kind, ("last", "first", "sum", "mean", "max")
    )
    if fold is not None and fold not in folds:
        yield wrong(path, "fold", f'must be {listed(folds)} for kind = "{kind}", got "{fold}"')
    if binary and span is not None:
        yield wrong(path, "range", "has no effect: every value is 0 or 1")
    elif span is not None and fold == "sum" and (cap is None or span[0] < 0):
        hint = None if cap is None else "or let it begin at 0: then sums lie between 0 and cap"
        yield wrong(path, "range", "cannot be held by a sum of any number of events; leave it out", hint)
    if cap is not None:
        yield from _cap(path, kind, cap, span, missing)
    if binary and missing not in (None, 0.0, 1.0):
        yield wrong(path, "missing", f'must be 0, 1 or "exclude", as every value is 0 or 1, got {missing:g}')
    elif not binary and span is not None and missing is not None and not span[0] <= missing <= span[1]:
        yield wrong(path, "missing", f"must lie in range, [{span[0]:g}, {span[1]:g}], got {missing:g}")

    if missing is not None and values.get("mature") == "arrival" and not metric.broken & {"mature", "missing"}:
        words = (
            "would make a variant with slow feedback look other than it is: what has an event counts at once, what has "
            f"none counts as {missing:g} when its window closes"
        )
        yield wrong(path, "mature", words, 'leave mature out, or write missing = "exclude"')


def _cap(
    path: Path, kind: str, cap: float, span: tuple[float, float] | None, missing: float | None
) -> Iterator[Finding]:
    if kind != "value":
        yield wrong(path, "cap", f'has no meaning for kind = "{kind}": only values can be cut')
    elif span is not None and cap >= span[1]:
        yield wrong(path, "cap", f"has no effect: range ends at {span[1]:g}")
    elif span is not None and cap <= span[0]:
        yield wrong(path, "cap", f"must be above {span[0]:g}, where range begins, got {cap:g}")
    elif missing is not None and missing > cap:
        yield wrong(path, "missing", f"must be at most cap, {cap:g}, got {missing:g}")


#: Settings that have no meaning for a kind of sink.
_MEANINGLESS: Final = {
    "stdout": ("url", "mode", "headers", "timeout_ms", "tls_ca_file", "secret", "allow_private"),
    "cloudevents": ("secret", "allow_private"),
    "webhook": ("mode",),
}


def _sink(draft: Draft, sink: TableDraft, name: str) -> Iterator[Finding]:
    if "kind" in sink.broken:
        return
    values, kind = sink.values, sink.values["kind"]
    for key in _MEANINGLESS[kind]:
        if values.get(key) not in (None, SINK.settings[key].default):
            yield wrong(sink.path, key, f'has no effect with kind = "{kind}"')
    if kind == "webhook":
        yield from _webhook(sink)
        sent = [one for one in draft.triggers.values() if one.get("webhook") == name]
        if not (values.get("events") or "events" in sink.broken or sent):
            yield Finding(sink.path, f"{dotted(sink.path)} names no events, and no trigger sends to it", at="table")
    if kind == "stdout":
        pass
    elif values.get("url") is None and "url" not in sink.broken:
        yield Finding(sink.path, f"{dotted(sink.path)} needs url, where events are sent", at="table")
    elif values.get("tls_ca_file") and not (values.get("url") or "https:").startswith("https:"):
        yield wrong(sink.path, "tls_ca_file", "has no effect without an https url")
    yield from repeated((*sink.path, "events"), values.get("events") or (), "names each kind of event once")
    named = values.get("routes") or ()
    yield from repeated((*sink.path, "routes"), named, "names each route once")
    for index, route_name in enumerate(named):
        if route_name not in draft.routes:
            yield unknown((*sink.path, "routes", index), "route", route_name, draft.routes)
    chosen = [route for route in draft.routes.values() if not named or route.name in named]
    if "body" in (values.get("events") or ()) and chosen and all(route.capture is None for route in chosen):
        yield wrong(sink.path, "events", "names body, and none of the routes captures any: add [routes.NAME.capture]")


def _webhook(sink: TableDraft) -> Iterator[Finding]:
    values = sink.values
    if values.get("secret") is None and "secret" not in sink.broken:
        hint = 'secret = "${NAME}", with a value made by: echo whsec_$(openssl rand -base64 32)'
        yield Finding(sink.path, f"{dotted(sink.path)} needs secret, which its requests are signed with", hint, "table")
    for index, kind in enumerate(values.get("events") or ()):
        if kind not in WEBHOOK_EVENTS:
            message = (
                f'{dotted((*sink.path, "events", index))} must be {listed(WEBHOOK_EVENTS)} for a webhook, got "{kind}"'
            )
            yield Finding((*sink.path, "events", index), message, 'others need kind = "cloudevents"')
    for name, _ in values.get("headers") or ():
        if name.startswith("webhook-"):
            yield wrong(sink.path, "headers", f"must not have {name}, which says what is sent")
    url = values.get("url")
    if url and not values.get("allow_private") and "allow_private" not in sink.broken and spellings.is_private(url):
        hint = "write allow_private = true if it is meant"
        yield wrong(sink.path, "url", f"must be a host of the public internet, got {quoted(url)}", hint)
