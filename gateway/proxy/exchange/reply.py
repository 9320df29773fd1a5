"""How a request ends: its rows into the journal, its answer to the client, in this order.

Rule: rows are written once. ``routed.logged`` turns true with them, on whichever path ends the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from gateway.proxy.exchange.capture import Capturing
from gateway.proxy.exchange.routed import RoutedRequest
from gateway.proxy.log.counts import Counts
from gateway.proxy.log.predictions import Log
from gateway.proxy.server.response import Response
from gateway.proxy.wire.faults import BodyTimeout, BodyTooLarge, ClientGone
from gateway.proxy.wire.headers import Fields, Header, Headers
from gateway.proxy.wire.problem_details import problem
from router.records import Role

PREDICTION_ID: Final = b"turnout-prediction-id"
VARIANT: Final = b"turnout-variant"

#: What ends a request from the client's side (or from ours, when a drain is out of time): nobody's fault.
LEFT: Final = (asyncio.CancelledError, ClientGone, BodyTooLarge, BodyTimeout)
#: What the edge then answers, if anything.
_LEFT_STATUS: Final[dict[type[BaseException], int]] = {BodyTooLarge: 413, BodyTimeout: 408}


class Reply:
    """The end of one request, from whichever path comes there first."""

    __slots__ = ("_shed", "_ticket", "counts", "log", "response", "routed")

    def __init__(self, routed: RoutedRequest, response: Response, log: Log, counts: Counts, ticket: int) -> None:
        self.routed = routed
        self.response = response
        self.log = log
        self.counts = counts
        self._ticket = ticket
        self._shed = False

    def own(self, *variants: str) -> Fields:
        """Return the fields that every answer of a route carries; ``variants`` are those whose answer it is."""
        own = Fields([], 0)
        own.add(PREDICTION_ID, self.routed.id.encode())
        if self.routed.routing.route.expose_variant:
            own.add(VARIANT, ", ".join(variants).encode())
        return own

    def send(self, rows: bytes, status: int, headers: Headers, body: bytes, declared: int | None = None) -> None:
        """Write the rows, then send the whole answer; ``declared`` is the length of a body that HEAD leaves out."""
        self.routed.logged = True
        if self.log.admit(rows) == "refused":
            refuse_unlogged(self.response)
        else:
            self.response.send(status, headers, body, declared)
            if self.routed.capturing is not None:
                self.capture(self.routed.capturing, body, headers)

    def capture(self, capturing: Capturing, body: bytes | None, headers: Headers) -> None:
        """Write what is kept of bodies, after the answer was sent; ``body`` is its, None if that was too long."""
        line = capturing.line(self.routed.id, self.routed.at_ms, body, headers)
        if line is not None and not self.log.spare(line):
            self.counts.add("capture_drops", route=capturing.route, reason="journal")

    def open(self, row: bytes) -> bool:
        """Write that a stream begins; False when it must not, and the client has been told."""
        self.routed.logged = True
        admitted = self.log.admit(row)
        if admitted == "refused":
            refuse_unlogged(self.response)
            return False
        self._shed = admitted == "shed"
        # The row is in the journal: a stream that lasts for hours must not hold back the watermark.
        self.log.pending.end(self._ticket)
        return True

    def close(self, row: bytes) -> None:
        """Write how a stream ended, before its end is sent. One that was shed at its beginning was counted then."""
        if not self._shed:
            self.log.note(row, owed=True)

    def left(self, variants: Sequence[str], role: Role, error: BaseException, latency_ms: float) -> None:
        """Write that the client left before it had an answer. Harmless when the rows are written."""
        if self.routed.logged:
            return
        self.routed.logged = True
        outcome: dict[str, Any] = {"fault": "client_gone", "latency_ms": latency_ms}
        if status := _LEFT_STATUS.get(type(error)):
            outcome["status"] = status
        self.log.note(b"".join(self.routed.line(variant, role, outcome) for variant in variants))


def refuse(response: Response, status: int, title: str, detail: str, *fields: Header) -> None:
    """Answer a request that is not carried: nothing was called, no id is given, no row is left."""
    headers, body = problem(status, title, detail)
    response.send(status, [*headers, *fields], body)


def refuse_unlogged(response: Response) -> None:
    """Answer a request whose rows cannot be written, where that is not to be put up with."""
    refuse(response, 503, "Service Unavailable", "the journal cannot take predictions", (b"retry-after", b"1"))
