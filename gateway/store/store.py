"""The Store: opens the database, gives transactions, and answers the queries of reports and the API.

Rule: one connection writes and one reads, each for one transaction at a time (``single_connection``). Reading never
holds the lock that writing needs, and never changes the database, not even by a checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from gateway.files.regular import open_regular
from gateway.store import prediction_view
from gateway.store.counts import hours, plans, read_ledgers, tallies
from gateway.store.counts.ledger import Epoch, Ledger
from gateway.store.counts.plans import LoggedEvent
from gateway.store.counts.read_ledgers import LedgerVersions
from gateway.store.fleet.lease import LEASE_MS
from gateway.store.rows import set_aside_items
from gateway.store.schema import partitions
from gateway.store.schema.migrations import Migrated, NewerSchema, migrate
from gateway.store.schema.single_connection import SingleConnection

FILE: Final = "turnout.db"
CONNECT_SECONDS: Final = 10
#: How long a transaction that reads may take. SQLite cannot restart its WAL during one.
READ_SECONDS: Final = 10.0
#: While the WAL is longer than this, it is written into the database before another transaction begins to read.
WAL_BYTES: Final = 2**26

# WAL with synchronous=NORMAL loses no commit to kill -9, but a power cut may take the last ones back: whole
# transactions, so what is left is true. That is why nothing of the journal is deleted before ``make_durable``.
#
# One connection writes and checkpoints: SQLite before 3.51.3 can corrupt a WAL database when two do at the same moment
# (the "WAL-reset" bug), and older versions are what interpreters link. The lock file keeps a second controller out;
# connections that only read (``mode=ro``) are harmless.
_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA wal_autocheckpoint = 4000",  # pages: 16 MiB between checkpoints, each of which waits for the disk
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -65536",  # KiB: unit rows are hit at random
    "PRAGMA temp_store = MEMORY",
    "PRAGMA busy_timeout = 5000",
)
_READING_PRAGMAS: Final = (
    "PRAGMA query_only = ON",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA cache_size = -16384",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA busy_timeout = 5000",
)

#: Plans whose shares are kept in memory: some tens of megabytes.
KNOWN_SHARES: Final = 50_000

#: The tables whose rows are about a person.
_PERSONAL: Final = ("calls", "feedback", "feedback_targets", "bodies", "units", "arrivals", "intake", "outbox")


class StoreError(Exception):
    """The store cannot be opened; the message says why and what would help."""


class Store:
    """The controller's database."""

    #: What opening the store did to its tables.
    migrated: Migrated

    def __init__(self, engine: AsyncEngine, reading: AsyncEngine, *, file: Path | None = None, lock: int | None = None):
        self._engine = engine
        self._writing, self._reading = SingleConnection(engine), SingleConnection(reading)
        self._wal = None if file is None else file.with_name(f"{file.name}-wal")
        self._lock = lock
        self._shares: read_ledgers.KnownShares = {}
        #: Set where several nodes share the store: raises unless this node may make the change.
        self.guard: Callable[[AsyncConnection], Awaitable[None]] | None = None

    @classmethod
    async def open(cls, store: str, data_dir: Path, *, password: str | None = None) -> Store:
        """Open "sqlite", a file in ``data_dir``, or a PostgreSQL URL, and bring its tables up to date.

        Raises StoreError if that cannot be done.
        """
        lock, file = None, None
        try:
            if store == "sqlite":
                file = data_dir / FILE
                lock = _lock(data_dir / f"{FILE}.lock")
                await asyncio.to_thread(_probe, file)
                engine, reading = sqlite_engine(file), sqlite_engine(file, reading=True)
            else:
                engine = postgresql_engine(store, password)
                reading = postgresql_engine(store, password, reading=True)
        except (OSError, SQLAlchemyError, ImportError, sqlite3.Error) as error:
            _unlock(lock)
            raise StoreError(f"the store cannot be opened: {FILE if file else 'PostgreSQL'}: {error}") from error
        opened = cls(engine, reading, file=file, lock=lock)
        try:
            async with opened.begin() as connection:
                opened.migrated = await migrate(connection)
        except NewerSchema as error:
            await opened.close()
            raise StoreError(f"{error}; run the newer program, or point `store` elsewhere") from error
        except (OSError, SQLAlchemyError, ImportError) as error:
            await opened.close()
            raise StoreError(f"the store cannot be opened: {reason(error)}") from error
        except BaseException:
            await opened.close()
            raise
        return opened

    async def close(self) -> None:
        """Close both connections, and unlock the file."""
        await self._reading.close()  # first: the last to close checkpoints
        await self._writing.close()
        _unlock(self._lock)
        self._lock = None

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Give the connection that writes, in a transaction that is committed at the end; any exception rolls it back.

        Raises TimeoutError if it is not free within ``TURN_SECONDS``. A caller that is cancelled gets CancelledError
        once the transaction is rolled back.
        """
        async with self._writing.turn(), self._writing.transaction() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give the connection that reads, in a transaction that sees what was committed when it began.

        Raises TimeoutError if it is not free within ``TURN_SECONDS``, or used for longer than ``READ_SECONDS``.
        """
        async with self._reading.turn():
            if self._is_long():
                await self.make_durable()
            async with asyncio.timeout(READ_SECONDS), self._reading.transaction() as connection:
                yield connection

    def _is_long(self) -> bool:
        """Return whether SQLite's WAL is so long that no transaction may begin to read."""
        with contextlib.suppress(OSError):
            return self._wal is not None and self._wal.stat().st_size > WAL_BYTES
        return False

    @contextlib.asynccontextmanager
    async def change(self) -> AsyncIterator[AsyncConnection]:
        """As ``begin``, for changes that only one node of a fleet may make: calls ``guard`` first."""
        async with self.begin() as connection:
            if self.guard is not None:
                await self.guard(connection)
            yield connection

    async def make_partitions(self, today: int) -> None:
        """Make the partitions of today and the next days (counted from 1970), where the database has partitions."""
        if self._engine.dialect.name == "postgresql":
            async with self.begin() as connection:
                await partitions.ensure(connection, range(today, today + partitions.AHEAD + 1))

    async def make_durable(self) -> None:
        """Return once everything committed is safe on the disk."""
        if self._engine.dialect.name != "sqlite":
            return  # a server's commit returns only then
        async with self._writing.turn(), self._writing.connection() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await connection.run_to_end(driver.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)"), interrupting=False)

    async def scrub(self) -> None:
        """Return once nothing that was deleted is left in any file of an embedded store.

        The whole database is rewritten, which takes free space of its size in the system's temporary folder; no other
        transaction runs meanwhile. On a server this is a VACUUM, which only makes the space usable again.
        """
        async with self._reading.turn(), self._writing.turn(), self._writing.connection() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            work = self._rewritten(driver) if self._wal is not None else _vacuumed(driver)
            await connection.run_to_end(work, interrupting=False)

    async def _rewritten(self, driver: Any) -> None:
        # Pages are zeroed before they are filled: or old memory would be written between the rows of the new file.
        for statement in ("secure_delete = ON", "temp_store = FILE"):
            await driver.execute_fetchall(f"PRAGMA {statement}")
        try:
            await driver.execute_fetchall("VACUUM")
            await driver.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            for statement in ("secure_delete = OFF", "temp_store = MEMORY"):
                await driver.execute_fetchall(f"PRAGMA {statement}")

    async def ledger(self, route: str, epoch: str) -> Ledger:
        """Return everything counted for one route and epoch."""
        async with self.read() as connection:
            return (await read_ledgers.read(connection, [(route, epoch)], self._known_shares))[route, epoch]

    async def epochs(self, route: str, limit: int = 100) -> list[dict[str, Any]]:
        """Return a route's epochs as plain JSON values, the one that began last first."""
        async with self.read() as connection:
            return await plans.epochs_of(connection, route, limit)

    async def epoch(self, route: str, epoch: str) -> Epoch | None:
        """Return what a route was in an epoch; None if there was no such epoch, or its plans are deleted."""
        async with self.read() as connection:
            return await plans.epoch_of(connection, route, epoch)

    async def ledgers(self, places: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], Ledger]:
        """Return everything counted for these routes and epochs, with their oldest predictions."""
        async with self.read() as connection:
            read = await read_ledgers.read(connection, places, self._known_shares)
            return await read_ledgers.with_oldest(connection, read)

    async def evidence(self, places: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], Ledger]:
        """Return the mature tallies of these routes and epochs: what plans are made from."""
        async with self.read() as connection:
            return await read_ledgers.evidence(connection, places, self._known_shares)

    @property
    def _known_shares(self) -> read_ledgers.KnownShares:
        """Shares that were read before, of not too many plans."""
        if len(self._shares) > KNOWN_SHARES:
            self._shares.clear()
        return self._shares

    async def ledger_versions(self) -> LedgerVersions:
        """Return the numbers that say whether a ledger that was read earlier is still current."""
        async with self.read() as connection:
            return await read_ledgers.versions(connection)

    async def prediction(self, prediction_id: str) -> dict[str, Any] | None:
        """Return a request's calls, feedback and values, as plain JSON values; None if it is unknown."""
        async with self.read() as connection:
            return await prediction_view.prediction(connection, prediction_id)

    async def feedback_total(self) -> Mapping[tuple[str, str, str], int]:
        """Return how many feedback events there are by (route, metric, status): together, all that were sent."""
        async with self.read() as connection:
            return await tallies.feedback_total(connection)

    async def orphans(self, route: str | None, limit: int) -> list[dict[str, Any]]:
        """Return feedback whose prediction was never recorded, of one route or (None) of all, the newest first."""
        async with self.read() as connection:
            return await prediction_view.orphans(connection, route, limit)

    async def set_aside(self, limit: int) -> list[dict[str, Any]]:
        """Return what could not be recorded or joined, the newest first."""
        async with self.read() as connection:
            return await set_aside_items.listed(connection, limit)

    async def counts(self) -> Mapping[str, int]:
        """Return what was found while recording: duplicate rows; corrupt, torn and unrecordable lines."""
        async with self.read() as connection:
            return await tallies.counted(connection)

    async def plans(self, route: str, limit: int = 100) -> list[dict[str, Any]]:
        """Return a route's plans, the newest first."""
        async with self.read() as connection:
            return await plans.plans_of(connection, route, limit)

    async def series(self, route: str, metric: str, since_ms: int, now_ms: int) -> list[dict[str, Any]]:
        """Return a route's calls or values by the hour, later by the day, as plain JSON values."""
        async with self.read() as connection:
            return await hours.series(connection, route, metric, since_ms, now_ms)

    async def recalled(self, limit: int) -> list[LoggedEvent]:
        """Return the last ``limit`` acts of people and the last ``limit`` other events, the newest first."""
        async with self.read() as connection:
            return await plans.recalled(connection, limit)

    async def events(self, limit: int = 100) -> list[LoggedEvent]:
        """Return the log of events, the newest first."""
        async with self.read() as connection:
            return await plans.events_of(connection, limit)


