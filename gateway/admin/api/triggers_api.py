"""The admin API for triggers: where they stand, when they would have fired, and a request to fire.

Rule: any node of a fleet may be asked to fire; the holder of the lease does it, within seconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.api.api import answering
from gateway.admin.api.reports import from_store
from gateway.admin.asked import asker, number
from gateway.admin.controller import Controller
from gateway.admin.json_errors import unknown
from gateway.control.queries import Queries
from gateway.triggers.firing import TriggersStored, ask_to_fire, read_triggers
from gateway.triggers.trigger_history import history
from router.settings.trigger import Trigger
from router.triggers.advance import AskedToFire

_MOST_BYTES: Final = 2**12
_MOST_WHY: Final = 500
_MONTH_MS: Final = 30 * 86_400_000


@dataclass(frozen=True, slots=True)
class TriggersAPI:
    """The handlers. ``routes`` is the table of paths."""

    controller: Controller

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/triggers", answering(self.triggers)),
            Route("/api/v1/triggers/{trigger}/test", answering(self.test)),
            Route("/api/v1/triggers/{trigger}/fire", answering(self.fire), methods=["POST"]),
        ]

    async def triggers(self, request: Request) -> Response:
        """Every trigger: where it stands, and what its conditions were at the last look."""
        stored = await from_store(self.controller.queries, lambda ask: read_triggers(ask.store))
        return _json({"triggers": self.shown(stored)})

    def shown(self, stored: TriggersStored) -> list[dict[str, Any]]:
        """Return every trigger as plain JSON values."""
        return [self._shown(one, stored) for one in self._known.values()]

    async def test(self, request: Request) -> Response:
        """When a trigger would have fired from ``?since=MS`` on, by default in the last thirty days."""
        trigger = self._trigger(request)
        if isinstance(trigger, Response):
            return trigger
        now_ms = time.time_ns() // 1_000_000
        since_ms = number(request, "since", now_ms - _MONTH_MS, most=now_ms)
        snapshot = self.controller.in_force.snapshot

        async def asked(ask: Queries) -> dict[str, Any]:
            return await history(ask.store, snapshot, trigger, since_ms, now_ms)

        return _json(await from_store(self.controller.queries, asked))

    async def fire(self, request: Request) -> Response:
        """Have a trigger fire, whatever its conditions are; the body may say why: {"why": "…"}."""
        trigger = self._trigger(request)
        if isinstance(trigger, Response):
            return trigger
        asked = AskedToFire(asker(request).who, await _why(request))
        await from_store(self.controller.queries, lambda ask: ask_to_fire(ask.store, trigger.name, asked))
        return _json({"trigger": trigger.name, "asked": True})

    @property
    def _known(self) -> Mapping[str, Trigger]:
        config = self.controller.in_force.config
        return {} if config is None else config.triggers

    def _trigger(self, request: Request) -> Trigger | Response:
        name = request.path_params["trigger"]
        found = self._known.get(name)
        return unknown("trigger", name, self._known) if found is None else found

    def _shown(self, trigger: Trigger, stored: TriggersStored) -> dict[str, Any]:
        standing = stored.standings.get(trigger.name)
        judged = self.controller.in_force.triggers.judged(trigger.name)
        if len(judged) != len(trigger.conditions):
            judged = ()
        return {
            "name": trigger.name,
            "route": trigger.route,
            "variant": trigger.variant,
            "needs": "any" if trigger.any else "all",
            "conditions": [
                {"kind": one.kind, **(judged[index]._asdict() if judged else {"state": "unknown", "said": ""})}
                for index, one in enumerate(trigger.conditions)
            ],
            "webhook": trigger.webhook,
            "freeze": trigger.freeze,
            "pause": trigger.pause,
            "fired": 0 if standing is None else standing.fired,
            "fired_ms": None if standing is None else standing.fired_ms,
            "asked": trigger.name in stored.asked,
        }


async def _why(request: Request) -> str:
    """Return the reason that the body gives. Raises HTTPException (413, 422)."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, f"the body is longer than {_MOST_BYTES:,} bytes")
    if not body.strip():
        return ""
    try:
        why = orjson.loads(bytes(body))["why"]
    except (ValueError, KeyError, TypeError):
        why = None
    if not isinstance(why, str) or len(why) > _MOST_WHY:
        raise HTTPException(422, f'the body must be {{"why": "…"}} with at most {_MOST_WHY} characters, or empty')
    return why


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
