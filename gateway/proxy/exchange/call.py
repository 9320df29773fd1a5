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
from gateway.proxy.log.counts import Counts
from gateway.proxy.wire.faults import UpstreamFault
from gateway.proxy.wire.headers import CODED, Fields, Headers, field
from gateway.proxy.wire.wire import LONG_BYTES
from router.extract import MISSING, UNREADABLE, pointer, text_of, writable
from router.records import Fault

#: An answer that is not longer, and says so, is read whole before anything of it is sent: then a backend that breaks
#: off is still a clean failure to the client, and the row is written once.
WHOLE_BYTES: Final = 2**20
#: A longer answer is not read, before and after decompression: a prediction stands in a document, not in a data set.
READ_BYTES: Final = 2**20
#: Kinds of values that JSON can always hold. Text may hold half a character, and a number too many digits.
_ALWAYS_WRITTEN: Final = frozenset({float, bool, type(None), type(MISSING)})

#: How no JSON text begins, whatever its encoding: with ASCII that no value begins with, NaN and Infinity among them.
#: Parsers look at all of a text before they say that its first byte is none of theirs: of a short one they may.
_NO_JSON: Final = re.compile(rb"[ \t\r\n]*(?![{\[\x22\-0-9tfnNI])[!-~]")
_SHORT_BYTES: Final = 4096

#: Characters that are kept of a reported version that is not the declared one.
_SHOWN_CHARACTERS: Final = 64


class BackendCall:
    """What came of a call: a ``fault``, a whole ``body``, or an ``answer`` of which the body is still arriving.

    ``status``, ``headers`` and ``length`` are the answer's, ``latency_ms`` is until the last byte that is here: of a
    whole answer, else of the head. Waiting for a place and ``retries`` are in it.
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
        """True when the backend is to blame."""
        return self.fault is not None or (self.status or 0) >= 500

    @property
    def succeeded(self) -> bool:
        return self.fault is None and 200 <= (self.status or 0) < 300

    def outcome(self) -> dict[str, Any]:
        """Return the fields of a row that tell how it went."""
        told: dict[str, Any] = {"latency_ms": self.latency_ms}
        if self.status is not None:
            told["status"] = self.status
        if self.fault is not None:
            told["fault"] = self.fault
        if self.retries:
            told["retries"] = self.retries
        return told

    def close(self) -> None:
        """Let go of an answer that is still arriving."""
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
    """Return how long an answer may be that is read whole: with its memory spent, a worker holds no more of any."""
    return LONG_BYTES if upstream.buffers.spent else WHOLE_BYTES


class Kept:
    """What is kept of an answer while it streams by: all of it, or nothing once it is too long or not ``wanted``."""

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
    """Return whether an answer holds something to find: only success is a prediction, and no stream of events is."""
    return _may_tell(routed, variant, came) and not _is_event_stream(came)


def _may_tell(routed: RoutedRequest, variant: str, came: BackendCall) -> bool:
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
    """Add to the fields of a row what a variant's answer says; ``body`` is None when it was too long to keep."""
    if not _may_tell(routed, variant, came):
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
                counts.add("version_mismatches", route=route.name, variant=variant)
                wrong += (f"other_version:{version[:_SHOWN_CHARACTERS]}",)
    if wrong:
        outcome["wrong"] = outcome.get("wrong", ()) + wrong
        if "no_prediction" in wrong or "no_version" in wrong:
            counts.add("extraction_failures", route=route.name, variant=variant)


def plain_body(body: bytes, headers: Headers) -> bytes | None:
    """Undo a Content-Encoding of gzip or deflate; None for another one, for damage, and for more than READ_BYTES."""
    coding = (field(headers, b"content-encoding") or b"").strip().lower()
    if coding in (b"", b"identity"):
        return body
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        return None
    # "deflate" is zlib's format, but some send it without zlib's head.
    for window in (47,) if coding != b"deflate" else (47, -15):
        inflate = zlib.decompressobj(window)
        try:
            plain = inflate.decompress(body, READ_BYTES)
        except zlib.error:
            continue
        return plain if inflate.eof else None
    return None


def _found(text: str, document: object) -> object:
    """Return what a pointer finds, if it can be written into the journal: MISSING otherwise."""
    value = MISSING if document is UNREADABLE else pointer(text).find(document)
    if isinstance(value, str) and value.isascii():
        return value
    return value if type(value) in _ALWAYS_WRITTEN or writable(value) else MISSING


def _decoded(body: bytes, came: BackendCall) -> object:
    """Return the JSON value of a body, or UNREADABLE. NaN and Infinity, which models do emit, are read."""
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
