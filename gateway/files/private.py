"""Who may read what this program keeps: the user it runs as, and nobody else.

Rule: every process that writes into a data directory begins with ``keep_private``, so that what it makes there is 0700
and 0600 whatever its umask was. What older releases made is narrowed by ``narrow`` where it is ours; what is not, as a
mounted volume may be, is named. Standard library only: workers import this.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: What older releases made in a data directory and left open. What else lies there is none of our business.
_MADE: Final = (
    "turnout.db*",
    "snapshot.json",
    "journal",
    "imports",
    "quarantine.jsonl*",
    "node",
    "reserve*",
    "supervisor.pid",
    "processes.lock",
    "metrics.sock",
)
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def keep_private() -> None:
    """Let this process and its children make files that nobody else may read."""
    os.umask(_OTHERS)


def narrow(data_dir: Path) -> list[str]:
    """Take the rights of others from a data directory and what we made there; return what could not be narrowed.

    A directory that everybody may write to, as /tmp, is left alone.
    """
    left = []
    for path in _kept(data_dir):
        try:
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode) or not found.st_mode & _OTHERS:
                continue
            if found.st_mode & stat.S_ISVTX or found.st_uid != os.geteuid():
                left.append(str(path))
            else:
                path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
        except FileNotFoundError:
            continue
        except OSError:
            left.append(str(path))
    return left


def _kept(data_dir: Path) -> Iterator[Path]:
    yield data_dir
    for pattern in _MADE:
        for path in data_dir.glob(pattern):
            yield path
            if path.is_dir() and not path.is_symlink():
                for folder, folders, files in os.walk(path):
                    yield from (Path(folder, name) for name in (*folders, *files))
