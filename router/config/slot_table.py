"""How a backend's slot is written: one inline table.

Rule: what could be wrong with a version's URL is wrong here already, but for the version.
"""

from __future__ import annotations

from typing import Any, Final

from router.config import spellings
from router.config.findings import listed, quoted
from router.settings.slots import VersionSlot, places, url_of

REGISTRIES: Final = ("mlflow",)
_KEYS: Final = ("registry", "model", "alias", "url", "hosts")

SLOT_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "registry": {"enum": list(REGISTRIES)},
        **{name: {"type": "string", "minLength": 1} for name in ("model", "alias", "url")},
        "hosts": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    },
    "required": ["url", "hosts"],
    "additionalProperties": False,
}


def slot(given: object) -> VersionSlot:
    """Return the slot that an inline table declares. Raises ValueError with the words that follow its path."""
    if not isinstance(given, dict):
        raise ValueError("must be a table with url and hosts")
    if extra := [key for key in given if key not in _KEYS]:
        raise ValueError(f"has no {quoted(extra[0])}; it may have {listed(_KEYS)}")
    if missing := [key for key in ("url", "hosts") if key not in given]:
        raise ValueError(f"needs {missing[0]}")
    for key in ("registry", "model", "alias", "url"):
        if key in given and not (isinstance(given[key], str) and given[key]):
            raise ValueError(f"must have text in quotes for {key}")
    hosts = given["hosts"]
    if not isinstance(hosts, list | tuple) or not hosts or not all(isinstance(one, str) and one for one in hosts):
        raise ValueError('must name at least one host, as in hosts = ["models"]')
    registry = given.get("registry")
    if registry is not None and registry not in REGISTRIES:
        raise ValueError(f"knows the registries {listed(REGISTRIES)}, got {quoted(registry)}")
    for key in ("model", "alias"):
        if (key in given) != (registry is not None) and (key == "alias" or registry is not None):
            raise ValueError(f"needs {key} with a registry" if registry else f"has {key} without a registry")
    found = VersionSlot(
        url=given["url"],
        hosts=tuple(one.lower() for one in hosts),
        registry=registry,
        model=given.get("model"),
        alias=given.get("alias"),
    )
    if unknown := places(found.url) - {"name", "version"}:
        raise ValueError(f"has {{{sorted(unknown)[0]}}} in its url, and may have {{name}} and {{version}}")
    if "version" not in places(found.url):
        raise ValueError("must have {version} in its url, or every version is at the same place")
    spellings.backend_url(url_of(found, found.model or "name", "1"))
    return found
