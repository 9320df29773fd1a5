"""Asking the workers to begin new segments, so that the present ones can be drained and deleted.

Rule: a file whose time of change is the question; nobody waits for an answer but who looks at the journal. Signals were
the other way: they are the supervisor's alone, and the controller would have to know whose process a segment is.
Standard library only: workers import this.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

#: Writers with a slot from here on are not workers, and are not asked.
WORKER_SLOTS: Final = 1_000
#: Its name in the journal.
_ROLL: Final = "roll"


def ask(journal: Path) -> None:
    """Ask everybody who writes now. Raises OSError."""
    path = journal / _ROLL
    path.touch(0o600)
    # Two questions within one tick of the file system's clock are two all the same.
    at = max(time.time_ns(), path.stat().st_mtime_ns + 1)
    os.utime(path, ns=(at, at))


class Rolling:
    """Hears of each question once; those from before it began are not for it."""

    def __init__(self, journal: Path) -> None:
        self._path = journal / _ROLL
        self._heard = self._asked()

    def wanted(self) -> bool:
        """Return whether somebody asked since the last time."""
        asked = self._asked()
        wanted, self._heard = asked != self._heard, asked
        return wanted

    def _asked(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
