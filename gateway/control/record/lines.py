"""Journal lines, read strictly: each line becomes a record, or is counted as unreadable and skipped.

Rule: no content of a line is fatal, and no line is used in part. A line whose seal does not match is not parsed, and
each field is checked for its type here: a wrong type would otherwise show only much later, where something is counted
by that field. A call's row is made directly from its line, without an object in between: there are thousands a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from operator import itemgetter
from types import NoneType
from typing import Any, Final, NamedTuple

import orjson

from gateway.control.cpu_share import yield_cpu
from gateway.journal.seal import pieces, unsealed
from gateway.store.rows import shared_fields
from gateway.store.rows.bodies import Body
from gateway.store.rows.calls import StoredCall, json_of, new_call_row, new_stored_call
from gateway.store.rows.shared_fields import SharedFields
from router.extract import identifier
from router.records import CALL_FIELDS, CallField, Feedback, Kind, fields_stored, new_feedback

#: Lines read before other threads get their turn: a fraction of a millisecond.
YIELD_LINES: Final = 32


class BrokenLine(NamedTuple):
    """A line, or a piece of one, that could not be read; ``line`` is its place among those given to ``Batch.read``."""

    line: int
    content: bytes


@dataclass(slots=True)
class Batch:
    """The records of some lines, in the order of the lines.

    ``marks`` are (writer, at_ms, whether it was its last); ``rejected`` counts events. A ``corrupt`` line cannot be
    read, a ``torn`` one has no end, and a ``lost`` one is a gap in the numbers: the line is missing, or is one of the
    corrupt or torn ones. ``writers`` are those of other nodes that wrote any of the lines, ``gone`` those of them that
    will write no more.
    """

    calls: list[StoredCall] = field(default_factory=list)
    events: list[Feedback] = field(default_factory=list)
    marks: list[tuple[str, int, bool]] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    writers: set[str] = field(default_factory=set)
    rejected: int = 0
    lines: int = 0
    corrupt: int = 0
    torn: int = 0
    lost: int = 0

    def read(
        self, lines: Sequence[bytes], writer: str, expected: int | None = None
    ) -> tuple[int | None, list[BrokenLine]]:
        """Add the records of these lines of a writer's segment; ``expected`` is the first one's number, if known.

        Return the number expected next, and what could not be read.
        """
        first, broken = self.lines, list[BrokenLine]()
        for line in lines:
            self.lines += 1
            try:
                whole: Sequence[tuple[int, bytes]] = (unsealed(line),)
            except ValueError:
                whole = self._recover(line, self.lines - first - 1, broken)
            for number, text in whole:
                # A lower number: the line was written again, in the next segment, after its first writing failed.
                if expected is not None and number > expected:
                    self.lost += number - expected
                expected = number + 1
                try:
                    self._parse(text, writer)
                except (ValueError, TypeError, KeyError, AttributeError):
                    self.corrupt += 1
                    broken.append(BrokenLine(self.lines - first - 1, line))
        return expected, broken

    def read_shipped(self, texts: Iterable[bytes], writer: str) -> None:
        """Add the records of lines of another node's writer, whose seals that node has checked."""
        if not writer.endswith("/"):  # that is the node itself
            self.writers.add(writer)
        for text in texts:
            self.lines += 1
            try:
                self._parse(text, writer)
            except (ValueError, TypeError, KeyError, AttributeError):
                self.corrupt += 1

    def _parse(self, text: bytes, writer: str) -> None:
        """Add the record of a line whose seal matches."""
        if not self.lines % YIELD_LINES:
            yield_cpu()
        value = orjson.loads(text)
        # A search for one byte is faster than one for six.
        self._add(_without_nul(value) if b"\\" in text and _NUL in text else value, writer)

    def _recover(self, line: bytes, place: int, broken: list[BrokenLine]) -> list[tuple[int, bytes]]:
        """Return the intact lines within a broken one, and add the remaining pieces to ``broken``."""
        found, cut = list[tuple[int, bytes]](), pieces(line) or [line]
        for piece in cut:
            try:
                found.append(unsealed(piece))
            except ValueError:
                broken.append(BrokenLine(place, piece))
                # A piece that another line follows has no end of its own.
                if piece is cut[-1]:
                    self.corrupt += 1
                else:
                    self.torn += 1
        return found

    def _add(self, value: dict[str, Any], writer: str) -> None:
        match value.get("line"):
            case "call" | "close":
                self.calls.append(_call(value, None))
            case "open":
                self.calls.append(_call(value, writer))
            case "feedback":
                self.events.append(_feedback(value))
            case "body":
                self.bodies.append(_body(value))
            case "beat":
                self.marks.append((writer, _whole(value["at_ms"]), False))
            case "bye":
                self.marks.append((writer, _whole(value["at_ms"]), True))
            case "rejected":
                self.rejected += _whole(value["events"])
            case "segment":
                pass
            case "gone":
                self.gone.append(writer)
            case "met":
                self.corrupt += _whole(value["corrupt"])
                self.torn += _whole(value["torn"])
                self.lost += _whole(value["lost"])
            case other:
                raise ValueError(f"no such line: {other!r}")


