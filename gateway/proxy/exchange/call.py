"""One call to one backend, and what came of it.

Rule: a backend's failure is a value here, not an exception. Whatever is not read to its end is closed, on every path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from functools import partial
from time import perf_counter
from typing import Any, Final

from gateway.proxy.client.answer import Answer
from gateway.proxy.client.upstream import Upstream
from gateway.proxy.exchange.reading import READ_BYTES
from gateway.proxy.exchange.routed import RoutedRequest, milliseconds
from gateway.proxy.wire.faults import UpstreamFault
from gateway.proxy.wire.headers import Fields, Headers
from gateway.proxy.wire.problem_details import Problem, problem
from gateway.proxy.wire.wire import LONG_BYTES
from router.records import Fault

#: An answer that is not longer, and says so, is read whole before anything of it is sent: then a backend that breaks
#: off is still a clean failure to the client, and the row is written once.
WHOLE_BYTES: Final = 2**20


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

    Raises nothing of the backend's. What ``body`` raises while it is sent goes through.
    """
    if routed.trace is None:
        return _call(upstream, routed, body, whole, headers)
    return routed.trace.call(partial(_call, upstream, routed, body, whole), routed, upstream.backend, headers)


async def _call(
    upstream: Upstream, routed: RoutedRequest, body: bytes | AsyncIterator[bytes], whole: bool, headers: Headers
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
        came.body, came.answer = complete, None
        return came
    except UpstreamFault as fault:
        came = BackendCall(None, since(began), fault.fault, fault.detail)
        came.retries = fault.retries if answer is None else answer.retries
        return came
    finally:
        if answer is not None:
            answer.close()


def _whole_bytes(upstream: Upstream) -> int:
    """Return how long an answer may be that is read whole: with its memory spent, a worker holds no more of any."""
    return LONG_BYTES if upstream.buffers.spent else WHOLE_BYTES


def since(began: float) -> float:
    """Return the milliseconds since ``began`` on the performance counter."""
    return milliseconds(perf_counter() - began)


def fault_status(fault: Fault) -> int:
    """Return the status a client sees for a backend's fault."""
    return {"timeout": 504, "overloaded": 503}.get(fault, 502)


#: What a client reads of a fault where answers do not name their variant: ``detail`` names its address.
_UNNAMED: Final[dict[Fault, str]] = {
    "refused": "it cannot be reached",
    "timeout": "it did not answer in time",
    "overloaded": "it has no place for another request",
}


def fault_problem(fault: Fault, variant: str, detail: str, *, named: bool) -> Problem:
    """Return the answer to a client whose backend failed before anything was sent; ``named`` says which it was."""
    status = fault_status(fault)
    title = {502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}[status]
    words = f"backend {variant}: {detail}" if named else f"the backend failed: {_UNNAMED.get(fault, 'it broke off')}"
    headers, body = problem(status, title, words, fault=fault)
    if status == 503:
        headers.append((b"retry-after", b"1"))
    return headers, body
