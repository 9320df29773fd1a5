"""Items that could not be recorded or joined: each is listed for the operator and ignored from then on.

Rule: only the item that fails is set aside, never what came together with it. The list is bounded: the oldest items go.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import bindparam, delete, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.rows.feedback_status import Status
from gateway.store.schema import sql
from gateway.store.schema.row_tables import feedback, set_aside

#: The most items that are listed.
MOST: Final = 10_000
_WHY_CHARACTERS: Final = 200

Kind = Literal["line", "event", "prediction"]


class SetAside(NamedTuple):
    """One item that was set aside.

    ``identity`` is where a journal line ends, the number of a stored event's row, or a prediction's id; ``prediction``
    is the prediction that it is about, if that is known.
    """

    at_ms: int
    kind: Kind
    identity: str
    prediction: str | None
    why: str


async def note(connection: AsyncConnection, found: Sequence[SetAside]) -> None:
    """Store items that were set aside."""
    rows = [one._replace(why=one.why.partition("\n")[0][:_WHY_CHARACTERS].replace("\0", " ")) for one in found]
    await sql.insert(connection, set_aside, rows)
    newest = (await connection.execute(select(func.max(set_aside.c.seq)))).scalar() or 0
    await connection.execute(delete(set_aside).where(set_aside.c.seq <= newest - MOST))


async def event(connection: AsyncConnection, seq: int) -> tuple[str | None, str, str, Status]:
    """Set a stored event aside, so that no query finds it any more.

    Return the prediction it is about, if any, and the route, the metric and the status that it was counted under.
    """
    query = select(feedback.c.target, feedback.c.counted, feedback.c.metric, feedback.c.status)
    target, counted, metric, status = (await connection.execute(query.where(feedback.c.seq == seq))).one()
    await connection.execute(update(feedback).where(feedback.c.seq == seq).values(status=literal_column("'set_aside'")))
    return target, counted, metric, status


async def predictions(connection: AsyncConnection) -> set[str]:
    """Return the ids of the predictions that were set aside."""
    query = select(set_aside.c.identity).where(set_aside.c.kind == literal_column("'prediction'"))
    return {str(identity) for (identity,) in await connection.execute(query)}


async def listed(connection: AsyncConnection, limit: int) -> list[dict[str, Any]]:
    """Return the items as plain JSON values, the newest first."""
    query = select(*(set_aside.c[name] for name in SetAside._fields)).order_by(set_aside.c.seq.desc())
    rows = await connection.execute(query.limit(bindparam("limit")), {"limit": limit})
    return [SetAside(*row)._asdict() for row in rows]


async def forget(connection: AsyncConnection, ids: Collection[str]) -> None:
    """Delete the items that are about these predictions."""
    await connection.execute(delete(set_aside).where(set_aside.c.prediction.in_(ids)))
