"""One request after it was decided on: what its calls share, and the rows they leave.

Rule: every row of a request comes from here, so that they agree on everything but the call itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Final, Literal

from gateway.proxy.backends import Generation
from gateway.proxy.headers import Header
from router.records import Prediction, Role, call_line
from router.router import Routing

#: A longer row is written without its features. A prediction alone may take a MiB.
ROW_BYTES: Final = 2**21


@dataclass(slots=True)
class Case:
    """A decided request. ``headers`` are what backends get to see; ``at_ms`` is when it was decided, as in its id.

    ``waited_ms`` adds up what was spent waiting for others, and ``logged`` turns true with the one set of rows that a
    request's answer leaves; both are the exchange's to set.
    """

    id: str
    at_ms: int
    routing: Routing
    generation: Generation
    method: str
    target: bytes
    headers: list[Header]
    request_id: str | None
    traceparent: str | None
    began: float = field(default_factory=perf_counter)
    waited_ms: float = 0.0
    logged: bool = False

    @property
    def overhead_ms(self) -> float:
        """What the gateway itself took so far."""
        return round(max(0.0, (perf_counter() - self.began) * 1000 - self.waited_ms), 3)

    def row(self, variant: str, role: Role, **outcome: Any) -> Prediction:
        """Return the row of one call; ``outcome`` are the fields of Prediction that differ from call to call."""
        routing, route, backend = self.routing, self.routing.route, self.generation.backends[variant]
        shadow = role == "shadow"
        return Prediction(
            id=self.id,
            at_ms=self.at_ms,
            route=route.name,
            epoch=route.epoch,
            period=route.period,
            revision=route.revision,
            variant=variant,
            model=backend.model,
            version=backend.version,
            role=role,
            reason="mirror" if shadow else routing.decision.reason,
            # Of a forced variant the propensity means nothing; a copy has none of its own.
            propensity=None if shadow or routing.forced else routing.decision.propensity,
            unit=routing.occasion.unit,
            by_unit=route.by_unit,
            key=routing.key,
            features=routing.occasion.features or None,
            forced=routing.forced,
            method=self.method,
            request_id=self.request_id,
            traceparent=self.traceparent,
            **outcome,
        )


def row_line(row: Prediction, line: Literal["call", "open", "close"] = "call") -> bytes:
    """Return the row as one journal line, without its features if they are too much or cannot be written.

    JSON that can be read cannot always be written again: it may nest too deep. And a body of ten megabytes is a body,
    but no feature.
    """
    try:
        written = call_line(row, line)
    except TypeError:
        return call_line(replace(row, features=None), line)
    return (
        written if len(written) <= ROW_BYTES or row.features is None else call_line(replace(row, features=None), line)
    )
