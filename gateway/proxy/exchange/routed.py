"""One request after it was decided on: what its calls share, and the rows they leave.

Rule: every row of a request comes from here, so that they agree on everything but the call itself.
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
    """A decided request. ``headers`` are what backends get to see; ``at_ms`` is when it was decided, as in its id.

    ``began`` is when it came, on the performance counter; ``waited`` adds up the seconds spent waiting for others, and
    ``logged`` turns true with the one set of rows that a request's answer leaves: both are the exchange's to set.
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
        """``streams`` says that the body is not here yet."""
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
        #: The ids by which the caller follows its request, for the log.
        self.request_id: str | None = None
        self.traceparent: str | None = None
        if request.meanings & CALLERS_ID:
            self.request_id = _callers_id(request, "x-request-id")
            self.traceparent = _callers_id(request, "traceparent")
        #: Its span, where requests are traced.
        self.trace: Trace | None = None
        self.began = began
        self.waited = waited
        self.logged = False
        #: Whether no number may know of it.
        self.uncounted = False

    @property
    def overhead_ms(self) -> float:
        """What the gateway itself took so far."""
        return max(0.0, since(self.began + self.waited))

    def line(self, variant: str, role: Role, outcome: dict[str, Any], kind: CallLine = "call") -> bytes:
        """Return the row of one call as a journal line; ``outcome`` are the fields of Prediction that tell of the call.

        It is left without its features if they are too much or cannot be written. JSON that can be read cannot always
        be written again: it may nest too deep. And a body of ten megabytes is a body, but no feature.
        """
        routing = self.routing
        route, occasion, decision = routing.route, routing.occasion, routing.decision
        shadow = role == "shadow"
        row = outcome.copy()  # to add a few fields to a copy costs a third of adding two sets of them to a new one
        row["id"] = self.id
        row["at_ms"] = self.at_ms
        row["reason"] = UNCOUNTED if self.uncounted else "mirror" if shadow else decision.reason
        # Of a forced variant the propensity means nothing; a copy has none of its own.
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
    """Return a target without the prefix of its path, which is so long. It is the route's: its path begins with it."""
    rest = target[length:]
    return rest if rest.startswith(b"/") else b"/" + rest


def _callers_id(request: Request, name: str) -> str | None:
    """Return an id that the caller gave its request, for the log."""
    given = request.header(name)
    return given[:_ID_CHARACTERS] if given else None


def since(began: float) -> float:
    """Return the milliseconds since ``began`` on the performance counter, with three decimals: it is no more exact."""
    return int((perf_counter() - began) * 1_000_000) / 1_000
