"""Where the assignment key is stored, and when one is made.

Rule: a key is made only for a new installation. An installation from before there were keys continues without one,
because a key moves every unit, until the operator runs ``turnout assignment rotate``. A key that was in use and is
missing is never replaced silently: whatever needs it fails.

The key is in the file that ``assignment_key_file`` names; else in ``data_dir``. Nodes of a fleet share one through the
store (``gateway.control.agreement``); the copy that each node has in its ``data_dir`` lets it start without the store.
Standard library only: the supervisor imports this.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from pathlib import Path
from typing import Final

from gateway.files.published import SNAPSHOT
from gateway.files.regular import read_regular, replace_file
from router.assignment import AssignmentKey
from router.snapshot import Gateway, Snapshot

FILE: Final = "assignment.key"
#: Short keys can be guessed: 32 characters are 128 bits even if they are hex digits.
MIN_CHARACTERS: Final = 32
#: The file of the embedded store. ``gateway.store`` has the name too, but must not be imported here.
_DATABASE: Final = "turnout.db"


class KeyUnusable(ValueError):
    """The key cannot be used; the message says why, and never contains the key."""


def find(gateway: Gateway, data_dir: Path, snapshot: Snapshot | None) -> AssignmentKey | None:
    """Return the key of this installation, or None if it has none; ``snapshot`` is the published one.

    Raises KeyUnusable if the key is named and cannot be read, or was in use and is missing.
    """
    if gateway.assignment_key_file is not None:
        return AssignmentKey(read(Path(gateway.assignment_key_file)))
    kept = kept_in(data_dir)
    if kept is None and snapshot is not None and snapshot.assignment:
        raise KeyUnusable(
            f"{data_dir / FILE} is gone, the key {snapshot.assignment} by which units are assigned: bring it back, "
            "or have units assigned anew with turnout assignment rotate"
        )
    return None if kept is None else AssignmentKey(kept)


def begin(gateway: Gateway, data_dir: Path, snapshot: Snapshot | None) -> AssignmentKey | None:
    """As ``find``, but make the key if the installation is new and no fleet. Raises KeyUnusable and OSError."""
    found = find(gateway, data_dir, snapshot)
    if found is None and gateway.store == "sqlite" and not is_older(data_dir):
        found = AssignmentKey(keep(data_dir, new_secret()))
    return found


def is_older(data_dir: Path) -> bool:
    """Return whether units were assigned here before: there is a snapshot, or the store has plans of one."""
    if (data_dir / SNAPSHOT).exists():
        return True
    database = data_dir / _DATABASE
    if not database.is_file():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'epochs'").fetchone()
            return bool(tables and connection.execute("SELECT 1 FROM epochs LIMIT 1").fetchone())
    except sqlite3.Error:
        return True  # the store may have plans, and no unit may be moved by mistake


def read(path: Path) -> str:
    """Return the secret in a file. Raises KeyUnusable."""
    try:
        secret = read_regular(path).decode().strip()
    except UnicodeDecodeError:
        raise KeyUnusable(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise KeyUnusable(f"{path} cannot be read: {error.strerror or error}") from None
    if not secret:
        raise KeyUnusable(f"{path} is empty")
    if len(secret) < MIN_CHARACTERS:
        raise KeyUnusable(f"{path} has fewer than {MIN_CHARACTERS} characters, and could be guessed")
    return secret


def kept_in(data_dir: Path) -> str | None:
    """Return the secret in a data directory, or None if there is none. Raises KeyUnusable."""
    path = data_dir / FILE
    return read(path) if os.path.lexists(path) else None


def keep(data_dir: Path, secret: str) -> str:
    """Write the secret into the data directory, readable by its owner alone, replacing an older one. Raises OSError."""
    replace_file(data_dir / FILE, f"{secret}\n".encode())
    return secret


def new_secret() -> str:
    """Return a new key's secret: 256 bits in hex digits."""
    return secrets.token_hex(32)
