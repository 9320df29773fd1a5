"""Access rights of the data directory: only the user that the program runs as may read it.

Rule: every process that writes into a data directory calls ``keep_private`` first, so that its files and folders there
are 0600 and 0700 whatever its umask was. ``narrow`` takes other users' rights from what older releases made, where it
belongs to us; what does not, as a mounted volume may, is reported. Standard library only: workers import this.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: What older releases made in a data directory, readable by others. Other files there are left alone.
_MADE: Final = (
    "turnout.db*",
    "snapshot.json",
    "overrides.json",
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
    """Make this process and its children create files that no other user may read."""
    os.umask(_OTHERS)


def narrow(data_dir: Path) -> list[str]:
    """Take other users' rights from a data directory and our files there; return the paths where that failed.

    A directory that everybody may write to, such as /tmp, is left alone.
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
