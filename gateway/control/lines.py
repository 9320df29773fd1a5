"""Journal lines, read strictly: a line becomes a record, or is counted as corrupt and skipped.

Rule: nothing a line can hold is fatal, and nothing half-right goes on: a field of another type than its own would be
found only when something is counted by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, get_args

import orjson

from router.records import Fault, Feedback, Prediction, Role

Kind = Literal["call", "open", "close"]


@dataclass(frozen=True, slots=True)
class Call:
    """A line about one call, and the writer whose segment it stood in."""

    kind: Kind
    writer: str
    call: Prediction


@dataclass(slots=True)
class Batch:
    """What some lines said, in their order.

    ``marks`` are (writer, at_ms, whether it was the last); ``rejected`` counts events; ``corrupt`` lines say nothing,
    and a ``torn`` one has no end.
    """

    calls: list[Call] = field(default_factory=list)
    events: list[Feedback] = field(default_factory=list)
    marks: list[tuple[str, int, bool]] = field(default_factory=list)
    rejected: int = 0
    lines: int = 0
    corrupt: int = 0
    torn: int = 0

    def read(self, lines: Iterable[bytes], writer: str) -> None:
        """Add what these lines of a writer's segment say."""
        for line in lines:
            self.lines += 1
            try:
                value = orjson.loads(line)
                self._take(_without_nul(value) if _NUL in line else value, writer)
            except (ValueError, TypeError, KeyError, AttributeError):
                self.corrupt += 1

    def _take(self, value: dict[str, Any], writer: str) -> None:
        match value.get("line"):
            case ("call" | "open" | "close") as kind:
                self.calls.append(Call(kind, writer, _prediction(value)))
            case "feedback":
                self.events.append(_feedback(value))
            case "beat":
                self.marks.append((writer, _whole(value["at_ms"]), False))
            case "bye":
                self.marks.append((writer, _whole(value["at_ms"]), True))
            case "rejected":
                self.rejected += _whole(value["events"])
            case other:
                raise ValueError(f"no such line: {other!r}")


def _prediction(value: dict[str, Any]) -> Prediction:
    del value["line"]
    _check(value, _PREDICTION)
    if value["role"] not in _ROLES or value.get("fault") not in _FAULTS:
        raise ValueError("no such role or fault")
    if (items := value.get("items")) is not None:
        if not all(type(item) is str for item in items):
            raise ValueError("items are not ids")
        value["items"] = tuple(items)
    # As records.prediction_of, without its copy: a tenth of what a row costs.
    return Prediction(**value)


def _feedback(value: dict[str, Any]) -> Feedback:
    del value["line"]
    _check(value, _FEEDBACK)
    if value.get("prediction_id") is None and (value.get("route") is None or value.get("key") is None):
        raise ValueError("feedback about nothing")
    return Feedback(**value)


def _without_nul(value: dict[str, Any]) -> dict[str, Any]:
    """The line with another character for NUL, which databases cannot keep or find; what is kept as JSON keeps it."""
    return {name: content if name in _ANY else _shown(content) for name, content in value.items()}


def _shown(content: Any) -> Any:
    if isinstance(content, str):
        return content.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return [_shown(item) for item in content] if isinstance(content, list) else content


def _check(value: Mapping[str, Any], types: Mapping[str, frozenset[type]]) -> None:
    """Raise KeyError for a field that is unknown, and ValueError for one that has another type than its own."""
    for name, content in value.items():
        kind = type(content)
        if kind not in types[name]:
            raise ValueError(f"{name} cannot be {kind.__name__}")
        if kind is int and not -_LIMIT <= content < _LIMIT and name not in _ANY:
            raise ValueError(f"{name} is out of range")


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _LIMIT:
        raise ValueError("not a count or a time")
    return value


_NUL: Final = b"\\u0000"
#: What a database's integer holds; JSON can hold more.
_LIMIT: Final = 2**63
_ROLES: Final = frozenset(get_args(Role))
_FAULTS: Final = frozenset({*get_args(Fault), None})
_ANY: Final = frozenset({"prediction", "value", "features"})
_JSON: Final[frozenset[type]] = frozenset({str, int, float, bool, list, dict, type(None)})
_TYPES: Final[Mapping[str, frozenset[type]]] = {
    "str": frozenset({str}),
    "str | None": frozenset({str, type(None)}),
    "int": frozenset({int}),
    "int | None": frozenset({int, type(None)}),
    "float | None": frozenset({float, int, type(None)}),
    "bool": frozenset({bool}),
    "Role": frozenset({str}),
    "Fault | None": frozenset({str, type(None)}),
    "Any": _JSON,
    "Mapping[str, Any] | None": frozenset({dict, type(None)}),
    "tuple[str, ...] | None": frozenset({list, type(None)}),
}
_PREDICTION: Final = {f.name: _TYPES[str(f.type)] for f in fields(Prediction)}
_FEEDBACK: Final = {f.name: _TYPES[str(f.type)] for f in fields(Feedback)}
