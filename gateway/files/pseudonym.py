"""Pseudonyms: the names under which units are stored when ``unit_key_file`` is set.

Rule: a pseudonym is a keyed hash (HMAC-SHA256, 128 bits of it), made before anything is written. Decisions use the unit
itself, so a new key changes no variant; but the unit has a new pseudonym and is counted under that from then on. The
file has one key a line, the one in use first; the others are former keys, to find what was stored under them.
Standard library only: workers import this.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Final

from router.extract import identifier

#: Short keys can be guessed, and then every unit can be: 32 characters are 128 bits even if they are hex digits.
MIN_CHARACTERS: Final = 32


def pseudonym(key: bytes, unit: str) -> str:
    """Return the pseudonym of a unit under a key, 32 hex digits.

    >>> pseudonym(b"0" * 32, "user-17")
    '57482d346b80bfbd7bac0287751f36d6'
    """
    return hmac.digest(key, unit.encode("utf-8", "surrogatepass"), "sha256")[:16].hex()


def read_keys(path: str) -> tuple[bytes, ...]:
    """Return the keys in a file, the one in use first. Raises OSError, and ValueError if they cannot be keys."""
    try:
        lines = Path(path).read_bytes().decode().split("\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    keys = tuple(line.strip().encode() for line in lines if line.strip())
    if not keys:
        raise ValueError(f"{path} is empty")
    for number, key in enumerate(keys, 1):
        if len(key) < MIN_CHARACTERS:
            raise ValueError(f"{path}: key {number} has fewer than {MIN_CHARACTERS} characters, and could be guessed")
    return keys


def names_of(unit: str, key_file: str | None) -> tuple[str, ...]:
    """Return every name that a unit may be stored under: its own, and its pseudonym under each key.

    Older releases stored long identifiers, and those with NUL, unhashed and with U+FFFD for NUL. Raises as
    ``read_keys``.
    """
    keys = () if key_file is None else read_keys(key_file)
    before = unit.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    plain = dict.fromkeys((identifier(unit), before))
    hashed = dict.fromkeys(pseudonym(key, name) for key in keys for name in (identifier(unit), unit))
    return *plain, *hashed
