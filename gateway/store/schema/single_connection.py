"""One connection to the database, used by one transaction at a time, and returned without locks or open statements.

Rule: when a caller is cancelled, its statement is ended in the database before CancelledError reaches the caller. A
statement that was only abandoned would leave the connection holding the transaction's locks: with SQLite, nothing could
be recorded any more. So each statement runs in a task of its own; cancelling the caller interrupts the statement and
waits for its end.
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
TURN_SECONDS: Final = 30.0
#: How long closing waits for the transaction that is under way.
CLOSE_SECONDS: Final = 5.0
#: Time between two interrupts: one that comes before the database's thread has begun the statement has no effect.
INTERRUPT_AGAIN_SECONDS: Final = 0.05
#: How long a server may take to end an interrupted statement; then the connection is closed. SQLite has no such limit:
#: its thread would keep running the statement, and hold its locks.
GIVE_UP_SECONDS: Final = 2.0


class CancelSafeConnection(AsyncConnection):
    """A connection whose statements always end in the database, even when their caller is cancelled."""

    __slots__ = ()

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        return await self.run_to_end(super().execute(*arguments, **options))

    async def exec_driver_sql(self, *arguments: Any, **options: Any) -> Any:
        return await self.run_to_end(super().exec_driver_sql(*arguments, **options))

    async def run_sync(self, *arguments: Any, **options: Any) -> Any:
        return await self.run_to_end(super().run_sync(*arguments, **options))

    async def commit(self) -> None:
        await self.run_to_end(super().commit(), interrupting=False)

    async def rollback(self) -> None:
        await self.run_to_end(super().rollback(), interrupting=False)

    async def close(self) -> None:
        await self.run_to_end(super().close(), interrupting=False)

    async def run_to_end(self, work: Coroutine[Any, Any, T], *, interrupting: bool = True) -> T:
        """Run ``work``, which uses this connection, to its end, and return its result.

        A caller that is cancelled gets CancelledError only after the end of ``work``.
        """
        task = asyncio.ensure_future(work)
        cancelled: asyncio.CancelledError | None = None
        since = asyncio.get_running_loop().time()
        while not task.done():
            try:
                if cancelled is not None and interrupting:
                    await self._interrupt()
                    if self._gives_up(since):
                        task.cancel()
                await asyncio.wait((task,), timeout=None if cancelled is None else INTERRUPT_AGAIN_SECONDS)
            except asyncio.CancelledError as error:
                if cancelled is None:
                    cancelled, since = error, asyncio.get_running_loop().time()
        if cancelled is None:
            return task.result()
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it as lost
        raise cancelled

    async def _interrupt(self) -> None:
        """Ask the database to end the running statement, if there is one."""
        with contextlib.suppress(Exception):  # there is no connection yet, or it is closed
            if self.sync_connection is None:
                return
            driver: Any = self.sync_connection.connection.driver_connection
            if self.engine.dialect.name == "sqlite":
                await driver.interrupt()
            else:
                await driver.cancel_safe(timeout=GIVE_UP_SECONDS)

    def _gives_up(self, since: float) -> bool:
        return self.engine.dialect.name != "sqlite" and asyncio.get_running_loop().time() - since > GIVE_UP_SECONDS


class SingleConnection:
    """An engine's only connection, given to one transaction at a time, in the order in which they asked for it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()
        self._closed = False

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Reserve the connection, without a transaction.

        Raises TimeoutError after ``TURN_SECONDS``, and ConnectionError once it is closed.
        """
        async with asyncio.timeout(TURN_SECONDS):
            await self._turn.acquire()
        try:
            if self._closed:
                raise ConnectionError("the store is closed")
            yield
        finally:
            self._turn.release()

    async def close(self) -> None:
        """Close the connection once its transaction is over, or after ``CLOSE_SECONDS``; a later caller gets an error.

        A driver that is closed in the midst of a statement may never answer the caller of that statement.
        """
        self._closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS), self._turn:
                pass
        await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[CancelSafeConnection]:
        """Give the connection without a transaction, to a caller that is inside ``turn``."""
        connection = CancelSafeConnection(self._engine)
        try:
            await connection.run_to_end(connection.start(), interrupting=self._engine.dialect.name != "sqlite")
            yield connection
        finally:
            if connection.sync_connection is not None:
                await connection.close()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Give the connection in a transaction, to a caller that is inside ``turn``: any exception rolls it back."""
        async with self.connection() as connection:
            await connection.run_sync(Connection.begin)
            try:
                yield connection
                await connection.commit()
            except BaseException:
                with contextlib.suppress(Exception):  # then closing discards the connection
                    await connection.rollback()
                raise
