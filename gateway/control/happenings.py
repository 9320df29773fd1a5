"""What happened to configuration, plans, store and workers, for people: the last few screens of it.

Rule: noted in memory and in the log at once, in the store when there is one. Nothing here can fail.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from gateway.store import Happening

logger = logging.getLogger(__name__)

MOST: Final = 500

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
    """``newest`` are {at_ms, kind, route, detail}, the oldest first."""

    def __init__(self) -> None:
        self.newest: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._unsaved: deque[Happening] = deque(maxlen=MOST)

    def note(self, kind: str, route: str | None, detail: str) -> None:
        """Note that something happened; ``route`` is None when it concerns all."""
        happening = Happening(now_ms(), kind, route, detail)
        self.newest.append(happening.shown)
        self._unsaved.append(happening)
        level = logging.WARNING if kind in _TROUBLE else logging.INFO
        logger.log(level, "%s %s%s", kind, "" if route is None else f"route={route} ", detail)

    def recall(self, before: Iterable[Happening]) -> None:
        """Put what is in the store, the newest first, before what happened since."""
        room = MOST - len(self.newest)
        self.newest.extendleft(happening.shown for happening, _ in zip(before, range(room), strict=False))

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