def _call(value: dict[str, Any], open_by: str | None) -> StoredCall:
    content = {**_BLANK, **value}
    if len(content) != len(_BLANK):
        raise KeyError("no such field")
    id_, at_ms, unit, key, latency_ms, overhead_ms, predicted, prediction = _OWN(content)
    period, revision, by_unit, forced, status, propensity = _CONFUSABLE(content)
    if not (
        type(id_) is str
        and type(at_ms) is type(period) is type(revision) is int
        and -_LIMIT <= at_ms < _LIMIT
        and type(unit) in _TEXT
        and type(key) in _TEXT
        and type(predicted) is type(by_unit) is type(forced) is bool
        and (type(latency_ms) is float or _is_number(latency_ms))
        and (type(overhead_ms) is float or _is_number(overhead_ms))
        and type(status) in _WHOLE
        and type(propensity) in _NUMBER
    ):
        raise ValueError("a field has the wrong type")
    # Workers bound the length of these; those of older versions did not.
    unit, key = _bounded(unit), _bounded(key)
    shared = shared_fields.known(values := _SHARED(content)) or _first_of(values)
    predicted_json = json_of(prediction) if predicted else None
    more = None if (rare := _RARE(content)) == _RARE_DEFAULTS else _more(rare)
    row = (id_, shared.number, shared.route, at_ms, unit, key, latency_ms, overhead_ms, predicted_json, more, open_by)
    return new_stored_call((shared, new_call_row(row)))


def _first_of(values: tuple[Any, ...]) -> SharedFields:
    """Return the shared fields of a call that is the first with these."""
    for field_, content in zip(_SHARED_FIELDS, values, strict=True):
        _check(field_, content)
    return shared_fields.interned(values)


def _more(values: tuple[Any, ...]) -> str:
    """Return the rare fields of a call that are not at their defaults, as JSON."""
    rare = {}
    for field_, content in zip(_RARE_FIELDS, values, strict=True):
        _check(field_, content)
        if content != field_.default:
            rare[field_.name] = content
    if "items" in rare:
        rare["items"] = [identifier(item) for item in rare["items"]]
    return json_of(rare)


def _check(field_: CallField, content: Any) -> None:
    """Raise ValueError for what this field of a call cannot hold."""
    if content is None and field_.null:
        return
    kind = type(content)
    if kind not in _TYPES[field_.kind]:
        raise ValueError(f"{field_.name} cannot be {kind.__name__}")
    if kind is int and field_.kind != "json" and not -_LIMIT <= content < _LIMIT:
        raise ValueError(f"{field_.name} is out of range")
    if field_.words and content not in field_.words:
        raise ValueError(f"{field_.name} cannot be {content!r}")
    if field_.kind == "texts" and not all(type(item) is str for item in content):
        raise ValueError(f"{field_.name} holds what is no text")


def _is_number(value: Any) -> bool:
    return value is None or (type(value) is int and -_LIMIT <= value < _LIMIT)


