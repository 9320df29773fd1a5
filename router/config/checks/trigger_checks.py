"""Checks of triggers: what they are about is there, what they do is possible, and no two act against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from policies.types import Path
from router.config.draft import Draft, RouteDraft, TriggerDraft
from router.config.findings import Finding, dotted, quoted, unknown, wrong
from router.settings.declared import MEASURES
from router.triggers.condition import Condition


def trigger_findings(draft: Draft) -> Iterator[Finding]:
    """Yield what is wrong with the file's triggers, each alone and two together."""
    frozen: dict[str, tuple[str, str]] = {}
    for trigger in draft.triggers.values():
        yield from _trigger(draft, trigger)
        route, to = trigger.get("route"), trigger.get("freeze")
        if route is None or to is None:
            continue
        other, before = frozen.setdefault(route, (trigger.name, to))
        if before != to:
            words = f"acts against triggers.{other}, which freezes routes.{route} to {quoted(before)}"
            yield wrong(trigger.path, "freeze", words)


def _trigger(draft: Draft, trigger: TriggerDraft) -> Iterator[Finding]:
    values, broken = trigger.reading.values, trigger.reading.broken
    if not broken & {"any", "all"}:
        given = [name for name in ("any", "all") if values.get(name)]
        if not given:
            hint = 'any = [{ kind = "request" }] fires when somebody asks for it'
            yield Finding(trigger.path, f"{dotted(trigger.path)} needs conditions, in any or in all", hint, "table")
        elif len(given) == 2:
            yield wrong(trigger.path, "all", "and any are both given; two sets of conditions are two triggers")
    for path, condition in trigger.conditions.items():
        for name, words in condition.problems():
            yield _of_condition(trigger, path, name, words)
    measured = broken & {"any", "all"} or any(one.metrics for one in trigger.conditions.values())
    if values.get("min_coverage") and not measured:
        yield wrong(trigger.path, "min_coverage", "has no effect without a condition on a metric")
    yield from _webhook(draft, trigger)
    about = values.get("route")
    if about is not None and about not in draft.routes:
        yield unknown((*trigger.path, "route"), "route", about, draft.routes)
    elif about is not None:
        yield from _of_route(trigger, draft.routes[about])


def _webhook(draft: Draft, trigger: TriggerDraft) -> Iterator[Finding]:
    name, path = trigger.get("webhook"), (*trigger.path, "webhook")
    if name is None:
        return
    sink = draft.sinks.get(name)
    if sink is None:
        yield unknown(path, "sink", name, draft.sinks)
    elif "kind" not in sink.broken and sink.values["kind"] != "webhook":
        words = f'must be a sink of kind = "webhook", and sinks.{name} is not'
        yield wrong(trigger.path, "webhook", words, 'others get it with "trigger" in their events')


def _of_route(trigger: TriggerDraft, route: RouteDraft) -> Iterator[Finding]:
    if route.policy is None:
        return
    mirrored = [mirror.values["variant"] for mirror in route.mirrors if "variant" in mirror.values]
    known = list(dict.fromkeys([*route.policy.variants, *mirrored]))
    for key in ("variant", "freeze"):
        name = trigger.get(key)
        if name is not None and name not in known:
            yield unknown((*trigger.path, key), f"variant of routes.{route.name}", name, known)
    baseline = route.get("baseline") or route.policy.baseline
    metrics = route.get("metrics") or ()
    for path, condition in trigger.conditions.items():
        yield from _metrics(trigger, route, path, condition, metrics)
        alone = trigger.get("variant") in (None, baseline) and "variant" not in trigger.reading.broken
        if condition.compares and alone:
            hint = f'the trigger is about the baseline, "{baseline}"; name another in variant'
            yield Finding(path, f"{dotted(path)} compares a variant with the baseline, and needs one", hint)


def _metrics(
    trigger: TriggerDraft, route: RouteDraft, path: Path, condition: Condition, metrics: tuple[str, ...]
) -> Iterator[Finding]:
    if not route.knows("metrics"):
        return
    for name in condition.metrics:
        if name not in metrics and not (condition.compares and name in MEASURES):
            others = (*metrics, *MEASURES) if condition.compares else metrics
            yield unknown((*path, "metric"), f"metric of routes.{route.name}", name, others)


def _of_condition(trigger: TriggerDraft, path: Path, name: str, words: str) -> Finding:
    given: Mapping[str, Any] = trigger.reading.values[str(path[2])][int(path[3])]
    where: Path = (*path, name) if name in given else path
    return Finding(where, f"{dotted((*path, name))} {words}")
