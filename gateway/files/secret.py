"""Secrets that the configuration refers to, read from the environment or from a file.

Rule: an error names a secret and never shows it. A file of tokens has one on each line, and every one is valid, so that
the old and the new one are both accepted during a rotation. Tokens are compared in constant time.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from router.settings.placeholders import Placeholder


class SecretMissing(ValueError):
    """A secret, or a file of certificate authorities, that the config refers to cannot be read."""


def secret(placeholder: Placeholder) -> str:
    """Return what a reference stands for. Raises SecretMissing."""
    if placeholder.source == "env":
        value = os.environ.get(placeholder.name)
        if value is None:
            raise SecretMissing(f"the environment variable {placeholder.name} is not set")
        return value
    return read(placeholder.name)


def read(path: str) -> str:
    """Return the content of a secret's file, without a final newline. Raises SecretMissing."""
    try:
        return Path(path).read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SecretMissing(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def tokens(path: str) -> tuple[bytes, ...]:
    """Return the tokens in a file, at least one. Raises SecretMissing."""
    found = tuple(line.strip().encode() for line in read(path).split("\n") if line.strip())
    if not found:
        raise SecretMissing(f"{path} is empty")
    return found


def is_one_of(given: bytes | None, valid: tuple[bytes, ...]) -> bool:
    """Return whether a token is one of those that are valid, in a time that depends only on how many there are."""
    if given is None:
        return False
    found = False
    for token in valid:
        found |= hmac.compare_digest(given, token)
    return found


#: Identifies one version of a file; None if there is no file.
Mark = tuple[int, int, int] | None


def mark(path: str | None) -> Mark:
    """Return the mark of a file."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


class TokenFile:
    """The tokens of a file, read again when it changes."""

    def __init__(self) -> None:
        self._state: tuple[str, Mark] | None = None
        self._tokens: tuple[bytes, ...] = ()

    def read(self, path: str) -> tuple[bytes, ...]:
        """Return the tokens. Raises SecretMissing."""
        found = path, mark(path)
        if found[1] is None or found != self._state:
            self._tokens, self._state = tokens(path), found
        return self._tokens
