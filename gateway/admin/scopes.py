"""Which requests of the admin port need which scope: one table.

Rule: a path that is in no row can be read with "read", and changes nothing without "admin": what was forgotten is
closed. A page's form has the scope of the API's request that does the same.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from router.settings.tokens import Scope

#: What a request needs. "signed": no token; its handler checks the signature over its body.
Needed = Scope | Literal["signed"]

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Row(NamedTuple):
    """``safe``: whether the row is about requests that read, or those that change."""

    safe: bool
    pattern: str
    needs: Needed


#: The first row that fits decides. "*" is one segment of a path, "**" any number.
NEEDS: Final = (
    Row(True, "/api/v1/tokens", "admin"),
    Row(True, "/api/v1/tokens/*", "admin"),
    Row(False, "/api/v1/registry/mlflow", "signed"),
    Row(False, "/api/v1/backends/*/version", "operate"),
    Row(False, "/api/v1/routes/*/acts", "operate"),
    Row(False, "/api/v1/acts", "operate"),
    Row(False, "/api/v1/alerts", "operate"),
    Row(False, "/api/v1/triggers/**", "operate"),
    Row(False, "/api/v1/sinks/**", "operate"),
    Row(False, "/routes/*/acts", "operate"),
    Row(False, "/acts", "operate"),
)


def needed(method: str, path: str) -> Needed:
    """Return the scope that a request needs.

    >>> needed("GET", "/api/v1/tokens"), needed("POST", "/api/v1/acts"), needed("POST", "/-/reload")
    ('admin', 'operate', 'admin')
    >>> needed("GET", "/api/v1/routes"), needed("DELETE", "/api/v1/tokens/ci"), needed("PUT", "/nowhere")
    ('read', 'admin', 'admin')
    """
    safe = method in SAFE_METHODS
    for row, pattern in _COMPILED:
        if row.safe == safe and pattern.fullmatch(path):
            return row.needs
    return "read" if safe else "admin"


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*\*", ".*").replace(r"\*", "[^/]+"), re.DOTALL)


_COMPILED: Final = tuple((row, _regex(row.pattern)) for row in NEEDS)
