"""Spans, as the SDK passes them to an exporter; and the context that a backend gets, with and without tracing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway.proxy.exchange.tracing import TracingUnavailable, exported
from policies.plans import Mirror, TeamDraft, Weighted
from router.snapshot import Gateway
from tests.gateway.proxy.builders import backend, only, route, snapshot
from tests.gateway.proxy.stage import Asked, Model, play, staged

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}


async def seven(asked: Asked) -> None:
    await asked.answer({"p": 7, "items": ["a"]})


async def failing(asked: Asked) -> None:
    await asked.answer(status=500)


async def dead(asked: Asked) -> None:
    asked.writer.transport.abort()


async def streaming(asked: Asked) -> None:
    await asked.start()
    await asked.chunk(b"x")
    asked.writer.write(b"0\r\n\r\n")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("gateway.proxy.worker.exported", lambda: provider)
    yield exporter
    provider.shutdown()


def told(spans: InMemorySpanExporter) -> tuple[list[ReadableSpan], list[ReadableSpan]]:
    """Return the spans of requests and those of calls, in the order in which they ended."""
    finished = spans.get_finished_spans()
    return (
        [span for span in finished if span.kind is SpanKind.SERVER],
        [span for span in finished if span.kind is SpanKind.CLIENT],
    )


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def identity(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def test_a_request_and_its_call_are_two_spans_and_the_backend_is_below_the_second(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    async def main() -> None:
        async with Model(seven) as model:
            cast = (Gateway(tracing=True), backend("a", model.url), route("r", only("a")))
            async with staged(tmp_path, snapshot(*cast)) as stage:
                got = await stage.ask("/r?token=secret", headers=CONTEXT)
        (request,), (call,) = told(spans)
        assert (request.name, call.name) == ("POST /r", "POST")
        assert identity(request)[0] == identity(call)[0] == TRACE
        assert request.parent is not None
        assert f"{request.parent.span_id:016x}" == PARENT
        assert call.parent is not None
        assert f"{call.parent.span_id:016x}" == identity(request)[1]
        (asked,) = model.asked
        assert asked.headers["traceparent"] == f"00-{TRACE}-{identity(call)[1]}-01"
        assert asked.headers["tracestate"] == "vendor=1"
        # The ids by which the caller traces its request are in the log unchanged.
        assert stage.rows()[0]["traceparent"] == CONTEXT["traceparent"]
        ours = {"turnout.route": "r", "turnout.variant": "a", "turnout.prediction_id": got.id}
        http = {"http.request.method": "POST", "url.path": "/r", "http.response.status_code": 200}
        assert attributes(request) == {
            **ours,
            **http,
            "http.route": "/r",
            "server.address": "models.example",
        }
        assert attributes(call) == {
            **ours,
            **http,
            "server.address": "127.0.0.1",
            "server.port": model.port,
        }
        assert request.status.status_code is call.status.status_code is StatusCode.UNSET

    play(main())


def test_without_a_context_from_the_client_a_trace_begins_here(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    async def main() -> None:
        async with Model(seven) as model:
            cast = (Gateway(tracing=True), backend("a", model.url), route("r", only("a")))
            async with staged(tmp_path, snapshot(*cast)) as stage:
                await stage.ask("/r", headers={"traceparent": "nonsense"})
                await stage.ask("/r")
        requests, calls = told(spans)
        assert [request.parent for request in requests] == [None, None]
        assert identity(requests[0])[0] != identity(requests[1])[0]
        for call, asked in zip(calls, model.asked, strict=True):
            assert asked.headers["traceparent"].startswith("00-{}-{}-".format(*identity(call)))

    play(main())


def test_failures_are_errors_and_a_fallback_is_a_call_of_its_own(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    async def main() -> None:
        async with Model(dead) as one, Model(failing) as two:
            cast = (
                Gateway(tracing=True),
                backend("a", one.url),
                backend("b", two.url),
                route("r", only("a"), fallback="b"),
            )
            async with staged(tmp_path, snapshot(*cast)) as stage:
                assert (await stage.ask("/r")).status == 500
        (request,), calls = told(spans)
        assert [attributes(call)["turnout.variant"] for call in calls] == ["a", "b"]
        assert [attributes(call)["error.type"] for call in calls] == ["reset", "500"]
        assert {span.status.status_code for span in (request, *calls)} == {StatusCode.ERROR}
        assert attributes(request)["error.type"] == "500"

    play(main())


def test_rankers_and_copies_have_spans_below_the_one_request(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    async def main() -> None:
        plan = Weighted((("a", 1.0),), mirrors=(Mirror("b", 1.0),))
        async with Model(seven) as model:
            cast = (
                Gateway(tracing=True),
                backend("a", model.url),
                backend("b", model.url),
                route("r", plan),
                route("s", TeamDraft(("a", "b"), items="/items", item_id="", length=1)),
            )
            async with staged(tmp_path, snapshot(*cast)) as stage:
                await stage.ask("/r")
                await stage.eventually(lambda: len(stage.rows()) == 2)
                await stage.ask("/s")
        requests, calls = told(spans)
        assert [attributes(request)["turnout.variant"] for request in requests] == ["a", "a, b"]
        for request in requests:
            below = [call for call in calls if identity(call)[0] == identity(request)[0]]
            assert sorted(attributes(call)["turnout.variant"] for call in below) == ["a", "b"]
            assert {call.parent.span_id for call in below if call.parent} == {request.context.span_id}

    play(main())


def test_the_span_of_a_stream_ends_with_it_and_that_of_a_client_that_leaves_has_no_status(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    async def behave(asked: Asked) -> None:
        await (streaming(asked) if asked.target == "/r?stream" else asked.gone())

    async def main() -> None:
        async with Model(behave) as model:
            cast = (Gateway(tracing=True), backend("a", model.url), route("r", only("a")))
            async with staged(tmp_path, snapshot(*cast)) as stage:
                assert (await stage.ask("/r?stream")).body == b"x"
                await stage.eventually(lambda: told(spans)[0])
                _, writer = await stage.send("/r")
                await stage.eventually(lambda: len(model.asked) == 2)
                writer.close()
                await stage.eventually(lambda: len(told(spans)[0]) == 2)
        (streamed, left), (_, dropped) = told(spans)
        assert attributes(streamed)["http.response.status_code"] == 200
        assert "http.response.status_code" not in attributes(left)
        assert dropped.status.status_code is StatusCode.ERROR

    play(main())


def test_when_tracing_is_off_the_context_passes_unchanged(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Model(seven) as model,
            staged(tmp_path, snapshot(backend("a", model.url), route("r", only("a")))) as stage,
        ):
            await stage.ask("/r", headers=CONTEXT)
            await stage.ask("/r")
        first, second = model.asked
        assert {name: first.headers[name] for name in CONTEXT} == CONTEXT
        assert not set(CONTEXT) & set(second.headers)

    play(main())


def test_a_worker_that_does_not_trace_imports_no_opentelemetry() -> None:
    program = "import sys, gateway.proxy.worker; print(any(m.startswith('opentelemetry') for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_without_the_extra_it_says_which_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TracingUnavailable, match=r'pip install "turnout\[tracing\]"'):
        exported()


def test_where_spans_go_and_what_the_service_is_called_is_said_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = exported()
    assert provider.resource.attributes["service.name"] == "turnout"
    provider.shutdown()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "models")
    provider = exported()
    assert provider.resource.attributes["service.name"] == "models"
    provider.shutdown()
