"""The demo's child processes: one per model, and Turnout itself.

Rule: on leaving ``Children`` every process that it started is ended, by its own id, whatever happened in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

#: Turnout drains, and the model servers finish their answers. A process that takes longer is killed.
STOP_SECONDS: Final = 10.0

#: A model that answers one image at a time gains nothing from threads, and idle ones would spin on a small machine.
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class StartFailed(Exception):
    """A process did not start; the message names it and has the end of what it wrote."""


@dataclass(frozen=True, slots=True)
class Child:
    """One running process. Its standard input is open for as long as it shall run; its output goes to ``log``."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def log_end(self, lines: int = 8) -> str:
        """Return the end of what it wrote to its standard error."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    async def stop(self) -> None:
        """Ask it to end, wait, and kill it if it does not."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self.process.kill()
                await self.process.wait()


class Children:
    """Starts processes that write their logs to ``directory``, and ends them in reverse order on leaving."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The gateway was started last and is stopped first, so that it drains while the models still answer.
        while self._running:
            try:
                await self._running[-1].stop()
            except BaseException:
                self._kill()  # a second interrupt: the user does not want to wait
                raise
            self._running.pop()

    async def start(self, name: str, arguments: Sequence[str], *, piped: bool = False) -> Child:
        """Start a process of this interpreter with these arguments; with ``piped`` its standard output can be read.

        It runs in a session of its own: Ctrl-C reaches the demo alone, which then ends its children in order.
        """
        log = self._directory / f"{name}.log"
        with log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE if piped else stderr,
                stderr=stderr,
                env={**os.environ, **_ONE_THREAD},
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._running.append(child)
        return child

    async def start_model(self, name: str, artefact: Path, timeout_seconds: float) -> str:
        """Start the server of one model and return its URL. Raises StartFailed."""
        child = await self.start(name, ("-m", "gateway.demo.model_server", str(artefact)), piped=True)
        assert child.process.stdout is not None
        try:
            port = int(await asyncio.wait_for(child.process.stdout.readline(), timeout_seconds))
        except (TimeoutError, ValueError):
            raise StartFailed(f"the model server {name} did not come up\n{child.log_end()}") from None
        return f"http://127.0.0.1:{port}"

    def _kill(self) -> None:
        for child in self._running:
            if child.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.process.kill()

    @property
    def ended(self) -> Child | None:
        """The first process that has ended by itself."""
        return next((child for child in self._running if child.process.returncode is not None), None)


def free_ports(count: int) -> list[int]:
    """Return different TCP ports of the loopback interface that are free right now."""
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(sock.getsockname()[1]) for sock in found]
