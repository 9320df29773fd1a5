"""What was decided and under which rules: definitions of metrics, epochs, plans, and what happened.

Rule: appended, never rewritten, except the variants of an epoch, which may change within it. A prediction's row names
its epoch and plan revision, and both are found here, older plans in packs (``history``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Text, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.counts import history
from gateway.store.counts.definitions import Definition, Definitions
from gateway.store.counts.ledger import Epoch
from gateway.store.counts.tallies import note_moved
from gateway.store.schema import sql
from gateway.store.schema.count_tables import assignments, definitions, epochs, events, newest_calls, plans
from policies.plans import decode_plan, encode_plan
from router.records import EXPOSED
from router.snapshot import KeyRule, Metric, Route

#: Actions of people, as opposed to automatic changes.
ACTS: Final = frozenset(
    {
        "config_reloaded",
        "config_unchanged",
        "config_refused",
        "assignment_changed",
        "units_erased",
        "sink_replayed",
        "sink_enabled",
        "act",
        "token_created",
        "token_revoked",
        "slot_filled",
    }
)

#: What may happen every second: one entry for each route, in memory alone. What it was is in the plans.
FOLDED: Final = frozenset({"plan_moved"})

#: Events beyond so many are not looked at for what is to be recalled.
LOOKED_AT: Final = 50_000


class LoggedEvent(NamedTuple):
    """Something an operator may want to know of; ``route`` is None when it concerns all.

    ``more`` is JSON, a table: what only some kinds say.
    """

    at_ms: int
    kind: str
    route: str | None
    detail: str
    more: str | None = None

    @property
    def shown(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        shown = {"at_ms": self.at_ms, "kind": self.kind, "route": self.route, "detail": self.detail}
        return shown if self.more is None else shown | orjson.loads(self.more)


async def read_definitions(connection: AsyncConnection, routes: Collection[str] | None = None) -> Definitions:
    """Return every definition that there ever was, of these routes or of all."""
    found = []
    query, among = select(definitions), sql.among(connection.dialect.name, Text())
    if routes is not None:
        query = query.where(definitions.c.route.in_(among))
    parameters = {} if routes is None else sql.as_values(routes)
    for route, name, since_ms, _, body, closed_until in await connection.execute(query, parameters):
        content = None if body is None else orjson.loads(body)
        key_rule: KeyRule = "latest" if content is None else content.pop("key_rule")
        metric = None if content is None else _metric(content)
        found.append(Definition(route, name, since_ms, metric, closed_until, key_rule=key_rule))
    return Definitions(found)


async def write_definition(connection: AsyncConnection, definition: Definition) -> None:
    """Store a new definition."""
    metric = definition.metric
    body = None if metric is None else orjson.dumps(asdict(metric) | {"key_rule": definition.key_rule}).decode()
    name = "" if metric is None else metric.definition
    row = (definition.route, definition.name, definition.since_ms, name, body, definition.closed_until)
    await sql.upsert(connection, definitions, [row])


async def close_definition(connection: AsyncConnection, definition: Definition, until_ms: int) -> None:
    """Store that the windows of predictions made before ``until_ms`` have closed."""
    place = (
        definitions.c.route == bindparam("b_route"),
        definitions.c.metric == bindparam("b_metric"),
        definitions.c.since_ms == bindparam("b_since_ms"),
    )
    values = {"b_route": definition.route, "b_metric": definition.name, "b_since_ms": definition.since_ms}
    query = update(definitions).where(*place).values(closed_until=bindparam("b_until"))
    await connection.execute(query, {**values, "b_until": until_ms})


async def write_plans(connection: AsyncConnection, routes: Iterable[Route], now_ms: int) -> list[Route]:
    """Store the plans and epochs that are new, and return the routes whose epoch is.

    Of an epoch its last set of variants is kept.
    """
    chosen = list(routes)
    if not chosen:
        return []
    wanted = sql.listed(connection.dialect.name, Text(), Text())
    query = select(epochs).join(wanted, (epochs.c.route == wanted.c.c0) & (epochs.c.epoch == wanted.c.c1))
    places = sql.as_list([(route.name, route.epoch) for route in chosen])
    known = {(row[0], row[1]): tuple(row) for row in await connection.execute(query, places)}
    fresh = [route for route in chosen if (route.name, route.epoch) not in known]
    await sql.ensure(connection, epochs, [(route.name, route.epoch, now_ms, _epoch(route)) for route in fresh])
    of_now = [(*row[:3], _epoch(route)) for route in chosen if (row := known.get((route.name, route.epoch)))]
    await sql.upsert(connection, epochs, [row for row in of_now if row != known[row[0], row[1]]])
    await sql.ensure(connection, plans, [_plan(route, now_ms) for route in chosen])
    await sql.ensure(connection, assignments, [(one.name, one.epoch, one.assigned) for one in chosen if one.assigned])
    await note_moved(connection, [route.name for route in chosen])  # what was given under them has its shares now
    return fresh


async def epochs_of(connection: AsyncConnection, route: str, limit: int) -> list[dict[str, Any]]:
    """Return a route's epochs as plain JSON values, the one that began last first; ``last_ms`` as of ``Epoch``."""
    query = (
        select(epochs.c.epoch, epochs.c.began_ms, newest_calls.c.at_ms, epochs.c.body)
        .outerjoin(newest_calls, (newest_calls.c.route == epochs.c.route) & (newest_calls.c.epoch == epochs.c.epoch))
        .where(epochs.c.route == bindparam("route"))
        .order_by(epochs.c.began_ms.desc(), epochs.c.epoch)
        .limit(bindparam("limit"))
    )
    found = []
    for epoch, began_ms, last_ms, body in await connection.execute(query, {"route": route, "limit": limit}):
        said = orjson.loads(body)
        what = {name: said[name] for name in ("policy", "variants", "unit")}
        found.append({"epoch": epoch, "began_ms": began_ms, "last_ms": last_ms, **what})
    return found


