"""The operator's file as read, table by table, with its mistakes.

Rule: everything that can be read is read, whatever else is wrong, so that the checks between settings see as much as
possible and every problem is reported at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import policies
from policies.types import Path, Policy
from router.config import spellings
from router.config.file import (
    ALERT,
    BACKEND,
    CAPTURE,
    FILE,
    GATEWAY,
    GUARDRAIL,
    MIRROR,
    ROUTE,
    SINK,
    TEST,
    TRIGGER,
    condition_table,
    metric_table,
    policy_table,
)
from router.config.findings import Finding, did_you_mean, dotted, listed, shown
from router.config.tables import Table, TableDraft, read, stand_in
from router.records import EXPOSED
from router.triggers import conditions
from router.triggers.condition import Condition

#: Levels of tables and lists that a file may have. The deepest setting is at six.
DEEPEST: Final = 24

#: The name under which feedback for an unknown route is counted.
RESERVED_ROUTE: Final = "unknown"

#: The metric that every route with ``require_exposure`` has.
RESERVED_METRIC: Final = EXPOSED


@dataclass(frozen=True, slots=True)
class RouteDraft:
    """A route as read.

    ``policy`` is None if its kind is not known. ``unsure`` are the policy's settings that could not be read: the policy
    has a stand-in value there, from which nothing may be concluded.
    """

    name: str
    reading: TableDraft
    mirrors: tuple[TableDraft, ...]
    capture: TableDraft | None
    test: TableDraft | None
    guardrails: tuple[TableDraft, ...]
    policy: Policy | None
    unsure: frozenset[str]
    salt: str

    def get(self, key: str) -> Any:
        return self.reading.values.get(key)

    def knows(self, *keys: str) -> bool:
        """Return whether each of these keys could be read or has its default."""
        return not self.reading.broken.intersection(keys)

    @property
    def path(self) -> Path:
        return self.reading.path


@dataclass(frozen=True, slots=True)
class TriggerDraft:
    """A trigger as read: its table, and its conditions with their paths, as far as they could be read."""

    name: str
    reading: TableDraft
    conditions: Mapping[Path, Condition]

    def get(self, key: str) -> Any:
        return self.reading.values.get(key)

    @property
    def path(self) -> Path:
        return self.reading.path


@dataclass(frozen=True, slots=True)
class Draft:
    """The whole file as read, and what is wrong with single settings."""

    gateway: TableDraft
    backends: Mapping[str, TableDraft]
    metrics: Mapping[str, TableDraft]
    routes: Mapping[str, RouteDraft]
    sinks: Mapping[str, TableDraft]
    triggers: Mapping[str, TriggerDraft]
    alerts: Mapping[str, TableDraft]
    findings: tuple[Finding, ...]


def draft_of(document: dict[str, Any]) -> Draft:
    """Read a parsed file. Raises nothing: what is wrong is in the findings."""
    beyond = _beyond(document)
    if beyond is not None:
        return Draft(read(GATEWAY, {}, ("gateway",)), {}, {}, {}, {}, {}, {}, (beyond,))
    file = read(FILE, document, ())
    sections = {name: file.values.get(name, {}) for name in FILE.settings}
    gateway = read(GATEWAY, sections["gateway"], ("gateway",))
    backends = {name: read(BACKEND, given, ("backends", name)) for name, given in sections["backends"].items()}
    metrics = {name: read(metric_table(), given, ("metrics", name)) for name, given in sections["metrics"].items()}
    sinks = {name: read(SINK, given, ("sinks", name)) for name, given in sections["sinks"].items()}
    alerts = {name: read(ALERT, given, ("alerts", name)) for name, given in sections["alerts"].items()}
    findings = [*file.findings, *gateway.findings]
    for section in (backends, metrics, sinks, alerts):
        for reading in section.values():
            findings += [*_name_findings(reading.path), *reading.findings]
    if RESERVED_METRIC in metrics:
        reserved: Path = ("metrics", RESERVED_METRIC)
        findings.append(Finding(reserved, f"{dotted(reserved)}: this name is kept for require_exposure", at="key"))
    routes = {name: _route(name, given, findings) for name, given in sections["routes"].items()}
    triggers = {name: _trigger(name, given, findings) for name, given in sections["triggers"].items()}
    return Draft(gateway, backends, metrics, routes, sinks, triggers, alerts, tuple(findings))


def _route(name: str, given: Any, findings: list[Finding]) -> RouteDraft:
    path: Path = ("routes", name)
    reading = read(ROUTE, given, path)
    findings += [*_name_findings(path), *reading.findings]
    if name == RESERVED_ROUTE:
        findings.append(Finding(path, f"{dotted(path)}: this name is kept for feedback of no known route", at="key"))
    mirrors, guardrails = _tables(reading, "mirrors", MIRROR), _tables(reading, "guardrails", GUARDRAIL)
    capture, test = _table(reading, "capture", CAPTURE), _table(reading, "test", TEST)
    for inner in (*mirrors, *guardrails, *filter(None, (capture, test))):
        findings += inner.findings
    policy, settings = None, TableDraft((*path, "policy"))
    if "policy" in reading.values:
        policy, settings = _policy(reading.values["policy"], settings.path)
        findings += settings.findings
    salt = settings.values.get("salt") or name
    return RouteDraft(name, reading, mirrors, capture, test, guardrails, policy, frozenset(settings.broken), salt)


def _table(route: TableDraft, name: str, table: Table) -> TableDraft | None:
    given = route.values.get(name)
    return None if given is None else read(table, given, (*route.path, name))


def _tables(route: TableDraft, name: str, table: Table) -> tuple[TableDraft, ...]:
    items = enumerate(route.values.get(name, ()))
    return tuple(read(table, item, (*route.path, name, index)) for index, item in items)


def _policy(given: dict[str, Any], path: Path) -> tuple[Policy | None, TableDraft]:
    # Looked up at each call, so that a policy needs to be added to POLICIES only.
    kinds = {policy.kind: policy for policy in policies.POLICIES}
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        return None, TableDraft(path, findings=[_kind_finding(path, given, kinds)])
    table = policy_table(kinds[kind])
    reading = read(table, given, path)
    values = {name: value for name, value in reading.values.items() if name not in ("kind", "salt")}
    unread = table.settings.keys() - values.keys() - {"kind", "salt"}
    values |= {name: stand_in(table.settings[name].type) for name in unread}
    return kinds[kind](**values), reading


def _trigger(name: str, given: Any, findings: list[Finding]) -> TriggerDraft:
    path: Path = ("triggers", name)
    reading = read(TRIGGER, given, path)
    findings += [*_name_findings(path), *reading.findings]
    conditions: dict[Path, Condition] = {}
    for key in ("any", "all"):
        for index, one in enumerate(reading.values.get(key, ())):
            where: Path = (*path, key, index)
            made = _condition(one, where, findings)
            if made is None:
                reading.broken.add(key)
            else:
                conditions[where] = made
    return TriggerDraft(name, reading, conditions)


def _condition(given: Any, path: Path, findings: list[Finding]) -> Condition | None:
    kinds = {condition.kind: condition for condition in conditions.CONDITIONS}
    if not isinstance(given, dict):
        findings.append(Finding(path, f"{dotted(path)} must be a table, got {shown(given)}"))
        return None
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        findings.append(_kind_finding(path, given, kinds))
        return None
    reading = read(condition_table(kinds[kind]), given, path)
    findings += reading.findings
    if reading.broken:
        return None
    return kinds[kind](**{name: value for name, value in reading.values.items() if name != "kind"})


def _kind_finding(path: Path, given: dict[str, Any], kinds: Iterable[str]) -> Finding:
    where = dotted((*path, "kind"))
    if "kind" not in given:
        return Finding(path, f"{where} is required", f"there is {listed(kinds, 'and')}", "table")
    kind = given["kind"]
    hint = did_you_mean(kind, kinds) if isinstance(kind, str) else None
    return Finding((*path, "kind"), f"{where} must be {listed(kinds)}, got {shown(kind)}", hint)


def _name_findings(path: Path) -> Iterator[Finding]:
    try:
        spellings.name(str(path[-1]))
    except ValueError as error:
        yield Finding(path, f"{dotted(path)}: a name {error}", at="key")


def _beyond(document: dict[str, Any]) -> Finding | None:
    """Return something that TOML allows and we do not: deep nesting, and integers of more than 64 bits.

    Uses a stack of its own, because dotted keys can nest deeper than Python recurses.
    """
    stack: list[tuple[Path, Any]] = [((), document)]
    while stack:
        path, value = stack.pop()
        if len(path) > DEEPEST:
            return Finding(path, f"{dotted(path[:3])} is nested too deeply")
        if isinstance(value, dict):
            stack.extend(((*path, name), item) for name, item in value.items())
        elif isinstance(value, list):
            stack.extend(((*path, index), item) for index, item in enumerate(value))
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            return Finding(path, f"{dotted(path)} must fit into 64 bits")
    return None
