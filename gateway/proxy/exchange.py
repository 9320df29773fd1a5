"""One request's life: match → decide → call → log → answer.

Rule: the rows are in the journal before the last byte of the answer leaves, and exactly one set of them per prediction
id that a client is given: one ``primary`` row, or one ``draft`` row per ranker. A request that is refused before
anything is called is given no id and leaves no row.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Final

from gateway.proxy.admission import Admission
from gateway.proxy.backends import Backends, Generation
from gateway.proxy.case import Case
from gateway.proxy.counts import Counts
from gateway.proxy.drafting import draft
from gateway.proxy.headers import CALLERS_ID, OWN, forwarded
from gateway.proxy.ids import new_id
from gateway.proxy.log import Log
from gateway.proxy.mirrors import Mirrors, Tee
from gateway.proxy.relay import relay
from gateway.proxy.reply import Reply, refuse, refuse_unlogged
from gateway.proxy.request import Request
from gateway.proxy.response import Response
from router.extract import MISSING, decode_json
from router.router import Router, Routing, needs_body
from router.snapshot import Route

FORCE_VARIANT: Final = "turnout-force-variant"
FORCE_TOKEN: Final = "turnout-force-token"
#: Ids of the caller's are logged as they came, up to this length.
_ID_CHARACTERS: Final = 256


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
    ) -> None:
        self._router = router
        self._backends = backends
        self._mirrors = mirrors
        self._log = log
        self._counts = counts
        self._admission = admission
        self._now_ms = now_ms
        self.in_flight: Counter[str] = Counter()

    async def __call__(self, request: Request, response: Response) -> None:
        began = perf_counter()
        if not self._admission.admit():
            self._counts.add("shed", reason=self._admission.reason)
            return refuse(response, 503, "Service Unavailable", "the gateway is overloaded", (b"retry-after", b"1"))
        try:
            route = self._router.match(request)
            if route is None:
                return refuse(response, 404, "Not Found", f"no route takes {request.method} {request.path}")
            if self._log.refusing:
                self._counts.add("journal_refused")
                return refuse_unlogged(response)
            # Taken together with the route, before anything is awaited: both are of the same snapshot.
            generation = self._backends.current
            generation.enter()
            self.in_flight[route.name] += 1
            try:
                await self._matched(request, response, route, generation, began)
            finally:
                self.in_flight[route.name] -= 1
                generation.leave()
        finally:
            self._admission.leave()

    async def _matched(
        self, request: Request, response: Response, route: Route, generation: Generation, began: float
    ) -> None:
        force = request.header(FORCE_VARIANT) if request.meanings & OWN else None
        if force is not None and not (route.allow_force or _knows(request, generation.force_token)):
            return refuse(response, 403, "Forbidden", f"{FORCE_VARIANT} needs a valid {FORCE_TOKEN} on this route")
        # The body is awaited where deciding needs it, or sending it again; else it streams through (and is teed to
        # mirrors), unless it is here already.
        body: bytes | None = None
        document: object = MISSING
        waited = 0.0
        if needs_body(route):
            waiting = perf_counter()
            body = await request.body()
            waited = perf_counter() - waiting
            document = decode_json(body)
        at_ms = self._now_ms()
        ticket = self._log.pending.begin(at_ms)
        tee: Tee | None = None
        try:
            try:
                routing = self._router.route(route, request, new_id(at_ms), document, force)
            except ValueError as error:
                return refuse(response, 400, "Bad Request", f"unknown variant {force}: {error}")
            if routing.unit_missing:
                self._counts.add("unit_fallbacks", route=route.name)
            if body is None:
                if request.complete:
                    body = await request.body()
                elif _keeps_body(routing, request):
                    waiting = perf_counter()
                    body = await request.body()
                    waited += perf_counter() - waiting
            headers = forwarded(request.headers, request.meanings, request.peer, http10=request.http10)
            case = Case(at_ms, routing, generation, request.method, request.target, headers, began, waited)
            if request.meanings & CALLERS_ID:
                case.request_id = _callers_id(request, "x-request-id")
                case.traceparent = _callers_id(request, "traceparent")
            if routing.mirrored and body is not None:
                self._mirrors.send(case, body)
            elif routing.mirrored:
                tee = self._mirrors.tee(case, request.chunks(), request.content_length)
            reply = Reply(case, response, self._log, self._counts, ticket)
            if body is not None and (plan := routing.draft) is not None:
                # In a task: it waits for several calls at once.
                await asyncio.get_running_loop().create_task(draft(reply, plan, body))
            else:
                await relay(reply, body if body is not None else tee or request.chunks())
        finally:
            if tee is not None:
                tee.close()
            self._log.pending.end(ticket)


def _knows(request: Request, token: bytes | None) -> bool:
    given = request.header(FORCE_TOKEN)
    # A constant time, so that the token cannot be guessed byte by byte.
    return token is not None and given is not None and hmac.compare_digest(given.encode(), token)


def _callers_id(request: Request, name: str) -> str | None:
    """Return an id that the caller gave its request, for the log."""
    given = request.header(name)
    return given[:_ID_CHARACTERS] if given else None


def _keeps_body(routing: Routing, request: Request) -> bool:
    """Return whether the whole body is needed: to be sent to several, or again."""
    return not request.has_body or routing.draft is not None or routing.route.fallback is not None
