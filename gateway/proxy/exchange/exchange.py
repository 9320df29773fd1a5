"""One request's life: match → decide → call → log → answer.

Rule: the rows are in the journal before the last byte of the answer leaves, and exactly one set of them per prediction
id that a client is given: one ``primary`` row, or one ``draft`` row per ranker. A request that is refused before
anything is called is given no id and leaves no row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Final

from gateway.files.secret import is_one_of
from gateway.proxy.client.backends import Backends, Generation
from gateway.proxy.exchange.capture import capturing
from gateway.proxy.exchange.drafting import draft
from gateway.proxy.exchange.ids import new_id
from gateway.proxy.exchange.mirrors import Mirrors, Tee
from gateway.proxy.exchange.relay import relay
from gateway.proxy.exchange.reply import Reply, refuse, refuse_unlogged
from gateway.proxy.exchange.routed import RoutedRequest
from gateway.proxy.exchange.tracing import Trace, Tracing
from gateway.proxy.limits.admission import Admission
from gateway.proxy.limits.newcomers import Newcomers
from gateway.proxy.log.counts import Counts
from gateway.proxy.log.predictions import Log
from gateway.proxy.server.request import Request
from gateway.proxy.server.response import Response
from gateway.proxy.wire.headers import OWN
from router.extract import MISSING, decode_json
from router.match import has_dots
from router.router import Router, Routing
from router.snapshot import Route

FORCE_VARIANT: Final = "turnout-force-variant"
FORCE_TOKEN: Final = "turnout-force-token"


class Exchange:
    """Handles the requests of every route. ``in_flight`` counts those under way, by route."""

    def __init__(
        self,
        router: Router,
        backends: Backends,
        mirrors: Mirrors,
        log: Log,
        counts: Counts,
        admission: Admission,
        now_ms: Callable[[], int],
        tracing: Tracing | None = None,
        newcomers: Newcomers | None = None,
    ) -> None:
        self._router = router
        self._backends = backends
        self._mirrors = mirrors
        self._log = log
        self._counts = counts
        self._admission = admission
        self._tracing = tracing
        self._newcomers = newcomers
        self._now_ms = now_ms
        self.in_flight: dict[str, int] = {}

    async def __call__(self, request: Request, response: Response) -> None:
        began = perf_counter()
        if not self._admission.admit():
            self._counts.add("shed", reason=self._admission.reason)
            return refuse(response, 503, "Service Unavailable", "the gateway is overloaded", (b"retry-after", b"1"))
        route: Route | None = None
        ticket = 0
        tee: Tee | None = None
        trace: Trace | None = None
        # Taken together with the route, before anything is awaited: both are of the same snapshot.
        generation = self._backends.current
        generation.enter()
        try:
            route = self._router.match(request)
            if route is None:
                if has_dots(request.path):
                    detail = f"the dot segments of {request.path} lead out of every route"
                    return refuse(response, 400, "Bad Request", detail)
                return refuse(response, 404, "Not Found", f"no route takes {request.method} {request.path}")
            self.in_flight[route.name] = self.in_flight.get(route.name, 0) + 1
            if self._log.refusing:
                self._counts.add("journal_refused")
                return refuse_unlogged(response)
            # The body is awaited where deciding needs it, or sending it again; else it streams through (and is teed to
            # mirrors), unless it is here already.
            body: bytes | None = None
            document: object = MISSING
            waited = 0.0
            if self._router.needs_body(route):
                most = self._router.snapshot.gateway.max_parsed_body_bytes
                if (request.content_length or 0) > most:
                    return _refuse_unread(response, route, most)
                waiting = perf_counter()
                body = await request.body()
                waited = perf_counter() - waiting
                if len(body) > most:
                    return _refuse_unread(response, route, most)
                document = decode_json(body)
            elif request.has_body and not request.complete:
                # Not before there is something to send: a place at the backend is not for who only announces a body.
                waiting = perf_counter()
                if route.fallback is not None:
                    body = await request.body()
                else:
                    await request.begun()
                waited = perf_counter() - waiting
            at_ms = self._now_ms()
            ticket = self._log.pending.begin(at_ms)
            routing = self._decided(request, response, route, generation, at_ms, document)
            document = None  # it may be fifty times as large as the body, and the backend may take its time
            if routing is None:
                return None
            captured = None if route.capture is None else capturing(route, routing.occasion.request_id, self._counts)
            if body is None:
                if request.complete:
                    body = request.whole()
                elif _keeps_body(routing, request) or (captured is not None and captured.awaits(request)):
                    waiting = perf_counter()
                    body = await request.body()
                    waited += perf_counter() - waiting
            routed = RoutedRequest(at_ms, routing, generation, request, began, waited, streams=body is None)
            if self._newcomers is not None and self._newcomers.bound:
                self._count(routed, request)
            if self._tracing is not None:
                trace = routed.trace = self._tracing.begin(request, routed)
            if captured is not None:
                captured.take(body, request.headers)
                routed.capturing = captured
            reply = Reply(routed, response, self._log, self._counts, ticket)
            if body is None:
                pieces = request.chunks()
                if routing.mirrored:
                    pieces = tee = self._mirrors.tee(routed, pieces, request.content_length)
                return await relay(reply, pieces)
            if routing.mirrored:
                self._mirrors.send(routed, body)
            if (plan := routing.draft) is None:
                return await relay(reply, body)
            # In a task: it waits for several calls at once.
            return await asyncio.get_running_loop().create_task(draft(reply, plan, body))
        except BaseException:
            if route is not None and not ticket:  # within its body, before anything was decided: it leaves no row
                self._counts.add("unfinished_requests", route=route.name)
            raise
        finally:
            if tee is not None:
                tee.close()
            if trace is not None:
                trace.end(response)
            if ticket:
                self._log.pending.end(ticket)
            if route is not None:
                self.in_flight[route.name] -= 1
            generation.leave()
            self._admission.leave()

    def _count(self, routed: RoutedRequest, request: Request) -> None:
        """Find out whether a request counts, and note on it if it does not."""
        routing, newcomers = routed.routing, self._newcomers
        if newcomers is None or routing.route.unit is None or routing.forced:
            return
        if not newcomers.counts(routing.occasion.unit, request):
            routed.uncounted = True
            self._counts.add("uncounted_requests", route=routing.route.name)

    def _decided(
        self, request: Request, response: Response, route: Route, generation: Generation, at_ms: int, document: object
    ) -> Routing | None:
        """Decide; None when the request asks for a variant that it may not have or that is none, and was told so."""
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
            self._counts.add("unit_fallbacks", route=route.name)
        return routing


def _refuse_unread(response: Response, route: Route, most: int) -> None:
    """Answer a request whose body is too long to be read here: nothing else is done meanwhile."""
    detail = f"route {route.name} reads the body, of at most {most:,} bytes (max_parsed_body_bytes)"
    refuse(response, 413, "Content Too Large", detail)


def _knows(request: Request, valid: tuple[bytes, ...]) -> bool:
    given = request.header(FORCE_TOKEN)
    return given is not None and is_one_of(given.encode(), valid)


def _keeps_body(routing: Routing, request: Request) -> bool:
    """Return whether the whole body is needed: to be sent to several, or again."""
    return not request.has_body or routing.draft is not None or routing.route.fallback is not None
