"""Keep the head of the audit log outside of the store, so that entries cannot be cut off its end unseen.

Rule: the file only moves on, and only while the log still contains what the file says; if not, it stays, and an event
says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.control.event_log import EventLog
from gateway.control.opened import Opened
from gateway.files.regular import replace_file
from gateway.store import audit
from gateway.store.audit import HEAD_FILE, Head, read_head

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 5.0


class AuditHead:
    """Copies the head into ``data_dir``. ``opened`` returns the open store, None while there is none."""

    def __init__(self, data_dir: Path, opened: Callable[[], Opened | None], event_log: EventLog) -> None:
        self._path = data_dir / HEAD_FILE
        self._opened = opened
        self._event_log = event_log
        self._kept: Head | None = None
        self._altered = False

    async def step(self) -> None:
        """Copy the head if the log has grown. Raises what the store raises, and OSError."""
        opened = self._opened()
        if opened is None:
            return
        kept = self._kept if self._kept is not None else await asyncio.to_thread(read_head, self._path)
        async with opened.store.read() as connection:
            head = await audit.head(connection)
            found = await audit.hash_of(connection, kept.number) if kept.number else ""
        if found != kept.hash:
            if not self._altered:
                said = f"entry {kept.number} is gone or another: turnout audit verify says more"
                self._event_log.note("audit_altered", None, said)
            self._altered = True
            return
        if head.number > kept.number:
            await opened.store.make_durable()  # or a loss of power could take back what the file names
            await asyncio.to_thread(replace_file, self._path, f"{head}\n".encode())
            kept = head
        self._kept, self._altered = kept, False

    async def keep(self) -> None:
        """Copy the head every few seconds, for ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.step()
            except Exception as error:
                logger.debug("the head of the audit log is not copied", exc_info=error)
