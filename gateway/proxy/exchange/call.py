"""One call to one backend: what came of it, and what its answer says.

Rules:

1. A backend's failure is a value here, not an exception. An answer that is not read to its end is closed on every path.
2. Reading an answer (the prediction, and the version that the backend reports) never changes what the client gets and
   never fails a request: an answer that cannot be read is counted.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import AsyncIterator, Coroutine
from time import perf_counter
from typing import Any, Final

import orjson

from gateway.proxy.client.answer import Answer
from gateway.proxy.client.upstream import Upstream
from gateway.proxy.exchange.routed import RoutedRequest, since
from gateway.proxy.exchange.tracing import Trace
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.worker_series import EXTRACTION_FAILURES, VERSION_MISMATCHES
from gateway.proxy.wire.faults import UpstreamFault
from gateway.proxy.wire.headers import CODED, Fields, Headers, field
from gateway.proxy.wire.wire import LONG_BYTES
from router.extract import MISSING, UNREADABLE, pointer, text_of, writable
from router.records import Fault

#: An answer that is not longer, and says so, is read whole before anything of it is sent: if the backend breaks off,
#: the client still gets a clean error, and the row is written once.
WHOLE_BYTES: Final = 2**20
#: A longer answer is not read, before and after decompression: a prediction is read from a document, not from a data
#: set.
READ_BYTES: Final = 2**20
#: Types whose values JSON can always hold. A text may hold half a character, and an integer too many digits.
_ALWAYS_WRITTEN: Final = frozenset({float, bool, type(None), type(MISSING)})

#: Beginnings that no JSON text has, in any encoding: ASCII that no value begins with (NaN and Infinity are values
#: here). Checked for long texts only: a parser reads a text to its end before it says that the first byte was wrong.
_NO_JSON: Final = re.compile(rb"[ \t\r\n]*(?![{\[\x22\-0-9tfnNI])[!-~]")
_SHORT_BYTES: Final = 4096

#: Characters that are kept of a reported version that is not the declared one.
_SHOWN_CHARACTERS: Final = 64


class BackendCall:
    """The result of a call: a ``fault``, a whole ``body``, or an ``answer`` whose body is still arriving.

    ``status``, ``headers`` and ``length`` are the answer's. ``latency_ms`` ends with the last byte of a whole answer,
    else with the last byte of the head; the wait for a place at the backend and ``retries`` are part of it.
    """

    __slots__ = ("answer", "body", "detail", "fault", "headers", "latency_ms", "length", "retries", "status")

    def __init__(self, answer: Answer | None, latency_ms: float, fault: Fault | None = None, detail: str = "") -> None:
        self.answer = answer
        self.body: bytes | None = None
        self.fault = fault
        self.detail = detail
        self.latency_ms = latency_ms
        if answer is None:
            self.status: int | None = None
            self.headers = Fields([], 0)
            self.length: int | None = None
            self.retries = 0
        else:
            self.status = answer.status
            self.headers = answer.headers
            self.length = answer.length
            self.retries = answer.retries

    @property
    def failed(self) -> bool:
        """True when the backend failed."""
        return self.fault is not None or (self.status or 0) >= 500

    @property
    def succeeded(self) -> bool:
        return self.fault is None and 200 <= (self.status or 0) < 300

    def outcome(self) -> dict[str, Any]:
        """Return the fields of a row that describe the result."""
        fields: dict[str, Any] = {"latency_ms": self.latency_ms}
        if self.status is not None:
            fields["status"] = self.status
        if self.fault is not None:
            fields["fault"] = self.fault
        if self.retries:
            fields["retries"] = self.retries
        return fields

    def close(self) -> None:
        """Close an answer that is still arriving."""
        if self.answer is not None:
            self.answer.close()
            self.answer = None


def call(
    upstream: Upstream,
    routed: RoutedRequest,
    headers: Headers,
    body: bytes | AsyncIterator[bytes],
    *,
    whole: bool = False,
) -> Coroutine[Any, Any, BackendCall]:
    """Call a backend; with ``whole`` its answer is read to the end, else only if it is short and says so.

    Raises nothing of the backend's. An exception that ``body`` raises while it is sent goes through.
    """
    trace = routed.trace
    if trace is None:
        return _call(upstream, routed, headers, body, whole)
    return _traced(trace, upstream, routed, headers, body, whole)


async def _call(
    upstream: Upstream, routed: RoutedRequest, headers: Headers, body: bytes | AsyncIterator[bytes], whole: bool
) -> BackendCall:
    began = perf_counter()
    answer: Answer | None = None
    try:
        answer = await upstream.call(routed.method, routed.target, headers, body)
        complete = answer.complete
        if complete is None:
            if not whole and (answer.length is None or answer.length > _whole_bytes(upstream)):
                came, answer = BackendCall(answer, since(began)), None
                return came
            complete = await answer.read(READ_BYTES if whole else WHOLE_BYTES)
        came = BackendCall(answer, since(began))
        came.body, came.answer, answer = complete, None, None  # read to its end: there is nothing to close
        return came
    except UpstreamFault as fault:
        came = BackendCall(None, since(began), fault.fault, fault.detail)
        came.retries = fault.retries if answer is None else answer.retries
        return came
    finally:
        if answer is not None:
            answer.close()


async def _traced(
    trace: Trace,
    upstream: Upstream,
    routed: RoutedRequest,
    headers: Headers,
    body: bytes | AsyncIterator[bytes],
    whole: bool,
) -> BackendCall:
    """Call a backend within a span, which ends with what the call returns."""
    span = trace.call(upstream.backend, routed.method, routed.target)
    try:
        came = await _call(upstream, routed, span.headers(headers), body, whole)
        span.returned(came.status, came.fault)
        return came
    except BaseException as error:
        span.failed(type(error).__name__)
        raise
    finally:
        span.end()


def _whole_bytes(upstream: Upstream) -> int:
    """Return the length up to which an answer is read whole: less once the worker's budget of bytes is spent."""
    return LONG_BYTES if upstream.buffers.spent else WHOLE_BYTES


