"""A running ``turnout serve``: start it, wait until it is ready, send requests, inspect its store, end it.

Rule: real processes and real sockets, every process ended by its id. A wait has a deadline and says what it waited for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from tests.ports import free_ports

READY_SECONDS = 20.0
STOP_SECONDS = 15.0

T = TypeVar("T")


def eventually(ask: Callable[[], T | None], what: str, *, seconds: float = 10.0, every: float = 0.05) -> T:
    """Return the first true answer of ``ask``; fail with ``what`` and its last answer when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s, last {answer!r}"
        time.sleep(every)


class Turnout:
    """One `turnout serve` in a directory of its own. ``config`` is the file without its ``[gateway]`` table.

    ``stdout`` is the file that its standard output goes to, else its log.
    """

    def __init__(self, directory: Path, config: str, *, gateway: str = "", stdout: Path | None = None) -> None:
        self.directory = directory
        self.stdout = directory / "serve.log" if stdout is None else stdout
        self.file = directory / "turnout.toml"
        self.data_dir = directory / "data"
        listen, admin = free_ports(2)
        self._head = (
            "schema_version = 1\n[gateway]\n"
            f'listen = "127.0.0.1:{listen}"\nadmin = "127.0.0.1:{admin}"\ndata_dir = "{self.data_dir}"\n{gateway}\n'
        )
        self.traffic = httpx.Client(base_url=f"http://127.0.0.1:{listen}", timeout=10)
        self.admin = httpx.Client(base_url=f"http://127.0.0.1:{admin}", timeout=10)
        self.process: subprocess.Popen[bytes] | None = None
        self.write(config)

    def write(self, config: str) -> None:
        """Put a config in place the way editors do: a new file, renamed over the old one."""
        new = self.file.with_suffix(".new")
        new.write_text(self._head + config)
        new.replace(self.file)

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is not None:
            print(self.log())  # noqa: T201  # pytest shows it with the failure

    def start(self) -> None:
        """Start the process without waiting for anything."""
        with (self.directory / "serve.log").open("ab") as log, self.stdout.open("ab") as out:
            self.process = subprocess.Popen(
                [*TURNOUT, "serve", "-c", str(self.file)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
                umask=0,  # its files must be private even so
            )

    def wait_until_ready(self, *, store: bool = True) -> None:
        """Wait until traffic is taken and, unless ``store`` is False, the admin interface says it is ready."""
        eventually(lambda: self._says(self.traffic, "/-/readyz"), "the data port is ready", seconds=READY_SECONDS)
        path = "/readyz" if store else "/livez"
        eventually(lambda: self._says(self.admin, path), "the admin port is ready", seconds=READY_SECONDS)

    def stop(self) -> int:
        """Ask it to drain and end, and return its exit code; a process that does not end in time is killed."""
        assert self.process is not None
        left = self.pids()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"turnout serve did not end within {STOP_SECONDS:g} s") from None
        finally:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process if it runs, and close every connection."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop()
        finally:
            self.traffic.close()
            self.admin.close()

    def _says(self, client: httpx.Client, path: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"turnout serve ended with {self.process.returncode}\n{self.log()}"
        with contextlib.suppress(httpx.TransportError):
            return client.get(path).status_code == 200
        return False

    def open_to_others(self) -> dict[str, str]:
        """Return what of its data another user of the machine may read or write."""
        found = {path: path.lstat().st_mode for path in (self.data_dir, *self.data_dir.rglob("*"))}
        return {str(path): oct(mode) for path, mode in found.items() if mode & 0o077}

    def log(self) -> str:
        """Return what it wrote."""
        return (self.directory / "serve.log").read_text(errors="replace")

    def pids(self, module: str = "") -> list[int]:
        """Return the ids of its child processes, or of those that run ``module`` ("gateway.proxy")."""
        assert self.process is not None
        return [pid for pid, command in descendants(self.process.pid) if module in command]

    @property
    def workers(self) -> list[int]:
        return self.pids("gateway.proxy")

    @property
    def controllers(self) -> list[int]:
        return self.pids("gateway.control")

    def ask(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        """POST a JSON body to a route; ``x_user_id="u1"`` is sent as ``x-user-id: u1``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.traffic.post(path, json=body if body is not None else {}, headers=named)

    def feedback(self, *events: Mapping[str, Any]) -> httpx.Response:
        return self.traffic.post("/-/feedback", json=list(events))

    def report(self, route: str) -> dict[str, Any]:
        answer = self.admin.get(f"/api/v1/routes/{route}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def prediction(self, prediction_id: str) -> dict[str, Any] | None:
        """Return what is stored of a prediction, None if nothing is (yet)."""
        answer = self.admin.get(f"/api/v1/predictions/{prediction_id}")
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def metrics(self) -> str:
        return self.admin.get("/metrics").raise_for_status().text

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Query the database itself, read-only; only after the program has ended, which owns it while it runs."""
        assert self.process is not None
        assert self.process.poll() is not None, "a second connection while the controller runs"
        with contextlib.closing(sqlite3.connect(f"file:{self.data_dir / 'turnout.db'}?mode=ro", uri=True)) as store:
            store.row_factory = sqlite3.Row
            return store.execute(query, values).fetchall()


TURNOUT: Sequence[str] = (sys.executable, "-m", "gateway.cli")


def turnout(*arguments: str, seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run one command of the command line to its end."""
    return subprocess.run([*TURNOUT, *arguments], capture_output=True, text=True, timeout=seconds)


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Every living process below ``pid``, as (id, command line)."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents.setdefault(int(parent), []).append(int(entry.name))
    waiting = [pid]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            waiting.append(child)
            with contextlib.suppress(OSError):
                yield child, (Path("/proc") / str(child) / "cmdline").read_text().replace("\0", " ")
