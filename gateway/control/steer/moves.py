"""Moves of routes as they are stored: where each stands now, what happened, and who is told.

Rule: one transaction, fenced: standing, log of events, events for sinks, audit log. It is of the standing that is
stored: of two who move a route at once, the second is told that it moved. What is published follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.record.transaction import queue_events
from gateway.store import LoggedEvent, Store
from gateway.store.audit import Entry, append
from gateway.store.counts.plans import write_events
from gateway.store.rows.recorded import Announced, Recorded
from gateway.store.standings import read_standing, write_standings
from policies.rollouts.standing import Moved, encode_standing
from router.snapshot import Sink

#: How the controller is named in logs, where it acts by itself.
BY_ITSELF: Final = "turnout"

#: Kinds of the log of events: what a route did by itself or by an edit, and what a person did.
ROLLOUT: Final = "rollout"
ACT: Final = "act"


class Told(NamedTuple):
    """What happened to a route, with the number of its standing after that; ``via`` is how it was asked for."""

    route: str
    number: int
    event: Mapping[str, Any]
    via: str

    @property
    def by_hand(self) -> bool:
        return bool(self.event["cause"] == "act")


class MovedMeanwhile(Exception):
    """The route's standing is not the one that a move is of: another moved it meanwhile."""

    def __init__(self, route: str, number: int) -> None:
        super().__init__(f"route {route} moved meanwhile: its standing has number {number} now")
        self.route = route


async def store_moves(
    store: Store, moves: Mapping[str, Moved], sinks: Mapping[str, Sink], at_ms: int, via: str
) -> list[LoggedEvent]:
    """Store moves by route, and return their events as they are logged. Raises MovedMeanwhile, and what the store does.

    When it raises, nothing moved.
    """
    told = list(_told(moves, via))
    logged = [_logged(one) for one in told]
    async with store.change() as connection:
        await _check(connection, moves)
        await write_standings(
            connection, "route", {name: encode_standing(moved.standing) for name, moved in moves.items()}, at_ms
        )
        await write_events(connection, logged)
        await queue_events(connection, Recorded(announced=[_announced(one) for one in told]), sinks)
        for one in told:  # last: it locks the head of the chain
            await append(connection, _entry(one), at_ms)
    return logged


async def _check(connection: AsyncConnection, moves: Mapping[str, Moved]) -> None:
    for route, moved in moves.items():
        stored = await read_standing(connection, "route", route)
        number = 0 if stored is None else stored.body.get("number", 0)
        if number != moved.standing.number - len(moved.events):
            raise MovedMeanwhile(route, number)


def _told(moves: Mapping[str, Moved], via: str) -> Iterator[Told]:
    for route, moved in moves.items():
        first = moved.standing.number - len(moved.events)
        for index, event in enumerate(moved.events, 1):
            yield Told(route, first + index, event, via)


def _logged(one: Told) -> LoggedEvent:
    event, by_hand = one.event, one.by_hand
    more = {"change": event["kind"], "number": one.number, "variant": event.get("variant"), "move": event}
    if by_hand:
        more |= {"author": event.get("who"), "via": one.via}
    kept = {name: value for name, value in more.items() if value is not None}
    return LoggedEvent(
        event["at_ms"], ACT if by_hand else ROLLOUT, one.route, event["why"], orjson.dumps(kept).decode()
    )


def _announced(one: Told) -> Announced:
    """Return the event for sinks; its id is that of the change, however often it is told."""
    event, at_ms = one.event, one.event["at_ms"]
    data = {"number": one.number, "change": event["kind"], "sentence": event["why"], **event}
    data |= {"via": one.via} if one.by_hand else {}
    return Announced(ACT if one.by_hand else ROLLOUT, at_ms, f"{one.route}.{one.number}.{at_ms}", one.route, data)


def _entry(one: Told) -> Entry:
    event = one.event
    return Entry(
        who=event.get("who", BY_ITSELF) if one.by_hand else BY_ITSELF,
        via=one.via if one.by_hand else "controller",
        act=event.get("verb", event["kind"]),
        route=one.route,
        changed=event["why"],
        why=event.get("reason"),
        body=event,
    )