class Kept:
    """The body of a streamed answer, kept as long as it is ``wanted`` and not too long."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        if self.wanted and self._size <= READ_BYTES:
            self._size += len(chunk)
            self._chunks.append(chunk)
            if self._size > READ_BYTES:
                self._chunks.clear()

    def whole(self) -> bytes | None:
        """Return the body, or None if it was too long to keep."""
        return b"".join(self._chunks) if self._size <= READ_BYTES else None


def worth_reading(routed: RoutedRequest, variant: str, came: BackendCall) -> bool:
    """Return whether an answer may hold a prediction or a version: only a success does, and no stream of events."""
    return _may_hold(routed, variant, came) and not _is_event_stream(came)


def _may_hold(routed: RoutedRequest, variant: str, came: BackendCall) -> bool:
    if routed.routing.route.prediction is None and routed.generation.backends[variant].reported_version is None:
        return False
    status = came.status
    return status is not None and 200 <= status < 300 and status != 204 and routed.method != "HEAD"


def _is_event_stream(came: BackendCall) -> bool:
    kind = field(came.headers, b"content-type")
    return kind is not None and kind.lower().startswith(b"text/event-stream")


def read_answer(
    outcome: dict[str, Any], routed: RoutedRequest, variant: str, came: BackendCall, body: bytes | None, counts: Counts
) -> None:
    """Add to the fields of a row what is found in a variant's answer; ``body`` is None if it was too long to keep."""
    if not _may_hold(routed, variant, came):
        return
    route, backend = routed.routing.route, routed.generation.backends[variant]
    document = UNREADABLE if body is None else _decoded(body, came)
    if document is UNREADABLE and _is_event_stream(came):
        return
    wrong: tuple[str, ...] = ()
    if route.prediction is not None:
        prediction = _found(route.prediction, document)
        if prediction is MISSING:
            wrong = ("no_prediction",)
        else:
            outcome["predicted"] = True
            outcome["prediction"] = prediction
    if backend.reported_version is not None:
        version = text_of(_found(backend.reported_version, document))
        if version is None:
            wrong += ("no_version",)
        else:
            outcome["reported_version"] = version
            if version != backend.version:
                counts.add(VERSION_MISMATCHES, route=route.name, variant=variant)
                wrong += (f"other_version:{version[:_SHOWN_CHARACTERS]}",)
    if wrong:
        outcome["wrong"] = outcome.get("wrong", ()) + wrong
        if "no_prediction" in wrong or "no_version" in wrong:
            counts.add(EXTRACTION_FAILURES, route=route.name, variant=variant)


def plain_body(body: bytes, headers: Headers) -> bytes | None:
    """Undo a Content-Encoding of gzip or deflate.

    Return None for another encoding, for damaged data, and for more than READ_BYTES.
    """
    coding = (field(headers, b"content-encoding") or b"").strip().lower()
    if coding in (b"", b"identity"):
        return body
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        return None
    # "deflate" is zlib's format, but some servers send it without zlib's header.
    for window in (47,) if coding != b"deflate" else (47, -15):
        inflate = zlib.decompressobj(window)
        try:
            plain = inflate.decompress(body, READ_BYTES)
        except zlib.error:
            continue
        return plain if inflate.eof else None
    return None


def _found(text: str, document: object) -> object:
    """Return the value that a pointer finds, or MISSING if there is none or it cannot be written into the journal."""
    value = MISSING if document is UNREADABLE else pointer(text).find(document)
    if isinstance(value, str) and value.isascii():
        return value
    return value if type(value) in _ALWAYS_WRITTEN or writable(value) else MISSING


def _decoded(body: bytes, came: BackendCall) -> object:
    """Return the JSON value of a body, or UNREADABLE. NaN and Infinity, which models do send, are read."""
    plain = plain_body(body, came.headers) if came.headers.meanings & CODED else body
    if plain is None or (len(plain) > _SHORT_BYTES and _NO_JSON.match(plain)):
        return UNREADABLE
    try:
        value: object = orjson.loads(plain)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(plain)
        except (ValueError, RecursionError):
            return UNREADABLE
    return value
