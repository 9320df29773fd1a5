"""The admin API for a person's requests: what is stored of a unit, and its erasure.

Rule: a unit is named in a body, never in a path, which proxies and logs keep.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.admin.asked import act_of
from gateway.admin.json_errors import problem
from gateway.control.upkeep.erasure import Erasures

#: Units erased at once share the cost of writing the store anew.
MOST_UNITS: Final = 1_000
_MOST_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class PrivacyAPI:
    """The handlers. ``routes`` is the table of paths."""

    erasures: Erasures

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/privacy/erase", self.erase, methods=["POST"]),
            Route("/api/v1/privacy/export", self.export, methods=["POST"]),
        ]

    async def erase(self, request: Request) -> Response:
        """Erase the units that the body names; the answer comes when nothing of them is left."""
        units = await _units(request, MOST_UNITS)
        if isinstance(units, Response):
            return units
        try:
            return _json(await self.erasures.erase(units, act_of(request)))
        except Exception as error:  # whatever a database driver raises; the answer must not name the unit
            return _failed(error)

    async def export(self, request: Request) -> Response:
        """Everything that is stored of the one unit that the body names, a JSON value a line."""
        units = await _units(request, 1)
        if isinstance(units, Response):
            return units
        try:
            rows = aiter(self.erasures.known(units[0]))
            first = await anext(rows)
        except Exception as error:
            return _failed(error)
        return StreamingResponse(_lines(first, rows), media_type="application/x-ndjson")


async def _lines(first: Mapping[str, Any], rows: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    yield orjson.dumps(first, option=orjson.OPT_APPEND_NEWLINE)
    async for row in rows:
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


async def _units(request: Request, most: int) -> list[str] | Response:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            return problem(413, f"the body is longer than {_MOST_BYTES:,} bytes")
    try:
        units = orjson.loads(bytes(body))["units"]
    except (ValueError, KeyError, TypeError):
        units = None
    if not (isinstance(units, list) and 0 < len(units) <= most and all(isinstance(u, str) and u for u in units)):
        which = "one unit" if most == 1 else f"1 to {most:,} units"
        return problem(422, f'the body must be {{"units": [...]}} with {which}, each a text')
    return units


def _failed(error: Exception) -> Response:
    # The words of a driver may hold the parameters of its statement: only its class is named.
    said = str(error) if type(error).__module__.startswith("gateway.") else type(error).__name__
    return problem(503, f"{said}; nothing is half done that cannot be done again", headers={"retry-after": "5"})


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
