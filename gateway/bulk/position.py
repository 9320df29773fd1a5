"""How far the import of a file has come, kept in the data directory until it is at its end.

Rule: written after what it speaks of is on the disk, so it may lag and never runs ahead: what lies between is imported
twice, which counts once. One import of a file at a time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Final

import orjson

from gateway.bulk.formats import Source
from gateway.files.regular import open_regular, read_regular

IMPORTS: Final = "imports"


class Busy(Exception):
    """The file is being imported by another process."""


@dataclass(frozen=True, slots=True)
class Position:
    """``rows`` are read, of which so many were ``accepted`` and ``refused``; ``writer`` writes them."""

    writer: str
    rows: int = 0
    accepted: int = 0
    refused: int = 0

    def after(self, accepted: int, refused: int) -> Position:
        """Return the position after more rows."""
        return replace(
            self,
            rows=self.rows + accepted + refused,
            accepted=self.accepted + accepted,
            refused=self.refused + refused,
        )


class PositionFile:
    """Where one import's position is kept. The same file read in another way is another import."""

    def __init__(self, data_dir: Path, source: Source) -> None:
        status = source.path.stat()
        #: What makes it the very same file: an edited one is begun anew.
        self._mark = [status.st_size, status.st_mtime_ns]
        columns = source.columns
        said = [str(source.path.resolve()), source.format, source.text, dict(columns.named), dict(columns.fixed)]
        name = blake2b(orjson.dumps(said, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()
        self._path = data_dir / IMPORTS / f"{name}.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the import. Raises Busy if another process does."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = open_regular(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy from None
        else:
            yield
        finally:
            os.close(fd)

    def read(self) -> Position | None:
        """Return where the import stood when it was interrupted; None if there is nothing to go on with."""
        try:
            value = orjson.loads(read_regular(self._path))
            mark, position = value.pop("mark"), Position(**value)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return position if mark == self._mark else Position(position.writer)

    def write(self, position: Position) -> None:
        """Replace the position. Raises OSError."""
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(orjson.dumps({**asdict(position), "mark": self._mark}))
        os.replace(fresh, self._path)

    def forget(self) -> None:
        """The import is at its end: doing it again begins at the first row."""
        for suffix in (".json", ".lock"):
            with suppress(FileNotFoundError):
                self._path.with_suffix(suffix).unlink()