def _feedback(value: dict[str, Any]) -> Feedback:
    content = {**_BLANK_EVENT, **value}
    if len(content) != len(_BLANK_EVENT):
        raise KeyError("no such field")
    event = _EVENT(content)
    metric, given, received_ms, prediction_id, route, key, item, event_id, revision, occurred_ms = event
    if not (
        type(metric) is str
        and given is not ...
        and type(received_ms) is type(revision) is int
        and -_LIMIT <= received_ms < _LIMIT
        and -_LIMIT <= revision < _LIMIT
        and type(prediction_id) in _TEXT
        and type(route) in _TEXT
        and type(key) in _TEXT
        and type(item) in _TEXT
        and type(event_id) in _TEXT
        and (occurred_ms is None or (type(occurred_ms) is int and -_LIMIT <= occurred_ms < _LIMIT))
    ):
        raise ValueError("a field has the wrong type")
    if prediction_id is None and (route is None or key is None):
        raise ValueError("feedback names neither a prediction nor a route and key")
    ids = (_bounded(prediction_id), route, _bounded(key), _bounded(item), _bounded(event_id))
    return new_feedback((metric, given, received_ms, *ids, revision, occurred_ms))


def _bounded(text: str | None) -> str | None:
    return text if text is None or len(text) <= _SHORT else identifier(text)


def _body(value: dict[str, Any]) -> Body:
    id_, route, request, answer = value["id"], value["route"], value["request"], value["answer"]
    if not (type(id_) is type(route) is str and type(request) in _OBJECT and type(answer) in _OBJECT):
        raise ValueError("a field has the wrong type")
    kept = (None if one is None else json_of(one) for one in (request, answer))
    return Body(id_, _whole(value["at_ms"]), route, *kept)


def _without_nul(value: dict[str, Any]) -> dict[str, Any]:
    """Return the line with NUL replaced in texts: databases cannot keep it. Fields kept as JSON keep it."""
    return {name: content if name in _ANY else _replaced(content) for name, content in value.items()}


def _replaced(content: Any) -> Any:
    if isinstance(content, str):
        return content.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return [_replaced(item) for item in content] if isinstance(content, list) else content


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _LIMIT:
        raise ValueError("not a count or a time")
    return value


_NUL: Final = b"\\u0000"
#: Texts up to this length need no check of their size in bytes.
_SHORT: Final = 64
#: The bound of a database's integer; JSON's have none.
_LIMIT: Final = 2**63
#: Fields that may hold any JSON, which is kept as JSON.
_ANY: Final = frozenset({"value", "request", "answer"}).union(
    one.name for one in CALL_FIELDS if one.kind in {"json", "object"}
)
_TYPES: Final[Mapping[Kind, frozenset[type]]] = {
    "text": frozenset({str}),
    "whole": frozenset({int}),
    "number": frozenset({float, int}),
    "flag": frozenset({bool}),
    "json": frozenset({str, int, float, bool, list, dict, NoneType}),
    "object": frozenset({dict}),
    "texts": frozenset({list}),
}
_TEXT: Final = frozenset({str, NoneType})
_WHOLE: Final = frozenset({int, NoneType})
_NUMBER: Final = frozenset({float, int, NoneType})
_OBJECT: Final = frozenset({dict, NoneType})

_SHARED_FIELDS: Final = fields_stored("shared")
_RARE_FIELDS: Final = fields_stored("rare")
_SHARED: Final = itemgetter(*(one.name for one in _SHARED_FIELDS))
_RARE: Final = itemgetter(*(one.name for one in _RARE_FIELDS))
_RARE_DEFAULTS: Final = tuple(one.default for one in _RARE_FIELDS)
#: The own fields. ``_call`` unpacks them, and those below, because it runs for every row, and a look-up of each costs
#: more (``python -m loadtests.recorder`` shows it). A test checks them against the table.
_OWN: Final = itemgetter("id", "at_ms", "unit", "key", "latency_ms", "overhead_ms", "predicted", "prediction")
#: The shared fields that are numbers or booleans. Their types are checked for every call: 1 equals True and 1.0, so a
#: look-up by the values of an earlier call says nothing about types.
_CONFUSABLE: Final = itemgetter("period", "revision", "by_unit", "forced", "status", "propensity")

#: The defaults of the fields that a line leaves out. One that it must have is ``...``, of a type that no field has.
_BLANK: Final = {"line": "", **{one.name: ... if one.default is MISSING else one.default for one in CALL_FIELDS}}
_BLANK_EVENT: Final = {"line": "", **dict.fromkeys(Feedback._fields, ...), **Feedback._field_defaults}
_EVENT: Final[Callable[[Mapping[str, Any]], tuple[Any, ...]]] = itemgetter(*Feedback._fields)
