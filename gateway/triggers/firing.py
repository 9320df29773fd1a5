"""Where triggers stand in the store, and what is stored when one fires.

Rule: one transaction, fenced: the standing, the log of events, the events for sinks, the audit log. It is of the
standing that it was read as: who comes second changes nothing, so a trigger fires once. A request to fire is a row
beside the standings that any node may write; it goes in the transaction that answers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.event_log import now_ms
from gateway.control.record.transaction import queue_events
from gateway.control.steer.moves import BY_ITSELF
from gateway.store import LoggedEvent, Store
from gateway.store.audit import Entry, append
from gateway.store.counts.plans import write_events
from gateway.store.rows.recorded import Announced, Recorded
from gateway.store.standings import forget_standings, read_standing, read_standings, write_standings
from router.settings.trigger import Trigger
from router.snapshot import Sink
from router.triggers.advance import AskedToFire, TriggerAdvanced, TriggerStanding, standing_of

#: The kind in the log of events, and of the audit log.
FIRED: Final = "trigger"
#: What the name of a row begins with that is a request: no trigger's name does.
_ASKED: Final = "asked:"


class TriggersStored(NamedTuple):
    """What is stored of triggers, by name: where each stands, and which were asked to fire."""

    standings: Mapping[str, TriggerStanding]
    asked: Mapping[str, AskedToFire]


async def read_triggers(store: Store) -> TriggersStored:
    """Return what is stored of all triggers."""
    async with store.read() as connection:
        rows = await read_standings(connection, "trigger")
    standings = {name: standing_of(one.body) for name, one in rows.items() if not name.startswith(_ASKED)}
    asked = {
        name.removeprefix(_ASKED): AskedToFire(str(one.body.get("who", "")), str(one.body.get("why", "")))
        for name, one in rows.items()
        if name.startswith(_ASKED)
    }
    return TriggersStored(standings, asked)


async def ask_to_fire(store: Store, name: str, asked: AskedToFire) -> None:
    """Have a trigger fire when the holder of the lease looks at it next."""
    async with store.begin() as connection:
        await write_standings(connection, "trigger", {f"{_ASKED}{name}": asked._asdict()}, now_ms())


async def store_advance(
    store: Store,
    trigger: Trigger,
    before: TriggerStanding | None,
    advanced: TriggerAdvanced,
    sinks: Mapping[str, Sink],
    asked: AskedToFire | None,
) -> list[LoggedEvent]:
    """Store where a trigger stands and, if it fired, all that belongs to it; return what is to be shown of that.

    Nothing is stored if it stands otherwise than ``before`` by now. Raises what the store raises.
    """
    event = advanced.event
    logged = [] if event is None else [_logged(trigger, event, asked)]
    async with store.change() as connection:
        if await _stands(connection, trigger.name) != before:
            return []
        await write_standings(connection, "trigger", {trigger.name: advanced.standing.stored}, now_ms())
        if asked is not None:
            await forget_standings(connection, "trigger", [f"{_ASKED}{trigger.name}"])
        if event is not None:
            await write_events(connection, logged)
            await queue_events(connection, Recorded(announced=[_announced(trigger, event)]), sinks)
            await append(connection, _entry(trigger, event, asked), now_ms())  # last: it locks the head of the chain
    return logged


async def _stands(connection: AsyncConnection, name: str) -> TriggerStanding | None:
    stored = await read_standing(connection, "trigger", name)
    return None if stored is None else standing_of(stored.body)


def _logged(trigger: Trigger, event: Mapping[str, Any], asked: AskedToFire | None) -> LoggedEvent:
    more = {"trigger": trigger.name, "firing": event, "variant": event["variant"]}
    more |= {} if asked is None else {"author": asked.who}
    detail = f"trigger {trigger.name} fired: {event['why']}"
    return LoggedEvent(event["at_ms"], FIRED, trigger.route, detail, orjson.dumps(more).decode())


def _announced(trigger: Trigger, event: Mapping[str, Any]) -> Announced:
    named = frozenset() if trigger.webhook is None else frozenset({trigger.webhook})
    id_, data = f"{trigger.name}.{event['number']}.{event['at_ms']}", {"sentence": event["why"], **event}
    return Announced("trigger", event["at_ms"], id_, trigger.route, data, named)


def _entry(trigger: Trigger, event: Mapping[str, Any], asked: AskedToFire | None) -> Entry:
    who, via = (BY_ITSELF, "controller") if asked is None else (asked.who, "api")
    why = None if asked is None else asked.why or None
    said = f"trigger {trigger.name} fired: {event['why']}"
    return Entry(who=who, via=via, act=FIRED, route=trigger.route, changed=said, why=why, body=event)
