"""Read what a backend's answer says: the prediction, and the version that the backend reports.

Rule: reading never changes what the client gets, and never fails a request: what cannot be read is counted.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.proxy.exchange.routed import RoutedRequest
from gateway.proxy.log.counts import Counts
from gateway.proxy.wire.headers import CODED, Headers, field
from router.extract import MISSING, UNREADABLE, pointer, text_of, writable

if TYPE_CHECKING:
    from gateway.proxy.exchange.call import BackendCall

#: Kinds of values that JSON can always hold. Text may hold half a character, and a number too many digits.
_ALWAYS_WRITTEN: Final = frozenset({float, bool, type(None), type(MISSING)})

#: How no JSON text begins, whatever its encoding: with ASCII that no value begins with, NaN and Infinity among them.
#: Parsers look at all of a text before they say that its first byte is none of theirs: of a short one they may.
_NO_JSON: Final = re.compile(rb"[ \t\r\n]*(?![{\[\x22\-0-9tfnNI])[!-~]")
_SHORT_BYTES: Final = 4096

#: A longer answer is not read, before and after decompression: a prediction stands in a document, not in a data set.
READ_BYTES: Final = 2**20

#: Characters that are kept of a reported version that is not the declared one.
_SHOWN_CHARACTERS: Final = 64


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
