"""The nodes of the fleet: when each last wrote, and what it routes by.

A node's life is one run of its controller; lives are numbered.

Rule: a node writes its own row only, and begins every transaction about its journal with an update of that row. The
row's lock puts the transactions of two lives of one node one after the other, and only the newest life's succeed.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.fleet.lease import NOW_MS
from gateway.store.schema.fleet_tables import journal_numbers, nodes, offsets, writers

#: A node that has not written for this long no longer holds back the watermark; its remaining lines still count.
ABSENT_MS: Final = 120_000

#: A node that has not written for this long (a quarter) is deleted. Should it come back, its journal is read from the
#: beginning, and lines recorded before are recognised by their ids.
FORGOTTEN_MS: Final = 90 * 86_400_000

_BEGIN_LIFE: Final = (
    postgresql.insert(nodes)
    .values(node=bindparam("b_node"), life=1, config="", revision=0, seen_ms=NOW_MS)
    .on_conflict_do_update(index_elements=["node"], set_={"life": nodes.c.life + 1, "seen_ms": NOW_MS})
    .returning(nodes.c.life)
)
_RENEW: Final = (
    update(nodes).where(nodes.c.node == bindparam("b_node"), nodes.c.life == bindparam("b_life")).values(seen_ms=NOW_MS)
)
_ANNOUNCE: Final = _RENEW.values(config=bindparam("b_config"), revision=bindparam("b_revision"))
_ALL: Final = select(nodes.c.node, nodes.c.config, nodes.c.revision, NOW_MS - nodes.c.seen_ms).order_by(nodes.c.node)


class Superseded(Exception):
    """A later life of this node has begun: two processes use its name, and this is the older one."""


class Node(NamedTuple):
    """A node as the others see it; ``silent_ms`` is the time since it last wrote anything."""

    name: str
    config: str
    revision: int
    silent_ms: int

    @property
    def absent(self) -> bool:
        return self.silent_ms > ABSENT_MS


async def begin_life(connection: AsyncConnection, node: str) -> int:
    """Begin a new life of this node, which ends all earlier ones; return its number."""
    found: Any = (await connection.execute(_BEGIN_LIFE, {"b_node": node})).scalar_one()
    return int(found)


async def ensure_newest_life(connection: AsyncConnection, node: str, life: int) -> None:
    """Raise Superseded unless this is the node's newest life."""
    if (await connection.execute(_RENEW, {"b_node": node, "b_life": life})).rowcount != 1:
        raise Superseded(f"another process goes by the name of node {node}: each needs a data_dir of its own")


async def announce(connection: AsyncConnection, node: str, life: int, config: str, revision: int) -> None:
    """Write down for the others what this node routes by. Raises Superseded."""
    announced = {"b_node": node, "b_life": life, "b_config": config, "b_revision": revision}
    if (await connection.execute(_ANNOUNCE, announced)).rowcount != 1:
        raise Superseded(f"another process goes by the name of node {node}: each needs a data_dir of its own")


async def leave(connection: AsyncConnection, node: str, life: int) -> None:
    """Write down that this life has shipped everything, so that the watermark does not wait for it."""
    query = _RENEW.values(seen_ms=NOW_MS - ABSENT_MS - 1)
    await connection.execute(query, {"b_node": node, "b_life": life})


async def all_nodes(connection: AsyncConnection) -> list[Node]:
    """Return every node, in the order of their names."""
    return [Node(*row) for row in await connection.execute(_ALL)]


async def forget(connection: AsyncConnection, node: str) -> None:
    """Delete a node and how far its journal was read: should it come back, it is a new node."""
    await connection.execute(delete(nodes).where(nodes.c.node == node))
    await connection.execute(delete(writers).where(writers.c.writer.startswith(f"{node}/", autoescape=True)))
    await connection.execute(delete(offsets).where(offsets.c.segment.startswith(f"{node}/", autoescape=True)))
    await connection.execute(
        delete(journal_numbers).where(journal_numbers.c.chain.startswith(f"{node}/", autoescape=True))
    )
