"""The admin API for who may and who did what: named tokens, and the audit log.

Rule: a token is in one answer, that to the request which made it, and nowhere else. An entry of the log is shown as it
is stored: reading never verifies it, ``turnout audit verify`` does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.api.api import answering
from gateway.admin.api.reports import from_store
from gateway.admin.asked import act_of, number
from gateway.admin.json_errors import problem
from gateway.control.access.named_tokens import Tokens
from gateway.control.queries import Queries
from gateway.store.audit import MOST_LISTED
from gateway.store.tokens import MadeToken, StoredToken, TokenRefused
from router.config.spellings import duration_ms

MOST_BODY: Final = 2**16


@dataclass(frozen=True, slots=True)
class AccessAPI:
    """The handlers. ``routes`` is the table of paths."""

    queries: Queries
    tokens: Tokens

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/audit", answering(self.audit)),
            Route("/api/v1/tokens", answering(self.list_tokens)),
            Route("/api/v1/tokens", answering(self.create_token), methods=["POST"]),
            Route("/api/v1/tokens/{name}", answering(self.revoke_token), methods=["DELETE"]),
        ]

    async def list_tokens(self, request: Request) -> Response:
        """Every token that there ever was, the newest first: its prefix, name, scope, state and last use."""
        found = await from_store(self.queries, lambda _: self.tokens.listed())
        now_ms = time.time_ns() // 1_000_000
        return _json({"tokens": [one.shown(now_ms) for one in found]})

    async def create_token(self, request: Request) -> Response:
        """Make a token: ``{"name": "ci", "scope": "read", "expires": "90d"}``; ``expires`` may be left out."""
        given = await body_of(request)
        if isinstance(given, Response):
            return given
        if unknown := given.keys() - {"name", "scope", "expires"}:
            return problem(422, f'the body has "{sorted(unknown)[0][:64]}", and may have name, scope and expires')
        name, scope, expires = given.get("name"), given.get("scope"), given.get("expires")
        if not isinstance(name, str) or not isinstance(scope, str) or not isinstance(expires, str | None):
            return problem(422, 'name, scope and expires must be texts, as in {"name": "ci", "scope": "read"}')
        now_ms = time.time_ns() // 1_000_000
        try:
            expires_ms = None if expires is None else now_ms + duration_ms(expires)
        except ValueError as error:
            return problem(422, f"expires {error}")

        async def make(_: Queries) -> MadeToken | TokenRefused:
            try:
                return await self.tokens.create(name, scope, expires_ms, act_of(request))
            except TokenRefused as error:
                return error

        made = await from_store(self.queries, make)
        if isinstance(made, TokenRefused):
            return problem(422, str(made))
        return _json({"token": made.token, **made.row.shown(now_ms)})

    async def revoke_token(self, request: Request) -> Response:
        """Revoke the token of this name: refused at every node within two seconds."""
        name = request.path_params["name"]

        async def revoke(_: Queries) -> StoredToken | TokenRefused:
            try:
                return await self.tokens.revoke(name, act_of(request))
            except TokenRefused as error:
                return error

        revoked = await from_store(self.queries, revoke)
        if isinstance(revoked, TokenRefused):
            return problem(404, str(revoked))
        return _json(revoked.shown(time.time_ns() // 1_000_000))

    async def audit(self, request: Request) -> Response:
        """The entries, the newest first; ``?before=NUMBER`` the older ones, ``?route=``, ``?act=`` only some."""
        limit = number(request, "limit", 100, least=1, most=MOST_LISTED)
        before = number(request, "before", 1, least=1) if "before" in request.query_params else None
        route, act = request.query_params.get("route"), request.query_params.get("act")

        found = await from_store(self.queries, lambda ask: ask.audited(limit, before=before, route=route, act=act))
        more = found[-1].number if len(found) == limit else None
        return _json({"entries": [one.shown for one in found], "before": more})


async def body_of(request: Request) -> dict[str, Any] | Response:
    """Return the JSON object in a body of at most ``MOST_BODY`` bytes, or the refusal."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            return problem(413, f"the body is longer than {MOST_BODY:,} bytes")
    try:
        found = orjson.loads(bytes(body))
    except ValueError:
        found = None
    return found if isinstance(found, dict) else problem(422, "the body must be a JSON object")


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
