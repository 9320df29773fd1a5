"""Read feedback events: a JSON body becomes feedback, or a list of everything that is wrong with it.

Rule: pure, and strict, because the sender should learn of a mistake now and not in a report next month. One bad event
refuses the whole body. Events that are merely unusual (before their prediction, repeated, corrected) are taken.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from router.exposure import exposure
from router.extract import SURROGATE, identifier, writable
from router.records import EXPOSED, Feedback
from router.scores import refused_number
from router.snapshot import Metric, Snapshot

MAX_EVENTS: Final = 1_000
#: The longest name that is looked up; no route and no metric has a longer one.
MAX_NAME_CHARACTERS: Final = 256
#: The longest label: an array fits, a data set does not.
MAX_LABEL_BYTES: Final = 65_536
#: How far a caller's clock may be ahead of ours.
AHEAD_MS: Final = 5 * 60_000

#: The fields that an event may have.
FIELDS: Final = (
    "prediction_id",
    "route",
    "key",
    "metric",
    "value",
    "item",
    "event_id",
    "revision",
    "occurred_at",
)
_NAMES: Final = frozenset(FIELDS)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class EventProblem:
    """What is wrong with one event; ``index`` is its place in the array, 0 for a single object."""

    index: int
    detail: str


#: Reading a megabyte of empty lists would block a worker for a tenth of a second.
_MOST_CONTAINERS: Final = 50_000


class NotEvents(ValueError):
    """The body as a whole is not feedback. ``count`` is how many events it would have been."""

    def __init__(self, detail: str, count: int = 1) -> None:
        super().__init__(detail)
        self.count = count


def read_events(body: bytes, snapshot: Snapshot, received_ms: int) -> tuple[list[Feedback], list[EventProblem], int]:
    """Return the valid events, the problems, and how many events there are.

    Raises NotEvents if the body is not JSON (NaN and Infinity are not), not an object or array, or has too many events.
    """
    if body.count(b"[") + body.count(b"{") > _MOST_CONTAINERS:
        raise NotEvents("the body holds more objects and arrays than a thousand events need")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotEvents(f"the body is not JSON: {error}") from None
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise NotEvents(f"the body must be one event (an object) or an array of events, got {_shown(value)}")
    if len(value) > MAX_EVENTS:
        raise NotEvents(f"{len(value):,} events in one body; at most {MAX_EVENTS:,} are taken", len(value))
    events, problems = read_entries(value, snapshot, received_ms)
    return events, problems, len(value)


def read_entries(
    entries: Iterable[object], snapshot: Snapshot, received_ms: int
) -> tuple[list[Feedback], list[EventProblem]]:
    """Return the events of those entries that are right, and the problems of the others."""
    found, problems = read_fields(entries, snapshot, received_ms)
    return [Feedback(**fields) for fields in found], problems


def read_fields(
    entries: Iterable[object], snapshot: Snapshot, received_ms: int
) -> tuple[list[dict[str, Any]], list[EventProblem]]:
    """Return the same, with each event as its fields that are not at their default, for callers that only write it."""
    events: list[dict[str, Any]] = []
    problems: list[EventProblem] = []
    hint = _Hints()
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            problems.append(EventProblem(index, f"an event must be an object, got {_shown(entry)}"))
            continue
        reader = _Reader(entry, snapshot, received_ms, hint)
        if fields := reader.fields():
            events.append(fields)
            continue
        problems.extend(EventProblem(index, detail) for detail in reader.details)
    return events, problems


class _Hints:
    """Hints "did you mean", at most ``budget`` per body: each is slow, and a hostile body could block the loop."""

    def __init__(self, budget: int = 100) -> None:
        self._budget = budget

    def __call__(self, name: str, names: Iterable[str]) -> str:
        if self._budget == 0 or len(name) > MAX_NAME_CHARACTERS:
            return ""
        self._budget -= 1
        close = difflib.get_close_matches(name, list(names), n=1)
        return f', did you mean "{close[0]}"?' if close else ""


class _Reader:
    """Reads one event and collects every problem, so that the sender can correct all of them at once."""

    def __init__(self, entry: dict[str, Any], snapshot: Snapshot, received_ms: int, hint: _Hints) -> None:
        self.details: list[str] = []
        self._entry = entry
        self._snapshot = snapshot
        self._received_ms = received_ms
        self._hint = hint

    def fields(self) -> dict[str, Any] | None:
        """Return the fields of the event, or None when there are ``details``."""
        self._fields()
        prediction_id, event_id, route = self._id("prediction_id"), self._id("event_id"), self._text("route")
        key, item = self._id("key", number=True), self._id("item", number=True)
        self._prediction()
        metric = self._metric()
        if metric is not None:
            self._value(metric)
            if metric.fold in ("sum", "mean") and not self._given("event_id"):
                self._problem(
                    f'metric "{metric.name}" is folded by {metric.fold}: event_id is required, or a repeat counts twice'
                )
        revision, occurred_ms = self._revision(), self._occurred_ms()
        if "value" in self._entry and self._entry["value"] is None and not revision:
            self._problem("value null takes back what was said before: give a revision higher than that had")
        if self.details or metric is None:
            return None
        fields = {"metric": metric.name, "value": self._entry["value"], "received_ms": self._received_ms}
        if prediction_id is not None:
            fields["prediction_id"] = prediction_id
        if route is not None:
            fields |= {"route": route, "key": key}
        if item is not None:
            fields["item"] = item
        if event_id is not None:
            fields["event_id"] = event_id
        if revision:
            fields["revision"] = revision
        if occurred_ms is not None:
            fields["occurred_ms"] = occurred_ms
        return fields

    def _problem(self, detail: str) -> None:
        self.details.append(detail)

    def _given(self, name: str) -> bool:
        """Return whether there is such a field; null counts as none."""
        return self._entry.get(name) is not None

    def _fields(self) -> None:
        if self._entry.keys() <= _NAMES:
            return
        unknown = [name for name in self._entry if name not in _NAMES]
        for name in unknown[:5]:
            self._problem(f"unknown field {_shown(name)}{self._hint(name, FIELDS)}")
        if len(unknown) > 5:
            self._problem(f"and {len(unknown) - 5:,} more unknown fields")

    def _prediction(self) -> None:
        """Check that the prediction is named, and in one way only."""
        get = self._entry.get
        by_id, by_route, by_key = (
            (get("prediction_id") is not None),
            (get("route") is not None),
            (get("key") is not None),
        )
        if by_id and not by_route and not by_key:
            return
        if by_id and (by_route or by_key):
            self._problem("prediction_id and route + key are two ways to say whose feedback it is: give one")
        elif by_route and not by_key:
            self._problem("route needs a key: which of its predictions?")
        elif by_key and not by_route:
            self._problem("key needs a route: keys are looked up within one route")
        elif not by_id and not by_route:
            self._problem("prediction_id is missing (or route + key)")
        if isinstance(name := self._entry.get("route"), str):
            route = self._snapshot.routes.get(name)
            if route is None:
                self._problem(f"unknown route {_shown(name)}{self._hint(name, self._snapshot.routes)}")
            elif route.key is None:
                self._problem(f'route "{name}" declares no key: its predictions are found by prediction_id only')

    def _metric(self) -> Metric | None:
        name = self._entry.get("metric")
        if name is None:
            self._problem("metric is missing")
            return None
        name = self._text("metric")
        if name is None:
            return None
        metric = self._snapshot.metrics.get(name)
        if metric is None and name == EXPOSED:
            metric = self._exposure()
        if metric is None:
            self._problem(f"unknown metric {_shown(name)}{self._hint(name, self._snapshot.metrics)}")
        return metric

    def _exposure(self) -> Metric | None:
        """Return the metric of exposures if any route requires them; the prediction tells later which route it is."""
        for route in self._snapshot.routes.values():
            if route.require_exposure:
                return exposure(self._snapshot.metrics[name] for name in route.metrics)
        return None

    def _value(self, metric: Metric) -> None:
        if "value" not in self._entry:
            self._problem("value is missing")
            return
        value, name = self._entry["value"], metric.name
        if value is None:
            return  # a retraction
        if metric.kind == "event":
            if not (isinstance(value, int | float) and value in (0, 1)):
                self._problem(f'metric "{name}" is an event: value must be 0, 1, true or false, got {_shown(value)}')
        elif refusal := refused_number(value) if metric.scorer is None else metric.scorer.refusal(value):
            self._problem(f'metric "{name}": value {refusal}, got {_shown(value)}')
        elif metric.kind == "value":
            if metric.range and not metric.range[0] <= value <= metric.range[1]:
                low, high = metric.range
                self._problem(f'metric "{name}": value must lie in [{low:g}, {high:g}], got {_shown(value)}')
        elif not writable(value):
            self._problem(f'metric "{name}": a label that is {_unwritable(value)}')
        elif isinstance(value, str | list | dict) and len(orjson.dumps(value)) > MAX_LABEL_BYTES:
            self._problem(f'metric "{name}": a label of more than {MAX_LABEL_BYTES:,} bytes')

    def _id(self, name: str, *, number: bool = False) -> str | None:
        """Read an identifier; ``number`` lets an integer stand for its digits, as ids in JSON often are numbers."""
        value = self._entry.get(name)
        if number and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and value and (value.isascii() or not SURROGATE.search(value)):
            return identifier(value)
        if value is not None:
            self._problem(f"{name} must be a text{' or an integer' if number else ''}, got {_shown(value)}")
        return None

    def _text(self, name: str) -> str | None:
        """Read the name of something declared."""
        value = self._entry.get(name)
        if value is None or (isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS):
            return value
        if not isinstance(value, str) or not value:
            self._problem(f"{name} must be a text, got {_shown(value)}")
        else:
            self._problem(f"{name} has {len(value):,} characters; at most {MAX_NAME_CHARACTERS} are taken")
        return None

    def _revision(self) -> int:
        value = self._entry.get("revision", 0)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
            return value
        self._problem(f"revision must be an integer from 0, got {_shown(value)}")
        return 0

    def _occurred_ms(self) -> int | None:
        value = self._entry.get("occurred_at")
        if value is None:
            return None
        if not isinstance(value, str) or not _RFC3339.fullmatch(value):
            self._problem(
                f"occurred_at must be RFC 3339 with a zone, such as 2025-06-01T12:00:00Z, got {_shown(value)}"
            )
            return None
        try:
            occurred_ms = int(datetime.fromisoformat(value.upper()).timestamp() * 1000)
        except (ValueError, OverflowError) as error:
            self._problem(f"occurred_at is no time, got {_shown(value)}: {error}")
            return None
        if occurred_ms > self._received_ms + AHEAD_MS:
            self._problem(f"occurred_at {value} lies in the future")
            return None
        return occurred_ms


def _shown(value: object) -> str:
    if not writable(value):
        return f"a value that is {_unwritable(value)}"
    text = orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unwritable(value: object) -> str:
    """Return why JSON cannot hold a value: a text from a file may be of bytes that are not UTF-8."""
    return "not UTF-8" if isinstance(value, str) else "nested too deeply"
