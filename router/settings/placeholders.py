"""Secrets by reference: "Bearer ${TOKEN}" and "Bearer ${file:/run/secrets/token}".

Rule: stored and published is the text with its references; only the process that sends it fills them in. "$${" stands
for a plain "${".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Placeholder:
    """The name of a secret: an environment variable, or a file, whose content is used without a final newline."""

    source: Literal["env", "file"]
    name: str


def placeholders(text: str) -> tuple[Placeholder, ...]:
    """Return the secrets that a text refers to, in order.

    Raises ValueError saying how one is written.

    >>> placeholders("Bearer ${TOKEN}")
    (Placeholder(source='env', name='TOKEN'),)
    """
    contents = [match[1] for match in _REFERENCE.finditer(text) if match[0] != "$${"]
    return tuple(map(_placeholder, contents))


def fill(text: str, read: Callable[[Placeholder], str]) -> str:
    """Return the text with each reference replaced by what ``read`` returns for it.

    Raises ValueError if a reference is badly written, and whatever ``read`` raises.

    >>> fill("Bearer ${TOKEN}, $${plain}", lambda placeholder: "s3cret")
    'Bearer s3cret, ${plain}'
    """
    return _REFERENCE.sub(lambda match: "${" if match[0] == "$${" else read(_placeholder(match[1])), text)


def _placeholder(content: str | None) -> Placeholder:
    if content is not None:
        if content.startswith("file:") and len(content) > len("file:"):
            return Placeholder("file", content.removeprefix("file:"))
        if _VARIABLE.fullmatch(content):
            return Placeholder("env", content)
    raise ValueError('must refer to a secret as "${NAME}" or "${file:PATH}", and write "$${" for a plain "${"')
