"""Numbered snapshots of the fleet: a revision means the same plans at every node.

Rule: a number is given once and never means anything else. Only plans are stored: each node makes the rest of a
snapshot of its own file, so neither addresses nor secrets pass through the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.schema import sql
from gateway.store.schema.fleet_tables import publications
from policies.plans import decode_plan, encode_plan
from policies.rollouts.standing import START, Standing, decode_standing, encode_standing
from policies.types import Plan
from router.snapshot import Route, Snapshot

#: The number of a snapshot, or of a route's plan, that was made while the store could not be reached.
UNNUMBERED: Final = 0

#: How many are kept of each configuration. The plans by which calls were decided are in the table ``plans``.
KEPT: Final = 100

_NEWEST: Final = (
    select(publications.c.revision, publications.c.config).order_by(publications.c.revision.desc()).limit(1)
)
_OF: Final = select(func.max(publications.c.revision)).where(publications.c.config == bindparam("config"))
_BODY: Final = select(publications.c.body).where(publications.c.revision == bindparam("revision"))


@dataclass(frozen=True, slots=True)
class Planned:
    """A route's plan in a publication, and the epoch and settings that the plan is for; the rest as in ``Route``."""

    epoch: str
    carried: tuple[str, str] | None
    assigned: int
    settings: str
    period: int
    revision: int
    plan: Plan
    standing: Standing = START


async def newest(connection: AsyncConnection) -> tuple[int, str]:
    """Return the highest number given, and the configuration it was given for; (0, "") if there is none."""
    found = (await connection.execute(_NEWEST)).first()
    return (UNNUMBERED, "") if found is None else (int(found[0]), str(found[1]))


async def newest_of(connection: AsyncConnection, config: str) -> int:
    """Return the highest number of a configuration, 0 if it has none."""
    return (await connection.execute(_OF, {"config": config})).scalar() or UNNUMBERED


async def read(connection: AsyncConnection, revision: int) -> Mapping[str, Planned]:
    """Return the plans of a publication, by route."""
    body = (await connection.execute(_BODY, {"revision": revision})).scalar_one()
    return {
        name: Planned(
            planned["epoch"],
            None if planned.get("carried") is None else tuple(planned["carried"]),
            planned.get("assigned", 0),
            planned["settings"],
            planned["period"],
            planned["revision"],
            decode_plan(planned["plan"]),
            decode_standing(planned.get("standing", {})),
        )
        for name, planned in orjson.loads(body).items()
    }


async def write(connection: AsyncConnection, snapshot: Snapshot, config: str, node: str, now_ms: int) -> None:
    """Publish a snapshot under its number. Raises IntegrityError if the number was given already."""
    body = orjson.dumps({route.name: _entry(route) for route in snapshot.routes.values()}).decode()
    await sql.insert(connection, publications, [(snapshot.revision, config, node, now_ms, body)])
    query = (
        select(publications.c.revision)
        .where(publications.c.config == config)
        .order_by(publications.c.revision.desc())
        .offset(KEPT)
        .limit(1)
    )
    old = (await connection.execute(query)).scalar()
    if old is not None:
        await connection.execute(
            delete(publications).where(publications.c.config == config, publications.c.revision <= old)
        )


def numbered(snapshot: Snapshot, revision: int) -> Snapshot:
    """Return the snapshot with its number, which plans without a number get too."""
    routes = {
        name: replace(route, revision=revision) if route.revision == UNNUMBERED else route
        for name, route in snapshot.routes.items()
    }
    return replace(snapshot, revision=revision, routes=routes)


def with_published(snapshot: Snapshot, revision: int, published: Mapping[str, Planned]) -> Snapshot:
    """Return the snapshot as it was published under a number: its routes with the plans of that publication.

    The publication is of the same configuration, so its epochs have the same identities. Their names may differ where
    one node went on with an epoch and another began: the published ones hold everywhere.
    """
    routes = dict(snapshot.routes)
    for name, route in snapshot.routes.items():
        planned = published.get(name)
        if planned is not None and planned.settings == route.settings:
            routes[name] = replace(
                route,
                epoch=planned.epoch,
                carried=planned.carried,
                assigned=planned.assigned,
                period=planned.period,
                revision=planned.revision,
                plan=planned.plan,
                standing=planned.standing,
            )
    return replace(snapshot, revision=revision, routes=routes)


def _entry(route: Route) -> Mapping[str, Any]:
    return {
        "epoch": route.epoch,
        "carried": route.carried,
        "assigned": route.assigned,
        "settings": route.settings,
        "period": route.period,
        "revision": route.revision,
        "plan": encode_plan(route.plan),
        "standing": encode_standing(route.standing),
    }
