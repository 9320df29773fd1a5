"""The published snapshot: ``data_dir/snapshot.json``, replaced whole and looked at again and again.

Rule: a reader sees one snapshot or the other and never a part, and a power loss leaves the old one or the new one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.files.regular import NotRegular, read_regular, replace_file
from router.snapshot import Known, Snapshot, decode, encode

SNAPSHOT: Final = "snapshot.json"
#: What a supervisor that takes over begins with: the other file is the one before's until that has ended.
NEXT: Final = "snapshot.next.json"


class SnapshotFile:
    """Reads the file when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._known: Known = {}

    def read(self) -> Snapshot | None:
        """Return the snapshot if the file changed since the last look, else None.

        Raises OSError if it cannot be read, and ValueError if it is no snapshot: then not again before the next change.
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
    """Return what tells this version of the file from any other. Raises OSError if it cannot be looked at."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


def publish(path: Path, snapshot: Snapshot) -> None:
    """Replace the file by this snapshot. Raises OSError and leaves the old one."""
    replace_file(path, encode(snapshot))
