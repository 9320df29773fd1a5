"""Which definition of a metric applies to which prediction, and whose windows have closed.

Rule: a prediction is judged by the definition in force when it was made, for ever. Changing a metric begins a new
definition and disturbs no number counted under the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from router.records import EXPOSED
from router.snapshot import KeyRule, Metric


class DefinitionKey(NamedTuple):
    """Which definition: that of a route's metric which begins at this time."""

    route: str
    name: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Definition:
    """What ``name`` means on ``route`` for predictions in [since, until); ``metric`` None: nothing.

    The windows of those made before ``closed_until`` have closed; it lags behind the watermark where no prediction lies
    between. All in Unix milliseconds; until None is open. ``key_rule`` is the route's: which of several predictions an
    event by key is about.
    """

    route: str
    name: str
    since_ms: int
    metric: Metric | None
    closed_until: int
    until_ms: int | None = None
    key_rule: KeyRule = "latest"

    @property
    def key(self) -> DefinitionKey:
        return DefinitionKey(self.route, self.name, self.since_ms)

    def first_open_ms(self, at_ms: int) -> int | None:
        """Return where, from ``at_ms`` on, the first prediction may be whose window is open; None if nowhere."""
        first = max(at_ms, self.closed_until, self.since_ms)
        nowhere = self.metric is None or (self.until_ms is not None and first >= self.until_ms)
        return None if nowhere else first

    def closed(self, at_ms: int) -> bool:
        """Return whether the window of a prediction made at ``at_ms`` has closed."""
        return at_ms < self.closed_until

    def closes_until(self, watermark_ms: int) -> int:
        """Return the time before which the windows of predictions have closed, at this watermark."""
        if self.metric is None:
            return self.closed_until
        limit = watermark_ms - self.metric.window_ms
        return limit if self.until_ms is None else min(limit, self.until_ms)


class Definitions:
    """Every definition there ever was, by route and metric."""

    def __init__(self, definitions: Iterable[Definition] = ()) -> None:
        self._found: dict[str, dict[str, list[Definition]]] = {}
        self._closed: dict[str, int] = {}
        self._back: dict[str, int] = {}
        #: Whether any event may be about several predictions.
        self.sharing = False
        #: Whether any prediction counts only once it was exposed.
        self.exposing = False
        for definition in sorted(definitions, key=lambda d: d.since_ms):
            self.append(definition)

    def __iter__(self) -> Iterator[Definition]:
        for metrics in self._found.values():
            for definitions in metrics.values():
                yield from definitions

    def __contains__(self, route: str) -> bool:
        return route in self._found

    def append(self, definition: Definition) -> None:
        """Begin a definition, which ends the one before it; one that begins at the same time replaces it."""
        definitions = self._found.setdefault(definition.route, {}).setdefault(definition.name, [])
        if definitions and definitions[-1].since_ms == definition.since_ms:
            definitions.pop()
        if definitions:
            definitions[-1] = replace(definitions[-1], until_ms=definition.since_ms)
        definitions.append(definition)
        self._closed[definition.route] = max(self._closed.get(definition.route, 0), definition.closed_until)
        before_ms = 0 if definition.metric is None else definition.metric.before_ms or 0
        self._back[definition.route] = max(self._back.get(definition.route, 0), before_ms)
        self.sharing |= definition.key_rule == "all"
        self.exposing |= definition.name == EXPOSED

    def close(self, definition: Definition, until_ms: int) -> None:
        """Note that the windows of predictions made before ``until_ms`` have closed."""
        definitions = self._found[definition.route][definition.name]
        index = next(i for i, d in enumerate(definitions) if d.since_ms == definition.since_ms)
        definitions[index] = replace(definitions[index], closed_until=until_ms)
        self._closed[definition.route] = max(self._closed[definition.route], until_ms)

    def newest(self, route: str, name: str) -> Definition | None:
        """Return the definition that applies from now on."""
        definitions = self._found.get(route, {}).get(name)
        return definitions[-1] if definitions else None

    def of(self, route: str) -> Iterator[Definition]:
        """Yield the definitions of a route."""
        for definitions in self._found.get(route, {}).values():
            yield from definitions

    def with_key(self, key: DefinitionKey) -> Definition:
        """Return the definition with this key, which must exist."""
        return next(d for d in self._found[key.route][key.name] if d.since_ms == key.since_ms)

    def names(self, route: str) -> tuple[str, ...]:
        return tuple(self._found.get(route, ()))

    def at(self, route: str, name: str, at_ms: int) -> Definition | None:
        """Return the definition that a prediction made at ``at_ms`` is judged by; None if it has no such metric."""
        metrics = self._found.get(route)
        definitions = None if metrics is None else metrics.get(name)
        if definitions is None:
            return None
        for definition in reversed(definitions):
            if definition.since_ms <= at_ms:
                return definition if definition.metric is not None else None
        return None

    def exposure(self, route: str, at_ms: int) -> bool:
        """Return whether a prediction made at ``at_ms`` counts only once it was exposed."""
        return self.exposing and self.at(route, EXPOSED, at_ms) is not None

    def back_ms(self, route: str) -> int:
        """Return how long before a prediction of the route an event by key that is about it may have happened."""
        return self._back.get(route, 0)

    def closed_until(self, route: str) -> int:
        """Return the time before which windows of a route's predictions may have closed."""
        return self._closed.get(route, 0)

    def closed_at(self, route: str, at_ms: int) -> list[Definition]:
        """Return the definitions under which the window of a prediction made at ``at_ms`` has closed already."""
        if at_ms >= self._closed.get(route, 0):
            return []  # the usual case: the prediction arrives in time
        found = (self.at(route, name, at_ms) for name in self._found[route])
        return [definition for definition in found if definition is not None and definition.closed(at_ms)]


def newly_defined(
    known: Definitions, route: str, metrics: Sequence[Metric], key_rule: KeyRule = "latest"
) -> dict[str, Metric | None]:
    """Return what a route's metrics mean from now on, where that is new: None for a metric that is no longer listed."""
    listed = {metric.name: metric for metric in metrics}
    fresh: dict[str, Metric | None] = {}
    for name in {*known.names(route), *listed}:
        newest, metric = known.newest(route, name), listed.get(name)
        before = None if newest is None else newest.metric
        ruled = metric is not None and newest is not None and newest.key_rule != key_rule
        if ruled or (before and before.definition) != (metric and metric.definition):
            fresh[name] = metric
    return fresh
