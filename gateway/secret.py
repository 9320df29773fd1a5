"""Secrets that the configuration refers to, read where they are: in the environment, or in a file.

Rule: what is said of one that is missing names it and never shows it.
"""

from __future__ import annotations

import os
from pathlib import Path

from router.placeholders import Placeholder


class SecretMissing(ValueError):
    """A secret, or a file of authorities, that the config refers to cannot be read here."""


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
