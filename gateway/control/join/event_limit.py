"""How many events one prediction or one identity may have: the first ``MOST_EVENTS`` that came.

Rule: of the events about one prediction under one metric, and of those of one identity, the first ``MOST_EVENTS`` by
time of receipt are kept, whatever the order in which they are read; the others are counted as ``over_limit`` and have
no row. So the cost of an event is bounded, however many came before it. A *place* is a prediction and metric, or an
identity; where it is full, a further event costs one look into a dictionary.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from operator import itemgetter
from typing import Final

from gateway.control.join.event_status import order_of_receipt
from gateway.store.rows.feedback_events import Event

#: When an event was received, and a hash of all that it says.
Order = tuple[int, bytes]

_IDENTITY, _TARGET, _ALSO = (itemgetter(Event._fields.index(name)) for name in ("identity", "target", "also"))

#: The most events of a prediction and metric: a viewer that reports every five seconds for more than an hour.
MOST_EVENTS: Final = 1_000
#: Full places that are remembered.
_REMEMBERED: Final = 100_000


@dataclass(slots=True)
class EventLimit:
    """Which places are full, as far as is known, and after which time of receipt nothing more is kept there.

    Where a place is not known, or its known time is later than the true one, its events are counted again.
    """

    most: int = MOST_EVENTS
    #: By place, the last event that is kept.
    _last: dict[Hashable, Order] = field(default_factory=dict)

    def admit(self, events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
        """Return the events that may find room, as far as that is known, and those that cannot."""
        if not self._last:
            return list(events), []
        admitted, over = list[Event](), list[Event]()
        for event in events:
            if event.status == "joined":
                admitted.append(event)  # it is kept already, and is removed only where the place's events are counted
                continue
            metric = event.feedback.metric
            left = _without(event, [one for one in event.targets if self._full((one, metric), event)])
            if left is None or self._full(event.identity, event):
                over.append(event)
            else:
                admitted.append(left)
        return admitted, over

    def bound(self, touched: Sequence[Event], about: Mapping[str, Sequence[Event]]) -> tuple[list[Event], list[Event]]:
        """Return the touched events and those that lost one of several places, and the events that have none left.

        ``about`` are the stored events about the predictions that ``touched`` are about.
        """
        if any(map(_ALSO, touched)):
            number = Counter(one for event in touched for one in event.targets)
        else:
            number = Counter(filter(None, map(_TARGET, touched)))
        most = max(number.values(), default=0) + max(map(len, about.values()), default=0)
        if most < self.most:
            return list(touched), []  # nearly always
        anew = {event.seq: event for event in touched if event.seq is not None}
        places: defaultdict[tuple[str, str], list[Event]] = defaultdict(list)
        for event in (*touched, *(e for one in number for e in about.get(one, ()) if e.seq not in anew)):
            for one in event.targets:
                if one in number:
                    places[one, event.feedback.metric].append(event)
        lost: defaultdict[Hashable, list[str]] = defaultdict(list)
        crowded: dict[Hashable, Event] = {}
        for place, events in places.items():
            # An event about several of these predictions stands here once for each of them.
            for event in self._beyond(place, {_name(event): event for event in events}.values()):
                lost[_name(event)].append(place[0])
                crowded[_name(event)] = event
        kept, over = list[Event](), list[Event]()
        for event in (*touched, *(e for name, e in crowded.items() if e.seq is not None and e.seq not in anew)):
            left = _without(event, lost.get(_name(event), ()))
            if left is None:
                over.append(event)
            else:
                kept.append(left)
        return kept, over

    def bound_identities(self, touched: Sequence[Event], stored: Sequence[Event]) -> tuple[list[Event], list[Event]]:
        """Return the touched events, and which of them and of those stored of their identities there is no room for."""
        number = Counter(map(_IDENTITY, touched))
        number.update(map(_IDENTITY, stored))
        if max(number.values(), default=0) < self.most:
            return list(touched), []
        anew = {event.seq for event in touched if event.seq is not None}
        groups: defaultdict[str, list[Event]] = defaultdict(list)
        for event in (*touched, *(e for e in stored if e.seq not in anew)):
            groups[event.identity].append(event)
        over = [event for identity, events in groups.items() for event in self._beyond(identity, events)]
        names = {_name(event) for event in over}
        return [event for event in touched if _name(event) not in names], over

    def free(self, was: Event, now: Event) -> None:
        """Note that a stored event is about other predictions than before: where it was there may be room."""
        for one in was.targets:
            if one not in now.targets:
                self._last.pop((one, was.feedback.metric), None)

    def _beyond(self, place: Hashable, events: Iterable[Event]) -> list[Event]:
        events = list(events)
        if len(events) < self.most:
            return []
        events.sort(key=order)
        if len(self._last) >= _REMEMBERED:
            self._last.clear()
        self._last[place] = order(events[self.most - 1])
        return events[self.most :]

    def _full(self, place: Hashable, event: Event) -> bool:
        last = self._last.get(place)
        return last is not None and order(event) > last


def order(event: Event) -> Order:
    """Return what puts events in order: of two that differ, one always comes before the other.

    It holds a hash of the content: a label has up to 64 KiB, and this is kept for every full place.
    """
    received_ms, content = order_of_receipt(event)
    digest = blake2b(content, digest_size=16)
    digest.update(f"{event.feedback.revision} {event.identity}".encode())
    return received_ms, digest.digest()


def _without(event: Event, lost: Sequence[str]) -> Event | None:
    """Return the event without the predictions where it is lost; None if none is left."""
    if not lost:
        return event
    left = [one for one in event.targets if one not in lost]
    return event._replace(target=left[0], also=tuple(left[1:])) if left else None


def _name(event: Event) -> Hashable:
    return id(event.feedback) if event.seq is None else event.seq
