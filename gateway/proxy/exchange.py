"""One request's life: match → decide → call → log → answer.

Rule: the rows are in the journal before the last byte of the answer leaves, and exactly one set of them per prediction
id that a client is given: one ``primary`` row, or one ``draft`` row per ranker. A request that is refused before
anything is called is given no id and leaves no row.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Final

from gateway.proxy.backends import Backends, Generation
from gateway.proxy.calls import since
from gateway.proxy.case import Case
from gateway.proxy.counts import Counts
from gateway.proxy.drafting import draft
from gateway.proxy.headers import forwarded
from gateway.proxy.ids import new_id
from gateway.proxy.log import Log
from gateway.proxy.mirrors import MAX_BODY_BYTES, Mirrors
from gateway.proxy.relay import relay
from gateway.proxy.reply import Reply, refuse, refuse_unlogged
from gateway.proxy.request import Request
from gateway.proxy.response import Response
from router.extract import MISSING, decode_json
from router.match import RequestFacts
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
        now_ms: Callable[[], int],
    ) -> None:
        self._router = router
        self._backends = backends
        self._mirrors = mirrors
        self._log = log
        self._counts = counts
        self._now_ms = now_ms
        self.in_flight: Counter[str] = Counter()

    async def __call__(self, request: Request, response: Response) -> None:
        facts = _facts(request)
        route = self._router.match(facts)
        if route is None:
            return refuse(response, 404, "Not Found", f"no route takes {facts.method} {facts.path}")
        if self._log.refusing:
            self._counts.add("journal_refused")
            return refuse_unlogged(response)
        # Taken together with the route, before anything is awaited: both are of the same snapshot.
        generation = self._backends.current
        generation.enter()
        self.in_flight[route.name] += 1
        try:
            await self._matched(request, response, facts, route, generation)
        finally:
            self.in_flight[route.name] -= 1
            generation.leave()

    async def _matched(
        self, request: Request, response: Response, facts: RequestFacts, route: Route, generation: Generation
    ) -> None:
        began = perf_counter()
        force = facts.header(FORCE_VARIANT)
        if force is not None and not (route.allow_force or _knows(facts, generation.force_token)):
            return refuse(response, 403, "Forbidden", f"{FORCE_VARIANT} needs a valid {FORCE_TOKEN} on this route")
        # The body is awaited where deciding needs it, or sending it more than once; else it streams through, unless it
        # is here already.
        body: bytes | None = None
        document: object = MISSING
        if needs_body(route):
            body = await request.body()
            document = decode_json(body)
        waited_ms = since(began)
        at_ms = self._now_ms()
        ticket = self._log.pending.begin(at_ms)
        try:
            try:
                routing = self._router.route(route, facts, new_id(at_ms), document, force)
            except ValueError as error:
                return refuse(response, 400, "Bad Request", f"unknown variant {force}: {error}")
            if routing.unit_missing:
                self._counts.add("unit_fallbacks", route=route.name)
            if body is None and (request.complete or _keeps_body(routing, request)):
                waiting = perf_counter()
                body = await request.body()
                waited_ms += since(waiting)
            case = Case(
                id=routing.occasion.request_id,
                at_ms=at_ms,
                routing=routing,
                generation=generation,
                method=request.method,
                target=request.target,
                headers=forwarded(request.headers, request.peer, http10=request.http10),
                request_id=_caller_id(facts, "x-request-id"),
                traceparent=_caller_id(facts, "traceparent"),
                began=began,
                waited_ms=waited_ms,
            )
            if routing.mirrored:
                self._mirrors.send(case, body)
            reply = Reply(case, response, self._log, self._counts, ticket)
            if routing.draft is not None and body is not None:
                await draft(reply, routing.draft, body)
            else:
                await relay(reply, request.chunks() if body is None else body)
        finally:
            self._log.pending.end(ticket)


def _facts(request: Request) -> RequestFacts:
    headers = [(name.decode("latin-1").lower(), _text(value)) for name, value in request.headers]
    path, query = request.path.decode("latin-1"), request.query.decode("latin-1")
    return RequestFacts(request.method, path, query, tuple(headers))


def _text(value: bytes) -> str:
    """Header values are bytes; those who put text in them mean UTF-8 today, and Latin-1 in old times."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _knows(facts: RequestFacts, token: bytes | None) -> bool:
    given = facts.header(FORCE_TOKEN)
    # A constant time, so that the token cannot be guessed byte by byte.
    return token is not None and given is not None and hmac.compare_digest(given.encode(), token)


def _caller_id(facts: RequestFacts, name: str) -> str | None:
    """Return an id that the caller gave its request, for the log."""
    given = facts.header(name)
    return given[:_ID_CHARACTERS] if given else None


def _keeps_body(routing: Routing, request: Request) -> bool:
    """Return whether the whole body is needed: to be sent more than once."""
    if not request.has_body or routing.draft is not None or routing.route.fallback is not None:
        return True
    # What is too long for every mirror need not be kept for them.
    return bool(routing.mirrored) and (request.content_length or 0) <= MAX_BODY_BYTES
