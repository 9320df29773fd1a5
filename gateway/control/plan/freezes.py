"""What is frozen: the acts of this node's file and those in the store, each as the other has it.

Rule: workers obey the file, which an act changes first, so that it is in force though the store is out of reach. The
store is what the nodes of a fleet have in common: an act that is in a file alone is recorded there, at its time by the
store's clock, and each node copies the later act about each route into its file. An act that another one overtook is
recorded too, as what it was. Any node may record an act: of a freeze it does not matter who holds the lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.event_log import EventLog, now_ms
from gateway.control.opened import Opened
from gateway.control.record.transaction import queue_events
from gateway.control.steer.moves import ACT
from gateway.files.overrides import OVERRIDES, Override, Overrides, OverridesFile, act, change, frozen, later, override
from gateway.store import LoggedEvent, reason
from gateway.store.audit import Entry, append
from gateway.store.counts.plans import write_events
from gateway.store.fleet.lease import NOW_MS
from gateway.store.rows.recorded import Announced, Recorded
from gateway.store.standings import lock_standings, read_standings, write_standings
from router.snapshot import Snapshot

logger = logging.getLogger(__name__)

#: How often the file and the store are looked at: with the workers' own poll an act is in force everywhere within two
#: seconds.
STEP_SECONDS: Final = 0.25
#: An act waits so long until it is recorded: it is in force before, and recorded later where the store is slow.
RECORD_SECONDS: Final = 2.0

FREEZE, UNFREEZE = "freeze", "unfreeze"


class _Settled(NamedTuple):
    """The acts that stand in the store, and those of this node's file that were recorded: they stand, or not."""

    stored: Overrides
    recorded: Mapping[str, tuple[Override, bool]]


class Freezes:
    """The freezes of one node. ``opened`` and ``snapshot`` return what there is now."""

    def __init__(
        self,
        data_dir: Path,
        event_log: EventLog,
        opened: Callable[[], Opened | None],
        snapshot: Callable[[], Snapshot],
    ) -> None:
        self._data_dir = data_dir
        self._event_log = event_log
        self._opened = opened
        self._snapshot = snapshot
        self._file = OverridesFile(data_dir)
        self._turn = asyncio.Lock()
        self._of: Opened | None = None  # the store that was read, where no other node writes it
        self._damaged = ""
        self._ignored: frozenset[str] = frozenset()
        #: The last act about each route.
        self.acts: Overrides = {}
        self._read_file()

    @property
    def frozen(self) -> Mapping[str, str]:
        """The variant of each route that is frozen."""
        return frozen(self.acts)

    @property
    def acted_ms(self) -> Mapping[str, int]:
        """When each route was last frozen or unfrozen, as it is recorded: a period begins then."""
        return {name: one.at_ms for name, one in self.acts.items() if one.recorded}

    async def act(self, variants: Mapping[str, str | None], **of: str) -> bool:
        """Freeze each route to its variant (None: unfreeze it); return whether the store has it, too.

        ``of`` are who, why and via. Raises OSError if the file cannot be written: then nothing changed.
        """
        # Before it is this one's turn: a step that waits for a store that hangs must not delay it.
        self.acts = await asyncio.to_thread(act, self._data_dir, variants, **of)
        try:
            async with asyncio.timeout(RECORD_SECONDS), self._turn:
                self._read_file()
                await self._settle()
        except Exception as error:
            logger.warning("a freeze is in force and not recorded yet: %s", reason(error))
        return all(name in self.acts and self.acts[name].recorded for name in variants)

    async def step(self) -> None:
        """Record what was done in the file, and copy what was done elsewhere. Raises what the store raises, OSError."""
        async with self._turn:
            self._read_file()
            await self._settle()
            self._note_ignored()

    async def keep(self) -> None:
        """Step for ever."""
        noted = ""
        while True:
            try:
                await self.step()
                noted = ""
            except Exception as error:
                if str(error) != noted:
                    noted = str(error)
                    logger.warning("freezes are not recorded, those there are stay in force: %s", reason(error))
            await asyncio.sleep(STEP_SECONDS)

    def _read_file(self) -> None:
        """Take over what the file holds now. One that is damaged, or gone, is written anew by ``_settle``."""
        try:
            found = self._file.read()
        except (OSError, ValueError) as error:
            self._damaged = str(error)
            return
        if found is None:
            return
        if not found and self.frozen:
            self._damaged = f"{OVERRIDES} is gone"
            return
        self.acts = found

    async def _settle(self) -> None:
        opened, known = self._opened(), self.acts
        settled = None if opened is None else await self._settled(opened, known)
        if settled is None and not (self._damaged and known):
            return

        def changed(before: Overrides) -> Overrides:
            if settled is None:
                return {**known, **before}
            # What came into the file meanwhile is recorded next time.
            came = {name: one for name, one in before.items() if not one.recorded and one != known.get(name)}
            return {**settled.stored, **came}

        self.acts = await asyncio.to_thread(change, self._data_dir, changed)
        self._file.read()
        if self._damaged:
            self._event_log.note("overrides_mended", None, f"{self._damaged}; it is written anew, as it was known here")
            self._damaged = ""

    async def _settled(self, opened: Opened, known: Overrides) -> _Settled | None:
        """Record what of ``known`` only the file has; None if nothing is new in the store or in the file."""
        fresh = {name: one for name, one in known.items() if not one.recorded}
        if not fresh and self._of is opened and opened.member is None and not self._damaged:
            return None  # no other node writes this store
        async with opened.store.read() as connection:
            stored = await _stored(connection)
        fresh |= {name: one for name, one in known.items() if name not in stored}
        if not fresh:
            self._of = opened
            return None if stored == known and not self._damaged else _Settled(stored, {})
        settled, logged = await self._record(opened, fresh)
        self._of = opened
        self._event_log.show(logged)
        return settled

    async def _record(self, opened: Opened, fresh: Overrides) -> tuple[_Settled, list[LoggedEvent]]:
        """Store acts unless a later one is there, tell of them, and return what stands."""
        async with opened.store.begin() as connection:
            await lock_standings(connection, "override", fresh)
            stored, now, here = dict(await _stored(connection)), await _now(connection), now_ms()
            recorded: dict[str, tuple[Override, bool]] = {}
            for name, one in sorted(fresh.items()):
                if one.id and name in stored and stored[name].id == one.id:
                    continue  # its file was not written any more
                mine = one if one.recorded else replace(one, at_ms=now - max(0, here - one.at_ms), recorded=True)
                stands = later(stored.get(name), mine) is mine
                recorded[name] = mine, stands
                if stands:
                    stored[name] = mine
            won = {name: asdict(mine) for name, (mine, stands) in recorded.items() if stands}
            await write_standings(connection, "override", won, now)
            logged = [_event(name, mine, stored[name]) for name, (mine, _) in recorded.items()]
            await write_events(connection, logged)
            announced = [_announced(name, mine, stored[name]) for name, (mine, _) in recorded.items()]
            await queue_events(connection, Recorded(announced=announced), self._snapshot().sinks)
            for name, (mine, _) in recorded.items():  # last: it locks the head of the chain
                await append(connection, _entry(name, mine, stored[name]), here)
        return _Settled(stored, recorded), logged

    def _note_ignored(self) -> None:
        """Say once what is frozen and not there: a route or variant that the file of the gateway has no more."""
        routes = self._snapshot().routes
        ignored = frozenset(
            name for name, to in self.frozen.items() if name not in routes or to not in routes[name].variants
        )
        for name in sorted(ignored - self._ignored):
            said = f"is frozen to {self.frozen[name]}, which is not there: the freeze changes nothing until it is"
            self._event_log.note("override_ignored", name, said)
        self._ignored = ignored


