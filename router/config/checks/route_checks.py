"""Checks of a route: its settings together, and against backends, metrics and other routes.

Rule: as in ``file_checks``, a check uses only settings that could be read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from policies.types import Evidence, Occasion, Path, Plan, Policy
from router import scores
from router.config.checks.comparison_checks import comparison_findings
from router.config.draft import Draft, RouteDraft
from router.config.findings import Finding, did_you_mean, dotted, quoted, repeated, unknown, wrong
from router.config.tables import TableDraft
from router.match import overlap
from router.scores import better_of, score_of, scored_01
from router.settings.route import HELD_OUT


def route_findings(draft: Draft, route: RouteDraft) -> Iterator[Finding]:
    """Yield every problem of one route."""
    yield from _backend_names(draft, route)
    yield from _metric_names(draft, route)
    yield from _stripped(route)
    if draft.gateway.values.get("underscores_in_headers") is False:
        yield from _underscored(route)
    if route.knows("metrics", "require_exposure") and route.get("require_exposure") and not route.get("metrics"):
        yield wrong(route.path, "require_exposure", "has no effect without metrics")
    yield from _mirrors(route)
    if route.knows("key", "key_rule") and route.get("key") is None and route.get("key_rule") != "latest":
        yield wrong(route.path, "key_rule", "has no effect without key")
    if route.knows("unit", "holdout") and route.get("holdout") is not None and route.get("unit") is None:
        yield wrong(route.path, "holdout", "needs a unit: requests cannot be held out one by one")
    if route.get("holdout") is None and route.knows("holdout") and route.get("holdout_share") not in (None, HELD_OUT):
        yield wrong(route.path, "holdout_share", "has no effect without holdout")
    if isinstance(route.get("features"), tuple):
        yield from repeated((*route.path, "features"), route.get("features"), "names each reference once")
    hidden = draft.gateway.values.get("unit_key_file") is not None
    if hidden:
        yield from _revealed(route)
    if route.capture is not None:
        yield from _capture(route, route.capture, hidden=hidden)
    if route.policy is not None:
        yield from _policy(draft, route, route.policy)


def _underscored(route: RouteDraft) -> Iterator[Finding]:
    """Yield the references to header fields that no request ever has, since the gateway drops them."""
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
    yield wrong(route.path, "strip_prefix", message)


#: The headers that are logged with every prediction.
_LOGGED: Final = frozenset({"header:x-request-id", "header:traceparent"})


def _revealed(route: RouteDraft) -> Iterator[Finding]:
    """Yield the settings that would log the unit itself, although units are logged as keyed hashes."""
    unit = route.get("unit")
    if unit is None or not route.knows("features", "key"):
        return
    if unit.lower() in _LOGGED:
        yield wrong(
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
        yield from repeated((*capture.path, name), pointers, "names each pointer once")
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
    """Return whether a JSON Pointer points at the same value as another, or at something inside it."""
    return pointer == other or pointer.startswith(f"{other}/")


def _references(features: Any) -> Iterator[tuple[str | int, str]]:
    yield from features.items() if isinstance(features, dict) else enumerate(features)


def _holds(reference: str, unit: str) -> bool:
    """Return whether a reference reads the same value as another, or one that contains it."""
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
            yield unknown(path, "backend", name, draft.backends)
    for path, name in () if route.policy is None else route.policy.references():
        if path[0] not in route.unsure and name not in draft.backends:
            # In shares = { v1 = 0.5 } the name is a key.
            at: Literal["key", "value"] = "key" if len(path) > 1 and path[-1] == name else "value"
            yield unknown((*route.path, "policy", *path), "backend", name, draft.backends, at)


def _metric_names(draft: Draft, route: RouteDraft) -> Iterator[Finding]:
    if not route.knows("metrics"):
        return
    metrics, primary = route.get("metrics"), route.get("primary_metric")
    path: Path = (*route.path, "metrics")
    for index, name in enumerate(metrics):
        if name not in draft.metrics:
            yield unknown((*path, index), "metric", name, draft.metrics)
    yield from repeated(path, metrics, "names each metric once")
    if primary is not None and primary not in metrics:
        hint = did_you_mean(primary, metrics)
        yield wrong(route.path, "primary_metric", f"must be one of the route's metrics, got {quoted(primary)}", hint)


def _mirrors(route: RouteDraft) -> Iterator[Finding]:
    seen: set[str] = set()
    for mirror in route.mirrors:
        variant, methods = mirror.values.get("variant"), mirror.values.get("methods", ())
        if variant in seen:
            yield wrong(mirror.path, "variant", f"names {quoted(variant)} again; one mirror per variant")
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
        if _sure(route, problem.path)
    ]
    yield from own
    yield from _baseline(route, policy)
    if policy.reward is not None and "reward" not in route.unsure:
        yield from _reward(draft, route, policy.reward)
    plan, merging = _plan(policy)
    yield from _labels(draft, route, merging)
    yield from comparison_findings(draft, route, policy, merging)
    if plan is not None and not own and not route.unsure and not policy.stepped:
        yield from _idle(route, plan, merging)
    sticky = not route.unsure and policy.randomised and policy.by_unit
    if sticky and route.knows("unit") and route.get("unit") is None:
        message = f"{dotted(path)} keeps a unit with its variant, but the route names no unit: each request is its own"
        yield Finding(path, message, 'say who is randomised, as in unit = "header:x-user-id"', "table", "warning")


def _sure(route: RouteDraft, path: Path) -> bool:
    """Return whether a setting of the policy could be read: all of it, or of a list of tables the one at ``path``."""
    name = str(path[0])
    if name not in route.unsure:
        return True
    listed = any(one.startswith(f"{name}[") for one in route.unsure)
    return listed and len(path) > 1 and f"{name}[{path[1]}]" not in route.unsure


def _baseline(route: RouteDraft, policy: Policy) -> Iterator[Finding]:
    baseline = route.get("baseline")
    if not route.knows("baseline"):
        return
    if baseline is None and policy.needs_baseline:
        message = f'{dotted((*route.path, "baseline"))} is required for kind = "{policy.kind}"'
        yield Finding(route.path, message, "name the variant that the others are compared with", "table")
    elif baseline is not None and not route.unsure and baseline not in policy.variants:
        hint = did_you_mean(baseline, policy.variants)
        yield wrong(route.path, "baseline", f"must be one of the policy's variants, got {quoted(baseline)}", hint)
    elif baseline is not None and policy.stepped and not route.unsure and baseline != policy.baseline:
        words = f"must be what it goes back to, {quoted(policy.baseline or '')}, got {quoted(baseline)}"
        yield wrong(route.path, "baseline", words, "leave it out")


def _reward(draft: Draft, route: RouteDraft, reward: str) -> Iterator[Finding]:
    path: Path = (*route.path, "policy")
    metric = draft.metrics.get(reward)
    if metric is None:
        yield unknown((*path, "reward"), "metric", reward, draft.metrics)
    elif route.knows("metrics") and reward not in route.get("metrics"):
        hint = "add it to metrics"
        yield wrong(path, "reward", f"must be one of the route's metrics, got {quoted(reward)}", hint)
    elif not metric.broken & {"kind", "score", "better", "missing"}:
        values = metric.values
        scorer = score_of(values["kind"], values["score"])
        if not scored_01(values["kind"], scorer):
            labels = " or ".join(score.name for score in scores.SCORES if score.binary)
            got = f"got {quoted(reward)}, a {values['kind']}" + (f" with {values['score']}" if values["score"] else "")
            yield wrong(path, "reward", f"must be a metric scored 0 or 1 (an event, or a label with {labels}), {got}")
        elif better_of(scorer, values["better"]) == "lower":
            yield wrong(path, "reward", f"must be a metric of which higher is better, got {quoted(reward)}")
        elif values["kind"] == "event" and values["missing"] is None:
            message = f"{quoted(reward)} leaves out requests without an event: unless zeros are sent, it is always 1"
            hint = f"write missing = 0 in [metrics.{reward}]"
            yield wrong(path, "reward", message, hint, warning=True)


def _plan(policy: Policy) -> tuple[Plan | None, bool | None]:
    """Return the plan without evidence and whether it merges answers; None for what wrong settings leave unknown."""
    try:
        plan = policy.plan(Evidence())
        answering = plan.decide(Occasion("", None, "")).answering
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None, None
    return plan, len(answering) > 1 if answering else None


def _idle(route: RouteDraft, plan: Plan, merging: bool | None) -> Iterator[Finding]:
    """Yield the fallback and the mirrors that have no effect, because that backend gets every request already."""
    always = tuple(plan.shares) if merging or len(plan.shares) == 1 else ()
    if route.get("fallback") in always:
        message = f"has no effect: {quoted(route.get('fallback'))} is asked for every request already"
        yield wrong(route.path, "fallback", message)
    for mirror in route.mirrors:
        if mirror.values.get("variant") in always:
            message = f"has no effect: {quoted(mirror.values['variant'])} is asked for every request already"
            yield wrong(mirror.path, "variant", message)


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


def overlaps(routes: Iterable[RouteDraft]) -> Iterator[Finding]:
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
                yield wrong(other.route.path, "path", message, hint)
        same_path[other.path].append(other)
