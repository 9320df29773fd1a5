"""The admin API for acts: what a person, or a program for one, has done to a route.

Rule: a body is read whole, bounded, and refused with what would do; everything else is ``Commands``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.asked import asker
from gateway.admin.json_errors import problem
from gateway.control.command import alerts
from gateway.control.command.ask import Asker, NotDone, Via, read_ask
from gateway.control.command.perform import Commands

_MOST_BYTES: Final = 2**16
_MOST_ALERTS_BYTES: Final = 2**22


@dataclass(frozen=True, slots=True)
class ActsAPI:
    """The handlers. ``routes`` is the table of paths."""

    commands: Commands

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/routes/{route}/acts", self.on_route, methods=["POST"]),
            Route("/api/v1/acts", self.on_every_route, methods=["POST"]),
            Route("/api/v1/alerts", self.on_alerts, methods=["POST"]),
        ]

    async def on_route(self, request: Request) -> Response:
        """Perform an act on one route."""
        return await self._perform(request, request.path_params["route"])

    async def on_every_route(self, request: Request) -> Response:
        """Freeze every route to its baseline, or end every freeze."""
        return await self._perform(request, None)

    async def on_alerts(self, request: Request) -> Response:
        """Do what the file says about the alerts of a message of Alertmanager or Grafana."""
        config = self.commands.config
        try:
            body = await json_of(request, _MOST_ALERTS_BYTES)
            alerts.read_alerts(body)
            if config is None:
                raise NotDone(503, "the configuration is not valid, so what alerts do is not known")
            found = await alerts.apply(self.commands, config, self.commands.snapshot, body, asking(request, "alert"))
        except NotDone as refused:
            return not_done(refused)
        return Response(orjson.dumps(found), media_type="application/json")

    async def _perform(self, request: Request, route: str | None) -> Response:
        try:
            body = await json_of(request, _MOST_BYTES)
            done = await self.commands.perform(read_ask(body, route), asking(request, "api"))
        except NotDone as refused:
            return not_done(refused)
        return Response(orjson.dumps(done.shown), media_type="application/json")


def asking(request: Request, via: Via) -> Asker:
    """Return who sends a request, as acts know it."""
    asked = asker(request)
    return Asker(asked.who, via, asked.sentence, asked.known)


async def json_of(request: Request, most: int) -> Any:
    """Return the JSON value in a request's body. Raises NotDone if it is too long or no JSON."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise NotDone(413, f"the body is longer than {most:,} bytes")
    try:
        return orjson.loads(bytes(body))
    except ValueError:
        raise NotDone(422, "the body must be JSON") from None


def not_done(refused: NotDone) -> Response:
    """Return the answer to an act that was not done."""
    headers: Mapping[str, str] | None = {"retry-after": "5"} if refused.status == 503 else None
    return problem(refused.status, refused.why, headers=headers, **refused.more)
