"""Named tokens: made and revoked at any node, in force at every node within a second, with the time of their last use.

Rule: the store decides. What is valid goes into the snapshot, where guard and workers find it, also while the store is
away. Nobody waits for the times of use, and one that is lost does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from gateway.control.acts import Act
from gateway.control.datagrams import WorkerReports
from gateway.control.event_log import EventLog, now_ms
from gateway.control.opened import Opened
from gateway.control.plan.in_force import InForce
from gateway.control.record.transaction import announce_entry
from gateway.proxy.log.worker_series import FEEDBACK_TOKEN_USES
from gateway.store import Store, StoreError, reason, tokens
from gateway.store.audit import Entry
from gateway.store.tokens import MadeToken, StoredToken

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5
#: How often times of use are stored.
USED_SECONDS: Final = 30.0


class Tokens:
    """What the admin port asks about tokens, and the loop that puts them in force.

    Every question raises StoreError while the store is not open.
    """

    def __init__(self, in_force: InForce, workers: WorkerReports, event_log: EventLog) -> None:
        self.opened: Opened | None = None
        self._in_force = in_force
        self._workers = workers
        self._event_log = event_log
        self._used_ms: dict[str, int] = {}
        self._stored_ms: dict[str, int] = {}
        self._counted: dict[tuple[str, str], float] = {}
        self._due = monotonic() + USED_SECONDS

    async def create(self, name: str, scope: str, expires_ms: int | None, act: Act) -> MadeToken:
        """Make a token and put it in force. Raises TokenRefused, and what the store raises."""
        who = act.who or act.author or "unknown"
        entry = Entry(who=who, via=act.via, act="token_created", changed=f'token "{name}" of scope {scope}')
        async with self._store.begin() as connection:
            await announce_entry(connection, entry, self._in_force.snapshot.sinks, now_ms())
            made = await tokens.create(
                connection, name=name, scope=scope, expires_ms=expires_ms, who=who, via=act.via, now_ms=now_ms()
            )
        self._event_log.note("token_created", None, f"{made.row.name}, scope {scope}", via=act.via, author=act.author)
        await self.take()
        return made

    async def revoke(self, name: str, act: Act) -> StoredToken:
        """Revoke a token everywhere. Raises TokenRefused, and what the store raises."""
        who = act.who or act.author or "unknown"
        entry = Entry(who=who, via=act.via, act="token_revoked", changed=f'token "{name}"')
        async with self._store.begin() as connection:
            await announce_entry(connection, entry, self._in_force.snapshot.sinks, now_ms())
            revoked = await tokens.revoke(connection, name, who=who, via=act.via, now_ms=now_ms())
        self._event_log.note("token_revoked", None, name, via=act.via, author=act.author)
        await self.take()
        return revoked

    async def listed(self) -> list[StoredToken]:
        """Return every token, the newest first. Raises what the store raises."""
        async with self._store.read() as connection:
            return await tokens.listed(connection)

    def note_used(self, name: str, at_ms: int) -> None:
        """Called with each request that comes with a token."""
        self._used_ms[name] = max(at_ms, self._used_ms.get(name, 0))

    async def take(self) -> None:
        """Put in force what the store has. Raises what the store raises, and OSError."""
        if self.opened is not None:
            await self._in_force.take_tokens(self.opened.store)

    async def keep(self) -> None:
        """Put in force what other nodes and commands change, and store when tokens were used, for ever."""
        failing = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.take()
                if monotonic() > self._due:
                    self._due = monotonic() + USED_SECONDS
                    await self.save_used()
                failing = False
            except Exception as error:
                if not failing:
                    logger.warning("tokens stay as they are for now: %s", reason(error))
                failing = True

    async def save_used(self) -> None:
        """Store in which minute tokens were used, where that is news. Raises what the store raises."""
        for datagram in self._workers.newest.values():
            self._count(datagram)
        used = {name: at_ms - at_ms % tokens.MINUTE_MS for name, at_ms in self._used_ms.items()}
        news = {name: at_ms for name, at_ms in used.items() if at_ms > self._stored_ms.get(name, -1)}
        if news and self.opened is not None:
            async with self.opened.store.begin() as connection:
                await tokens.note_used(connection, news)
            self._stored_ms |= news
        known = {one.name for one in self._in_force.snapshot.tokens}
        self._used_ms = {name: at_ms for name, at_ms in self._used_ms.items() if name in known}
        self._stored_ms = {name: at_ms for name, at_ms in self._stored_ms.items() if name in known}

    def _count(self, datagram: Mapping[str, Any]) -> None:
        """Note the tokens whose count in a worker's report has grown. A report may be malformed."""
        try:
            writer, at_ms = str(datagram["writer"]), int(datagram["at_ms"])
            for series, labels, number in datagram["counters"]:
                if series == FEEDBACK_TOKEN_USES.name:
                    place = writer, str(labels["token"])
                    if number > self._counted.get(place, 0):
                        self.note_used(place[1], at_ms)
                    self._counted[place] = number
        except (KeyError, TypeError, ValueError):
            logger.debug("a worker's report cannot be read")
        if len(self._counted) > 16 * tokens.MOST:
            self._counted.clear()

    @property
    def _store(self) -> Store:
        if self.opened is None:
            raise StoreError("the store is not open yet")
        return self.opened.store
