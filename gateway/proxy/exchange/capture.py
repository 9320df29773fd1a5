"""What is kept of the bodies of a request and its answer, if the route asks for that.

Rule: bodies are reduced here, before anything is written: the request is drawn by hash, sizes are bounded, fields are
redacted, and only the named fields are kept. Capturing never delays an answer, which is sent first, and never fails a
request: a body that cannot be kept is counted. If a route captures nothing, none of this runs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from gateway.proxy.exchange.call import plain_body
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.worker_series import CAPTURE_DROPS
from gateway.proxy.server.request import Request
from gateway.proxy.wire.headers import Headers
from policies.chance import chance
from router.extract import MISSING, UNREADABLE, decode_json, pointer, writable
from router.records import body_line
from router.snapshot import Capture, Route

#: Hashed with the request's id, so that the draw does not depend on the decision.
_LABEL: Final = "capture"
REDACTED: Final = "[redacted]"


class Capturing:
    """One request whose bodies are kept. ``request`` holds the named fields of its own body, by pointer, or None."""

    __slots__ = ("_capture", "_counts", "request", "route")

    def __init__(self, route: str, capture: Capture, counts: Counts) -> None:
        self.route = route
        self.request: dict[str, Any] | None = None
        self._capture = capture
        self._counts = counts

    def awaits(self, request: Request) -> bool:
        """Return whether to wait for a body that is still arriving: only for one that is known to be short enough."""
        length = request.content_length
        return bool(self._capture.request) and length is not None and length <= self._capture.max_bytes

    def take(self, body: bytes | None, headers: Headers) -> None:
        """Keep the named fields of the request; ``body`` is None if it streams through."""
        self.request = self._fields(body, headers, self._capture.request, "request")

    def line(self, id_: str, at_ms: int, body: bytes | None, headers: Headers) -> bytes | None:
        """Return a journal line with the kept fields, or None if there are none.

        ``body`` is the answer's; None if it was too long.
        """
        answer = self._fields(body, headers, self._capture.answer, "answer")
        if self.request is None and answer is None:
            return None
        return body_line(id_, at_ms, self.route, self.request, answer)

    def _fields(
        self, body: bytes | None, headers: Headers, pointers: tuple[str, ...], whose: str
    ) -> dict[str, Any] | None:
        if not pointers or body == b"":
            return None
        document: object = UNREADABLE
        if body is not None and len(body) <= self._capture.max_bytes:
            plain = plain_body(body, headers)
            if plain is not None and len(plain) <= self._capture.max_bytes:
                document = decode_json(plain)
            reason = f"{whose}_unreadable"
        else:
            reason = f"{whose}_too_large"
        if document is UNREADABLE:
            self._counts.add(CAPTURE_DROPS, route=self.route, reason=reason)
            return None
        for text in self._capture.redact:
            with suppress(LookupError):
                document = pointer(text).replaced(document, REDACTED)
        found = {text: pointer(text).find(document) for text in pointers}
        kept = {text: value for text, value in found.items() if value is not MISSING}
        if not writable(kept):
            self._counts.add(CAPTURE_DROPS, route=self.route, reason=f"{whose}_unreadable")
            return None
        return kept


def capturing(route: Route, request_id: str, counts: Counts) -> Capturing | None:
    """Return what captures the bodies of a request, or None if it is not drawn."""
    capture = route.capture
    if capture is None or chance(route.salt, request_id, _LABEL) >= capture.share:
        return None
    return Capturing(route.name, capture, counts)
