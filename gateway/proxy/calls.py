"""One call to one backend, and what came of it.

Rule: a backend's failure is a value here, not an exception. Whatever is not read to its end is closed, on every path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from gateway.proxy.case import Case
from gateway.proxy.headers import Header
from gateway.proxy.problems import Problem, problem
from gateway.proxy.reading import READ_BYTES
from gateway.proxy.upstream import Answer, Upstream, UpstreamFault
from router.records import Fault

#: An answer that is not longer, and says so, is read whole before anything of it is sent: then a backend that breaks
#: off is still a clean failure to the client, and the row is written once.
WHOLE_BYTES: Final = 2**20


@dataclass(slots=True)
class Call:
    """What came of a call: a fault, a whole ``body``, or an ``answer`` that is still arriving.

    ``latency_ms`` is until the last byte that is here: of a whole answer, else of the head.
    """

    status: int | None = None
    headers: list[Header] = field(default_factory=list)
    body: bytes | None = None
    answer: Answer | None = None
    fault: Fault | None = None
    detail: str = ""
    latency_ms: float = 0.0

    @property
    def failed(self) -> bool:
        """True when the backend is to blame."""
        return self.fault is not None or (self.status or 0) >= 500

    @property
    def succeeded(self) -> bool:
        return self.fault is None and 200 <= (self.status or 0) < 300

    def close(self) -> None:
        """Let go of an answer that is still arriving."""
        if self.answer is not None:
            self.answer.close()
            self.answer = None


async def call(
    upstream: Upstream,
    case: Case,
    headers: list[Header],
    body: bytes | AsyncIterator[bytes],
    *,
    whole: bool = False,
) -> Call:
    """Call a backend; with ``whole`` its answer is read to the end, else only if it is short and says so.

    Raises nothing of the backend's. What ``body`` raises while it is sent goes through.
    """
    began = perf_counter()
    answer: Answer | None = None
    came = Call()
    try:
        answer = await upstream.call(case.method, case.target, headers, body)
        came.status, came.headers = answer.status, answer.headers
        if answer.complete is not None:
            came.body = answer.complete
        elif whole or (answer.length is not None and answer.length <= WHOLE_BYTES):
            came.body = await answer.read(READ_BYTES if whole else WHOLE_BYTES)
        else:
            came.answer, answer = answer, None
    except UpstreamFault as fault:
        came = Call(fault=fault.fault, detail=fault.detail)
    finally:
        if answer is not None:
            answer.close()
    came.latency_ms = since(began)
    return came


def since(began: float) -> float:
    """Return the milliseconds since ``began`` on the performance counter."""
    return round((perf_counter() - began) * 1000, 3)


def fault_status(fault: Fault) -> int:
    """Return the status a client sees for a backend's fault."""
    return {"timeout": 504, "overloaded": 503}.get(fault, 502)


def fault_problem(fault: Fault, variant: str, detail: str) -> Problem:
    """Return the answer to a client whose backend failed before anything was sent."""
    status = fault_status(fault)
    title = {502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}[status]
    headers, body = problem(status, title, f"backend {variant}: {detail}", fault=fault)
    if status == 503:
        headers.append((b"retry-after", b"1"))
    return headers, body
