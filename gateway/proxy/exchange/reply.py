"""How a request ends: its rows go into the journal, then its answer to the client.

Rules:

1. Rows are written once. ``routed.logged`` turns true with them, on whichever path ends the request.
2. Where one variant answers, its answer is relayed as it comes. A fallback is asked only while nothing was sent, and
   never hides which variant failed: the row stays that variant's, with ``served`` naming the one whose answer went out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from time import perf_counter
from typing import Any, Final

from gateway.proxy.client.answer import Answer
from gateway.proxy.exchange.call import BackendCall, Kept, call, read_answer, worth_reading
from gateway.proxy.exchange.capture import Capturing
from gateway.proxy.exchange.mirrors import Tee
from gateway.proxy.exchange.routed import RoutedRequest, since
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.predictions import Log
from gateway.proxy.log.worker_series import CAPTURE_DROPS
from gateway.proxy.server.response import Response
from gateway.proxy.wire.faults import BodyTimeout, BodyTooLarge, ClientGone, UpstreamFault
from gateway.proxy.wire.headers import Fields, Header, Headers
from gateway.proxy.wire.problem_details import Problem, problem
from router.records import Fault, Role

PREDICTION_ID: Final = b"turnout-prediction-id"
VARIANT: Final = b"turnout-variant"

#: What ends a request from the client's side, or when the time of a drain is over: no backend failed.
LEFT: Final = (asyncio.CancelledError, ClientGone, BodyTooLarge, BodyTimeout)
#: The status that the server then answers with, if it answers.
_LEFT_STATUS: Final[dict[type[BaseException], int]] = {BodyTooLarge: 413, BodyTimeout: 408}


class Reply:
    """How one request ends. ``capturing`` keeps parts of its bodies, if the route asks for that."""

    __slots__ = ("_shed", "_ticket", "capturing", "counts", "log", "response", "routed", "tee")

    def __init__(
        self,
        routed: RoutedRequest,
        response: Response,
        log: Log,
        counts: Counts,
        ticket: int,
        capturing: Capturing | None,
    ) -> None:
        self.routed = routed
        self.response = response
        self.log = log
        self.counts = counts
        self.capturing = capturing
        #: The body that streams to the variant, if mirrors get copies of it at its end.
        self.tee: Tee | None = None
        self._ticket = ticket
        self._shed = False

    def own(self, *variants: str) -> Fields:
        """Return the fields that the gateway adds to every answer of a route; ``variants`` are those that gave it."""
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
            if self.capturing is not None:
                self.capture(body, headers)

    def capture(self, body: bytes | None, headers: Headers) -> None:
        """Write the captured parts of the bodies, if any, after the answer was sent.

        ``body`` is None if it was too long.
        """
        capturing = self.capturing
        if capturing is None:
            return
        line = capturing.line(self.routed.id, self.routed.at_ms, body, headers)
        if line is not None and not self.log.spare(line):
            self.counts.add(CAPTURE_DROPS, route=capturing.route, reason="journal")

    def open(self, row: bytes) -> bool:
        """Write that a stream begins. Return False if it must not: the client has then been answered with 503."""
        self.routed.logged = True
        admitted = self.log.admit(row)
        if admitted == "refused":
            refuse_unlogged(self.response)
            return False
        self._shed = admitted == "shed"
        # The row is in the journal, so a stream that lasts for hours does not hold back the watermark.
        self.log.pending.end(self._ticket)
        return True

    def close(self, row: bytes) -> None:
        """Write how a stream ended, before its end is sent. A stream whose ``open`` row was shed is counted already."""
        if not self._shed:
            self.log.note(row, owed=True)

    def end(self) -> None:
        """Called when the request is over, however it ended."""
        if self.tee is not None:
            self.tee.close()
        if self.routed.trace is not None:
            self.routed.trace.end(self.response)

    def left(self, variants: Sequence[str], role: Role, error: BaseException, latency_ms: float) -> None:
        """Write that the client left before it had an answer. Does nothing if the rows are written."""
        if self.routed.logged:
            return
        self.routed.logged = True
        outcome: dict[str, Any] = {"fault": "client_gone", "latency_ms": latency_ms}
        if status := _LEFT_STATUS.get(type(error)):
            outcome["status"] = status
        self.log.note(b"".join(self.routed.line(variant, role, outcome) for variant in variants))


def refuse(response: Response, status: int, title: str, detail: str, *fields: Header) -> None:
    """Answer a request for which nothing is called: it gets no prediction id and leaves no row."""
    headers, body = problem(status, title, detail)
    response.send(status, [*headers, *fields], body)


def refuse_unlogged(response: Response) -> None:
    """Answer a request whose rows cannot be written, if ``journal_full`` says to refuse those."""
    refuse(response, 503, "Service Unavailable", "the journal cannot take predictions", (b"retry-after", b"1"))


def fault_status(fault: Fault) -> int:
    """Return the status a client sees for a backend's fault."""
    return {"timeout": 504, "overloaded": 503}.get(fault, 502)