async def epoch_of(connection: AsyncConnection, route: str, epoch: str) -> Epoch | None:
    """Return what a route was in an epoch; None where it had no such, or its plans are gone."""
    place = {"route": route, "epoch": epoch}
    begun = (await connection.execute(_EPOCH, place)).first()
    last = await history.last_of(connection, route, epoch)
    if begun is None or last is None:
        return None
    said = orjson.loads(begun.body)
    known = await read_definitions(connection, [route])
    until_ms = begun.began_ms if begun.last_ms is None else begun.last_ms
    judged = (known.at(route, name, until_ms) for name in known.names(route) if name != EXPOSED)
    return Epoch(
        route=route,
        epoch=epoch,
        began_ms=begun.began_ms,
        last_ms=begun.last_ms,
        policy=said["policy"],
        variants=tuple(said["variants"]),
        unit=said["unit"],
        by_unit=said["by_unit"],
        prediction=said["prediction"],
        revision=last.revision,
        plan=decode_plan(orjson.loads(last.plan)),
        metrics=tuple(one.metric for one in judged if one is not None and one.metric is not None),
    )


_EPOCH: Final = (
    select(epochs.c.began_ms, epochs.c.body, newest_calls.c.at_ms.label("last_ms"))
    .outerjoin(newest_calls, (newest_calls.c.route == epochs.c.route) & (newest_calls.c.epoch == epochs.c.epoch))
    .where(epochs.c.route == bindparam("route"), epochs.c.epoch == bindparam("epoch"))
)


async def taken(connection: AsyncConnection, routes: Iterable[Route]) -> set[str]:
    """Return the routes whose revision is stored already, and is another plan."""
    mine = {(route.name, route.revision): _plan(route, 0) for route in routes}
    stored = await history.find(connection, mine.keys())
    return {
        place[0]
        for place, row in stored.items()
        if (row.epoch, row.period, row.plan) != (mine[place][2], mine[place][3], mine[place][5])
    }


async def newest_revision(connection: AsyncConnection) -> int:
    """Return the highest plan revision ever stored, 0 if none."""
    return (await connection.execute(select(func.max(plans.c.revision)))).scalar() or 0


async def plans_of(connection: AsyncConnection, route: str, limit: int) -> list[dict[str, Any]]:
    """Return a route's plans, the newest first."""
    query = (
        select(plans)
        .where(plans.c.route == bindparam("route"))
        .order_by(plans.c.revision.desc())
        .limit(bindparam("limit"))
    )
    return [
        {
            "revision": revision,
            "epoch": epoch,
            "period": period,
            "at_ms": at_ms,
            "plan": orjson.loads(plan),
            "shares": orjson.loads(shares),
        }
        for _, revision, epoch, period, at_ms, plan, shares in await connection.execute(
            query, {"route": route, "limit": limit}
        )
    ]


async def write_events(connection: AsyncConnection, rows: Iterable[LoggedEvent]) -> None:
    await sql.insert(connection, events, [tuple(one) for one in rows])


async def recalled(connection: AsyncConnection, limit: int) -> list[LoggedEvent]:
    """Return what people did last, and what else happened last, so much of each, the newest first.

    An earlier version stored what is folded now, a row each time: there may be too many of those to read.
    """
    newest = (await connection.execute(select(func.max(events.c.seq)))).scalar() or 0
    recent = select(*(events.c[name] for name in LoggedEvent._fields), events.c.seq).where(
        events.c.seq > newest - LOOKED_AT
    )
    found = list[Any]()
    for these in (events.c.kind.in_(ACTS), events.c.kind.not_in(ACTS | FOLDED)):
        found += (await connection.execute(recent.where(these).order_by(events.c.seq.desc()).limit(limit))).all()
    return [LoggedEvent(*row[:-1]) for row in sorted(found, key=lambda row: -row[-1])]


async def events_of(connection: AsyncConnection, limit: int) -> list[LoggedEvent]:
    """Return what happened last, the newest first."""
    query = select(*(events.c[name] for name in LoggedEvent._fields)).order_by(events.c.seq.desc()).limit(limit)
    return [LoggedEvent(*row) for row in await connection.execute(query)]


def _metric(value: dict[str, Any]) -> Metric:
    if value["range"] is not None:
        value["range"] = tuple(value["range"])
    return Metric(**value)


def _epoch(route: Route) -> str:
    body = {
        "policy": route.policy,
        "variants": route.variants,
        "unit": route.unit,
        "by_unit": route.by_unit,
        "prediction": route.prediction,
    }
    return orjson.dumps(body).decode()


def _plan(route: Route, now_ms: int) -> tuple[Any, ...]:
    plan, shares = orjson.dumps(encode_plan(route.plan)).decode(), orjson.dumps(dict(route.plan.shares)).decode()
    return (route.name, route.revision, route.epoch, route.period, now_ms, plan, shares)
