"""The operator's file as values: ``parse`` for a text, ``load`` for a file.

Rule: a file is accepted whole or refused whole, with every problem and its place at once. ``parse`` is pure; ``load``
is the only function of this package that reads files and the environment. The tables are in ``file``, the checks
between settings in ``checks``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path as FilePath
from typing import Any, Final

import orjson

from policies.types import Path, Policy
from router.config.checks.file_checks import findings_of
from router.config.diagnostics import Diagnostic, locate, render, syntax_diagnostic, undecodable_diagnostic
from router.config.draft import Draft, RouteDraft, TriggerDraft, draft_of
from router.config.findings import Finding, dotted
from router.scores import better_of, score_of
from router.settings.alert import Alert
from router.settings.backend import Backend
from router.settings.declared import DeclaredTest, Guardrail
from router.settings.gateway import Gateway
from router.settings.placeholders import Placeholder, placeholders
from router.settings.route import Capture, RouteMirror, RouteSettings
from router.settings.sink import DEFAULT_EVENTS, Sink
from router.settings.slots import Filled, url_of
from router.settings.trigger import Trigger
from router.snapshot import Metric

#: The largest file that is read. One that is written by hand has at most a hundredth of it.
MAX_BYTES: Final = 4 * 2**20


class ConfigError(ValueError):
    """The file cannot be used. ``diagnostics`` are all its problems, warnings included, in the order of the file."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__(render(diagnostics))
        self.diagnostics = diagnostics


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteConfig(RouteSettings):
    """A route as written in the file. ``baseline`` is the policy's own if the file names none."""

    policy: Policy
    salt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A valid file, with ``slots`` laid over it.

    ``hash`` is a hash of its values, and of the slots: comments, spaces and the kind of quotes do not change it.
    """

    gateway: Gateway
    backends: Mapping[str, Backend]
    metrics: Mapping[str, Metric]
    routes: Mapping[str, RouteConfig]
    sinks: Mapping[str, Sink]
    triggers: Mapping[str, Trigger]
    alerts: Mapping[str, Alert]
    hash: str
    warnings: tuple[Diagnostic, ...] = ()
    slots: Mapping[str, Filled] = field(default_factory=dict)


def load(path: FilePath | str, *, environ: Mapping[str, str] | None = None, secrets: bool = True) -> Config:
    """Read the file, and with ``secrets`` check that the secrets and files it refers to exist.

    ``environ`` replaces the process's environment. Raises ConfigError, and nothing else.
    """
    name = str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError((Diagnostic(name, 1, 1, "", f"cannot be read: {_reason(error)}"),)) from None
    if len(data) > MAX_BYTES:
        raise ConfigError((Diagnostic(name, 1, 1, "", f"is larger than {MAX_BYTES} bytes"),))
    if secrets:
        environ = os.environ if environ is None else environ
    return parse(_decoded(data, name), name, environ=environ if secrets else None)


def parse(text: str, filename: str, *, environ: Mapping[str, str] | None = None) -> Config:
    """Read the text of a file; ``filename`` is only used in messages.

    With ``environ``, also check that the environment variables and files that the text refers to exist. Raises
    ConfigError, and nothing else.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: an integer too long for Python, or a TOMLDecodeError
        raise ConfigError((syntax_diagnostic(error, text, filename),)) from None
    draft = draft_of(document)
    findings = [*draft.findings, *findings_of(draft)]
    if environ is not None:
        findings += _environment(draft, document, environ)
    diagnostics = locate(findings, text, filename)
    if any(diagnostic.severity == "error" for diagnostic in diagnostics):
        raise ConfigError(diagnostics)
    return Config(
        gateway=Gateway(**draft.gateway.values),
        backends={name: _backend(name, reading.values) for name, reading in draft.backends.items()},
        metrics={name: _metric(name, reading.values) for name, reading in draft.metrics.items()},
        routes={name: _route(route, route.policy) for name, route in draft.routes.items() if route.policy is not None},
        sinks={name: _sink(name, reading.values, draft.gateway.values) for name, reading in draft.sinks.items()},
        triggers={name: _trigger(one, draft) for name, one in draft.triggers.items()},
        alerts={name: Alert(name=name, **reading.values) for name, reading in draft.alerts.items()},
        hash=digest(document),
        warnings=diagnostics,
    )


def with_slots(config: Config, slots: Mapping[str, Filled]) -> Config:
    """Return the config with the filled slots laid over its backends, as if the file said so.

    Left out are slots that the file has no longer, or of which it says something else than when they were filled.
    """
    backends, laid = dict(config.backends), dict[str, Filled]()
    for name, filled in slots.items():
        backend = backends.get(name)
        if backend is None or backend.slot is None or filled.over != said_of(backend):
            continue
        try:
            url = url_of(backend.slot, backend.slot.model or backend.model, filled.version)
        except ValueError:
            continue
        backends[name], laid[name] = replace(backend, urls=(url,), version=filled.version), filled
    if not laid:
        return config
    versions = {name: filled.version for name, filled in laid.items()}
    return replace(config, backends=backends, slots=laid, hash=digest([config.hash, versions]))


def said_of(backend: Backend) -> str:
    """Return a hash of what a file says of a backend's versions."""
    return digest([backend.version, backend.urls, backend.slot])


def digest(value: object) -> str:
    """Return a short hash of plain JSON values: 16 hex digits, the same in every process and for any order of keys."""
    data = orjson.dumps(value, default=dict, option=orjson.OPT_SORT_KEYS)
    return blake2b(data, digest_size=8).hexdigest()


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")  # some editors put a byte order mark in front
    except UnicodeDecodeError as error:
        raise ConfigError((undecodable_diagnostic(data, error, name),)) from None


