"""What is recorded: predictions, feedback, outcomes; and how each is written as one journal line.

Rule: values and their encoding only. A call's fields are described once, by ``Prediction``: whatever reads, stores,
shows or exports calls derives from it. Every line is one JSON object whose ``line`` says what it is. Times are Unix
milliseconds, durations milliseconds.

| line     | written by      | meaning                                                                                |
|----------|-----------------|----------------------------------------------------------------------------------------|
| call     | worker          | a finished call to one variant: a Prediction                                           |
| open     | worker          | a stream began: the same Prediction, fault "incomplete", until its ``close`` arrives   |
| close    | worker          | the stream ended: the finished Prediction, in place of the open one                    |
| body     | worker          | what was captured of a request and its answer, by JSON Pointer; at most one per id     |
| beat     | worker, once/s  | ``at_ms``: every call that arrived before then is in the journal (the watermark)       |
| rejected | worker          | ``events`` feedback events were refused with 4xx at ``at_ms``; none of them is stored  |
| bye      | worker          | a clean end: the watermark need not wait for this writer any more                      |
| feedback | worker, fsynced | one valid event: a Feedback                                                            |

The journal adds a line of its own, ``segment``, at the head of each of its files, and seals every line
(``gateway.journal.seal``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import partial
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    NewType,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import orjson

from router.extract import identifier

Role = Literal["primary", "shadow", "draft", "holdout"]

#: Why a call has no complete answer, or none that counts. The first seven are the variant's failure; the last two are
#: not.
Fault = Literal[
    "refused",  # no connection (refused, unreachable, name not found)
    "timeout",  # no response head in time, or silence between bytes
    "reset",  # the connection broke before the head
    "incomplete",  # the answer broke off in the middle, or its worker died
    "protocol",  # not valid HTTP
    "overloaded",  # max_concurrency of the backend reached, and no place in time
    "client_error",  # a 4xx, of a backend whose ``client_errors`` is "fail"
    "client_gone",  # the client left first
    "dropped",  # a mirror's copy that was never sent
]
VARIANT_FAULTS: Final = frozenset(
    {"refused", "timeout", "reset", "incomplete", "protocol", "overloaded", "client_error"}
)

#: What a worker can find wrong with a call that it carries all the same: a pointer or reference of the operator's file
#: that found nothing ("no_feature:NAME"), an answer of another version than declared, lists that were not merged
#: ("unmerged:REASON").
WRONG: Final = (
    "no_unit",
    "no_key",
    "no_feature",
    "no_prediction",
    "no_version",
    "other_version",
    "unmerged",
)

#: The largest magnitude of a value. Feedback with a larger one is refused. In an older journal or store, or as a
#: prediction, a larger one is no number and scores nothing. Up to here integers are exact, and no sum, square or
#: product of sums comes near the largest float, 1e308.
LARGEST: Final = 1e15

#: The logged reason of a request that counts nowhere, because its client had brought too many new units. Its variant
#: was chosen as for any request.
UNCOUNTED: Final = "uncounted"

#: The logged reason of a request of a route that a person froze to one variant. It is ``forced``, so it counts nowhere.
FROZEN: Final = "frozen"

#: The metric whose events say that a user was shown a prediction.
EXPOSED: Final = "exposed"


#: Where the store keeps a field of a call.
Storage = Literal[
    "shared",  # thousands of calls have the same: once for all of them, in a column of ``kin``
    "own",  # in a column of ``calls``
    "rare",  # few calls have it: in the JSON of the column ``more``, where it is not at its default
]


class StoredAs(NamedTuple):
    """Where the store keeps a field, and since which version of the program journal lines have it."""

    storage: Storage
    since: str = "0.1.0"


T = TypeVar("T")
Shared = Annotated[T, StoredAs("shared")]
Own = Annotated[T, StoredAs("own")]
Rare = Annotated[T, StoredAs("rare")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One call to one variant and what came of it.

    This is the table of a call's fields (``CALL_FIELDS``): their order is that of the view and of the export. A field
    that is added has a default, for the lines written before. One that is ``Rare`` needs no other place but the worker
    that writes it; a shared or own one is a column, too (``gateway.store.schema``, with a migration).

    ``variant`` is the one that was chosen; ``served`` names another only when a fallback's answer went out instead.
    ``unit`` is who was randomised (None: the request itself). ``by_unit`` says that the unit is what is counted.
    ``predicted`` says whether ``prediction`` holds a value (null is a value). ``items`` are the ids this ranker was
    credited for in a merged list, in the order shown, None outside interleaving. ``shown`` are the ids of the whole
    merged list, in the row of the ranker whose answer it stands in: then each ranker's n-th item was placed in the same
    round as the others' n-th (rows without it are older, and say nothing of rounds). ``latency_ms`` is until the last
    byte from the backend, ``overhead_ms`` the request's total time less the time spent waiting for backends.
    ``status`` is the status the client saw for primary and draft calls, the backend's own for shadows; None: none came.
    ``retries`` is how often the call was sent again, to another replica of the variant.
    ``wrong`` are words of ``WRONG`` for what differed from the operator's file, each perhaps with ":" and a detail.
    """

    id: Own[str]
    at_ms: Own[int]
    route: Shared[str]
    epoch: Shared[str]
    period: Shared[int]
    revision: Shared[int]
    variant: Shared[str]
    model: Shared[str]
    version: Shared[str]
    role: Shared[Role]
    reason: Shared[str]
    propensity: Shared[float | None]
    by_unit: Shared[bool] = False
    forced: Shared[bool] = False
    method: Shared[str] = "POST"
    status: Shared[int | None] = None
    fault: Shared[Fault | None] = None
    served: Shared[str | None] = None
    unit: Own[str | None] = None
    key: Own[str | None] = None
    latency_ms: Own[float | None] = None
    overhead_ms: Own[float | None] = None
    predicted: Own[bool] = False
    prediction: Own[Any] = None
    features: Rare[Mapping[str, Any] | None] = None
    reported_version: Rare[str | None] = None
    items: Rare[tuple[str, ...] | None] = None
    request_id: Rare[str | None] = None
    traceparent: Rare[str | None] = None
    retries: Rare[int] = 0
    wrong: Rare[tuple[str, ...] | None] = None
    shown: Rare[tuple[str, ...] | None] = None

    @property
    def uncounted(self) -> bool:
        """True when the call counts nowhere."""
        return self.reason == UNCOUNTED

    @property
    def failed(self) -> bool:
        """True when the variant is to blame."""
        return is_failure(self.fault, self.status, self.served)


