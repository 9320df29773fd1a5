"""``turnout doctor``: what about this machine and this configuration may cause trouble in operation.

Rule: writes nothing but a probe file in ``data_dir``, which it removes. Each observation says what was measured; one
that needs action says which.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from gateway import compiled
from gateway.files import assignment_key
from gateway.journal.segments import FEEDBACK, JOURNAL, PREDICTIONS, size_bytes
from gateway.process import descriptors
from gateway.store import StoreError, password_in
from gateway.store.inspect import clock_ahead_seconds, inspect_store
from gateway.store.schema import migrations
from router.config.config import Config
from router.snapshot import Gateway

Status = Literal["ok", "note", "problem"]

#: From this version on SQLite does not corrupt a WAL database that two connections write or checkpoint at once.
SOUND_SQLITE: Final = (3, 51, 3)

#: Feedback is acknowledged after an fsync. With a slower one clients wait long, or give up waiting.
SLOW_FSYNC_MS: Final = 20.0
TOO_SLOW_FSYNC_MS: Final = 200.0
_FSYNCS: Final = 20

#: How far two clocks may differ: several machines date events, and one of them closes the windows.
SKEW_SECONDS: Final = 1.0
_LEAST_FREE_BYTES: Final = 256 * 2**20
_FULL_SHARE: Final = 0.8
_TIME_ERROR: Final = 5


class Observation(NamedTuple):
    """What was observed about one thing; ``hint`` says what would help."""

    name: str
    status: Status
    said: str
    hint: str | None = None


def examine(config: Config) -> Iterator[Observation]:
    """Yield what was observed about each thing that is looked at."""
    gateway, data_dir = config.gateway, Path(config.gateway.data_dir)
    yield build(compiled.build())
    yield sqlite(sqlite3.sqlite_version_info, used=gateway.store == "sqlite")
    yield fsync(data_dir)
    yield clock(data_dir)
    yield open_files(config, descriptors.hard_limit())
    yield from store(gateway)
    yield assigned(gateway)
    yield journal(gateway, size_bytes(data_dir / JOURNAL, PREDICTIONS))
    fed, bound = size_bytes(data_dir / JOURNAL, FEEDBACK), gateway.max_feedback_journal_bytes
    if fed > _FULL_SHARE * bound:
        hint = "see that the store can be written: when it is full, feedback gets 503"
        yield Observation("feedback", "problem", f"{fed / 2**20:.1f} MiB, {fed / bound:.0%} of its bound", hint)
    yield disk(data_dir)


def build(found: Literal["compiled", "interpreted"]) -> Observation:
    """Whether the request path is compiled."""
    if found == "compiled":
        return Observation("build", "ok", found)
    return Observation(
        "build",
        "note",
        f"{found}: a request costs a worker nearly twice the CPU",
        "install a C compiler and Python's headers, then install turnout again",
    )


def assigned(gateway: Gateway) -> Observation:
    """The key by which units are assigned."""
    data_dir = Path(gateway.data_dir)
    try:
        key = assignment_key.find(gateway, data_dir, None)
    except assignment_key.KeyUnusable as error:
        return Observation("assignment", "problem", str(error))
    if key is not None:
        return Observation("assignment", "ok", f"by the key {key.name}")
    if not assignment_key.is_older(data_dir):
        return Observation("assignment", "ok", "turnout serve makes a key when it first starts")
    said = "without a key: who knows a route's name can tell which variant a unit meets"
    return Observation(
        "assignment", "note", said, "turnout assignment rotate makes one; units then move, in a new period"
    )


def sqlite(version: tuple[int, ...], *, used: bool) -> Observation:
    """The SQLite that this Python is linked with."""
    said = ".".join(map(str, version))
    if not used:
        return Observation("sqlite", "ok", f"{said}, not used")
    if version >= SOUND_SQLITE:
        return Observation("sqlite", "ok", said)
    sound = ".".join(map(str, SOUND_SQLITE))
    return Observation(
        "sqlite",
        "note",
        f"{said}: before {sound} two connections that write or checkpoint a WAL database at once can corrupt it",
        "of turnout's two connections one only reads; let no other program write turnout.db; copy it by turnout backup",
    )


def fsync(data_dir: Path) -> Observation:
    """How long an fsync takes on the disk of the journal."""
    folder = next(path for path in (data_dir, *data_dir.absolute().parents) if path.is_dir())
    try:
        taken = sorted(_fsyncs(folder))
    except OSError as error:
        return Observation("fsync", "problem", f"{folder}: {error.strerror or error}", "let turnout write there")
    median, worst = statistics.median(taken), taken[-1]
    said = f"{median:.1f} ms, at worst {worst:.1f} ms of {_FSYNCS} ({folder})"
    if median > TOO_SLOW_FSYNC_MS:
        return Observation("fsync", "problem", said, "feedback waits for it: put data_dir on a faster disk")
    return Observation("fsync", "note" if median > SLOW_FSYNC_MS else "ok", said)


def clock(data_dir: Path) -> Observation:
    """Whether the clock is synchronised and was not set back."""
    ahead = max((path.stat().st_mtime for path in _files(data_dir)), default=0.0) - time.time()
    if ahead > SKEW_SECONDS:
        said = f"{ahead:.0f} s behind the newest file in {data_dir}: it was set back"
        return Observation("clock", "problem", said, "set it right; windows wait until it has caught up")
    if _unsynchronised():
        return Observation(
            "clock", "note", "the kernel says that it is not synchronised", "run an NTP client such as chrony"
        )
    return Observation("clock", "ok", "synchronised, and not behind the data")


def open_files(config: Config, limit: int) -> Observation:
    """Whether a worker may have as many connections as its settings say, with the limit that ``serve`` raises to."""
    gateway, backends = config.gateway, config.backends.values()
    taken = descriptors.connections(gateway, backends, limit)
    said = f"{limit:,} per process: {taken:,} connections of clients, of max_connections = {gateway.max_connections:,}"
    if taken < gateway.max_connections:
        hint = "raise the hard limit (ulimit -Hn, LimitNOFILE), or lower max_connections; the others get 503"
        return Observation("open files", "note" if taken > gateway.max_connections // 2 else "problem", said, hint)
    return Observation("open files", "ok", said)


def store(gateway: Gateway) -> Iterator[Observation]:
    """Whether the store can be reached and read, and whether its clock agrees with this machine's."""
    try:
        password = password_in(gateway.store_password_file)
        found = asyncio.run(inspect_store(gateway.store, Path(gateway.data_dir), password=password))
        ahead = None if gateway.store == "sqlite" else asyncio.run(clock_ahead_seconds(gateway.store, password))
    except StoreError as error:
        yield Observation("store", "problem", str(error), "traffic goes on without it; the journal keeps what comes")
        return
    said = {
        "empty": "no tables yet; serve makes them",
        "behind": f"schema version {found.version}; serve brings it to {migrations.VERSION}",
        "current": f"schema version {found.version}, {found.size_bytes / 2**20:.1f} MiB",
        "newer": f"schema version {found.version}, this program speaks {migrations.VERSION}",
    }[found.state]
    if found.state == "newer":
        yield Observation("store", "problem", said, "run the newer program")
    else:
        yield Observation("store", "ok", said)
    if ahead is not None and abs(ahead) > SKEW_SECONDS:
        yield Observation("store clock", "problem", f"{ahead:+.1f} s from ours", "keep both by NTP")


