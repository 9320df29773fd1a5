"""A small valid file, ways to change it, and what it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policies.types import Evidence
from router.compile import compile_snapshot
from router.config.config import Config, ConfigError, parse
from router.config.diagnostics import Diagnostic
from router.snapshot import Route, Snapshot

BACKENDS = """
[backends.v1]
url = "http://127.0.0.1:9001"
version = "1"

[backends.v2]
url = "http://127.0.0.1:9002"
version = "2"

[backends.v3]
url = "http://127.0.0.1:9003"
version = "3"

[metrics.correct]
kind = "label"

[metrics.click]
kind = "event"
missing = 0

[metrics.seconds]
kind = "value"
"""

ROUTE = """
[routes.digits]
path = "/digits"
unit = "header:x-user-id"
prediction = "/answer"
metrics = ["correct", "click"]
"""

CANARY = """
[routes.digits.policy]
kind = "canary"
stable = "v1"
candidate = "v2"
share = 0.05
"""

SMALL = BACKENDS + ROUTE + CANARY


def changed(text: str, *changes: tuple[str, str]) -> str:
    """Return the text with each (old, new) replaced; every old must be there."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def with_policy(policy: str, route: str = ROUTE) -> str:
    """Return a file whose one route has this policy, an inline table."""
    return f"{BACKENDS}{route}policy = {policy}\n"


def diagnostics_of(text: str) -> tuple[Diagnostic, ...]:
    """Return every diagnostic of a file, whether it is refused or not."""
    try:
        return parse(text, "turnout.toml").warnings
    except ConfigError as error:
        return error.diagnostics


def messages_of(text: str, severity: str = "error") -> list[str]:
    return [diagnostic.message for diagnostic in diagnostics_of(text) if diagnostic.severity == severity]


def config_of(text: str = SMALL) -> Config:
    return parse(text, "turnout.toml")


def snapshot_of(
    text: str = SMALL, previous: Snapshot | None = None, *, now_ms: int = 1_000, revision: int = 1
) -> Snapshot:
    """Return the snapshot of a file, made without evidence."""
    return compile_snapshot(
        config_of(text), previous=previous, evidence=lambda route, epoch: Evidence(), now_ms=now_ms, revision=revision
    )


def route_of(text: str = SMALL, name: str = "digits") -> Route:
    return snapshot_of(text).routes[name]


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The facts of a made-up request; ``headers`` are (lower-case name, value)."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str | None:
        return ", ".join(lines) if (lines := self.lines(name)) else None

    def lines(self, name: str) -> Sequence[str]:
        return [value.strip(" \t") for candidate, value in self.headers if candidate == name]


def request(path: str = "/digits", method: str = "POST", query: str = "", **headers: str) -> RequestFacts:
    """Return a request; header names are written with "_" for "-"."""
    lines = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return RequestFacts(method, path, query, lines)
