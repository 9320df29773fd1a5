"""Match a request to its route.

Rule: matching looks at nothing but Facts, and at the path's bytes as they came: nothing is decoded or cleaned
up, because the same bytes go on to the backend. Of the routes that take a request, the most specific path wins: an
exact path before a prefix, a longer prefix before a shorter one. Two routes with the same path that could both take one
request are refused when the config is read (``overlap``), not when traffic arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.snapshot import Route


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


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Facts that somebody made up; ``headers`` are (lower-case name, value)."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str | None:
        return ", ".join(lines) if (lines := self.lines(name)) else None

    def lines(self, name: str) -> Sequence[str]:
        return [value.strip(" \t") for candidate, value in self.headers if candidate == name]


class Pattern(Protocol):
    """The part of a route that says what it takes: a path, exact or ending in "/*"; methods (none: all); headers."""

    @property
    def path(self) -> str: ...
    @property
    def methods(self) -> tuple[str, ...]: ...
    @property
    def headers(self) -> tuple[tuple[str, str], ...]: ...


class RouteTable:
    """Every route, arranged so that a look-up costs one dict access for exact paths and one per length of prefix."""

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
        for route in self._exact.get(path, ()):
            if _takes(route, facts):
                return route
        for length in self._lengths:
            for route in self._prefixes.get(path[:length], ()):
                if _takes(route, facts):
                    return route
        return None


def overlap(one: Pattern, other: Pattern) -> bool:
    """Return whether some request could be taken by either, with nothing to say which comes first.

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
