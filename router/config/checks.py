"""Cross-checks: what no single setting can know.

Rule: every check looks at what could be read and says nothing about what could not, so no mistake is reported twice.
A setting that would never have an effect is refused rather than ignored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from policies.types import Evidence, Occasion, Path, Plan, Policy
from router import scores
from router.config import spellings
from router.config.draft import Draft, RouteDraft
from router.config.findings import Finding, did_you_mean, dotted, listed, quoted
from router.config.settings import BACKEND, SINK
from router.config.tables import TableDraft
from router.match import overlap
from router.scores import better_of, score_of, scored_01


def findings_of(draft: Draft) -> Iterator[Finding]:
    """Yield everything that is wrong between settings, warnings included."""
    yield from _gateway(draft.gateway)
    for backend in draft.backends.values():
        yield from _backend(backend)
    for metric in draft.metrics.values():
        yield from _metric(metric)
    if not draft.routes and not draft.findings:
        # An emptied or half-written file must not take every route out of service.
        yield Finding((), "the file has no routes, and would serve nothing", "begin with [routes.NAME]", "table")
    yield from _retention(draft)
    yield from _tally_retention(draft.gateway)
    for route in draft.routes.values():
        yield from _route(draft, route)
    yield from _overlaps(draft.routes.values())
    for sink in draft.sinks.values():
        yield from _sink(draft, sink)


#: Settings of the gateway, and what they have no effect without.
_USELESS_WITHOUT: Final = (
    ("tls_key_file", "tls_cert_file"),
    ("tls_client_ca_file", "tls_cert_file"),
    ("admin_tls_key_file", "admin_tls_cert_file"),
    ("admin_read_token_file", "admin_token_file"),
    ("metrics_open", "admin_token_file"),
)


def _gateway(gateway: TableDraft) -> Iterator[Finding]:
    has: Callable[[str], Any] = gateway.values.get
    for port in ("", "admin_"):
        cert, key = f"{port}tls_cert_file", f"{port}tls_key_file"
        if has(cert) and not has(key) and key not in gateway.broken:
            yield _wrong(gateway.path, cert, f"needs {key}, the private key of the certificate")
    for name, needed in _USELESS_WITHOUT:
        if has(name) and not has(needed) and needed not in gateway.broken:
            yield _wrong(gateway.path, name, f"needs {needed}, or it has no effect")
    if has("store_password_file") and has("store") == "sqlite":
        yield _wrong(gateway.path, "store_password_file", 'has no effect with store = "sqlite"')
    listen, admin = has("listen"), has("admin")
    if listen and admin and _same_socket(listen, admin):
        yield _wrong(gateway.path, "admin", f"must differ from listen, which has {quoted(listen)}")
    head, target = has("max_header_bytes"), has("max_target_bytes")
    if head is not None and target is not None and target > head:
        message = f"must be at most max_header_bytes, {head}, got {target}: a target is part of the head"
        yield _wrong(gateway.path, "max_target_bytes", message)
    if has("admin_open") and has("admin_token_file"):
        yield _wrong(gateway.path, "admin_open", "has no effect with admin_token_file")
    if _is_open(gateway, "listen", "feedback_token_file"):
        words = "is open to other machines, and anybody who reaches it may send feedback"
        message = f"{words}; name a file with a token in feedback_token_file"
        yield _wrong(gateway.path, "listen", message, warning=True)
    if _is_open(gateway, "admin", "admin_token_file") and not has("admin_open") and "admin_open" not in gateway.broken:
        words = "is open to other machines, and anybody who reaches it may read, reload and change"
        hint = "or write admin_open = true, where something else keeps others away"
        yield _wrong(gateway.path, "admin", f"{words}; name a file with a token in admin_token_file", hint)


def _is_open(gateway: TableDraft, name: str, token: str) -> bool:
    """Return whether an address is known to be reached by other machines, and no token is asked for there."""
    where: str | None = gateway.values.get(name)
    asks = gateway.values.get(token) or token in gateway.broken
    return where is not None and not asks and not spellings.is_loopback(where)


def _retention(draft: Draft) -> Iterator[Finding]:
    """A prediction is needed until its last window has closed."""
    kept = draft.gateway.values.get("prediction_retention")
    has = {name: metric.values.get for name, metric in draft.metrics.items()}
    # An event from before its prediction is looked for as long as such a prediction may still come.
    windows = {name: (get("window") or 0) + (get("window_before") or 0) for name, get in has.items()}
    longest = max(windows, key=lambda name: windows[name], default=None)
    if kept is not None and longest is not None and kept < windows[longest]:
        window = spellings.duration(windows[longest])
        message = f"must be at least the longest window, {window} of metrics.{longest}, got {spellings.duration(kept)}"
        yield _wrong(draft.gateway.path, "prediction_retention", message)


def _tally_retention(gateway: TableDraft) -> Iterator[Finding]:
    """What is counted is needed while a prediction is there that may still move it."""
    tallies, predictions = (gateway.values.get(name) for name in ("tally_retention", "prediction_retention"))
    if tallies is None or "prediction_retention" in gateway.broken:
        return
    if predictions is None:
        yield _wrong(gateway.path, "tally_retention", "has no effect without prediction_retention")
    elif tallies < predictions:
        message = f"must be at least prediction_retention, {spellings.duration(predictions)}"
        yield _wrong(gateway.path, "tally_retention", f"{message}, got {spellings.duration(tallies)}")


def _same_socket(one: str, other: str) -> bool:
    (host, port), (other_host, other_port) = spellings.address(one), spellings.address(other)
    anywhere = {"0.0.0.0", "::"}
    return port == other_port != 0 and (host == other_host or bool(anywhere & {host, other_host}))


#: A setting of a backend, the value with which others have no effect, and those.
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
            # What is given as it is by default does no harm.
            if has(other) not in (None, BACKEND.settings[other].default):
                because = f"with {name} = {off}" if off is not None else f"without {name}"
                yield _wrong(backend.path, other, f"has no effect {because}")
    interval, timeout = has("health_interval_ms"), has("health_timeout_ms")
    if has("health_path") and interval and timeout and timeout > interval:
        if timeout != BACKEND.settings["health_timeout_ms"].default:
            words = f"must not exceed health_interval_ms, {interval}, got {timeout}"
            yield _wrong(backend.path, "health_timeout_ms", words)
        else:
            words = f"must be at least health_timeout_ms, {timeout}, got {interval}"
            yield _wrong(backend.path, "health_interval_ms", words)


def _replicas(backend: TableDraft) -> Iterator[Finding]:
    if backend.broken & {"url", "urls"}:
        return
    url, urls = backend.values["url"], backend.values["urls"]
    if url is None and urls is None:
        yield Finding(backend.path, f"{dotted(backend.path)} needs url, or urls for several replicas", at="table")
    if url is not None and urls is not None:
        yield _wrong(backend.path, "urls", "and url are both given; write all replicas in urls")
    yield from _repeated((*backend.path, "urls"), urls or (), "names each replica once")
    known = urls or ((url,) if url else ())
    if backend.values.get("tls_ca_file") and known and not any(one.startswith("https:") for one in known):
        yield _wrong(backend.path, "tls_ca_file", "has no effect without an https url")


def _metric(metric: TableDraft) -> Iterator[Finding]:
    values, path = metric.values, metric.path
    if metric.broken & {"kind", "score", "fold"}:
        return
    kind: str = values["kind"]
    score, fold, span, missing = (values.get(name) for name in ("score", "fold", "range", "missing"))
    binary = scored_01(kind, score_of(kind, score))
    if score is not None and kind != "label":
        yield _wrong(path, "score", f'has no meaning for kind = "{kind}": only labels are scored against predictions')
    folds = {"event": ("any", "first", "last", "max"), "label": ("last", "first")}.get(
        kind, ("last", "first", "sum", "mean", "max")
    )
    if fold is not None and fold not in folds:
        yield _wrong(path, "fold", f'must be {listed(folds)} for kind = "{kind}", got "{fold}"')
    if binary and span is not None:
        yield _wrong(path, "range", "has no effect: every value is 0 or 1")
    elif span is not None and fold == "sum":
        yield _wrong(path, "range", "cannot be held by a sum of any number of events; leave it out")
    if binary and missing not in (None, 0.0, 1.0):
        yield _wrong(path, "missing", f'must be 0, 1 or "exclude", as every value is 0 or 1, got {missing:g}')
    elif not binary and span is not None and missing is not None and not span[0] <= missing <= span[1]:
        yield _wrong(path, "missing", f"must lie in range, [{span[0]:g}, {span[1]:g}], got {missing:g}")


def _route(draft: Draft, route: RouteDraft) -> Iterator[Finding]:
    yield from _backend_names(draft, route)
    yield from _metric_names(draft, route)
    yield from _stripped(route)
    if draft.gateway.values.get("underscores_in_headers") is False:
        yield from _underscored(route)
    if route.knows("metrics", "require_exposure") and route.get("require_exposure") and not route.get("metrics"):
        yield _wrong(route.path, "require_exposure", "has no effect without metrics")
    yield from _mirrors(route)
    if route.knows("key", "key_rule") and route.get("key") is None and route.get("key_rule") != "latest":
        yield _wrong(route.path, "key_rule", "has no effect without key")
    if isinstance(route.get("features"), tuple):
        yield from _repeated((*route.path, "features"), route.get("features"), "names each reference once")
    hidden = draft.gateway.values.get("unit_key_file") is not None
    if hidden:
        yield from _revealed(route)
    if route.capture is not None:
        yield from _capture(route, route.capture, hidden=hidden)
    if route.policy is not None:
        yield from _policy(draft, route, route.policy)


def _underscored(route: RouteDraft) -> Iterator[Finding]:
    """Yield the header fields that no request ever has, since they are dropped."""
    named: list[tuple[Path, str]] = [((*route.path, name), route.get(name) or "") for name in ("unit", "key")]
    named += [((*route.path, "features", name), text) for name, text in _references(route.get("features") or ())]
    named += [((*route.path, "headers", name), f"header:{name}") for name, _ in route.get("headers") or ()]
    for path, text in named:
        if text.startswith("header:") and "_" in text:
            message = f"{dotted(path)} is never there: fields with an underscore in their name are dropped"
            yield Finding(path, message, "write underscores_in_headers = true in [gateway]")


def _stripped(route: RouteDraft) -> Iterator[Finding]:
    prefix, path = route.get("strip_prefix"), route.get("path")
    if prefix is None or not route.knows("path", "strip_prefix") or f"{path}/".startswith(f"{prefix}/"):
        return
    message = f"must be what path begins with, whole segments of {quoted(path)}, got {quoted(prefix)}"
    yield _wrong(route.path, "strip_prefix", message)


#: What has no meaning for a sink that nothing is sent to.
_SENT: Final = ("url", "mode", "headers", "timeout_ms", "tls_ca_file")


def _sink(draft: Draft, sink: TableDraft) -> Iterator[Finding]:
    if "kind" in sink.broken:
        return
    values = sink.values
    if values["kind"] == "stdout":
        for name in _SENT:
            if values.get(name) not in (None, SINK.settings[name].default):
                yield _wrong(sink.path, name, 'has no effect with kind = "stdout"')
    elif values.get("url") is None and "url" not in sink.broken:
        yield Finding(sink.path, f"{dotted(sink.path)} needs url, where events are sent", at="table")
    elif values.get("tls_ca_file") and not (values.get("url") or "https:").startswith("https:"):
        yield _wrong(sink.path, "tls_ca_file", "has no effect without an https url")
    yield from _repeated((*sink.path, "events"), values.get("events") or (), "names each kind of event once")
    named = values.get("routes") or ()
    yield from _repeated((*sink.path, "routes"), named, "names each route once")
    for index, name in enumerate(named):
        if name not in draft.routes:
            yield _unknown((*sink.path, "routes", index), "route", name, draft.routes)
    told = [route for route in draft.routes.values() if not named or route.name in named]
    if "body" in (values.get("events") or ()) and told and all(route.capture is None for route in told):
        yield _wrong(sink.path, "events", "names body, and none of the routes captures any: add [routes.NAME.capture]")


#: What is logged of every request that has it.
_LOGGED: Final = frozenset({"header:x-request-id", "header:traceparent"})


def _revealed(route: RouteDraft) -> Iterator[Finding]:
    """Yield what would log the unit as it is, though units are to be logged as keyed hashes."""
    unit = route.get("unit")
    if unit is None or not route.knows("features", "key"):
        return
    if unit.lower() in _LOGGED:
        yield _wrong(
            route.path, "unit", "is logged as it is with each prediction, and gateway.unit_key_file hides units"
        )
    features = route.get("features")
    named = [((*route.path, "features", name), text) for name, text in _references(features)]
    for path, text in (*named, ((*route.path, "key"), route.get("key"))):
        if text is not None and _holds(text, unit):
            message = f"{dotted(path)} would log the unit as it is, and gateway.unit_key_file hides it"
            yield Finding(path, message, "leave it out")


def _capture(route: RouteDraft, capture: TableDraft, *, hidden: bool) -> Iterator[Finding]:
    if capture.broken:
        return
    request, answer, redact = (capture.values[name] for name in ("request", "answer", "redact"))
    if not request and not answer:
        message = f"{dotted(capture.path)} keeps nothing: it needs request or answer"
        yield Finding(capture.path, message, 'as in request = ["/inputs/0/data"]', "table")
    for name, pointers in (("request", request), ("answer", answer), ("redact", redact)):
        yield from _repeated((*capture.path, name), pointers, "names each pointer once")
    for index, pointer in enumerate(redact):
        if not any(_within(pointer, kept) or _within(kept, pointer) for kept in (*request, *answer)):
            where: Path = (*capture.path, "redact", index)
            yield Finding(where, f"{dotted(where)} has no effect: nothing is kept there", "leave it out")
    source, _, unit = (route.get("unit") or "").partition(":")
    if hidden and source == "body" and not any(_within(unit, pointer) for pointer in redact):
        for index, pointer in enumerate(request):
            if _within(unit, pointer) or _within(pointer, unit):
                where = (*capture.path, "request", index)
                message = f"{dotted(where)} would keep the unit as it is, and gateway.unit_key_file hides it"
                yield Finding(where, message, f"add {quoted(unit)} to redact")


def _within(pointer: str, other: str) -> bool:
    """Return whether a JSON Pointer points at what another does, or at something inside."""
    return pointer == other or pointer.startswith(f"{other}/")


def _references(features: Any) -> Iterator[tuple[str | int, str]]:
    yield from features.items() if isinstance(features, dict) else enumerate(features)


def _holds(reference: str, unit: str) -> bool:
    """Return whether what a reference reads is what another reads, or has it inside."""
    source, _, name = reference.partition(":")
    other, _, its = unit.partition(":")
    if source != other:
        return False
    if source == "body":
        return _within(its, name)
    return name.lower() == its.lower() if source == "header" else name == its


def _backend_names(draft: Draft, route: RouteDraft) -> Iterator[Finding]:
    named = [((*mirror.path, "variant"), mirror.values.get("variant")) for mirror in route.mirrors]
    named.append(((*route.path, "fallback"), route.get("fallback")))
    for path, name in named:
        if name is not None and name not in draft.backends:
            yield _unknown(path, "backend", name, draft.backends)
    for path, name in () if route.policy is None else route.policy.references():
        if path[0] not in route.unsure and name not in draft.backends:
            # In shares = { v1 = 0.5 } the name is a key.
            at: Literal["key", "value"] = "key" if len(path) > 1 and path[-1] == name else "value"
            yield _unknown((*route.path, "policy", *path), "backend", name, draft.backends, at)


def _metric_names(draft: Draft, route: RouteDraft) -> Iterator[Finding]:
    if not route.knows("metrics"):
        return
    metrics, primary = route.get("metrics"), route.get("primary_metric")
    path: Path = (*route.path, "metrics")
    for index, name in enumerate(metrics):
        if name not in draft.metrics:
            yield _unknown((*path, index), "metric", name, draft.metrics)
    yield from _repeated(path, metrics, "names each metric once")
    if primary is not None and primary not in metrics:
        hint = did_you_mean(primary, metrics)
        yield _wrong(route.path, "primary_metric", f"must be one of the route's metrics, got {quoted(primary)}", hint)


def _mirrors(route: RouteDraft) -> Iterator[Finding]:
    seen: set[str] = set()
    for mirror in route.mirrors:
        variant, methods = mirror.values.get("variant"), mirror.values.get("methods", ())
        if variant in seen:
            yield _wrong(mirror.path, "variant", f"names {quoted(variant)} again; one mirror per variant")
        elif variant is not None:
            seen.add(variant)
        for index, method in enumerate(methods):
            if route.knows("methods") and route.get("methods") and method not in route.get("methods"):
                path = (*mirror.path, "methods", index)
                yield Finding(path, f'{dotted(path)} has no effect: the route does not take "{method}"')


def _policy(draft: Draft, route: RouteDraft, policy: Policy) -> Iterator[Finding]:
    path: Path = (*route.path, "policy")
    own = [
        Finding((*path, *problem.path), f"{dotted((*path, *problem.path))} {problem.message}")
        for problem in policy.problems()
        if not route.unsure.intersection(map(str, problem.path[:1]))
    ]
    yield from own
    yield from _baseline(route, policy)
    if policy.reward is not None and "reward" not in route.unsure:
        yield from _reward(draft, route, policy.reward)
    plan, merging = _plan(policy)
    yield from _labels(draft, route, merging)
    if plan is not None and not own and not route.unsure:
        yield from _idle(route, plan, merging)
    sticky = not route.unsure and policy.randomised and policy.by_unit
    if sticky and route.knows("unit") and route.get("unit") is None:
        message = f"{dotted(path)} keeps a unit with its variant, but the route names no unit: each request is its own"
        yield Finding(path, message, 'say who is randomised, as in unit = "header:x-user-id"', "table", "warning")


def _baseline(route: RouteDraft, policy: Policy) -> Iterator[Finding]:
    baseline = route.get("baseline")
    if not route.knows("baseline"):
        return
    if baseline is None and policy.needs_baseline:
        message = f'{dotted((*route.path, "baseline"))} is required for kind = "{policy.kind}"'
        yield Finding(route.path, message, "name the variant that the others are compared with", "table")
    elif baseline is not None and not route.unsure and baseline not in policy.variants:
        hint = did_you_mean(baseline, policy.variants)
        yield _wrong(route.path, "baseline", f"must be one of the policy's variants, got {quoted(baseline)}", hint)


def _reward(draft: Draft, route: RouteDraft, reward: str) -> Iterator[Finding]:
    path: Path = (*route.path, "policy")
    metric = draft.metrics.get(reward)
    if metric is None:
        yield _unknown((*path, "reward"), "metric", reward, draft.metrics)
    elif route.knows("metrics") and reward not in route.get("metrics"):
        hint = "add it to metrics"
        yield _wrong(path, "reward", f"must be one of the route's metrics, got {quoted(reward)}", hint)
    elif not metric.broken & {"kind", "score", "better", "missing"}:
        values = metric.values
        scorer = score_of(values["kind"], values["score"])
        if not scored_01(values["kind"], scorer):
            labels = " or ".join(score.name for score in scores.SCORES if score.binary)
            got = f"got {quoted(reward)}, a {values['kind']}" + (f" with {values['score']}" if values["score"] else "")
            yield _wrong(path, "reward", f"must be a metric scored 0 or 1 (an event, or a label with {labels}), {got}")
        elif better_of(scorer, values["better"]) == "lower":
            yield _wrong(path, "reward", f"must be a metric of which higher is better, got {quoted(reward)}")
        elif values["kind"] == "event" and values["missing"] is None:
            message = f"{quoted(reward)} leaves out requests without an event: unless zeros are sent, it is always 1"
            hint = f"write missing = 0 in [metrics.{reward}]"
            yield _wrong(path, "reward", message, hint, warning=True)


def _plan(policy: Policy) -> tuple[Plan | None, bool | None]:
    """Return the plan without evidence and whether it merges answers; None for what wrong settings leave open."""
    try:
        plan = policy.plan(Evidence())
        answering = plan.decide(Occasion("", None, "")).answering
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None, None
    return plan, len(answering) > 1 if answering else None


def _idle(route: RouteDraft, plan: Plan, merging: bool | None) -> Iterator[Finding]:
    """Yield the fallback and the mirrors that never get a request, because they get every request already."""
    always = tuple(plan.shares) if merging or len(plan.shares) == 1 else ()
    if route.get("fallback") in always:
        message = f"has no effect: {quoted(route.get('fallback'))} is asked for every request already"
        yield _wrong(route.path, "fallback", message)
    for mirror in route.mirrors:
        if mirror.values.get("variant") in always:
            message = f"has no effect: {quoted(mirror.values['variant'])} is asked for every request already"
            yield _wrong(mirror.path, "variant", message)


def _labels(draft: Draft, route: RouteDraft, merging: bool | None) -> Iterator[Finding]:
    if merging is None or not route.knows("metrics", "prediction"):
        return
    for index, name in enumerate(route.get("metrics")):
        metric = draft.metrics.get(name)
        if metric is None or metric.values.get("kind") != "label":
            continue
        if merging:
            where: Path = (*route.path, "metrics", index)
            message = f"{dotted(where)}: {quoted(name)} is a label, and a label has no meaning for a merged list"
            yield Finding(where, message, severity="warning")
        elif route.get("prediction") is None:
            message = f"{dotted((*route.path, 'prediction'))} is required: {quoted(name)} is a label and scores it"
            yield Finding(route.path, message, 'as in prediction = "/outputs/0/data/0"', "table")


@dataclass(frozen=True, slots=True)
class _Taken:
    route: RouteDraft
    path: str
    methods: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]


def _overlaps(routes: Iterable[RouteDraft]) -> Iterator[Finding]:
    taken = [
        _Taken(route, route.get("path"), route.get("methods"), route.get("headers"))
        for route in routes
        if route.knows("path", "methods", "headers")
    ]
    same_path: dict[str, list[_Taken]] = defaultdict(list)
    for other in taken:
        for one in same_path[other.path]:
            if overlap(one, other):
                message = f"takes requests that {dotted(one.route.path)} takes too"
                hint = "give one of them other methods, or both the same header with different values"
                yield _wrong(other.route.path, "path", message, hint)
        same_path[other.path].append(other)


def _wrong(table: Path, name: str, words: str, hint: str | None = None, *, warning: bool = False) -> Finding:
    path = (*table, name)
    return Finding(path, f"{dotted(path)} {words}", hint, severity="warning" if warning else "error")


def _unknown(path: Path, what: str, name: str, known: Iterable[str], at: Literal["key", "value"] = "value") -> Finding:
    message = f"{dotted(path[:-1] if at == 'key' else path)}: unknown {what} {quoted(name)}"
    return Finding(path, message, did_you_mean(name, known), at)


def _repeated(path: Path, names: Iterable[str], rule: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Finding((*path, index), f"{dotted((*path, index))} repeats {quoted(name)}; {dotted(path)} {rule}")
        seen.add(name)
