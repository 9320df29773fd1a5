"""The value of calls: a request's calls, the events about it and one metric become values.

Rule: pure, and independent of the order of arrival. The values of a request are a function of its calls, its events,
the metric and whether the window has closed; a change is the difference of two such states. So tallies that are
updated by differences always equal the fold of everything known, in any order, with any repeats.

Which events count:

- those whose own time is at most a window after the prediction, and at most ``before_ms`` before it, if that is set;
- of several with one identity, the one with the highest revision (the caller has chosen it);
- none whose value is null: it retracts what its identity said before.

Who is scored:

- a label scores every call that predicted something, shadows included; the score says what a failed answer is worth
  (``router.scores``);
- with ``cap`` a call is worth at most that, whatever its events add up to;
- a number beyond ``LARGEST`` scores nothing, whether it is an event's value, a label or a prediction;
- events and values score only what the client saw: the primary, or in a merged answer the rankers of the item named;
  where a fallback answered instead, nobody;
- ``missing`` is the value of an answer that the client saw (never of a shadow), whose window closes without an event.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from math import fsum
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

from router.records import EXPOSED, LARGEST, Fault, Feedback, Outcome, Role, new_outcome
from router.scores import PAIR_MEASURES, PairMeasure
from router.snapshot import Metric

#: The state of a prediction under one metric: no value yet, a value from feedback, ``missing`` because its window
#: closed without an event, never a value, or no value until an event says that it was shown.
State = Literal["open", "rewarded", "defaulted", "excluded", "not_exposed"]


#: Why an event about a known prediction cannot count for anything.
Inapplicable = Literal[
    "metric_not_listed",  # the prediction's route did not list the metric
    "not_merged",  # several rankers answered, and one's list passed unchanged: no ranker can have the credit
    "no_item",  # the answer is a merged list, and the event names no item: no ranker can be credited
    "item_not_shown",  # it names an item that was not shown (before rows had ``shown``: that no ranker is credited for)
    "fallback_answered",  # the client saw a fallback's answer: what it did says nothing of the variant that failed
    "uncounted",  # nothing about the request counts (``records.UNCOUNTED``)
]


class Countable(Protocol):
    """The attributes that decide whether a call could have a value."""

    @property
    def role(self) -> Role: ...
    @property
    def fault(self) -> Fault | None: ...
    @property
    def forced(self) -> bool: ...
    @property
    def uncounted(self) -> bool: ...
    @property
    def served(self) -> str | None: ...


class ScoredCall(Countable, Protocol):
    """The attributes that a call is scored by: those of a Prediction, or of a stored row of one."""

    @property
    def variant(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def failed(self) -> bool: ...
    @property
    def predicted(self) -> bool: ...
    @property
    def prediction(self) -> Any: ...
    @property
    def items(self) -> tuple[str, ...] | None: ...
    @property
    def shown(self) -> tuple[str, ...] | None: ...


AnyCall = TypeVar("AnyCall", bound=ScoredCall)


class Value(NamedTuple):
    """What one call, or one call paired with another of the same request, is worth under one metric.

    ``against`` is "" for a call's own value, else the variant it is paired with: then the value is a difference of
    scores (label, shadow less primary), or +1, 0, −1 for which ranker's items earned more (events on a merged answer).
    ``live`` is the value from what is known now, ``mature`` the one that comparisons may use; None is no value (yet).
    """

    variant: str
    version: str
    role: Role
    against: str
    live: float | None
    mature: float | None


#: Value(*values), of all its fields, at half of the time.
new_value: Final[Callable[[tuple[str, str, Role, str, float | None, float | None]], Value]] = partial(
    tuple.__new__, Value
)


def values(
    calls: Sequence[ScoredCall], events: Sequence[Feedback], metric: Metric, *, closed: bool
) -> tuple[Value, ...]:
    """Return the value of each call of one request, and of each pair of calls; those without a value are left out.

    ``calls`` are finished calls that share one prediction id, ``events`` those of this metric that count (``in_time``
    and the highest revision of their identity), ``closed`` says whether the metric's window has closed for them.
    """
    events = [event for event in events if event.value is not None] if events else ()
    if not events and not closed:
        return ()  # most requests, before there is feedback about them
    matured = closed or metric.mature == "arrival"
    if len(calls) == 1:  # most requests: there is nothing to make a pair with
        [call] = calls
        if not counted(call, metric) or not answered(call, metric):
            return ()
        value = _own_value(call, events, metric, closed=closed, matured=matured)
        return () if value.live is None else (value,)
    scored = [call for call in calls if counted(call, metric) and answered(call, metric)]
    own = [_own_value(call, events, metric, closed=closed, matured=matured) for call in scored]
    pairs = _label_pairs(own) if metric.kind == "label" else _ranker_pairs(calls, events, metric, matured=matured)
    return tuple(value for value in (*own, *pairs) if value.live is not None)


def state(
    calls: Sequence[ScoredCall], events: Sequence[Feedback], metric: Metric, *, closed: bool, exposed: bool = True
) -> State:
    """Return the state of one request under one metric; the arguments are those of ``values``.

    A request is "excluded" when it can get no value any more, or must not have one (its variant was forced, a fallback
    answered, or it is ``uncounted``).
    """
    if not any(counted(call, metric) and answered(call, metric) for call in calls):
        return "excluded"
    if not exposed:
        return "not_exposed"
    informed = any(not event.retracts for event in events)
    if not informed and not closed:
        return "open"
    if not values(calls, events, metric, closed=closed):
        return "excluded"
    return "rewarded" if informed else "defaulted"


def changes(before: Sequence[Value], after: Sequence[Value]) -> list[tuple[Value, Outcome, Outcome]]:
    """Return each value that differs between two states of one request: the place, its live and its mature outcome.

    Of the returned ``Value`` only ``variant``, ``version``, ``role`` and ``against`` have a meaning.
    """
    if not before:  # most events are the first about their request
        return [(now, new_outcome((None, now.live)), new_outcome((None, now.mature))) for now in after]
    left = {(v.variant, v.role, v.against): v for v in before}
    found = []
    for now in after:
        was = left.pop((now.variant, now.role, now.against), None)
        live_before, mature_before = (None, None) if was is None else (was.live, was.mature)
        if live_before != now.live or mature_before != now.mature:
            found.append((now, Outcome(live_before, now.live), Outcome(mature_before, now.mature)))
    return found + [(was, Outcome(was.live, None), Outcome(was.mature, None)) for was in left.values()]


def in_time(event_ms: int, at_ms: int, metric: Metric) -> bool:
    """Return whether an event at ``event_ms`` is within the window around a prediction made at ``at_ms``.

    Unless the metric sets one there is no bound before the prediction: clocks differ.
    """
    if metric.before_ms is not None and event_ms < at_ms - metric.before_ms:
        return False
    return event_ms <= at_ms + metric.window_ms


def inapplicable(calls: Sequence[ScoredCall], event: Feedback, metric: Metric | None) -> Inapplicable | None:
    """Return why an event cannot count for the request of these calls, None if it can, as far as they are known.

    ``metric`` is what its name means for them. A retraction counts wherever there may be something to retract.
    """
    if calls[0].uncounted:
        return "uncounted"
    if metric is None:
        return "metric_not_listed"
    if metric.kind == "label" or metric.name == EXPOSED or event.retracts:
        return None
    if not all(answered(call, metric) for call in calls):
        return "fallback_answered"
    if len(calls) == 1 and calls[0].role != "draft":  # most requests
        return None
    rankers = [call for call in calls if call.role == "draft"]
    if not rankers:
        return None
    if all(call.items is None for call in rankers):
        return "not_merged"
    if event.item is None:
        return "no_item"
    known = any(event.item in (call.items or ()) or event.item in (call.shown or ()) for call in rankers)
    return None if known else "item_not_shown"


def counted(call: Countable, metric: Metric) -> bool:
    """Return whether a call could have a value, so that it belongs in the denominator of coverage."""
    if call.forced or call.uncounted or call.fault == "dropped":
        return False
    return call.role != "shadow" or metric.kind == "label"


def answered(call: Countable, metric: Metric) -> bool:
    """Return whether a metric may score a call by the answer that was sent: not if that was a fallback's.

    A label judges what the call itself predicted, and ``exposed`` says that an answer was shown, whichever it was.
    """
    return call.served is None or metric.kind == "label" or metric.name == EXPOSED


def compared(calls: Sequence[AnyCall]) -> tuple[tuple[AnyCall, tuple[tuple[PairMeasure, float], ...]], ...]:
    """Return what each measure finds of a shadow's prediction beside the primary's, where both predicted something."""
    primary = next((call for call in calls if call.role == "primary"), None)
    if primary is None or len(calls) == 1 or not _comparable(primary):
        return ()
    # A stored call parses its prediction each time that it is asked for.
    found, answer = list[tuple[AnyCall, tuple[tuple[PairMeasure, float], ...]]](), primary.prediction
    for call in calls:
        if call.role == "shadow" and _comparable(call):
            copy = call.prediction
            each = ((measure, measure.value(copy, answer)) for measure in PAIR_MEASURES)
            found.append((call, tuple([(measure, value) for measure, value in each if value is not None])))
    return tuple(found)


def _own_value(call: ScoredCall, events: Sequence[Feedback], metric: Metric, *, closed: bool, matured: bool) -> Value:
    live = mature = None
    role = call.role
    if credited := _credited(call, events, metric) if role == "draft" else events:
        live = _fold(call, credited, metric)
        if metric.cap is not None and live is not None and live > metric.cap:
            live = metric.cap
        mature = live if matured else None
    elif closed and role != "shadow":
        live = mature = _number(metric.missing)
    return new_value((call.variant, call.version, role, "", live, mature))


def _credited(call: ScoredCall, events: Sequence[Feedback], metric: Metric) -> Sequence[Feedback]:
    """Return the events about a ranker of a merged answer: labels, and those that name one of its own items."""
    if metric.kind == "label":
        return events
    items = call.items or ()
    return [event for event in events if event.item in items]


def _fold(call: ScoredCall, events: Sequence[Feedback], metric: Metric) -> float | None:
    """Fold the events of one call into one number. Sums are exact, so they do not depend on the order of arrival."""
    if len(events) == 1 and metric.fold != "any":  # most calls: there is nothing to fold
        return _score(call, events[0], metric)
    if metric.fold in {"first", "last"}:
        choose = min if metric.fold == "first" else max
        return _score(call, choose(events, key=_when), metric)
    scores = [score for event in events if (score := _score(call, event, metric)) is not None]
    if not scores:
        return None
    match metric.fold:
        case "any":
            return float(any(scores))
        case "max":
            return max(scores)
        case "sum":
            return fsum(scores)
        case _:
            return fsum(scores) / len(scores)


def _when(event: Feedback) -> tuple[int, str]:
    return event.event_ms, event.identity


def _score(call: ScoredCall, event: Feedback, metric: Metric) -> float | None:
    scorer = metric.scorer
    if scorer is None:
        return _number(event.value)
    if call.failed:
        return None if call.role == "shadow" else scorer.failed
    return scorer.value(event.value, call.prediction) if call.predicted else None


def _number(value: Any) -> float | None:
    """Return a value as a number that counts, or None; NaN is within no bounds."""
    return float(value) if isinstance(value, (int, float)) and -LARGEST <= value <= LARGEST else None


def _label_pairs(own: Sequence[Value]) -> list[Value]:
    """Return each shadow's score less the primary's on the same label. A pair needs both scores."""
    if len(own) < 2:
        return []
    primary = next((value for value in own if value.role == "primary"), None)
    if primary is None:
        return []
    return [
        Value(
            shadow.variant,
            shadow.version,
            shadow.role,
            primary.variant,
            _difference(shadow.live, primary.live),
            _difference(shadow.mature, primary.mature),
        )
        for shadow in own
        if shadow.role == "shadow"
    ]


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _ranker_pairs(
    calls: Sequence[ScoredCall], events: Sequence[Feedback], metric: Metric, *, matured: bool
) -> list[Value]:
    """Return which ranker's items won, for every ordered pair of rankers, if an event names an item of the merged list.

    A round of the draft is won by the ranker whose item earned more in it, and the request by the ranker that won more
    of the rounds in which both took part; an item that belongs to neither makes a tie. Rows from before rounds were
    logged (``shown``) compare all that the rankers' items earned. A ranker that failed, or that was not merged, is in
    no pair: the other did not win, since it had no competitor.
    """
    rankers = [
        (call, items)
        for call in calls
        if call.role == "draft" and (items := call.items) is not None and not call.failed and counted(call, metric)
    ]
    if len(rankers) < 2 or not events:
        return []
    by_item: dict[str, list[Feedback]] = defaultdict(list)
    for event in events:
        if event.item is not None:
            by_item[event.item].append(event)
    shown = next((shown for call in calls if call.role == "draft" and (shown := call.shown) is not None), None)
    listed = (item for _, items in rankers for item in items) if shown is None else shown
    if by_item.keys().isdisjoint(listed):
        return []
    earned = [
        [(_fold(call, by_item[item], metric) or 0.0) if item in by_item else 0.0 for item in items]
        for call, items in rankers
    ]
    pairs = []
    for (call, _), ours in zip(rankers, earned, strict=True):
        for (other, _), theirs in zip(rankers, earned, strict=True):
            if other is not call:
                rounds = zip(ours, theirs, strict=False)  # the one that ran out of items took part in fewer
                won = _sign(fsum(ours), fsum(theirs)) if shown is None else _sign(sum(_sign(*pair) for pair in rounds))
                pairs.append(Value(call.variant, call.version, call.role, other.variant, won, won if matured else None))
    return pairs


def _sign(a: float, b: float = 0.0) -> float:
    """Return 1, 0 or −1: whether a is greater than b, equal or less."""
    return float((a > b) - (a < b))


def _comparable(call: ScoredCall) -> bool:
    return call.predicted and not (call.failed or call.forced or call.uncounted or call.fault == "dropped")
