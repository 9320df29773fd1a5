"""The position of an unfinished import, kept in the data directory.

Rule: the position is written after the rows before it are on the disk. So it may lag but is never ahead: after a crash
some rows are imported twice, which counts once. A file is imported by one process at a time.
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
    """How many ``rows`` were read, of them ``accepted`` and ``refused``, and the journal's ``writer`` of them."""

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
    """The file of one import's position. The same rows read with other options are another import."""

    def __init__(self, data_dir: Path, source: Source) -> None:
        status = source.path.stat()
        #: Tells an unchanged file from an edited one, whose import begins anew.
        self._mark = [status.st_size, status.st_mtime_ns]
        columns = source.columns
        parts = [str(source.path.resolve()), source.format, source.text, dict(columns.named), dict(columns.fixed)]
        name = blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()
        self._path = data_dir / IMPORTS / f"{name}.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the import. Raises Busy if another process has locked it."""
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
        """Return the position of an interrupted import, None if there is none."""
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
        """Delete the position, as the import has ended: the next one begins at the first row."""
        for suffix in (".json", ".lock"):
            with suppress(FileNotFoundError):
                self._path.with_suffix(suffix).unlink()
