"""Match a request to its route.

Rule: matching looks at Facts only, and at the path's bytes as they came: the same bytes go to the backend. Servers
resolve dot segments (``..``, ``%2e%2e``, ``..;x``, between slashes, ``%2f`` or backslashes) in different ways, so a
path with one is also matched as each of them would resolve it. If any such reading leaves the route's prefix, or is
another route's, no route takes the request: no path can leave its route or the backend's base path. Of the routes that
take a request, the most specific path wins: an exact path before a prefix, a longer prefix before a shorter one. Two
routes with the same path that could both take one request are refused when the config is read (``overlap``), not when
traffic arrives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from router.snapshot import Route

#: How paths are cut into segments: by the standard, and by servers that take several slashes in a row for one.
_PLAIN: Final = (re.compile("/"), re.compile("/+"))
#: And by servers that also take for a slash what is one once it is decoded, or a backslash, or both.
_SLASHES: Final = (
    *_PLAIN,
    *(
        re.compile(f"(?:{slash}){several}", re.IGNORECASE)
        for slash in ("/|%2f", r"/|\\", r"/|%2f|\\|%5c")
        for several in ("", "+")
    ),
)
_OTHER_SLASH: Final = re.compile(r"%2f|\\|%5c", re.IGNORECASE)
_DOT: Final = re.compile("%2e", re.IGNORECASE)
#: The prefix of the gateway's own paths.
_OWN: Final = "/-/"


class Facts(Protocol):
    """What routing may look at. ``path`` is the raw path without query."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> str: ...

    def header(self, name: str) -> str | None:
        """Return the value of a header by its lower-case name, several lines joined with ", "; None without one."""
        ...

    def lines(self, name: str) -> Sequence[str]:
        """Return the value of each line of a header."""
        ...


class Pattern(Protocol):
    """The part of a route that says what it takes: a path, exact or ending in "/*"; methods (none: all); headers."""

    @property
    def path(self) -> str: ...
    @property
    def methods(self) -> tuple[str, ...]: ...
    @property
    def headers(self) -> tuple[tuple[str, str], ...]: ...


class RouteTable:
    """Every route, indexed so that a look-up costs one dict access for exact paths and one per length of prefix."""

    __slots__ = ("_exact", "_lengths", "_prefixes")

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[str, tuple[Route, ...]] = {}
        self._prefixes: dict[str, tuple[Route, ...]] = {}
        for route in routes:
            table, path = (self._prefixes, route.path[:-1]) if route.path.endswith("/*") else (self._exact, route.path)
            table[path] = (*table.get(path, ()), route)
        self._lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)

    def find(self, facts: Facts) -> Route | None:
        """Return the route that takes this request, or None.

        "/v1/*" takes every path that begins with "/v1/", and not "/v1" itself.
        """
        path = facts.path
        route = self._first(path, facts)
        if route is not None and ("/." in path or "%" in path or "\\" in path) and not self._stays(route, path, facts):
            return None
        return route

    def _stays(self, route: Route, path: str, facts: Facts) -> bool:
        """Return whether every reading of a path stays beneath the route's prefix, and belongs to this route."""
        least = route.path.count("/") - 1
        for slashes in _SLASHES if _OTHER_SLASH.search(path) else _PLAIN:
            segments = slashes.split(path)[1:]
            if any(map(_dots, segments)):
                read = _resolved(segments, least)
                if read is None or read.startswith(_OWN) or self._first(read, facts) is not route:
                    return False
        return True

    def _first(self, path: str, facts: Facts) -> Route | None:
        """Return the route with the most specific path that takes the request, or None."""
        for route in self._exact.get(path, ()):
            if _takes(route, facts):
                return route
        for length in self._lengths:
            for route in self._prefixes.get(path[:length], ()):
                if _takes(route, facts):
                    return route
        return None


def has_dots(path: str) -> bool:
    """Return whether some server would find a dot segment in a path.

    >>> has_dots("/a/%2E./b"), has_dots("/a.b/..c")
    (True, False)
    """
    return any(map(_dots, _SLASHES[-1].split(path)))


def _dots(segment: str) -> int:
    """Return how many dots a dot segment has, 0 for any other segment. Some servers cut a segment at a ``;``."""
    if "." not in segment and "%" not in segment:
        return 0
    name = _DOT.sub(".", segment.partition(";")[0])
    return len(name) if name in (".", "..") else 0


def _resolved(segments: list[str], least: int) -> str | None:
    """Return the path with its dot segments resolved; None if one of them leads above the first ``least`` segments."""
    kept: list[str] = []
    dots = 0
    for segment in segments:
        dots = _dots(segment)
        if dots == 2:
            if len(kept) <= least:
                return None
            kept.pop()
        elif not dots:
            kept.append(segment)
    if dots:
        kept.append("")
    return f"/{'/'.join(kept)}"


def overlap(one: Pattern, other: Pattern) -> bool:
    """Return whether some request could be taken by either, with no rule for which comes first.

    That is so when the paths are the same, the methods are not disjoint, and no header is required to have two
    different values. Paths that are not the same never overlap: the more specific one comes first.
    """
    if one.path != other.path:
        return False
    if one.methods and other.methods and not set(one.methods) & set(other.methods):
        return False
    wanted = dict(one.headers)
    return all(wanted.get(name, value) == value for name, value in other.headers)


def _takes(route: Route, facts: Facts) -> bool:
    if route.methods and facts.method not in route.methods:
        return False
    return not route.headers or all(facts.header(name) == value for name, value in route.headers)
