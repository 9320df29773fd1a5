"""What each feedback event ends as.

Rule: pure. The status of an event is a function of the events that share its identity, of the predictions they are
about and of the watermark; so the order of arrival cannot matter. What each status means is said where they are listed
(``gateway.store.rows.feedback_status``). The first that applies is taken:

1. ``repeated``: another event of the same identity and revision came earlier;
2. ``waiting``, later ``orphaned``: its prediction is not known (it is joined all the same should it come);
3. ``not_applicable``: ``router.outcomes.Inapplicable`` says why;
4. ``late``, then ``not_exposed``;
5. ``corrected``: another event of its identity has a higher revision;
6. ``over_limit``: it has no row (``event_limit``);
7. ``joined``: an event whose value is null counts by taking back what was said before.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

import orjson

from gateway.store.counts.deltas import StatusDelta, new_status_delta
from gateway.store.rows.feedback_events import Event, new_event
from gateway.store.rows.feedback_status import RARE, UNKNOWN, Status
from router.outcomes import Inapplicable, in_time
from router.records import Feedback
from router.snapshot import Metric

#: How long the prediction of an event may still come, in event time: feedback and predictions travel through different
#: segments, and a client's feedback may be faster than the line of the call that it is about.
PATIENCE_MS: Final = 5_000

_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class PredictionFacts(NamedTuple):
    """What is known of a prediction an event is about; ``metric`` is None when its route did not list it.

    ``why`` says why the event cannot count for it.
    """

    route: str
    at_ms: int
    metric: Metric | None
    #: False when it does not count, because it was not exposed.
    exposed: bool = True
    #: Whose prediction it is; of a merged answer, the ranker whose item the event names, if it names any.
    variant: str | None = None
    why: Inapplicable | None = None


_Facts = tuple[str, int, Metric | None, bool, str | None, Inapplicable | None]
#: PredictionFacts(*values), of all its fields, at half of the time.
new_facts: Final[Callable[[_Facts], PredictionFacts]] = partial(tuple.__new__, PredictionFacts)


@dataclass(slots=True)
class Restated:
    """What events end as: ``fresh`` ones are to be stored, ``changed`` ones to be written again."""

    fresh: list[Event] = field(default_factory=list)
    changed: list[Event] = field(default_factory=list)
    status_deltas: list[StatusDelta] = field(default_factory=list)
    #: Those whose status is new.
    stated: list[Event] = field(default_factory=list)
    #: Those of them whose status should be rare, and why they cannot count.
    troubled: list[tuple[Event, Inapplicable | None]] = field(default_factory=list)
    #: By prediction id and metric: the events that count from now on, and those that no longer do.
    coming: defaultdict[tuple[str, str], list[Event]] = field(default_factory=lambda: defaultdict(list))
    leaving: defaultdict[tuple[str, str], list[Event]] = field(default_factory=lambda: defaultdict(list))

    def shifted(self) -> Iterable[tuple[str, str]]:
        """Return the predictions and metrics for which other events count than before."""
        return {**self.coming, **self.leaving} if self.leaving else self.coming

    def add(self, was: Event | None, now: Event, known: Sequence[PredictionFacts]) -> None:
        """Add what an event is now; ``was`` None: it is new."""
        if was == now:
            return
        learned, _, target, status, counted, _, _, also = now
        metric = learned.metric
        (self.fresh if was is None else self.changed).append(now)
        if was is None or (was.counted, was.status) != (counted, status):
            if was is not None:
                self.status_deltas.append(StatusDelta(was.counted, metric, was.status, -1, None))
            delay = variant = None
            if status == "joined" and known and learned.value is not None:
                _, at_ms, _, _, variant, _ = known[0]
                delay = max(0, learned.received_ms - at_ms) / 1000
            self.status_deltas.append(new_status_delta((counted, metric, status, 1, delay, variant)))
            self.stated.append(now)
            if status in RARE:
                self.troubled.append((now, known[0].why if known else None))
        if was is None and not also:  # nearly always: it is about one prediction, if any
            if status == "joined" and target is not None:
                self.coming[target, metric].append(now)
            return
        before = was.targets if was is not None and was.status == "joined" else ()
        after = now.targets if status == "joined" else ()
        if was is not None:
            for one in before:
                if one not in after:
                    self.leaving[one, metric].append(was)
        for one in after:
            if one not in before:
                self.coming[one, metric].append(now)


def restate(
    stored: Iterable[Event],
    touched: Sequence[Event],
    known: Callable[[Event], Sequence[PredictionFacts]],
    watermark_ms: int | None,
) -> Restated:
    """Find out what events end as, and what that changes.

    ``stored`` are all events that share an identity with one of ``touched``; those are not stored yet, or stored ones
    whose targets changed. ``known`` says what is known of the predictions an event is about, nothing of unknown ones.
    """
    old = {event.seq: event for event in stored}
    anew = {event.seq: event for event in touched if event.seq is not None} if old else {}
    groups: dict[str, list[Event]] = {}
    for seq in sorted(seq for seq in old if seq is not None):
        groups.setdefault(old[seq].identity, []).append(anew.get(seq, old[seq]))
    for event in touched:
        if event.seq is None:
            groups.setdefault(event.identity, []).append(event)
    found = Restated()
    for group in groups.values():
        if len(group) == 1:  # most events are the only one of their identity
            [event] = group
            at = known(event)
            found.add(old.get(event.seq), _now(event, _status_alone(event, at, watermark_ms), at), at)
            continue
        about = [known(event) for event in group]
        for event, status, at in zip(group, group_statuses(group, about, watermark_ms), about, strict=True):
            found.add(old.get(event.seq), _now(event, status, at), at)
    return found


def _now(event: Event, status: Status, at: Sequence[PredictionFacts]) -> Event:
    """Return the event with its status, counted on its prediction's route: event._replace(…) at a third of the time."""
    learned, identity, target, _, _, due_ms, seq, also = event
    route = at[0].route if at else learned.route or UNKNOWN
    return new_event((learned, identity, target, status, route, due_ms, seq, also))


