"""Backup of an installation into one file, made while the gateway runs, and its restoration into an empty place.

Theory of operation. A backup holds the store as it was at one moment, and every line of this node's journal that was
written before that moment and is not in that store; lines written a little later may be there too. So everything that
was acknowledged before the moment is in the backup: what store and journal both have is recorded once, as after any
restart. The order of the steps ensures it:

1. The journal's segments are linked, so that they stay when they are drained and deleted.
2. The store is read in one transaction: SQLite by VACUUM INTO on a connection that only reads, PostgreSQL by COPY of
   our tables at REPEATABLE READ.
3. Segments that were begun meanwhile are linked too; one that was begun and deleted meanwhile is in the store.

A backup also holds the keys in the data directory, the node's name and the published snapshot. It does not hold the
operator's file and what that names elsewhere (tokens, certificates, a key file of its own), the journals of other
nodes, what workers hold in memory, quarantine.jsonl, and the positions of unfinished imports.

Rule: the file has its name only when it is complete, only its owner may read it, and restoring replaces nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from sqlalchemy import make_url, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.membership import NAME
from gateway.files.published import SNAPSHOT
from gateway.files.regular import NotRegular, read_regular, sync_directory
from gateway.journal.segments import FEEDBACK, JOURNAL, LINKS, PREDICTIONS, segments
from gateway.process.premises import sole_supervisor
from gateway.store import Store
from gateway.store.schema import partitions
from gateway.store.schema.migrations import VERSION
from gateway.store.schema.tables import metadata, schema_version
from gateway.store.store import FILE

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
_DATABASE: Final = "store/turnout.db"
_TABLES: Final = "store/tables"
_MEMBER: Final = re.compile(
    r"manifest\.json|store/turnout\.db|store/tables/[a-z_]+"
    r"|data/(?:[\w.-]+\.key|node|snapshot\.json)"
    r"|data/journal/(?:predictions|feedback)/[0-9a-f]{12}-\d{2,}-[0-9a-f]{12}-\d{6,}\.jsonl"
)
_CHUNK_BYTES: Final = 2**20
#: No backup takes this long: older files were left by one that was killed.
_LEFT_SECONDS: Final = 86_400.0


class BackupError(Exception):
    """A backup cannot be made or restored; the message says why."""


class BackupSummary(NamedTuple):
    """What a backup holds: when its store was read (Unix milliseconds), how many segments, and the names of keys."""

    made_ms: int
    segments: int
    keys: tuple[str, ...]


def back_up(store: str, password: str | None, data_dir: Path, path: Path) -> BackupSummary:
    """Write a backup to ``path``. Raises BackupError, OSError, and what the database driver raises."""
    if not data_dir.is_dir():
        raise BackupError(f"there is no data directory {data_dir}: a relative one starts where turnout is started")
    if not path.absolute().parent.is_dir():
        raise BackupError(f"there is no directory {path.parent}")
    fresh = path.with_name(f".{path.name}.part")
    for left in data_dir.glob(f"{LINKS}*"):
        if time.time() - left.lstat().st_mtime > _LEFT_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    with contextlib.ExitStack() as held:
        links = Path(held.enter_context(tempfile.TemporaryDirectory(prefix=LINKS, dir=data_dir)))
        staged = Path(held.enter_context(tempfile.TemporaryDirectory(prefix=LINKS, dir=path.absolute().parent)))
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                _link(data_dir / JOURNAL, links)
                made_ms = time.time_ns() // 1_000_000
                manifest: dict[str, Any] = {"format": FORMAT, "program": version("turnout"), "made_ms": made_ms}
                manifest |= _sqlite(data_dir, staged) if store == "sqlite" else _postgresql(store, password, staged)
                _link(data_dir / JOURNAL, links)
                found = _pack(file, data_dir, links, staged, manifest)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    return found


def _link(journal: Path, links: Path) -> None:
    for folder in (PREDICTIONS, FEEDBACK):
        (links / folder).mkdir(exist_ok=True)
        for segment in segments(journal / folder):
            with contextlib.suppress(FileNotFoundError, FileExistsError):  # drained meanwhile; linked before
                os.link(segment.path, links / folder / segment.path.name)


def _sqlite(data_dir: Path, staged: Path) -> dict[str, Any]:
    target = staged / FILE
    name = f"{(data_dir / FILE).absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(name, uri=True, timeout=30, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("VACUUM INTO ?", (str(target),))
    with contextlib.closing(sqlite3.connect(target)) as copy:
        [(found,)] = copy.execute(f"SELECT version FROM {schema_version.name}")  # noqa: S608
    return {"store": "sqlite", "schema": found}


def _postgresql(store: str, password: str | None, staged: Path) -> dict[str, Any]:
    import psycopg

    url = make_url(store)
    url = url.set(drivername="postgresql") if password is None else url.set(drivername="postgresql", password=password)
    folder = staged / "tables"
    folder.mkdir()
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        row = connection.execute(f"SELECT version FROM {schema_version.name}").fetchone()  # noqa: S608
        if row is None or row[0] != VERSION:
            raise BackupError(f"the tables have version {row and row[0]}, this program speaks {VERSION}")
        columns: dict[str, list[str]] = {}
        for table in metadata.sorted_tables:
            columns[table.name] = [column.name for column in table.columns]
            with (
                (folder / table.name).open("wb") as file,
                connection.cursor() as cursor,
                cursor.copy(f"COPY (SELECT {_listed(columns[table.name])} FROM {table.name}) TO STDOUT") as copy,  # noqa: S608
            ):
                for content in copy:
                    file.write(content)
        days = connection.execute(f"SELECT DISTINCT at_ms / {partitions.DAY_MS} FROM calls").fetchall()  # noqa: S608
    return {"store": "postgresql", "schema": VERSION, "tables": columns, "days": sorted(day for (day,) in days)}


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _pack(file: IO[bytes], data_dir: Path, links: Path, staged: Path, manifest: dict[str, Any]) -> BackupSummary:
    digests: dict[str, str] = {}
    found, keys = 0, []
    with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(staged.rglob("*")):
            if path.is_file():
                name = _DATABASE if path.name == FILE else f"{_TABLES}/{path.name}"
                _add(archive, name, path, digests)
        for path in sorted(data_dir.glob("*.key")) + [data_dir / name for name in (NAME, SNAPSHOT)]:
            with contextlib.suppress(FileNotFoundError, NotRegular):
                _add_bytes(archive, f"data/{path.name}", read_regular(path), digests)
                keys += [path.name] if path.suffix == ".key" else []
        for path in sorted(links.rglob("*.jsonl")):
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]  # its writer may be in the middle of a line
            _add_bytes(archive, f"data/{JOURNAL}/{path.parent.name}/{path.name}", whole, digests)
            found += 1
        # Last, so that a backup that was cut off is not taken for one.
        content = json.dumps({**manifest, "digests": digests}).encode()
        _add_bytes(archive, MANIFEST, content, {})
    return BackupSummary(manifest["made_ms"], found, tuple(keys))


def _add(archive: tarfile.TarFile, name: str, path: Path, digests: dict[str, str]) -> None:
    with path.open("rb") as file:
        digests[name] = _digest(file)
        file.seek(0)
        _put(archive, name, path.stat().st_size, file)
    path.unlink()


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes, digests: dict[str, str]) -> None:
    digests[name] = _digest(io.BytesIO(content))
    _put(archive, name, len(content), io.BytesIO(content))


def _put(archive: tarfile.TarFile, name: str, size: int, file: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    archive.addfile(member, file)


def _digest(file: IO[bytes]) -> str:
    digest = blake2b(digest_size=16)
    while content := file.read(_CHUNK_BYTES):
        digest.update(content)
    return digest.hexdigest()


async def restore(store: str, password: str | None, data_dir: Path, path: Path) -> BackupSummary:
    """Restore a backup into an empty data directory and an empty store.

    Raises BackupError if it is no backup, or the place is not empty; StoreError, Unavailable and OSError.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with sole_supervisor(data_dir), tempfile.TemporaryDirectory(prefix=".restore-", dir=data_dir) as folder:
        unpacked = Path(folder)
        manifest = _unpack(path, unpacked)
        kind = "sqlite" if store == "sqlite" else "postgresql"
        if manifest["store"] != kind:
            raise BackupError(f"this is a backup of a store in {manifest['store']}, and gateway.store is {kind}")
        _refuse_over(data_dir, unpacked / "data", kind)
        if kind == "postgresql":
            await _load(store, password, data_dir, unpacked / _TABLES, manifest)
        names = []
        for part in sorted((unpacked / "data").rglob("*")):
            if part.is_file():
                names.append(part.relative_to(unpacked / "data"))
                target = data_dir / names[-1]
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(part, target)
        if kind == "sqlite":
            # Last: with the database the data directory becomes an installation.
            os.rename(unpacked / _DATABASE, data_dir / FILE)
        sync_directory(data_dir)
    found = [one for one in names if one.suffix == ".jsonl"]
    return BackupSummary(manifest["made_ms"], len(found), tuple(str(one) for one in names if one.suffix == ".key"))


