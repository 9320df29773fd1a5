"""The admin API for sinks: what became of their events, and what an operator does about those of a webhook.

Rule: what is replayed keeps its id. Any node of a fleet may be asked; the holder of the lease sends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.api.api import answering
from gateway.admin.api.reports import from_store
from gateway.admin.asked import act_of
from gateway.admin.controller import Controller
from gateway.admin.json_errors import problem, unknown
from gateway.control.event_log import now_ms
from gateway.control.queries import Queries
from gateway.store import audit
from gateway.store.audit import Entry
from gateway.store.rows import deliveries

T = TypeVar("T")

_MOST_BYTES: Final = 2**16
_FORM: Final = 'the body must be {"events": ["ID", …]}, or empty for all'


@dataclass(frozen=True, slots=True)
class SinksAPI:
    """The handlers. ``routes`` is the table of paths."""

    controller: Controller

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/sinks", answering(self.sinks)),
            Route("/api/v1/sinks/{sink}/deliveries", answering(self.deliveries)),
            Route("/api/v1/sinks/{sink}/dead", answering(self.dead)),
            Route("/api/v1/sinks/{sink}/replay", answering(self.replay), methods=["POST"]),
            Route("/api/v1/sinks/{sink}/enable", answering(self.enable), methods=["POST"]),
        ]

    async def sinks(self, request: Request) -> Response:
        """Every sink, and what became of its events: those made are those that wait and those that came to an end."""
        return _json({"sinks": await from_store(self.controller.queries, lambda ask: ask.sinks())})

    async def deliveries(self, request: Request) -> Response:
        """The last tries to deliver a webhook's events, the newest first."""
        sink = self._webhook(request)
        if isinstance(sink, Response):
            return sink

        async def asked(ask: Queries) -> list[dict[str, Any]]:
            async with ask.store.read() as connection:
                return [one._asdict() for one in await deliveries.tries(connection, sink)]

        return _json({"sink": sink, "deliveries": await from_store(self.controller.queries, asked)})

    async def dead(self, request: Request) -> Response:
        """The events of a webhook that were given up, the oldest first."""
        sink = self._webhook(request)
        if isinstance(sink, Response):
            return sink

        async def asked(ask: Queries) -> list[dict[str, Any]]:
            async with ask.store.read() as connection:
                return await deliveries.dead(connection, sink)

        return _json({"sink": sink, "dead": await from_store(self.controller.queries, asked)})

    async def replay(self, request: Request) -> Response:
        """Send events again that were given up: those that the body names, or all."""
        sink, events = self._webhook(request), await _events(request)
        if isinstance(sink, Response):
            return sink

        async def ask(connection: AsyncConnection) -> tuple[int, str]:
            replayed = await deliveries.replay(connection, sink, events, now_ms())
            return replayed, f"sinks.{sink}: {replayed} events that were given up are sent again"

        return _json({"sink": sink, "replayed": await self._act(request, "sink_replayed", ask)})

    async def enable(self, request: Request) -> Response:
        """Send to a webhook again whose receiver answered 410."""
        sink = self._webhook(request)
        if isinstance(sink, Response):
            return sink

        async def ask(connection: AsyncConnection) -> tuple[bool, str]:
            return await deliveries.enable(connection, sink), f"sinks.{sink} is sent to again"

        return _json({"sink": sink, "was_disabled": await self._act(request, "sink_enabled", ask)})

    async def _act(self, request: Request, kind: str, ask: Callable[[AsyncConnection], Awaitable[tuple[T, str]]]) -> T:
        """Change the store and keep who did it, unless nothing changed; return what ``ask`` found."""
        act = act_of(request)

        async def asked(queries: Queries) -> tuple[T, str]:
            async with queries.store.begin() as connection:
                found, said = await ask(connection)
                if found:
                    entry = Entry(who=act.who or "unknown", via=act.via, act=kind, changed=said)
                    await audit.append(connection, entry, now_ms())
                return found, said

        found, said = await from_store(self.controller.queries, asked)
        if found:
            self.controller.event_log.note(kind, None, said, via=act.via, author=act.author)
        return found

    def _webhook(self, request: Request) -> str | Response:
        """Return the name of the webhook in the path, or that there is none."""
        name, known = request.path_params["sink"], self.controller.in_force.snapshot.sinks
        webhooks = [sink.name for sink in known.values() if sink.kind == "webhook"]
        if name not in known:
            return unknown("sink", name, webhooks)
        if name not in webhooks:
            detail = f"sinks.{name} is no webhook: its events are sent again without end"
            return problem(422, detail)
        return str(name)


async def _events(request: Request) -> list[str] | None:
    """Return the ids that the body names, None for all. Raises HTTPException (422)."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, f"the body is longer than {_MOST_BYTES:,} bytes")
    if not body.strip():
        return None
    try:
        given = orjson.loads(bytes(body))
        events = given["events"]
    except (ValueError, KeyError, TypeError):
        raise HTTPException(422, _FORM) from None
    if not (isinstance(events, list) and events and all(isinstance(one, str) for one in events) and len(given) == 1):
        raise HTTPException(422, _FORM)
    return events


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
