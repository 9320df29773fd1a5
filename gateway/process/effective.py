"""The configuration in force, defaults filled in, as the API shows it.

Rule: no secret, ever. Token files are shown by name, of a header's value only its references (``${NAME}``), and user
names and passwords in URLs not at all. A salt hashed with the assignment key is hidden too: with it one could compute
which variant a unit gets.
"""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from gateway.moments import rfc3339
from policies import encode_plan
from policies.rollouts.standing import encode_standing
from router.snapshot import Backend, Metric, Route, Sink, Snapshot

HIDDEN: Final = "***"

_REFERENCE: Final = re.compile(r"\$\{[^{}]*\}")


def effective(snapshot: Snapshot) -> dict[str, Any]:
    """Return the settings in force as plain JSON values, shaped like the operator's file."""
    gateway = asdict(snapshot.gateway)
    gateway["store"] = without_credentials(gateway["store"])
    return {
        "revision": snapshot.revision,
        "config": snapshot.config,
        "gateway": gateway,
        "backends": {name: _backend(backend) for name, backend in snapshot.backends.items()},
        "metrics": {name: _metric(metric) for name, metric in snapshot.metrics.items()},
        "routes": {name: _route(route, snapshot.assignment) for name, route in snapshot.routes.items()},
        "sinks": {name: _sink(sink) for name, sink in snapshot.sinks.items()},
        "slots": {
            name: {"version": one.version, "who": one.who, "at_ms": one.at_ms} for name, one in snapshot.slots.items()
        },
    }


def without_credentials(url: str) -> str:
    """Return the URL with the user and password before its host hidden, and the value of every query parameter.

    >>> without_credentials("postgresql://turnout:hush@db:5432/turnout?password=hush&sslmode=require")
    'postgresql://***@db:5432/turnout?password=***&sslmode=***'
    """
    parts = urlsplit(url)
    _, at, host = parts.netloc.rpartition("@")
    query = "&".join(f"{one.partition('=')[0]}={HIDDEN}" for one in parts.query.split("&")) if parts.query else ""
    return urlunsplit(parts._replace(netloc=f"{HIDDEN}@{host}" if at else host, query=query))


def _backend(backend: Backend) -> dict[str, Any]:
    shown = asdict(backend)
    shown["urls"] = [without_credentials(url) for url in backend.urls]
    shown["request_headers"] = {name: _header(value) for name, value in backend.request_headers}
    return shown


def _sink(sink: Sink) -> dict[str, Any]:
    shown = asdict(sink)
    shown["url"] = None if sink.url is None else without_credentials(sink.url)
    shown["headers"] = {name: _header(value) for name, value in sink.headers}
    shown["secret"] = None if sink.secret is None else _header(sink.secret)
    return shown


def _header(value: str) -> str:
    """Return the value with its references shown and all other text hidden: "Bearer ${TOKEN}" → "***${TOKEN}"."""
    if "$${" in value:  # an escaped reference is plain text
        return HIDDEN
    references = _REFERENCE.findall(value)
    pieces = _REFERENCE.split(value)
    shown = [HIDDEN if pieces[0] else ""]
    for reference, rest in zip(references, pieces[1:], strict=True):
        shown += [reference, HIDDEN if rest else ""]
    return "".join(shown)


def _metric(metric: Metric) -> dict[str, Any]:
    return asdict(metric) | {"bounds": metric.bounds}


def _route(route: Route, assignment: str) -> dict[str, Any]:
    shown = {field.name: getattr(route, field.name) for field in fields(route)}
    shown["salt"] = HIDDEN if assignment else route.salt
    shown["plan"] = encode_plan(route.plan)
    shown["standing"] = encode_standing(route.standing)
    shown["shares"] = dict(route.plan.shares)
    shown["mirrors"] = [asdict(mirror) for mirror in route.mirrors]
    shown["guardrails"] = [asdict(guardrail) for guardrail in route.guardrails]
    shown["test"] = None if route.test is None else asdict(route.test)
    if route.test is not None and route.test.until is not None:
        shown["test"]["until"] = rfc3339(route.test.until)
    shown["capture"] = None if route.capture is None else asdict(route.capture)
    return shown
