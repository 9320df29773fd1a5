"""Which routes a person froze, as this node's workers see it.

Rule: the file that workers obey is what is shown, so that it is right with the store down and the controller behind.
"""

from __future__ import annotations

import logging
from pathlib import Path

from gateway.files.overrides import Override, Overrides, OverridesFile
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)


class Frozen:
    """Reads the file of a data directory again when it has changed."""

    def __init__(self) -> None:
        self._file: OverridesFile | None = None
        self._held: Overrides = {}

    def routes(self, snapshot: Snapshot) -> dict[str, Override]:
        """Return the acts that froze routes of the snapshot, by route. A file that cannot be read leaves the last."""
        data_dir = Path(snapshot.gateway.data_dir)
        if self._file is None or self._file.path.parent != data_dir:
            self._file, self._held = OverridesFile(data_dir), {}
        try:
            read = self._file.read()
        except (OSError, ValueError) as error:
            logger.warning("what is frozen cannot be read: %s", error)
            read = None
        if read is not None:
            self._held = read
        return {name: one for name, one in self._held.items() if one.to is not None and name in snapshot.routes}
