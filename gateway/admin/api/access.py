"""The admin API for who did what.

Rule: an entry is shown as it is stored. Reading the log never verifies it: ``turnout audit verify`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.api.api import answering
from gateway.admin.api.reports import from_store
from gateway.admin.asked import number
from gateway.control.queries import Queries
from gateway.store import audit
from gateway.store.audit import MOST_LISTED, Audited


@dataclass(frozen=True, slots=True)
class AccessAPI:
    """The handlers. ``routes`` is the table of paths."""

    queries: Queries

    def routes(self) -> list[Route]:
        return [Route("/api/v1/audit", answering(self.audit))]

    async def audit(self, request: Request) -> Response:
        """The entries, the newest first; ``?before=NUMBER`` the older ones, ``?route=``, ``?act=`` only some."""
        limit = number(request, "limit", 100, least=1, most=MOST_LISTED)
        before = number(request, "before", 1, least=1) if "before" in request.query_params else None
        route, act = request.query_params.get("route"), request.query_params.get("act")

        async def read(ask: Queries) -> list[Audited]:
            async with ask.store.read() as connection:
                return await audit.listed(connection, limit, before=before, route=route, act=act)

        found = await from_store(self.queries, read)
        more = found[-1].number if len(found) == limit else None
        return _json({"entries": [one.shown for one in found], "before": more})


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
