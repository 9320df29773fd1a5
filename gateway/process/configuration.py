"""Load the operator's file and check what ``router.config`` cannot: certificates, keys and installed packages.

Rule: ``check`` and ``serve`` both load it here, so ``serve`` can run with every file that ``check`` calls valid.
``router.config`` checks the file and that the files it names exist; whether such a file is a certificate, and whether a
driver is installed, is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from gateway.files import assignment_key, tls
from gateway.files.pseudonym import read_keys
from gateway.files.secret import secret
from gateway.sinks.signature import signing_keys
from router.config import config
from router.config.config import Config, ConfigError
from router.config.diagnostics import locate
from router.config.findings import Finding
from router.settings.placeholders import fill
from router.snapshot import Gateway


def load(path: Path, *, secrets: bool = True) -> Config:
    """Return the configuration; without ``secrets``, the files that it names and the environment are not read.

    Raises ConfigError with every problem, and nothing else.
    """
    found = config.load(path, secrets=secrets)
    gateway = found.gateway
    findings = [*_store(gateway), *_tracing(gateway)]
    if secrets:
        findings += [*_tls(gateway), *_authorities(found), *_unit_keys(gateway), *_assignment_key(gateway)]
        findings += _signing_secrets(found)
    if not findings:
        return found
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        text = ""
    raise ConfigError((*locate(findings, text, str(path)), *found.warnings))


def _tls(gateway: Gateway) -> Iterator[Finding]:
    for setting, make in (("tls_cert_file", tls.context), ("admin_tls_cert_file", tls.admin_context)):
        try:
            make(gateway)
        except tls.Unusable as error:
            yield Finding(("gateway", error.setting), str(error))
        except OSError as error:  # deleted after router.config had checked that it exists
            yield Finding(("gateway", setting), f"gateway.{setting}: {error.strerror}")


def _authorities(found: Config) -> Iterator[Finding]:
    contexts: list[tuple[str, str, Callable[[], object]]] = [
        *(("backends", name, partial(tls.client_context, backend)) for name, backend in found.backends.items()),
        *(("sinks", name, partial(tls.sink_context, sink)) for name, sink in found.sinks.items()),
    ]
    for section, name, make in contexts:
        where = (section, name, "tls_ca_file")
        try:
            make()
        except tls.Unusable as error:
            yield Finding(where, str(error))
        except OSError as error:
            yield Finding(where, f"{'.'.join(where)}: {error.strerror}")


def _store(gateway: Gateway) -> Iterator[Finding]:
    if gateway.store != "sqlite" and find_spec("psycopg") is None:
        hint = 'pip install "turnout[postgres]"'
        yield Finding(("gateway", "store"), "gateway.store: PostgreSQL needs psycopg, which is not installed", hint)


def _unit_keys(gateway: Gateway) -> Iterator[Finding]:
    if gateway.unit_key_file is not None:
        try:
            read_keys(gateway.unit_key_file)
        except (OSError, ValueError) as error:
            yield Finding(("gateway", "unit_key_file"), f"gateway.unit_key_file: {error}")


def _assignment_key(gateway: Gateway) -> Iterator[Finding]:
    if gateway.assignment_key_file is not None:
        try:
            assignment_key.read(Path(gateway.assignment_key_file))
        except assignment_key.KeyUnusable as error:
            yield Finding(("gateway", "assignment_key_file"), f"gateway.assignment_key_file: {error}")


def _signing_secrets(found: Config) -> Iterator[Finding]:
    for name, sink in found.sinks.items():
        if sink.secret is not None:
            try:
                signing_keys(fill(sink.secret, secret))
            except ValueError as error:
                yield Finding(("sinks", name, "secret"), f"sinks.{name}.secret: {error}", secret=True)


def _tracing(gateway: Gateway) -> Iterator[Finding]:
    if gateway.tracing and not all(
        map(_installed, ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"))
    ):
        hint = 'pip install "turnout[tracing]"'
        yield Finding(("gateway", "tracing"), "gateway.tracing: needs OpenTelemetry, which is not installed", hint)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False