def _unpack(path: Path, folder: Path) -> dict[str, Any]:
    """Unpack a backup and return its manifest, with the digest of every member checked."""
    found: dict[str, str] = {}
    manifest: dict[str, Any] | None = None
    try:
        with tarfile.open(path, mode="r:") as archive:
            for member in archive:
                if not member.isreg() or not _MEMBER.fullmatch(member.name) or member.name in found:
                    raise BackupError(f"{path.name}: {member.name[:100]} is not of a backup")
                source = archive.extractfile(member)
                assert source is not None  # of a regular member
                if member.name == MANIFEST:
                    manifest = json.loads(source.read())
                    continue
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
                    shutil.copyfileobj(source, file, _CHUNK_BYTES)
                    file.flush()
                    os.fsync(file.fileno())
                    file.seek(0)
                    found[member.name] = _digest(file)
    except (tarfile.TarError, ValueError, EOFError, RecursionError) as error:
        raise BackupError(f"{path.name} is no backup, or not all of one: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("digests") != found:
        raise BackupError(f"{path.name} is damaged, or not all of a backup")
    if manifest.get("format") != FORMAT:
        raise BackupError(f"{path.name} has format {manifest.get('format')}, and this program reads {FORMAT}")
    kinds = {"schema": int, "store": str, "program": str, "made_ms": int}
    whole = manifest.get("store") != "sqlite" or _DATABASE in found
    if not whole or not all(type(manifest.get(name)) is kind for name, kind in kinds.items()):
        raise BackupError(f"{path.name} is damaged, or not all of a backup")
    if manifest["schema"] > VERSION or (manifest["store"] == "postgresql" and manifest["schema"] != VERSION):
        made = f"turnout {manifest['program']}, whose tables have version {manifest['schema']}"
        raise BackupError(f"restore it with the program that made it: {made}; this one speaks {VERSION}")
    return manifest


def _refuse_over(data_dir: Path, data: Path, kind: str) -> None:
    """Raise BackupError if the data directory holds an installation, or a file that would be replaced."""
    parts = [data_dir / part.relative_to(data) for part in data.rglob("*") if part.is_file()]
    if kind == "sqlite":
        parts += [data_dir / f"{FILE}{suffix}" for suffix in ("", "-wal", "-shm")]
    there = [one for one in parts if os.path.lexists(one)]
    there += [one.path for folder in (PREDICTIONS, FEEDBACK) for one in segments(data_dir / JOURNAL / folder)]
    if there:
        raise BackupError(f"{there[0]} exists: restore into a data directory that is empty")


async def _load(store: str, password: str | None, data_dir: Path, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Fill the empty tables of a PostgreSQL store in one transaction."""
    opened = await Store.open(store, data_dir, password=password)
    try:
        async with opened.begin() as connection:
            for table in metadata.sorted_tables:
                found = (await connection.execute(select(*table.primary_key).limit(1))).first()
                if found is not None and table is not schema_version:
                    raise BackupError(f"the table {table.name} holds rows: restore into an empty database or schema")
            await partitions.ensure(connection, set(manifest["days"]))
            for name, columns in manifest["tables"].items():
                if name != schema_version.name:
                    await _fill(connection, name, columns, folder / name)
    finally:
        await opened.close()


async def _fill(connection: AsyncConnection, name: str, columns: list[str], path: Path) -> None:
    table = metadata.tables[name]
    listed = _listed(table.columns[column].name for column in columns)
    driver: Any = (await connection.get_raw_connection()).driver_connection
    async with driver.cursor() as cursor:
        async with cursor.copy(f"COPY {table.name} ({listed}) FROM STDIN") as copy:
            for content in _chunks(path):
                await copy.write(content)
        serial = table.autoincrement_column
        if serial is not None:
            await cursor.execute(
                f"SELECT setval(pg_get_serial_sequence('{table.name}', '{serial.name}'), "  # noqa: S608
                f"coalesce(max({serial.name}), 0) + 1, false) FROM {table.name}"
            )


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while content := file.read(_CHUNK_BYTES):
            yield content
