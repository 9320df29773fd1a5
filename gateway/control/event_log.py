"""The events that operators are shown: what happened to configuration, plans, store and workers, the newest of it.

Rule: an event is noted in memory and in the process's log at once, and in the store when there is one. Nothing here can
fail. Actions of people (``ACTS``) have a limit of their own, so that automatic events never displace them. A kind
that happens again and again (``FOLDED``) is one entry per route, which says how often and since when.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import orjson

from gateway.store import LoggedEvent
from gateway.store.counts.plans import ACTS, FOLDED

logger = logging.getLogger(__name__)

#: The most entries that are kept of actions of people, of automatic events, and of folded kinds: of each.
MOST: Final = 500

#: A folded kind is logged at most this often for one route.
FOLDED_LOG_MS: Final = 10 * 60_000

#: Kinds that are logged as warnings: an operator should look at them.
_TROUBLE: Final = frozenset(
    {
        "config_refused",
        "plan_failed",
        "snapshot_mended",
        "store_unavailable",
        "store_cut_off",
        "recording_stalled",
        "config_differs",
        "disk_full",
        "admin_unavailable",
        "metrics_socket_unavailable",
        "sink_unavailable",
        "audit_altered",
    }
)


class EventLog:
    """Events as they are shown: {at_ms, kind, route, detail}, and fields that only some kinds have.

    What people did has ``author``, ``via``, ``file_sha256`` and ``diff``; folded kinds have ``times`` and ``since_ms``.
    """

    def __init__(self) -> None:
        self._acts: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._others: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._folded: dict[tuple[str, str | None], dict[str, Any]] = {}
        self._logged: dict[tuple[str, str | None], int] = {}
        self._unsaved: deque[LoggedEvent] = deque(maxlen=MOST)

    @property
    def newest(self) -> list[dict[str, Any]]:
        """Everything that is kept, the oldest first."""
        return sorted((*self._acts, *self._others, *self._folded.values()), key=lambda one: int(one["at_ms"]))

    def note(self, kind: str, route: str | None, detail: str, **more: Any) -> None:
        """Note an event; ``route`` is None when it concerns all routes. A None in ``more`` is left out."""
        fields = {name: value for name, value in more.items() if value is not None}
        event = LoggedEvent(now_ms(), kind, route, detail, orjson.dumps(fields).decode() if fields else None)
        if kind in FOLDED:
            if not self._fold(event):
                return
        else:
            self._keep(event)
            self._unsaved.append(event)
        self._log(event, fields.get("author"))

    def show(self, stored: Iterable[LoggedEvent]) -> None:
        """Show events that are in the store already: what a transaction wrote is shown after its commit."""
        for event in stored:
            self._keep(event)
            self._log(event, event.shown.get("author"))

    def _keep(self, event: LoggedEvent) -> None:
        (self._acts if event.kind in ACTS else self._others).append(event.shown)

    def _log(self, event: LoggedEvent, author: str | None) -> None:
        level = logging.WARNING if event.kind in _TROUBLE else logging.INFO
        by = f" (by {author})" if author else ""
        place = "" if event.route is None else f"route={event.route} "
        logger.log(level, "%s %s%s%s", event.kind, place, event.detail, by)

    def _fold(self, event: LoggedEvent) -> bool:
        """Count the event in its route's entry of this kind; return whether it is time to log it."""
        place = event.kind, event.route
        known = self._folded.pop(place, None)
        since = {"times": 0, "since_ms": event.at_ms} if known is None else known
        self._folded[place] = {**event.shown, "times": since["times"] + 1, "since_ms": since["since_ms"]}
        while len(self._folded) > MOST:
            oldest = next(iter(self._folded))
            del self._folded[oldest]
            self._logged.pop(oldest, None)
        if event.at_ms - self._logged.get(place, -FOLDED_LOG_MS) < FOLDED_LOG_MS:
            return False
        self._logged[place] = event.at_ms
        return True

    def recall(self, before: Iterable[LoggedEvent]) -> None:
        """Put these events of the store, the newest first, before those that were noted since the start."""
        for event in before:
            room = self._acts if event.kind in ACTS else self._others
            if len(room) < MOST:
                room.appendleft(event.shown)

    def unsaved(self) -> list[LoggedEvent]:
        return list(self._unsaved)

    def saved(self, events: Iterable[LoggedEvent]) -> None:
        """Called when these events, the oldest of the unsaved, are in the store."""
        for event in events:
            if self._unsaved and self._unsaved[0] is event:
                self._unsaved.popleft()


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000
