"""Asking the workers to begin new segments, so that the present ones can be drained and deleted.

Rule: the controller touches a file and workers look at its modification time; the controller sees the answer in the
journal. Signals were the alternative: only the supervisor sends signals, and the controller would have to know which
process writes a segment. Standard library only: workers import this.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

#: Writers with a slot from here on are not workers, and are not asked.
WORKER_SLOTS: Final = 1_000
#: The file's name in the journal.
_ROLL: Final = "roll"


def ask(journal: Path) -> None:
    """Ask every worker that writes now. Raises OSError."""
    path = journal / _ROLL
    path.touch(0o600)
    # Two requests within one tick of the file system's clock must still differ.
    at = max(time.time_ns(), path.stat().st_mtime_ns + 1)
    os.utime(path, ns=(at, at))


class Rolling:
    """A worker's side: reports each request once, and none from before the worker began."""

    def __init__(self, journal: Path) -> None:
        self._path = journal / _ROLL
        self._heard = self._asked()

    def wanted(self) -> bool:
        """Return whether the controller asked since the last call."""
        asked = self._asked()
        wanted, self._heard = asked != self._heard, asked
        return wanted

    def _asked(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
