"""The nodes of the fleet: who was there when, and what each routes by.

Rule: a node writes its own row and no other's, and begins everything it writes of its journal with that row: the row's
lock makes the writes of two lives of one node follow each other, and only the newest life's are let through.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.fleet.lease import NOW_MS
from gateway.store.schema.fleet_tables import journal_numbers, nodes, offsets, writers

#: A node that was not heard of for so long holds back no watermark: what it still has to tell comes late, and counts.
ABSENT_MS: Final = 120_000

#: After so long it is no node any more: a quarter. Its journal, should it come back, is read from its beginning, and
#: what was recorded of it before is known by its ids.
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
    """A later life of this node has begun: two processes go by its name, and this is the older one."""


class Node(NamedTuple):
    """A node as the others see it; ``silent_ms`` is since it last wrote anything."""

    name: str
    config: str
    revision: int
    silent_ms: int

    @property
    def absent(self) -> bool:
        return self.silent_ms > ABSENT_MS


async def begin_life(connection: AsyncConnection, node: str) -> int:
    """Begin a life of this node, which ends all others; return its number."""
    found: Any = (await connection.execute(_BEGIN_LIFE, {"b_node": node})).scalar_one()
    return int(found)


async def ensure_newest_life(connection: AsyncConnection, node: str, life: int) -> None:
    """Let the transaction go on only if this is the node's newest life. Raises Superseded."""
    if (await connection.execute(_RENEW, {"b_node": node, "b_life": life})).rowcount != 1:
        raise Superseded(f"another process goes by the name of node {node}: each needs a data_dir of its own")


async def announce(connection: AsyncConnection, node: str, life: int, config: str, revision: int) -> None:
    """Tell the others what this node routes by. Raises Superseded."""
    said = {"b_node": node, "b_life": life, "b_config": config, "b_revision": revision}
    if (await connection.execute(_ANNOUNCE, said)).rowcount != 1:
        raise Superseded(f"another process goes by the name of node {node}: each needs a data_dir of its own")


async def leave(connection: AsyncConnection, node: str, life: int) -> None:
    """Say that this life has told everything: the others wait for nothing."""
    query = _RENEW.values(seen_ms=NOW_MS - ABSENT_MS - 1)
    await connection.execute(query, {"b_node": node, "b_life": life})


async def all_nodes(connection: AsyncConnection) -> list[Node]:
    """Return every node, by name."""
    return [Node(*row) for row in await connection.execute(_ALL)]


async def forget(connection: AsyncConnection, node: str) -> None:
    """Forget a node and how far its journal was read: should it come again, it is a new one."""
    await connection.execute(delete(nodes).where(nodes.c.node == node))
    await connection.execute(delete(writers).where(writers.c.writer.startswith(f"{node}/", autoescape=True)))
    await connection.execute(delete(offsets).where(offsets.c.segment.startswith(f"{node}/", autoescape=True)))
    await connection.execute(
        delete(journal_numbers).where(journal_numbers.c.chain.startswith(f"{node}/", autoescape=True))
    )
