"""The admin API's export: predictions with their outcomes, as JSON Lines that have no bound.

Rule: what is sent is what the store gives by the portion, and nothing is held; a client that is slow is waited for. An
answer that breaks off has no proper end, so that nobody takes a part for the whole.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.admin.asked import number
from gateway.admin.controller import Controller
from gateway.admin.problems import problem, unknown

Rows = AsyncIterator[Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class ExportAPI:
    """The handler, and whom it asks."""

    controller: Controller

    def route(self) -> Route:
        return Route("/api/v1/export", self.export)

    async def export(self, request: Request) -> Response:
        """The calls of ``route`` (again for several; all that are served, if left out) in [since_ms, until_ms)."""
        since_ms = number(request, "since_ms", 0)
        until_ms = number(request, "until_ms", time.time_ns() // 1_000_000)
        routes = request.query_params.getlist("route") or list(self.controller.snapshot.routes)
        streams = [aiter(self.controller.exported(route, since_ms, until_ms)) for route in routes]
        begun: list[Sequence[Mapping[str, Any]]] = []
        try:
            # Each is begun, so that what is wrong with one is said before anything is sent.
            for stream in streams:
                begun.append(await _first(stream))
        except KeyError as error:
            return unknown("route", str(error.args[0]), self.controller.snapshot.routes)
        except Exception as error:  # whatever a database driver raises
            return problem(503, f"the store cannot be read: {type(error).__name__}", headers={"retry-after": "5"})
        return StreamingResponse(_lines(streams, begun), media_type="application/x-ndjson")


async def _first(stream: Rows) -> Sequence[Mapping[str, Any]]:
    async for rows in stream:
        return rows
    return ()


async def _lines(streams: Sequence[Rows], begun: Sequence[Sequence[Mapping[str, Any]]]) -> AsyncIterator[bytes]:
    for stream, first in zip(streams, begun, strict=True):
        yield _encoded(first)
        async for rows in stream:
            yield _encoded(rows)


def _encoded(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
