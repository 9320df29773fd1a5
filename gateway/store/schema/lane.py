"""One connection to the database, for one transaction at a time, that every transaction gives back clean.

Rule: what was begun in the database is ended there before the caller hears that it was cancelled. A statement that is
dropped in its middle leaves its connection holding the transaction's locks: with SQLite nothing is recorded any more.
So each statement runs in a task of its own, and cancelling the caller interrupts the statement and waits for its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

T = TypeVar("T")

#: How long a transaction waits for its turn.
PATIENCE_SECONDS: Final = 30.0
#: Between two interrupts. One that comes before the database's thread has begun the statement has no effect.
AGAIN_SECONDS: Final = 0.05
#: How long a server may take to end what was interrupted; then its connection is closed. A file has no such limit:
#: its thread would go on with the locks it holds.
GIVE_UP_SECONDS: Final = 2.0


class Unbroken(AsyncConnection):
    """A connection whose statements end in the database, though their caller is cancelled."""

    __slots__ = ()

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        return await self.whole(super().execute(*arguments, **options))

    async def exec_driver_sql(self, *arguments: Any, **options: Any) -> Any:
        return await self.whole(super().exec_driver_sql(*arguments, **options))

    async def run_sync(self, *arguments: Any, **options: Any) -> Any:
        return await self.whole(super().run_sync(*arguments, **options))

    async def commit(self) -> None:
        await self.whole(super().commit(), interrupting=False)

    async def rollback(self) -> None:
        await self.whole(super().rollback(), interrupting=False)

    async def close(self) -> None:
        await self.whole(super().close(), interrupting=False)

    async def whole(self, work: Coroutine[Any, Any, T], *, interrupting: bool = True) -> T:
        """Run ``work``, which uses this connection, to its end. Raises what it raises, and CancelledError after it."""
        task = asyncio.ensure_future(work)
        cancelled: asyncio.CancelledError | None = None
        since = asyncio.get_running_loop().time()
        while not task.done():
            try:
                if cancelled is not None and interrupting:
                    await self._interrupt()
                    if self._gives_up(since):
                        task.cancel()
                await asyncio.wait((task,), timeout=None if cancelled is None else AGAIN_SECONDS)
            except asyncio.CancelledError as error:
                if cancelled is None:
                    cancelled, since = error, asyncio.get_running_loop().time()
        if cancelled is None:
            return task.result()
        if not task.cancelled():
            task.exception()  # nobody waits for it any more
        raise cancelled

    async def _interrupt(self) -> None:
        """Have the database end the statement that runs, if one does."""
        with contextlib.suppress(Exception):  # there is no connection yet, or it is gone
            if self.sync_connection is None:
                return
            driver: Any = self.sync_connection.connection.driver_connection
            if self.engine.dialect.name == "sqlite":
                await driver.interrupt()
            else:
                await driver.cancel_safe(timeout=GIVE_UP_SECONDS)

    def _gives_up(self, since: float) -> bool:
        return self.engine.dialect.name != "sqlite" and asyncio.get_running_loop().time() - since > GIVE_UP_SECONDS


class Lane:
    """Gives an engine's connection to one transaction at a time, in the order in which they asked."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the lane without a transaction. Raises TimeoutError after ``PATIENCE_SECONDS``."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Unbroken]:
        """Give the connection without a transaction, for a caller that holds the turn."""
        connection = Unbroken(self._engine)
        try:
            await connection.whole(connection.start(), interrupting=self._engine.dialect.name != "sqlite")
            yield connection
        finally:
            if connection.sync_connection is not None:
                await connection.close()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Give the connection, for a caller that holds the turn: committed at the end, undone by any exception."""
        async with self.connection() as connection:
            await connection.run_sync(Connection.begin)
            try:
                yield connection
                await connection.commit()
            except BaseException:
                with contextlib.suppress(Exception):  # then closing discards the connection
                    await connection.rollback()
                raise