def _backend(name: str, values: dict[str, Any]) -> Backend:
    values = dict(values)
    url, urls = values.pop("url"), values.pop("urls")
    model = values.pop("model") or name
    return Backend(name=name, urls=urls or (url,), model=model, **values)


def _sink(name: str, values: dict[str, Any], gateway: dict[str, Any]) -> Sink:
    pages = gateway["admin_url"] or f"http{'s' if gateway['admin_tls_cert_file'] else ''}://{gateway['admin']}"
    events = values["events"] or (() if values["kind"] == "webhook" else DEFAULT_EVENTS)
    return Sink(name=name, pages=pages, **{**values, "events": events})


def _trigger(one: TriggerDraft, draft: Draft) -> Trigger:
    route = draft.routes[one.get("route")]
    baseline = route.get("baseline") or (None if route.policy is None else route.policy.baseline)
    made = {key: tuple(c for path, c in one.conditions.items() if path[2] == key) for key in ("any", "all")}
    variant = one.get("variant") or baseline
    return Trigger(name=one.name, **{**one.reading.values, **made, "variant": variant})


def _metric(name: str, values: dict[str, Any]) -> Metric:
    kind: str = values["kind"]
    scorer = score_of(kind, values["score"])
    changes_numbers: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "score": None if scorer is None else scorer.name,
        "window_ms": values["window"],
        "mature": values["mature"],
        "missing": values["missing"],
        "fold": values["fold"] or ("any" if kind == "event" else "last"),
        "range": values["range"],
    }
    if (
        values["window_before"] is not None
    ):  # absent, it must not change the hash that files without the key have always had
        changes_numbers["before_ms"] = values["window_before"]
    if values["cap"] is not None:
        changes_numbers["cap"] = values["cap"]
    better = better_of(scorer, values["better"])
    return Metric(better=better, definition=digest(changes_numbers), **changes_numbers)


#: The keys of a route that are tables, each read on its own.
_TABLES: Final = frozenset({"policy", "mirrors", "capture", "test", "guardrails"})


def _route(route: RouteDraft, policy: Policy) -> RouteConfig:
    values = {name: value for name, value in route.reading.values.items() if name not in _TABLES}
    metrics, features = values["metrics"], values["features"]
    values |= {
        "baseline": values["baseline"] or policy.baseline,
        # In a list each reference is its own name.
        "features": tuple(features.items() if isinstance(features, dict) else ((text, text) for text in features)),
        "primary_metric": values["primary_metric"] or (metrics[0] if metrics else None),
    }
    values |= {
        "mirrors": tuple(RouteMirror(**mirror.values) for mirror in route.mirrors),
        "capture": None if route.capture is None else Capture(**route.capture.values),
        "test": None if route.test is None else DeclaredTest(**route.test.values),
        "guardrails": tuple(Guardrail(**guardrail.values) for guardrail in route.guardrails),
    }
    return RouteConfig(name=route.name, policy=policy, salt=route.salt, **values)


def _environment(draft: Draft, document: dict[str, Any], environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield each secret and file that the file refers to and that does not exist."""
    named: list[tuple[Path, Placeholder, bool]] = [
        (("gateway", name), Placeholder("file", value), False)
        for name, value in draft.gateway.values.items()
        if name.endswith("_file") and value is not None
    ]
    for section, readings, headers in (
        ("backends", draft.backends, "request_headers"),
        ("sinks", draft.sinks, "headers"),
    ):
        for name, reading in readings.items():
            if reading.values.get("tls_ca_file"):
                authorities = Placeholder("file", reading.values["tls_ca_file"])
                named.append(((section, name, "tls_ca_file"), authorities, False))
            if reading.values.get(headers):
                # Header names as written in the file: the draft has them in lower case.
                for header, value in document[section][name][headers].items():
                    where: Path = (section, name, headers, header)
                    named += [(where, placeholder, True) for placeholder in placeholders(value)]
    for name, reading in draft.sinks.items():
        place: Path = ("sinks", name, "secret")
        named += [(place, placeholder, False) for placeholder in placeholders(reading.values.get("secret") or "")]
    for path, placeholder, in_header in named:
        problem = _secret_problem(placeholder, environ, in_header=in_header)
        if problem is not None:
            yield Finding(path, f"{dotted(path)}: {problem}")


def _secret_problem(placeholder: Placeholder, environ: Mapping[str, str], *, in_header: bool) -> str | None:
    """Return what is wrong with a secret, without showing it. Workers refuse the same secrets."""
    name = placeholder.name
    if placeholder.source == "env":
        what, text = f"the environment variable {name}", environ.get(name, "")
        if not text:
            return f"{what} is not set"
    else:
        what = f'the file "{name}"'
        try:
            with open(name, "rb") as file:
                text = file.read(MAX_BYTES).decode()
        except UnicodeDecodeError:
            return f"{what} is not UTF-8 text"
        except (OSError, ValueError) as error:
            return f"{what} cannot be read: {_reason(error)}"
        if not text.strip():
            return f"{what} is empty"
        text = text.removesuffix("\n")
    if in_header and any(character in text for character in "\r\n\0"):
        return f"{what} has more than one line, and a header has one"
    return None


def _reason(error: OSError | ValueError) -> str:
    """Return what went wrong with a file, without its name. A path with a NUL raises ValueError."""
    return (error.strerror or "unknown") if isinstance(error, OSError) else str(error)
