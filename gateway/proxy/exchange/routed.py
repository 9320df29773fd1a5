"""One request after its decision: what its calls share, and the rows they leave.

Rule: every row of a request is made here, so that its rows differ in nothing but the call that each one describes.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Final

from gateway.files.pseudonym import pseudonym
from gateway.proxy.client.backends import Generation
from gateway.proxy.exchange.tracing import Trace
from gateway.proxy.server.request import Request
from gateway.proxy.wire.headers import CALLERS_ID, Headers
from gateway.proxy.wire.peer import forwarded
from router.records import UNCOUNTED, CallLine, Role, stamped
from router.router import Routing

#: A longer row is written without its features. A prediction alone may take a MiB.
ROW_BYTES: Final = 2**21
#: Ids of the caller's are logged as they came, up to this length.
_ID_CHARACTERS: Final = 256


class RoutedRequest:
    """A request with its decision. ``headers`` are sent to backends; ``at_ms`` is when it was decided, as in its id.

    ``began`` is when it came, on the performance counter. ``waited`` adds up the seconds spent waiting for the client
    and for backends, and ``logged`` turns true when the rows of its answer are written: both are set by the exchange.
    """

    __slots__ = (
        "at_ms",
        "began",
        "generation",
        "headers",
        "id",
        "logged",
        "method",
        "request_id",
        "routing",
        "target",
        "trace",
        "traceparent",
        "uncounted",
        "waited",
    )

    def __init__(
        self,
        at_ms: int,
        routing: Routing,
        generation: Generation,
        request: Request,
        began: float,
        waited: float,
        *,
        streams: bool = False,
    ) -> None:
        """``streams``: the body has not arrived yet."""
        self.id = routing.occasion.request_id
        self.at_ms = at_ms
        self.routing = routing
        self.generation = generation
        self.method = request.method
        prefix = routing.route.strip_prefix
        self.target = request.target if prefix is None else _stripped(request.target, len(prefix))
        self.headers: Headers = forwarded(request.headers, request.peer, http10=request.http10)
        if streams and request.content_length is not None:
            self.headers = [*self.headers, (b"content-length", b"%d" % request.content_length)]
        #: The ids that the caller gave its request to trace it by, for the log.
        self.request_id: str | None = None
        self.traceparent: str | None = None
        if request.meanings & CALLERS_ID:
            self.request_id = _callers_id(request, "x-request-id")
            self.traceparent = _callers_id(request, "traceparent")
        #: Its span, if requests are traced.
        self.trace: Trace | None = None
        self.began = began
        self.waited = waited
        self.logged = False
        #: True if it is answered and logged, but left out of everything that is counted.
        self.uncounted = False

    @property
    def overhead_ms(self) -> float:
        """The time that the gateway itself has taken so far, without what it waited for."""
        return max(0.0, since(self.began + self.waited))

    def line(self, variant: str, role: Role, outcome: dict[str, Any], kind: CallLine = "call") -> bytes:
        """Return the row of one call as a journal line; ``outcome`` holds the fields of Prediction about the call.

        The features are left out if the row would be too long with them, or if they cannot be written: JSON that can be
        read may nest too deep to be written again.
        """
        routing = self.routing
        route, occasion, decision = routing.route, routing.occasion, routing.decision
        shadow = role == "shadow"
        row = outcome.copy()  # to add a few fields to a copy costs a third of adding two sets of them to a new one
        row["id"] = self.id
        row["at_ms"] = self.at_ms
        row["reason"] = UNCOUNTED if self.uncounted else "mirror" if shadow else decision.reason
        # The propensity of a forced or frozen variant means nothing, and a copy has none of its own.
        row["propensity"] = None if shadow or routing.forced else decision.propensity
        if occasion.unit is not None:
            unit_key = self.generation.unit_key
            row["unit"] = occasion.unit if unit_key is None else pseudonym(unit_key, occasion.unit)
        if routing.key is not None:
            row["key"] = routing.key
        if routing.missing and not shadow:
            row["wrong"] = routing.missing + row.get("wrong", ())
        if routing.forced:
            row["forced"] = True
        status = row.get("status")
        if status is not None and 400 <= status < 500 and "fault" not in row and "served" not in row:
            backend = self.generation.backends[variant]
            if backend.client_errors == "fail":
                row["fault"] = "client_error"
        if self.method != "POST":
            row["method"] = self.method
        if self.request_id is not None:
            row["request_id"] = self.request_id
        if self.traceparent is not None:
            row["traceparent"] = self.traceparent
        common = self.generation.stamp(route, variant, role, kind)
        if not occasion.features:
            return stamped(common, row)
        try:
            line = stamped(common, {**row, "features": occasion.features})
        except TypeError:
            return stamped(common, row)
        return line if len(line) <= ROW_BYTES else stamped(common, row)


def _stripped(target: bytes, length: int) -> bytes:
    """Return a target without the first ``length`` bytes of its path, the route's prefix, with which it begins."""
    rest = target[length:]
    return rest if rest.startswith(b"/") else b"/" + rest


def _callers_id(request: Request, name: str) -> str | None:
    """Return an id that the caller gave its request, cut to the length that is logged."""
    given = request.header(name)
    return given[:_ID_CHARACTERS] if given else None


def since(began: float) -> float:
    """Return the milliseconds since ``began`` on the performance counter, with three decimals."""
    return int((perf_counter() - began) * 1_000_000) / 1_000
