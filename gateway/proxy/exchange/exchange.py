"""One request: match → decide → call → log → answer.

Rule: the rows are in the journal before the last byte of the answer leaves, and exactly one set of them per prediction
id that a client is given: one ``primary`` row, or one ``draft`` row per ranker. A request that is refused before
anything is called is given no id and leaves no row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

from gateway.files.secret import is_one_of
from gateway.proxy.client.backends import Backends, Generation
from gateway.proxy.exchange.capture import Capturing, capturing
from gateway.proxy.exchange.drafting import draft
from gateway.proxy.exchange.ids import new_id
from gateway.proxy.exchange.mirrors import Mirrors
from gateway.proxy.exchange.reply import Reply, refuse, refuse_unlogged, relay
from gateway.proxy.exchange.routed import RoutedRequest
from gateway.proxy.exchange.tracing import Tracing
from gateway.proxy.limits.admission import Admission
from gateway.proxy.limits.new_units import NewUnits
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.predictions import Log
from gateway.proxy.log.worker_series import (
    JOURNAL_REFUSED,
    SHED,
    UNCOUNTED_REQUESTS,
    UNFINISHED_REQUESTS,
    UNIT_FALLBACKS,
)
from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from gateway.proxy.wire.headers import OWN
from policies.plans import TeamDraft
from router.extract import MISSING, decode_json
from router.match import has_dots
from router.router import Router, Routing
from router.snapshot import Route

FORCE_VARIANT: Final = "turnout-force-variant"
FORCE_TOKEN: Final = "turnout-force-token"


class Exchange:
    """Handles the requests of every route. ``in_flight`` counts the requests under way, by route."""

    def __init__(
        self,
        router: Router,
        backends: Backends,
        mirrors: Mirrors,
        log: Log,
        counts: Counts,
        admission: Admission,
        now_ns: Callable[[], int],
        new_units: NewUnits,
        tracing: Tracing | None,
    ) -> None:
        self._router = router
        self._backends = backends
        self._mirrors = mirrors
        self._log = log
        self._counts = counts
        self._admission = admission
        self._tracing = tracing
        self._new_units = new_units
        self._now_ns = now_ns
        self.in_flight: dict[str, int] = {}

    async def __call__(self, request: Request, response: Response) -> None:
        began = perf_counter()
        if not self._admission.admit():
            self._counts.add(SHED, reason=self._admission.reason)
            return refuse(response, 503, "Service Unavailable", "the gateway is overloaded", (b"retry-after", b"1"))
        route: Route | None = None
        ticket = 0
        reply: Reply | None = None
        # Read together with the route, before anything is awaited: both are of the same snapshot.
        generation = self._backends.current
        generation.enter()
        try:
            route = self._router.match(request)
            if route is None:
                return _refuse_unmatched(request, response)
            reads = self._router.needs_body(route)
            self.in_flight[route.name] = self.in_flight.get(route.name, 0) + 1
            if self._log.refusing:
                self._counts.add(JOURNAL_REFUSED)
                return refuse_unlogged(response)
            if reads and self._is_unread(request.content_length or 0, response, route):
                return None
            waited = 0.0
            if not request.complete and (reads or request.has_body):
                waited = await _arrival(request, whole=reads or route.fallback is not None)
            document: object = MISSING
            if reads:
                if self._is_unread(len(request.whole()), response, route):
                    return None
                document = decode_json(request.whole())
            at_ms = self._now_ns() // 1_000_000
            ticket = self._log.pending.begin(at_ms)
            routing = self._decided(request, response, route, generation, at_ms, document)
            document = None  # it may be fifty times as large as the body, and the backend may be slow
            if routing is None:
                return None
            plan = routing.draft
            captured = None if route.capture is None else capturing(route, routing.occasion.request_id, self._counts)
            if not request.complete and _needs_whole(request, routing, plan, captured):
                waited += await _arrival(request, whole=True)
            body = request.whole() if request.complete else None
            routed = RoutedRequest(at_ms, routing, generation, request, began, waited, streams=body is None)
            if captured is not None:
                captured.take(body, request.headers)
            reply = Reply(routed, response, self._log, self._counts, ticket, captured)
            return await self._answering(reply, request, plan, body)
        except BaseException:
            if route is not None and not ticket:  # while its body arrived: nothing was decided, and there is no row
                self._counts.add(UNFINISHED_REQUESTS, route=route.name)
            raise
        finally:
            if reply is not None:
                reply.end()
            if ticket:
                self._log.pending.end(ticket)
            if route is not None:
                self.in_flight[route.name] -= 1
            generation.leave()
            self._admission.leave()

    def _is_unread(self, size: int, response: Response, route: Route) -> bool:
        """Return whether a body of this size is too long to be read here; the request is then answered with 413."""
        most = self._router.snapshot.gateway.max_parsed_body_bytes
        if size <= most:
            return False
        detail = f"route {route.name} reads the body, of at most {most:,} bytes (max_parsed_body_bytes)"
        refuse(response, 413, "Content Too Large", detail)
        return True

    def _decided(
        self, request: Request, response: Response, route: Route, generation: Generation, at_ms: int, document: object
    ) -> Routing | None:
        """Decide on a request.

        Return None, and refuse it, if it asks for a variant that is not allowed or not there.
        """
        force = request.header(FORCE_VARIANT) if request.meanings & OWN else None
        if force is not None and not (route.allow_force or _knows(request, generation.force_tokens)):
            refuse(response, 403, "Forbidden", f"{FORCE_VARIANT} needs a valid {FORCE_TOKEN} on this route")
            return None
        try:
            routing = self._router.route(route, request, new_id(at_ms), document, force)
        except ValueError as error:
            refuse(response, 400, "Bad Request", f"unknown variant {force}: {error}")
            return None
        if routing.unit_missing:
            self._counts.add(UNIT_FALLBACKS, route=route.name)
        return routing

    def _answering(self, reply: Reply, request: Request, plan: TeamDraft | None, body: bytes | None) -> Awaitable[None]:
        """Start the copies, and return what calls the variants and answers. ``body`` is None while it arrives."""
        routed, routing = reply.routed, reply.routed.routing
        if self._new_units.bound:
            self._count(routed, request)
        if self._tracing is not None:
            routed.trace = self._tracing.begin(request, routing, routed.began)
        if body is None:
            pieces = request.chunks()
            if routing.mirrored:
                pieces = reply.tee = self._mirrors.tee(routed, pieces, request.content_length)
            return relay(reply, pieces)
        if routing.mirrored:
            self._mirrors.send(routed, body)
        if plan is None:
            return relay(reply, body)
        # In a task of asyncio, because it waits for several calls at once.
        return asyncio.get_running_loop().create_task(draft(reply, plan, body))

    def _count(self, routed: RoutedRequest, request: Request) -> None:
        """Mark a request that does not count, because its client has brought too many new units lately."""
        routing = routed.routing
        if routing.route.unit is None or routing.forced:
            return
        if not self._new_units.counts(routing.occasion.unit, request):
            routed.uncounted = True
            self._counts.add(UNCOUNTED_REQUESTS, route=routing.route.name)


async def _arrival(request: Request, *, whole: bool) -> float:
    """Wait until the body is here, ``whole`` or as much of it as is held; return the seconds that it took.

    A place at a backend is taken only once there is something to send: a client may announce a body and send none.
    """
    began = perf_counter()
    if whole:
        await request.body()
    else:
        await request.begun()
    return perf_counter() - began


def _needs_whole(request: Request, routing: Routing, plan: TeamDraft | None, captured: Capturing | None) -> bool:
    """Return whether the whole body is needed: to be sent to several variants, or again, or to be captured."""
    if not request.has_body or plan is not None or routing.route.fallback is not None:
        return True
    return captured is not None and captured.awaits(request)


def _knows(request: Request, valid: tuple[bytes, ...]) -> bool:
    given = request.header(FORCE_TOKEN)
    return given is not None and is_one_of(given.encode(), valid)


def _refuse_unmatched(request: Request, response: Response) -> None:
    if has_dots(request.path):
        return refuse(response, 400, "Bad Request", f"the dot segments of {request.path} lead out of every route")
    return refuse(response, 404, "Not Found", f"no route takes {request.method} {request.path}")