def journal(gateway: Gateway, found_bytes: int) -> Observation:
    """How much of the journal waits to be recorded, or to be deleted."""
    share = found_bytes / gateway.max_journal_bytes
    said = f"{found_bytes / 2**20:.1f} MiB, {share:.0%} of max_journal_bytes"
    if share > _FULL_SHARE:
        then = "requests are answered unlogged" if gateway.journal_full == "shed" else "requests get 503"
        return Observation("journal", "problem", said, f"see that the store can be written: when it is full, {then}")
    return Observation("journal", "ok", said)


def disk(data_dir: Path) -> Observation:
    """How much space the disk of the data directory has left."""
    folder = next(path for path in (data_dir, *data_dir.absolute().parents) if path.is_dir())
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    said = f"{free / 2**30:.1f} GiB free ({folder})"
    return (
        Observation("disk", "problem", said, "make room")
        if free < _LEAST_FREE_BYTES
        else Observation("disk", "ok", said)
    )


def _fsyncs(folder: Path) -> Iterator[float]:
    """Yield how many milliseconds each of some fsyncs took, after one page was written."""
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_FSYNCS):
            file.write(b"\0" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            yield (time.perf_counter() - began) * 1000


def _files(data_dir: Path) -> Iterator[Path]:
    for path in data_dir.rglob("*"):
        if path.is_file():
            yield path


def _unsynchronised() -> bool:
    """Return whether the kernel says that its clock is not synchronised; False where adjtimex may not be called."""
    timex = ctypes.create_string_buffer(512)  # struct timex is 208 bytes; its first word, modes, is 0: change nothing
    try:
        return bool(ctypes.CDLL(None, use_errno=True).adjtimex(timex) == _TIME_ERROR)
    except (OSError, AttributeError):
        return False
