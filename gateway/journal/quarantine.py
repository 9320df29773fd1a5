"""Journal lines that could not be read, kept in a file for operators.

Rule: recording never waits for it or fails by it. The file is bounded; lines that do not fit are only counted (with the
others, as corrupt or torn), and so are all when the disk refuses it. It may be deleted at any time: the next such line
begins it anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from gateway.files.regular import open_regular

logger = logging.getLogger(__name__)

#: The file's name in the data directory.
QUARANTINE: Final = "quarantine.jsonl"
QUARANTINE_BYTES: Final = 16 * 2**20


class UnreadableLine(NamedTuple):
    """A line that cannot be read, or a piece of one: in which segment, and at which byte its line begins."""

    segment: str
    offset: int
    content: bytes


class Quarantine:
    """Keeps what cannot be read in one file of at most ``most_bytes``: JSON lines, each byte as the character it is."""

    def __init__(self, path: Path, most_bytes: int = QUARANTINE_BYTES) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._kept: set[tuple[str, int, bytes]] = set()
        self._failing = False

    def keep(self, found: Iterable[UnreadableLine]) -> None:
        """Keep each of these once, though they are read again after the store was in trouble."""
        fresh = [one for one in found if one not in self._kept]
        if not fresh:
            return
        self._kept.update(fresh)
        logger.error("%d journal lines cannot be read, the first at byte %d of %s", len(fresh), *fresh[0][1::-1])
        try:
            self._write(fresh)
            self._failing = False
        except OSError as error:
            if not self._failing:
                logger.error("%s cannot be written, what cannot be read is only counted: %s", self._path.name, error)
            self._failing = True

    def forget(self) -> None:
        """Forget which lines were kept: they are committed as read, and will not be read again."""
        self._kept.clear()

    def _write(self, fresh: Iterable[UnreadableLine]) -> None:
        with open(open_regular(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            size = os.fstat(file.fileno()).st_size
            for segment, offset, content in fresh:
                text = content.decode("latin-1")
                line = orjson.dumps({"segment": segment, "offset": offset, "text": text}) + b"\n"
                if size + len(line) <= self._most_bytes:
                    size += file.write(line)