def is_failure(fault: Fault | None, status: int | None, served: str | None) -> bool:
    """Return whether a variant failed: no complete answer, a 5xx, or a fallback had to answer instead."""
    return fault in VARIANT_FAULTS or (status or 0) >= 500 or served is not None


#: What a field holds, as JSON has it: "json" is any value, "texts" a list of texts.
Kind = Literal["text", "whole", "number", "flag", "json", "object", "texts"]

_KINDS: Final[Mapping[Any, Kind]] = {
    str: "text",
    int: "whole",
    float: "number",
    bool: "flag",
    Any: "json",
    Mapping[str, Any]: "object",
    tuple[str, ...]: "texts",
}


class CallField(NamedTuple):
    """A field of a call. ``default`` is MISSING for one that every line has; ``words`` are all it may hold, if any."""

    name: str
    kind: Kind
    null: bool
    words: frozenset[str]
    default: Any
    storage: Storage
    since: str


def call_field(name: str, hint: Any, default: Any) -> CallField:
    """Return a field as the table has it, from its annotation: ``Own[int]``, ``Rare[str | None]``."""
    held, stored = get_args(hint)
    parts = get_args(held) if get_origin(held) in {Union, UnionType} else (held,)
    [only] = [part for part in parts if part is not NoneType]
    words = get_args(only) if get_origin(only) is Literal else ()
    kind = "text" if words else _KINDS[only]
    return CallField(name, kind, NoneType in parts, frozenset(words), default, stored.storage, stored.since)


_HINTS: Final = get_type_hints(Prediction, include_extras=True)

#: Every field of a call, in the order in which people and other programs are shown them.
CALL_FIELDS: Final = tuple(call_field(f.name, _HINTS[f.name], f.default) for f in fields(Prediction))


def fields_stored(storage: Storage) -> tuple[CallField, ...]:
    """Return the fields that the store keeps in this way, in the order of the table."""
    return tuple(one for one in CALL_FIELDS if one.storage == storage)


