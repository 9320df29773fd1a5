"""Spans of OpenTelemetry: one for each request of a route, and under it one for each call to a backend.

Rule: OpenTelemetry is imported only when tracing is on; while it is off a request pays one ``is None``. A span is
passed on explicitly and never made the current one: on the request path many requests share one context.

OpenTelemetry's own environment variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, …) say
where spans go, which are sampled and what the service is called. A thread of the SDK exports them; its queue is bounded
and it logs what it drops, so a slow or dead collector slows no request. Names and attributes follow the semantic
conventions for HTTP; our own begin with ``turnout.``. A query is never exported: people put secrets in it.
"""

from __future__ import annotations

import asyncio
import threading
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from gateway.proxy.wire.headers import Header, Headers
from router.router import Routing
from router.snapshot import Backend

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

#: The fields that carry the context; a backend gets ours in place of the client's.
_CONTEXT: Final = frozenset({b"traceparent", b"tracestate"})
#: Seconds for the last spans to be exported when the worker ends.
_LAST_SECONDS: Final = 2.0


class TracingUnavailable(ValueError):
    """The extra is not installed."""


def exported() -> TracerProvider:
    """Return a provider that exports by OTLP over HTTP. Raises TracingUnavailable."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingUnavailable(
            f'tracing needs the extra "tracing" (pip install "turnout[tracing]"): {error}'
        ) from error
    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "turnout"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """Begins the spans of one worker's requests."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._nothing = Context()
        self.api = trace
        self.tracer = provider.get_tracer("turnout")
        self.propagator = TraceContextTextMapPropagator()

    def begin(self, request: Request, routing: Routing, began: float) -> Trace:
        """Begin the span of a request with its decision; it starts at ``began`` on the performance counter."""
        carrier = {name: value for name in ("traceparent", "tracestate") if (value := request.header(name))}
        parent = self.propagator.extract(carrier, context=self._nothing)
        route = routing.route
        attributes: dict[str, Any] = {
            "http.request.method": request.method,
            "http.route": route.path,
            "url.path": request.target.partition(b"?")[0].decode("latin-1"),
            "turnout.route": route.name,
            "turnout.variant": ", ".join(routing.decision.answering),
            "turnout.prediction_id": routing.occasion.request_id,
        }
        if host := request.header("host"):
            _address(attributes, f"//{host}")
        span = self.tracer.start_span(
            f"{request.method} {route.path}",
            context=parent,
            kind=self.api.SpanKind.SERVER,
            attributes=attributes,
            start_time=time_ns() - int((perf_counter() - began) * 1e9),
        )
        return Trace(self, routing, span, self.api.set_span_in_context(span, parent))

    async def close(self) -> None:
        """Export the remaining spans, within ``_LAST_SECONDS``."""
        # A daemon thread, so that a collector that is gone does not delay the end of the process.
        thread = threading.Thread(target=self._provider.shutdown, name="tracing", daemon=True)
        thread.start()
        await asyncio.get_running_loop().run_in_executor(None, thread.join, _LAST_SECONDS)


class Trace:
    """The span of one request, and the context of its calls' spans, which are its children."""

    __slots__ = ("_context", "_routing", "_span", "_tracing")

    def __init__(self, tracing: Tracing, routing: Routing, span: Span, context: Context) -> None:
        self._tracing = tracing
        self._routing = routing
        self._span = span
        self._context = context

    def end(self, response: Response) -> None:
        """End the span. A client that left before its answer leaves it without a status."""
        if response.status:
            _status(self._tracing, self._span, response.status, failed=response.status >= 500)
        self._span.end()

    def call(self, backend: Backend, method: str, target: bytes) -> CallSpan:
        """Begin the span of one call to a backend."""
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.path": target.partition(b"?")[0].decode("latin-1"),
            "turnout.route": self._routing.route.name,
            "turnout.variant": backend.name,
            "turnout.prediction_id": self._routing.occasion.request_id,
        }
        if len(backend.urls) == 1:
            _address(attributes, backend.urls[0])
        else:  # one of its replicas, which the pool chooses later
            attributes["server.address"] = backend.name
        tracing = self._tracing
        span = tracing.tracer.start_span(
            method, context=self._context, kind=tracing.api.SpanKind.CLIENT, attributes=attributes
        )
        return CallSpan(tracing, span, self._context)


class CallSpan:
    """The span of one call to a backend. It must be ended."""

    __slots__ = ("_context", "_span", "_tracing")

    def __init__(self, tracing: Tracing, span: Span, context: Context) -> None:
        self._tracing = tracing
        self._span = span
        self._context = context

    def headers(self, headers: Headers) -> list[Header]:
        """Return the headers with this span's context in place of the client's."""
        tracing = self._tracing
        carrier: dict[str, str] = {}
        tracing.propagator.inject(carrier, context=tracing.api.set_span_in_context(self._span, self._context))
        kept = [header for header in headers if header[0].lower() not in _CONTEXT]
        return kept + [(name.encode(), value.encode()) for name, value in carrier.items()]

    def returned(self, status: int | None, fault: str | None) -> None:
        """Record the status of the answer and the fault, whichever there are."""
        if status is not None:
            _status(self._tracing, self._span, status, failed=status >= 400)
        if fault is not None:
            self.failed(fault)

    def failed(self, kind: str) -> None:
        _failed(self._tracing, self._span, kind)

    def end(self) -> None:
        self._span.end()


def _status(tracing: Tracing, span: Span, status: int, *, failed: bool) -> None:
    span.set_attribute("http.response.status_code", status)
    if failed:
        _failed(tracing, span, str(status))


def _failed(tracing: Tracing, span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(tracing.api.Status(tracing.api.StatusCode.ERROR))


def _address(attributes: dict[str, Any], url: str) -> None:
    """Add the host and port of a URL; nothing if it cannot be parsed."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return
    if host:
        attributes["server.address"] = host
    if port or parts.scheme:
        attributes["server.port"] = port or (443 if parts.scheme == "https" else 80)