def shown(name: str, one: Override) -> str:
    """Say what an act did."""
    return f"{name} is frozen to {one.to}" if one.to is not None else f"{name} is not frozen any more"


async def _stored(connection: AsyncConnection) -> Overrides:
    found = {}
    for name, stood in (await read_standings(connection, "override")).items():
        try:
            found[name] = replace(override(stood.body, name), recorded=True)
        except ValueError:  # a row that was locked before it was first written, or a newer program's
            continue
    return found


async def _now(connection: AsyncConnection) -> int:
    """Return the store's clock: of a fleet the database's, else this machine's."""
    if connection.dialect.name != "postgresql":
        return now_ms()
    found: int = (await connection.execute(select(NOW_MS))).scalar_one()
    return found


def _told(name: str, mine: Override, stands: Override) -> str:
    if mine == stands:
        return shown(name, mine)
    return f"{shown(name, mine)}, was said, and overtaken by a later act of {stands.who or '-'}: {shown(name, stands)}"


def _event(name: str, mine: Override, stands: Override) -> LoggedEvent:
    more: dict[str, Any] = {
        "change": UNFREEZE if mine.to is None else FREEZE,
        "variant": mine.to,
        "author": mine.who,
        "via": mine.via,
        "why": mine.why or None,
        "overtaken": None if mine == stands else True,
    }
    kept = {key: value for key, value in more.items() if value is not None}
    return LoggedEvent(mine.at_ms, ACT, name, _told(name, mine, stands), orjson.dumps(kept).decode())


def _announced(name: str, mine: Override, stands: Override) -> Announced:
    data = {"change": UNFREEZE if mine.to is None else FREEZE, "sentence": _told(name, mine, stands), **asdict(mine)}
    return Announced(ACT, mine.at_ms, f"{name}.{mine.id or mine.at_ms}", name, data)


def _entry(name: str, mine: Override, stands: Override) -> Entry:
    return Entry(
        who=mine.who,
        via=mine.via,
        act=UNFREEZE if mine.to is None else FREEZE,
        route=name,
        changed=_told(name, mine, stands),
        why=mine.why or None,
        body=asdict(mine),
    )