class Feedback(NamedTuple):
    """One event learned later about a prediction: named by ``prediction_id``, or by ``route`` and ``key``.

    ``value`` is a number, a boolean, or for labels any JSON value; None retracts earlier revisions with the same
    identity. ``occurred_ms`` is when it happened, as the caller says (None: it does not say), ``received_ms`` when the
    gateway received it.
    """

    metric: str
    value: Any
    received_ms: int
    prediction_id: str | None = None
    route: str | None = None
    key: str | None = None
    item: str | None = None
    event_id: str | None = None
    revision: int = 0
    occurred_ms: int | None = None

    @property
    def event_ms(self) -> int:
        """The event's own time: when it happened if the caller said so, else when it was received."""
        return self.received_ms if self.occurred_ms is None else self.occurred_ms

    @property
    def retracts(self) -> bool:
        """True when the event retracts earlier revisions with its identity."""
        return self.value is None

    @property
    def identity(self) -> str:
        """Equal for events that replace each other: by the event id, or by prediction (or key), metric and item."""
        if self.event_id is not None:
            # Exposures have identities of their own: whether other events count depends on them, and not the reverse.
            return f"x:{self.event_id}" if self.metric == EXPOSED else f"e:{self.event_id}"
        who = ["p", self.prediction_id] if self.prediction_id is not None else ["k", self.route, self.key]
        text = orjson.dumps([*who, self.metric, self.item]).decode()
        return text if len(text) <= _IDENTITY_CHARACTERS else identifier(text)


_FeedbackValues = tuple[str, Any, int, str | None, str | None, str | None, str | None, str | None, int, int | None]
#: Feedback(*values), of all its fields, at half of the time.
new_feedback: Final[Callable[[_FeedbackValues], Feedback]] = partial(tuple.__new__, Feedback)

#: No identity is longer than databases can index. JSON may write each character of an identifier as six.
_IDENTITY_CHARACTERS: Final = 2_000


class Outcome(NamedTuple):
    """How a prediction's value for a metric changed; None is no value. Nothing else moves a tally."""

    before: float | None
    after: float | None


#: Outcome(*values), of both its values, at half of the time.
new_outcome: Final[Callable[[tuple[float | None, float | None]], Outcome]] = partial(tuple.__new__, Outcome)

#: What the calls to one variant of one route have in common, as the beginning of their journal lines.
Stamp = NewType("Stamp", bytes)
CallLine = Literal["call", "open", "close"]


def stamp(line: CallLine = "call", **common: Any) -> Stamp:
    """Return the fields of Prediction that many calls share, encoded once for all of them."""
    return Stamp(orjson.dumps({"line": line, **common})[:-1] + b",")


def stamped(common: Stamp, fields: Mapping[str, Any]) -> bytes:
    """Return one call's journal line, newline included: the common fields, then ``fields``, one or more.

    Fields at their default may be left out. Raises TypeError if a value cannot be written as JSON.

    >>> stamped(stamp(route="r"), {"id": "p"})
    b'{"line":"call","route":"r","id":"p"}\n'
    """
    return common + orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)[1:]


def feedback_line(feedback: Feedback) -> bytes:
    """Return the event as one journal line, newline included."""
    value: dict[str, Any] = {}
    for name, default in _FEEDBACK:
        content = getattr(feedback, name)
        if name == "value" or content != default:
            value[name] = content
    return fields_line(value)


def fields_line(fields: Mapping[str, Any]) -> bytes:
    """Return an event, given as its fields that are not at their default, as one journal line, newline included."""
    return orjson.dumps({"line": "feedback", **fields}, option=orjson.OPT_APPEND_NEWLINE)


def body_line(
    id_: str, at_ms: int, route: str, request: Mapping[str, Any] | None, answer: Mapping[str, Any] | None
) -> bytes:
    """Return what was captured of a request and its answer as one journal line, newline included.

    Raises TypeError if a value cannot be written as JSON.
    """
    content = {"line": "body", "id": id_, "at_ms": at_ms, "route": route, "request": request, "answer": answer}
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def mark_line(line: Literal["beat", "rejected", "bye"], at_ms: int, **values: int) -> bytes:
    """Return a line that carries no record: a heartbeat, a count of refused events, a clean end."""
    return orjson.dumps({"line": line, "at_ms": at_ms, **values}, option=orjson.OPT_APPEND_NEWLINE)


# Fields without a default have MISSING there, which equals no value: they are always written.
_FEEDBACK = tuple((name, Feedback._field_defaults.get(name, MISSING)) for name in Feedback._fields)
