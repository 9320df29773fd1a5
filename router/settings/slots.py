"""A slot: the version of a backend that a model registry says, and the file only where it may come from.

Rule: what comes from outside is a version and nothing else. Its URL follows from the file's template, on a host that
the file names. A filled slot is laid over what the file says of this backend, until the file says something else of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

#: A version goes into a path: neither "/" nor "..", and nothing that is percent-encoded.
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*", re.ASCII)
MOST_VERSION: Final = 128
_PLACE: Final = re.compile(r"{([^{}]*)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSlot:
    """Where versions come from, and where each is served."""

    url: str
    hosts: tuple[str, ...]
    registry: str | None = None
    model: str | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """The version in a slot, and ``over``, a hash of what the file said of the backend when it was filled."""

    version: str
    over: str
    who: str = ""
    at_ms: int = 0


def places(template: str) -> set[str]:
    """Return the names between braces in a template."""
    return set(_PLACE.findall(template))


def url_of(slot: VersionSlot, name: str, version: str) -> str:
    """Return where a version is served; ``name`` is the model's. Raises ValueError with what is wrong.

    >>> url_of(VersionSlot(url="http://models:8000/{name}/{version}", hosts=("models",)), "credit", "7")
    'http://models:8000/credit/7'
    """
    if len(version) > MOST_VERSION or not _VERSION.fullmatch(version):
        form = f'letters, digits, "_", "+", "-" and single ".", {MOST_VERSION} characters at most'
        raise ValueError(f"a version has {form}; got {version[:40]!a}")
    if "name" in places(slot.url) and not _VERSION.fullmatch(name):
        raise ValueError(f"the model's name {name[:40]!a} cannot stand in a URL")
    url = slot.url.replace("{name}", name).replace("{version}", version)
    host = (urlsplit(url).hostname or "").lower()
    if not any(host == one or (one.startswith("*.") and host.endswith(one[1:])) for one in slot.hosts):
        raise ValueError(f'the host "{host[:100]}" is not one of hosts: {", ".join(slot.hosts)}')
    return url
