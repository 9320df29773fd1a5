"""Fill slots: a version that comes from outside is stored, laid over the file at every node, and shown.

Rule: whoever fills a slot says a version; where it is served, the file says. What was filled is stored with its entry
of the audit log in one transaction. Of two messages of a registry the later by its own clock wins, so that one which is
late, or sent again by somebody who overheard it, changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from gateway import nearest
from gateway.control.event_log import EventLog, now_ms
from gateway.control.opened import Opened
from gateway.control.plan.in_force import InForce
from gateway.control.record.transaction import announce_entry
from gateway.store import StoreError, audit, reason
from gateway.store.audit import Entry
from gateway.store.standings import Stood, read_standing, read_standings, write_standings
from router.config.config import said_of
from router.settings.slots import Filled, url_of
from router.snapshot import Backend

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5


class SlotRefused(ValueError):
    """A version cannot be put into a slot; the message says why, and ``status`` is the HTTP status that fits."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


class Filling(NamedTuple):
    """A version for a backend: who says so, how, and when by the registry's clock (None: now)."""

    backend: str
    version: str
    who: str
    via: str
    why: str | None = None
    event_ms: int | None = None


class SlotResult(NamedTuple):
    """What came of it: whether the version was put in, in words, and the routes that it is about."""

    backend: str
    version: str
    applied: bool
    why: str
    routes: tuple[str, ...] = ()


class VersionSlots:
    """Fills slots, and has every node take over what is filled."""

    def __init__(self, in_force: InForce, event_log: EventLog) -> None:
        self.opened: Opened | None = None
        self._in_force = in_force
        self._event_log = event_log

    async def fill(self, filling: Filling) -> SlotResult:
        """Put a version into a slot. Raises SlotRefused, StoreError, and what the store raises."""
        if self.opened is None:
            raise StoreError("the store is not open yet")
        snapshot = self._in_force.snapshot
        backend = snapshot.backends.get(filling.backend)
        if backend is None:
            raise SlotRefused(nearest.unknown("backend", filling.backend, snapshot.backends), 404)
        url = _url(backend, filling.version)
        routes = tuple(
            name
            for name, route in snapshot.routes.items()
            if filling.backend in {*route.variants, *(mirror.variant for mirror in route.mirrors)}
        )
        result = SlotResult(filling.backend, filling.version, False, "", routes)
        if backend.version == filling.version and backend.urls == (url,):
            return result._replace(why=f"{filling.backend} has version {filling.version} already")
        at_ms = now_ms()
        laid = snapshot.slots.get(filling.backend)
        over = said_of(backend) if laid is None else laid.over
        async with self.opened.store.begin() as connection:
            stood = await read_standing(connection, "slot", filling.backend)
            if filling.event_ms is not None and filling.event_ms <= _event_ms(stood):
                return result._replace(why="a later message, or this one, came before")
            body = {
                "version": filling.version,
                "over": over,
                "who": audit.cleaned(filling.who),
                "at_ms": at_ms,
                "event_ms": filling.event_ms or at_ms,
            }
            await write_standings(connection, "slot", {filling.backend: body}, at_ms)
            changed = f"{filling.backend}: version {backend.version} -> {filling.version}, at {url}"
            told = {"backend": filling.backend, "from": backend.version, "to": filling.version, "routes": list(routes)}
            entry = Entry(
                who=filling.who, via=filling.via, act="slot_filled", changed=changed, why=filling.why, body=told
            )
            await announce_entry(connection, entry, snapshot.sinks, at_ms)
            await audit.append(connection, entry, at_ms)
        self._event_log.note("slot_filled", None, changed, via=filling.via, author=filling.who)
        await self.take()
        return result._replace(applied=True, why=f"{changed}; a rollout of it begins at its first step")

    async def take(self) -> None:
        """Put in force what the store has. Raises what the store raises, and OSError."""
        if self.opened is None:
            return
        async with self.opened.store.read() as connection:
            stored = await read_standings(connection, "slot")
        await self._in_force.take_slots({name: one for name, body in stored.items() if (one := _filled(name, body))})

    async def keep(self) -> None:
        """Put in force what other nodes fill, for ever."""
        failing = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.take()
                failing = False
            except Exception as error:
                if not failing:
                    logger.warning("slots stay as they are for now: %s", reason(error))
                failing = True


def _url(backend: Backend, version: str) -> str:
    if backend.slot is None:
        raise SlotRefused(f"backends.{backend.name} has no slot: its version is what the file says")
    try:
        return url_of(backend.slot, backend.slot.model or backend.model, version)
    except ValueError as error:
        raise SlotRefused(f"backends.{backend.name}.slot: {error}") from None


def _event_ms(stood: Stood | None) -> int:
    found: Any = None if stood is None else stood.body.get("event_ms")
    return found if isinstance(found, int) else -1


def _filled(name: str, stood: Stood) -> Filled | None:
    body: Mapping[str, Any] = stood.body
    try:
        return Filled(
            version=str(body["version"]), over=str(body["over"]), who=str(body["who"]), at_ms=int(body["at_ms"])
        )
    except (KeyError, TypeError, ValueError):
        logger.error("the slot of backend %s cannot be read, and is as if it was never filled", name)
        return None