def group_statuses(
    group: Sequence[Event], known: Sequence[Sequence[PredictionFacts]], watermark_ms: int | None
) -> list[Status]:
    """Return the status of each event of one identity; ``known`` has what is known of the predictions of each."""
    first: dict[int, int] = {}
    for index, event in enumerate(group):
        revision = event.feedback.revision
        if revision not in first or order_of_receipt(event) < order_of_receipt(group[first[revision]]):
            first[revision] = index
    statuses: list[Status] = ["repeated"] * len(group)
    for index in first.values():
        statuses[index] = _status_alone(group[index], known[index], watermark_ms)
    joined = [revision for revision, index in first.items() if statuses[index] == "joined"]
    for revision in joined:
        if revision != max(joined):
            statuses[first[revision]] = "corrected"
    return statuses


def arrived(event: Feedback) -> Event:
    """Return an event as it comes in: not looked up yet, which is done when the watermark passes ``due_ms``.

    A key is looked up when everything before the event is known: a prediction yet to be read might be the right one.
    """
    named = event.prediction_id
    due_ms = event.event_ms if named is None else patience_ends_ms(event)
    return new_event((event, event.identity, named, "waiting", UNKNOWN, due_ms, None, ()))


def patience_ends_ms(event: Feedback, before_ms: int = 0) -> int:
    """Return the watermark beyond which an event without a prediction is an orphan.

    One by key may be about a prediction made up to ``before_ms`` after it. It ends after the time of looking it up.
    """
    ends = event.received_ms + PATIENCE_MS
    return ends if event.prediction_id is not None else max(ends, event.event_ms + before_ms, event.event_ms + 1)


def _status_alone(event: Event, known: Sequence[PredictionFacts], watermark_ms: int | None) -> Status:
    """Return the event's status if it were the only one of its identity: the best among its predictions."""
    if not known:
        named = event.feedback.prediction_id
        if named is not None and not _UUID7.fullmatch(named):
            return "orphaned"  # this program does not make such ids
        given_up = event.looked_up and watermark_ms is not None and watermark_ms > event.due_ms
        return "orphaned" if given_up else "waiting"
    if len(known) == 1:
        return _status_for(event.feedback, known[0])
    return min((_status_for(event.feedback, one) for one in known), key=_BEST_FIRST.index)


def _status_for(event: Feedback, known: PredictionFacts) -> Status:
    """Return the status of an event with respect to one prediction."""
    if known.metric is None or known.why is not None:
        return "not_applicable"
    if not in_time(event.event_ms, known.at_ms, known.metric):
        return "late"
    return "joined" if known.exposed else "not_exposed"


_BEST_FIRST: Final[tuple[Status, ...]] = ("joined", "not_exposed", "late", "not_applicable")


def order_of_receipt(event: Event) -> tuple[int, bytes]:
    """Return what sorts events by receipt; two of the same millisecond are sorted by their content, always alike."""
    learned = event.feedback
    rest = (learned.prediction_id, learned.route, learned.key, learned.metric, learned.item, learned.occurred_ms)
    return learned.received_ms, orjson.dumps((*rest, learned.value), option=orjson.OPT_SORT_KEYS)