async def _vacuumed(driver: Any) -> None:
    await driver.set_autocommit(True)
    try:
        await driver.execute(f"VACUUM {', '.join(_PERSONAL)}")
    finally:
        await driver.set_autocommit(False)


def sqlite_engine(path: Path, *, reading: bool = False) -> AsyncEngine:
    # In a URI "?" and "%" have a meaning, so the path is quoted; the driver gets the URI exactly as it is written here.
    url = URL.create("sqlite+aiosqlite", database=str(path))
    if reading:
        url = url.set(database=path.absolute().as_uri()).update_query_dict({"mode": "ro", "uri": "true"})
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,
        max_overflow=0,
        # Left to itself, the driver begins transactions when it thinks fit, and commits before DDL: we send BEGIN.
        connect_args={"isolation_level": None},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in _READING_PRAGMAS if reading else _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def postgresql_engine(
    store: str, password: str | None, *, connect_seconds: int = CONNECT_SECONDS, reading: bool = False
) -> AsyncEngine:
    """Return the engine for a PostgreSQL URL. Raises SQLAlchemyError or ImportError if the URL has no usable driver."""
    # A reading transaction sees one moment, as with SQLite, whatever is committed meanwhile.
    only = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True} if reading else {}
    url = make_url(store)
    if password is not None:
        url = url.set(password=password)
    engine = create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        paramstyle="format",  # rows go to the driver as tuples
        execution_options=only,
        connect_args={"connect_timeout": connect_seconds},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        # A controller suspended in the middle of a transaction would hold its locks against its successor.
        cursor = connection.cursor()
        cursor.execute(f"SET idle_in_transaction_session_timeout = {LEASE_MS * 4 // 5}")
        cursor.close()
        connection.commit()

    return engine


def password_in(file: str | None) -> str | None:
    """Return the password that a file holds, None without a file. Raises StoreError if it cannot be read."""
    if file is None:
        return None
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise StoreError(f"store_password_file cannot be read: {error}") from error


def _lock(path: Path) -> int:
    """Lock the file that allows one controller per database. The system unlocks it whenever the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = open_regular(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StoreError(f"{path.name}: another controller has this store open") from error
    return fd


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _probe(path: Path) -> None:
    """Raise sqlite3.Error or OSError if this is no database.

    Checked before the async driver opens it: the driver's thread would outlive the failure, and SQLite would wait for
    ever on a FIFO.
    """
    os.close(open_regular(path, os.O_RDWR | os.O_CREAT))  # a file that SQLite creates would be readable by others
    for suffix in ("-wal", "-shm", "-journal"):
        file = path.with_name(path.name + suffix)
        if file.exists() or file.is_symlink():
            os.close(open_regular(file))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA schema_version").fetchone()


def reason(error: BaseException) -> str:
    """Return the driver's message, without the statement and the link that SQLAlchemy adds."""
    return str(getattr(error, "orig", None) or error)
