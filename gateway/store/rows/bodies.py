"""What was captured of requests and their answers.

Rule: a row holds only what the route's settings allow: the worker removes the rest before it writes the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema import sql
from gateway.store.schema.row_tables import bodies


class Body(NamedTuple):
    """The captured fields of one request and of its answer, as the table has them: JSON, None where there is none."""

    id: str
    at_ms: int
    route: str
    request: str | None
    answer: str | None


async def write(connection: AsyncConnection, captured: Sequence[Body]) -> None:
    """Write bodies; one that is stored already is left as it is."""
    await sql.ensure(connection, bodies, captured)


async def of(connection: AsyncConnection, prediction_id: str) -> dict[str, Any] | None:
    """Return what was captured of a prediction, by JSON Pointer; None if nothing was."""
    query = select(bodies).where(bodies.c.id == bindparam("id"))
    row = (await connection.execute(query, {"id": prediction_id})).first()
    if row is None:
        return None
    body = Body(*row)
    return {
        "request": None if body.request is None else orjson.loads(body.request),
        "answer": None if body.answer is None else orjson.loads(body.answer),
    }
