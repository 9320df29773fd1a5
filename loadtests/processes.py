"""The bench's child processes.

Rule: the context that starts a process also ends it, by its id, even after an error; and waits for it with a deadline.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from loadtests.machine import pinned

#: How long a process may take to come up, and to end.
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 40.0


@contextmanager
def running(
    command: Sequence[str | Path], log: Path, *, core: int | None = None, says: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Start a process, and end it on leaving. ``says``: its output can be read; else that goes to ``log``, too."""
    with log.open("a") as written, pinned(core):
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if says else written,
            stderr=written,
            text=True,
        )
    try:
        yield process
    finally:
        _end(process)


def until(
    fact: Callable[[], bool], what: str, *, seconds: float = START_SECONDS, pause: float = 0.05, log: Path | None = None
) -> None:
    """Wait until ``fact`` holds. Raises TimeoutError, with ``what`` and the end of the log, when the time is up."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            said = f"\n{_last_words(log)}" if log else ""
            raise TimeoutError(f"after {seconds:g} s still not so: {what}{said}")
        time.sleep(pause)


def listening(port: int, process: subprocess.Popen[str], log: Path, *, seconds: float = START_SECONDS) -> None:
    """Wait until a process accepts connections. Raises RuntimeError with the end of its log if it ends instead."""

    def fact() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{_last_words(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    until(fact, f"port {port} is open", seconds=seconds)


def _last_words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])


def _end(process: subprocess.Popen[str]) -> None:
    """Terminate the process, wait, and kill it if it has not ended."""
    process.terminate()
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
