"""The admin API for versions from outside: what a registry says, and what anybody with the scope does.

Rule: a registry has no token; it signs. Each slot is answered as filled or not, with the reason.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.api.access_api import MOST_BODY, body_of
from gateway.admin.api.api import answering
from gateway.admin.api.reports import from_store
from gateway.admin.asked import asker
from gateway.admin.json_errors import problem
from gateway.control.plan.in_force import InForce
from gateway.control.queries import Queries
from gateway.control.registry import mlflow
from gateway.control.registry.version_slots import Filling, SlotRefused, SlotResult, VersionSlots
from gateway.files.secret import SecretMissing, tokens


@dataclass(frozen=True, slots=True)
class RegistryAPI:
    """The handlers. ``routes`` is the table of paths."""

    in_force: InForce
    queries: Queries
    slots: VersionSlots

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/registry/mlflow", answering(self.mlflow), methods=["POST"]),
            Route("/api/v1/backends/{backend}/version", answering(self.version), methods=["POST"]),
        ]

    async def version(self, request: Request) -> Response:
        """Put a version into a backend's slot: ``{"version": "7", "why": "…"}``."""
        given = await body_of(request)
        if isinstance(given, Response):
            return given
        version, why = given.get("version"), given.get("why")
        if given.keys() - {"version", "why"} or not isinstance(version, str) or not isinstance(why, str | None):
            return problem(422, 'the body must be {"version": "7"}, and may have why, a text')
        asked = asker(request)
        filling = Filling(request.path_params["backend"], version, asked.who, "api", why)
        found = await self._filled(filling)
        if isinstance(found, SlotRefused):
            return problem(found.status, str(found))
        return _json({"results": [found._asdict()]})

    async def mlflow(self, request: Request) -> Response:
        """What MLflow sends when an alias is created or moved."""
        path = self.in_force.snapshot.gateway.registry_secret_file
        if path is None:
            return problem(404, "no registry may fill a slot: [gateway] has no registry_secret_file")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BODY:
                return problem(413, f"the body is longer than {MOST_BODY:,} bytes")
        try:
            secrets = tokens(path)
        except SecretMissing:
            return problem(503, "the registry's secret cannot be read, so nothing is believed")
        if (why := mlflow.signed(request.headers, bytes(body), secrets, time.time())) is not None:
            return problem(401, why)
        moved = mlflow.alias_moved(bytes(body))
        if isinstance(moved, str):
            return _json({"results": [], "why": moved})
        names = mlflow.slots_of(moved, self.in_force.snapshot.backends)
        if not names:
            return _json({"results": [], "why": "no backend's slot is of this model and alias"})
        results: list[dict[str, Any]] = []
        for name in names:
            said = f"alias {moved.alias} of {moved.model}"
            found = await self._filled(Filling(name, moved.version, "mlflow", "registry", said, moved.event_ms))
            refused = isinstance(found, SlotRefused)
            result = SlotResult(name, moved.version, False, str(found)) if isinstance(found, SlotRefused) else found
            results.append(result._asdict() | {"refused": refused})
        if all(one["refused"] for one in results):
            return problem(422, "; ".join(one["why"] for one in results), results=results)
        return _json({"results": results})

    async def _filled(self, filling: Filling) -> SlotResult | SlotRefused:
        async def fill(_: Queries) -> SlotResult | SlotRefused:
            try:
                return await self.slots.fill(filling)
            except SlotRefused as refused:
                return refused

        return await from_store(self.queries, fill)


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
