"""The admin API's export: predictions with their outcomes, as JSON Lines that have no bound.

Rule: each portion of the store is sent as it comes, and nothing is held; a slow client delays its own export alone. An
answer that breaks off has no proper end, so that a part is never taken for the whole, and says where to go on.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.admin.asked import number
from gateway.admin.json_errors import problem, unknown
from gateway.control.plan.in_force import InForce
from gateway.control.queries import Queries
from gateway.store.export_batches import ExportBatch


@dataclass(frozen=True, slots=True)
class ExportAPI:
    """The handler. ``route`` is its path."""

    in_force: InForce
    queries: Queries

    def route(self) -> Route:
        return Route("/api/v1/export", self.export)

    async def export(self, request: Request) -> Response:
        """The calls of ``route`` (again for several; all that are served, if left out) in [since_ms, until_ms).

        With ``positions`` a line {"position": {"routes", "from_ms"}} follows each portion: what is left to ask for, the
        first of these routes from ``from_ms`` on; the last such line says null. With ``texts``, ``prediction`` and
        ``features`` are strings that hold JSON.
        """
        asked = request.query_params
        since_ms = number(request, "since_ms", 0)
        until_ms = number(request, "until_ms", time.time_ns() // 1_000_000)
        from_ms = number(request, "from_ms", since_ms)
        routes = asked.getlist("route") or list(self.in_force.snapshot.routes)
        asking = _Asking(self.queries, routes, since_ms, until_ms, "texts" in asked, "positions" in asked)
        try:
            # An unknown route or a store that fails must be found before anything is sent.
            for route in routes:
                if route not in self.in_force.snapshot.routes:
                    async with aclosing(asking.portions(route, until_ms)) as stream:
                        await anext(stream, None)
            lines = asking.lines(from_ms)
            first = await anext(lines, b"")
        except KeyError as error:
            return unknown("route", str(error.args[0]), self.in_force.snapshot.routes)
        except Exception as error:  # whatever a database driver raises
            return problem(503, f"the store cannot be read: {type(error).__name__}", headers={"retry-after": "5"})
        return StreamingResponse(_all(first, lines), media_type="application/x-ndjson")


@dataclass(frozen=True, slots=True)
class _Asking:
    queries: Queries
    routes: Sequence[str]
    since_ms: int
    until_ms: int
    texts: bool
    positions: bool

    def portions(self, route: str, since_ms: int) -> Any:
        return self.queries.exported(route, since_ms, self.until_ms, texts=self.texts)

    async def lines(self, from_ms: int) -> AsyncIterator[bytes]:
        """Yield what is to be sent, the first route from ``from_ms`` on."""
        for place, route in enumerate(self.routes):
            async with aclosing(self.portions(route, self.since_ms if place else from_ms)) as stream:
                portion: ExportBatch
                async for portion in stream:
                    if portion.lines:
                        yield portion.lines + self._position(self.routes[place:], portion.until_ms)
        yield self._position((), 0)

    def _position(self, routes: Sequence[str], from_ms: int) -> bytes:
        if not self.positions:
            return b""
        left = {"routes": list(routes), "from_ms": from_ms} if routes else None
        return orjson.dumps({"position": left}, option=orjson.OPT_APPEND_NEWLINE)


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for lines in rest:
        yield lines
