"""What happened to configuration, plans, store and workers, for people: the last few screens of it.

Rule: noted in memory and in the log at once, in the store when there is one. Nothing here can fail. What people did has
room of its own, so that nothing that happens by itself can push it out; what happens again and again is one entry of
its route, which says how often and since when.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import orjson

from gateway.store import Happening
from gateway.store.counts.plans import ACTS, FOLDED

logger = logging.getLogger(__name__)

#: So much is kept of what people did, so much of what happened by itself, and so many entries of what is folded.
MOST: Final = 500

#: How often what is folded is logged, of one route.
FOLDED_LOG_MS: Final = 10 * 60_000

#: What an operator should look at.
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
    }
)


class Happenings:
    """What happened, as it is told: {at_ms, kind, route, detail}, and what only some kinds say.

    Of what people did: ``author``, ``via``, ``file_sha256``, ``diff``. Of what is folded: ``times`` and ``since_ms``.
    """

    def __init__(self) -> None:
        self._acts: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._others: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._folded: dict[tuple[str, str | None], dict[str, Any]] = {}
        self._logged: dict[tuple[str, str | None], int] = {}
        self._unsaved: deque[Happening] = deque(maxlen=MOST)

    @property
    def newest(self) -> list[dict[str, Any]]:
        """Everything that is kept, the oldest first."""
        return sorted((*self._acts, *self._others, *self._folded.values()), key=lambda one: int(one["at_ms"]))

    def note(self, kind: str, route: str | None, detail: str, **more: Any) -> None:
        """Note that something happened; ``route`` is None when it concerns all. Of ``more``, None is left out."""
        told = {name: value for name, value in more.items() if value is not None}
        happening = Happening(now_ms(), kind, route, detail, orjson.dumps(told).decode() if told else None)
        if kind in FOLDED:
            if not self._fold(happening):
                return
        else:
            (self._acts if kind in ACTS else self._others).append(happening.shown)
            self._unsaved.append(happening)
        level = logging.WARNING if kind in _TROUBLE else logging.INFO
        by = f" (by {told['author']})" if told.get("author") else ""
        logger.log(level, "%s %s%s%s", kind, "" if route is None else f"route={route} ", detail, by)

    def _fold(self, happening: Happening) -> bool:
        """Let the route's entry of this kind say that it happened again; return whether it is time to log it."""
        place = happening.kind, happening.route
        known = self._folded.pop(place, None)
        since = {"times": 0, "since_ms": happening.at_ms} if known is None else known
        self._folded[place] = {**happening.shown, "times": since["times"] + 1, "since_ms": since["since_ms"]}
        while len(self._folded) > MOST:
            oldest = next(iter(self._folded))
            del self._folded[oldest]
            self._logged.pop(oldest, None)
        if happening.at_ms - self._logged.get(place, -FOLDED_LOG_MS) < FOLDED_LOG_MS:
            return False
        self._logged[place] = happening.at_ms
        return True

    def recall(self, before: Iterable[Happening]) -> None:
        """Put what is in the store, the newest first, before what happened since."""
        for happening in before:
            room = self._acts if happening.kind in ACTS else self._others
            if len(room) < MOST:
                room.appendleft(happening.shown)

    def unsaved(self) -> list[Happening]:
        return list(self._unsaved)

    def saved(self, happenings: Iterable[Happening]) -> None:
        """Know that these, the oldest of the unsaved, are in the store."""
        for happening in happenings:
            if self._unsaved and self._unsaved[0] is happening:
                self._unsaved.popleft()


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000