#: How a fault is described where answers do not name their variant, since ``detail`` names its address.
_UNNAMED: Final[dict[Fault, str]] = {
    "refused": "it cannot be reached",
    "timeout": "it did not answer in time",
    "overloaded": "it has no place for another request",
}


def fault_problem(fault: Fault, variant: str, detail: str, *, named: bool) -> Problem:
    """Return the answer for a backend that failed before anything was sent; ``named``: it names the variant."""
    status = fault_status(fault)
    title = {502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}[status]
    words = f"backend {variant}: {detail}" if named else f"the backend failed: {_UNNAMED.get(fault, 'it broke off')}"
    headers, body = problem(status, title, words, fault=fault)
    if status == 503:
        headers.append((b"retry-after", b"1"))
    return headers, body


async def relay(reply: Reply, body: bytes | AsyncIterator[bytes]) -> None:
    """Call the variant that was chosen and answer the client; ``body`` must be whole where the route has a fallback."""
    routed = reply.routed
    generation = routed.generation
    variant, fallback = routed.routing.decision.answering[0], routed.routing.fallback
    began = perf_counter()
    asked, served = variant, None
    try:
        headers = generation.dressed(routed.headers, variant)
        first = shown = await call(generation.answering(variant), routed, headers, body)
        if fallback is not None and first.failed and fallback != variant and isinstance(body, bytes):
            first.close()
            headers = generation.dressed(routed.headers, fallback)
            asked, shown = fallback, await call(generation.answering(fallback), routed, headers, body)
            served = fallback if shown.fault is None else None
    except LEFT as error:
        reply.left((variant,), routed.routing.role, error, since(began))
        raise
    routed.waited += perf_counter() - began
    outcome = first.outcome()  # all but the status, which is that of the answer that the client gets
    if served is not None:
        outcome["served"] = served
    if shown.fault is not None:
        status = outcome["status"] = fault_status(shown.fault)
        problem_headers, content = fault_problem(
            shown.fault, asked, shown.detail, named=routed.routing.route.expose_variant
        )
        outcome["overhead_ms"] = routed.overhead_ms
        line = routed.line(variant, routed.routing.role, outcome)
        reply.send(line, status, [*problem_headers, *reply.own(variant)], content)
    elif shown.body is not None:
        status = outcome["status"] = shown.status or 502
        if served is None:
            read_answer(outcome, routed, variant, shown, shown.body, reply.counts)
        outcome["overhead_ms"] = routed.overhead_ms
        line = routed.line(variant, routed.routing.role, outcome)
        shown.headers.extend(reply.own(served or variant))
        reply.send(line, status, shown.headers, shown.body, shown.length)
    else:
        try:
            await _stream(reply, variant, shown, outcome, began)
        finally:
            shown.close()


async def _stream(reply: Reply, variant: str, shown: BackendCall, outcome: dict[str, Any], began: float) -> None:
    """Pass an answer on while it arrives: an ``open`` row before its head, a ``close`` row before its end."""
    routed, response, answer = reply.routed, reply.response, shown.answer
    assert answer is not None
    assert shown.status is not None
    outcome |= {"status": shown.status, "overhead_ms": routed.overhead_ms}
    served = outcome.get("served")
    if not reply.open(routed.line(variant, routed.routing.role, outcome | {"fault": "incomplete"}, "open")):
        return
    shown.headers.extend(reply.own(served or variant))
    response.start(shown.status, shown.headers, length=answer.length)
    reads = served is None and worth_reading(routed, variant, shown)
    kept = Kept(reads or reply.capturing is not None)

    def close(fault: str | None) -> None:
        if fault is not None:
            outcome.setdefault("fault", fault)
        if served is None:
            outcome["latency_ms"] = since(began)
        if fault is None and reads:
            read_answer(outcome, routed, variant, shown, kept.whole(), reply.counts)
        reply.close(routed.line(variant, routed.routing.role, outcome, "close"))

    try:
        last = await _pass_on(answer, response, kept)
    except UpstreamFault as fault:
        close(fault.fault)
        response.abort()
        reply.capture(b"", ())
    except LEFT:
        close("client_gone")
        reply.capture(b"", ())
        raise
    else:
        close(None)
        response.finish(last)
        reply.capture(kept.whole(), shown.headers)


async def _pass_on(answer: Answer, response: Response, kept: Kept) -> bytes:
    """Send an answer while it arrives. If its length is known, the last piece is returned and not sent."""
    last, left = b"", answer.length
    async for chunk in answer.chunks():
        kept.add(chunk)
        if left is not None:
            left -= len(chunk)
            if left == 0:  # it waits for its row
                last = chunk
                continue
        await response.write(chunk)
    return last
