"""Checks of what a route compares: its metrics under its policy, its declared test and its guardrails.

Rule: as in ``file_checks``. What makes a comparison false or useless is a warning that says what happens and which key
mends it; a declaration that cannot be kept is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from policies.types import Path, Policy
from router.config.draft import Draft, RouteDraft
from router.config.findings import Finding, did_you_mean, dotted, listed, quoted, wrong
from router.config.tables import TableDraft
from router.scores import score_of
from router.settings.declared import FAILURES, MEASURES
from router.snapshot import Metric

#: What makes the values of a metric, and so its bounds and whether it may be left out.
_NEEDED: Final = frozenset({"kind", "score", "missing", "range", "cap", "better"})


def comparison_findings(draft: Draft, route: RouteDraft, policy: Policy, merging: bool | None) -> Iterator[Finding]:
    """Yield what is wrong with what a route compares; ``merging``: whether its answers are merged, None if unknown."""
    if route.unsure or merging is None or not route.knows("metrics", "mirrors", "unit"):
        return
    variants = dict.fromkeys((*policy.variants, *(mirror.values.get("variant") for mirror in route.mirrors)))
    alone = len(variants) < 2
    yield from _values(draft, route, policy)
    if not (alone or merging or policy.randomised):
        yield from _copies(draft, route)
    if policy.randomised and policy.adaptive and policy.by_unit and route.get("unit") is not None:
        path: Path = (*route.path, "policy")
        message = f"{dotted(path)} keeps a unit with its variant while the shares move: no interval holds then"
        yield Finding(path, f"{message}, and the verdict is withheld", "leave sticky out", "table", "warning")
    if route.test is not None:
        moving = policy.adaptive or not policy.randomised
        yield from _alone(route.test) if alone else _test(draft, route, route.test, moving=moving)
    for index, guardrail in enumerate(route.guardrails):
        yield from _alone(guardrail) if alone else _guardrail(draft, route, guardrail, route.guardrails[:index])
        yield from _action(guardrail, policy)
    yield from _gates(route, policy)


def _metrics(draft: Draft, route: RouteDraft) -> Iterator[tuple[Path, str, TableDraft]]:
    """Yield the metrics of a route that could be read whole, each with where the route names it."""
    for index, name in enumerate(route.get("metrics")):
        metric = draft.metrics.get(name)
        if metric is not None and not metric.broken & _NEEDED:
            yield (*route.path, "metrics", index), name, metric


def _values(draft: Draft, route: RouteDraft, policy: Policy) -> Iterator[Finding]:
    """Yield the metrics by which variants that share the traffic cannot be compared, or only after very long."""
    if not policy.randomised:
        return
    for where, name, metric in _metrics(draft, route):
        values = metric.values
        if name == policy.reward:
            continue  # what it may be is checked there
        if values["kind"] == "event" and values["missing"] is None:
            message = f"{dotted(where)}: of {quoted(name)} only requests with an event count: unless zeros are sent"
            message += " its mean is always 1, and as soon as variants differ in how many have one, it is not compared"
            yield Finding(where, message, f"write missing = 0 in [metrics.{name}]", severity="warning")
        elif values["kind"] == "value" and values["range"] is None and values["cap"] is None:
            message = f"{dotted(where)}: values of {quoted(name)} have no bound, so a few very large ones may keep its"
            hint = f"write cap, the most that one prediction counts for, or range in [metrics.{name}]"
            yield Finding(where, f"{message} comparison from ever deciding", hint, severity="warning")


def _copies(draft: Draft, route: RouteDraft) -> Iterator[Finding]:
    """Yield that copies are never compared: events and values say something of the answer that was seen."""
    found = list(_metrics(draft, route))
    if found and len(found) == len(route.get("metrics")) and all(m.values["kind"] != "label" for _, _, m in found):
        message = "has no label, and copies are judged by labels alone: what gets copies is never compared"
        yield wrong(route.path, "metrics", message, 'add a metric with kind = "label"', warning=True)


def _alone(table: TableDraft) -> Iterator[Finding]:
    message = f"{dotted(table.path)} has no effect: the route has one variant, and nothing to compare it with"
    yield Finding(table.path, message, at="table")


def _test(draft: Draft, route: RouteDraft, test: TableDraft, *, moving: bool) -> Iterator[Finding]:
    given = [name for name in ("smallest_effect", "units", "until") if test.values.get(name) is not None]
    ended = [name for name in given if name != "smallest_effect"]
    for name in given[1:]:
        words = f"and {given[0]} are both given"
        why = "both say when it ends" if given[0] in ended else "a test is planned for an effect, or for an end"
        yield wrong(test.path, name, f"{words}: {why}", "leave one of them out")
    expected = test.values.get("expected_units") is not None
    if expected and ended:
        yield wrong(test.path, "expected_units", f"has no effect with {ended[0]}: the test is tuned to that already")
    elif moving:
        for name in (*ended, *(["expected_units"] if expected else [])):
            words = "has no effect: this policy is decided by an e-process, which has no end and is tuned to no size"
            yield wrong(test.path, name, words, warning=True)
    effect = test.values.get("smallest_effect")
    if effect is None or not route.knows("primary_metric"):
        return
    names = route.get("metrics")
    primary = draft.metrics.get(route.get("primary_metric") or (names[0] if names else ""))
    if not names:
        yield wrong(test.path, "smallest_effect", "has no effect: the route has no metric")
    elif primary is not None and not primary.broken & _NEEDED:
        yield from _within_width(test, "smallest_effect", str(primary.path[-1]), _bounds(primary.values))


def _guardrail(
    draft: Draft, route: RouteDraft, guardrail: TableDraft, before: tuple[TableDraft, ...]
) -> Iterator[Finding]:
    values, path = guardrail.values, guardrail.path
    name, worse_by, limit = (values.get(key) for key in ("metric", "worse_by", "limit"))
    if not guardrail.broken & {"worse_by", "limit"}:
        if worse_by is None and limit is None:
            message = f"{dotted(path)} needs worse_by, against the baseline, or limit, for each variant alone"
            yield Finding(path, message, at="table")
        elif worse_by is not None and limit is not None:
            yield wrong(path, "limit", "and worse_by are both given; two bounds are two guardrails")
    if name is None:
        return
    kind = "worse_by" if worse_by is not None else "limit"
    for other in before:
        if other.values.get("metric") == name and other.values.get(kind) is not None and values.get(kind) is not None:
            yield wrong(path, "metric", f"has {kind} for {quoted(name)} again; each metric has one of it")
            break
    metric, measure = draft.metrics.get(name), MEASURES.get(name)
    own = name in route.get("metrics")
    if not own and measure is None:
        known = (*route.get("metrics"), *MEASURES)
        hint = "add it to metrics" if metric is not None else did_you_mean(name, known)
        words = f"must be one of the route's metrics, or {listed(MEASURES)}, got {quoted(name)}"
        yield wrong(path, "metric", words, hint)
    elif own and measure is not None:
        yield wrong(path, "metric", f"is both a metric of the route and built in: {quoted(name)}; rename the metric")
    elif measure is not None:
        yield from _bound(guardrail, name, (measure.low, measure.high))
    elif metric is not None and not metric.broken & _NEEDED:
        yield from _bound(guardrail, name, _bounds(metric.values))
        if metric.values["better"] is None and metric.values["kind"] != "label":
            words = f"bounds {quoted(name)} from below, as higher is better unless the metric says otherwise"
            hint = f'write better = "lower", or "higher", in [metrics.{name}]'
            yield wrong(path, "metric", words, hint, warning=True)


def _action(guardrail: TableDraft, policy: Policy) -> Iterator[Finding]:
    """Yield an action that the policy has no use for."""
    action = guardrail.values.get("action")
    if action == "floor" and not policy.adaptive:
        words = f"is for policies that learn, and {quoted(policy.kind)} gives each variant the share that the file says"
        yield wrong(guardrail.path, "action", f'"floor" {words}', 'write "rollback", "pause" or "warn"')
    elif action == "pause" and not (policy.adaptive or policy.stepped):
        words = f'"pause" has no effect: the shares of {quoted(policy.kind)} do not move by themselves'
        yield wrong(guardrail.path, "action", words, 'write "rollback" or "warn"')


def _gates(route: RouteDraft, policy: Policy) -> Iterator[Finding]:
    """Yield what a policy waits for and would never get."""
    bounded = {one.values.get("metric") for one in route.guardrails} | {FAILURES.metric}
    for path, metric in policy.gates:
        where: Path = (*route.path, "policy", *path)
        if metric not in bounded:
            message = f"{dotted(where)} names no guardrail of the route, got {quoted(metric)}: it would wait for ever"
            hint = did_you_mean(metric, [name for name in bounded if name is not None])
            yield Finding(where, message, hint or f"add [[{dotted((*route.path, 'guardrails'))}]] for it")
    if not route.knows("prediction") or route.get("prediction") is not None:
        return
    for path in policy.compared:
        where = (*route.path, "policy", *path)
        message = f"{dotted(where)} compares predictions, and the route does not say where they stand in an answer"
        yield Finding(where, message, 'as in prediction = "/outputs/0/data/0"')


def _bound(guardrail: TableDraft, name: str, bounds: tuple[float, float] | None) -> Iterator[Finding]:
    if bounds is None:
        return
    (low, high), values = bounds, guardrail.values
    limit = values.get("limit")
    if limit is not None and not low <= limit <= high:
        words = f"must lie in [{low:g}, {high:g}], as {quoted(name)} does, got {limit:g}"
        yield wrong(guardrail.path, "limit", words)
    yield from _within_width(guardrail, "worse_by", name, bounds)


def _within_width(table: TableDraft, key: str, name: str, bounds: tuple[float, float] | None) -> Iterator[Finding]:
    given, width = table.values.get(key), float("inf") if bounds is None else bounds[1] - bounds[0]
    if given is not None and given >= width:
        yield wrong(table.path, key, f"must be less than {width:g}, all that {quoted(name)} can differ, got {given:g}")


def _bounds(values: dict[str, Any]) -> tuple[float, float] | None:
    """Return the bounds of a metric as read: those that it will have."""
    return Metric(
        name="",
        kind=values["kind"],
        score=getattr(score_of(values["kind"], values["score"]), "name", None),
        better="higher",
        window_ms=0,
        mature="window",
        missing=None,
        fold="last",
        range=values["range"],
        definition="",
        cap=values["cap"],
    ).bounds
