"""The published snapshot: ``data_dir/snapshot.json``, which the controller replaces and workers poll.

Rule: a reader sees the whole old snapshot or the whole new one, also after a power loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.files.regular import NotRegular, read_regular, replace_file
from router.snapshot import KnownRoutes, Snapshot, decode, encode

SNAPSHOT: Final = "snapshot.json"
#: The snapshot of a supervisor that takes over. SNAPSHOT belongs to its predecessor until that has ended.
NEXT: Final = "snapshot.next.json"


class SnapshotFile:
    """Reads the file when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._known: KnownRoutes = {}

    def read(self) -> Snapshot | None:
        """Return the snapshot if the file changed since the last call, else None.

        Raises OSError if it cannot be read, and ValueError, once per change, if it is not a snapshot.
        """
        now = fingerprint(self._path)
        if now == self._seen:
            return None
        try:
            content = read_regular(self._path)
        except NotRegular as error:
            self._seen = now
            raise ValueError(f"{self._path.name} is {error.strerror}") from None
        self._seen = now
        return decode(content, self._known)


def fingerprint(path: Path) -> tuple[int, int, int]:
    """Return a value that differs for each version of the file. Raises OSError."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


def publish(path: Path, snapshot: Snapshot) -> None:
    """Replace the file with this snapshot. Raises OSError, and then the old one stays."""
    replace_file(path, encode(snapshot))
