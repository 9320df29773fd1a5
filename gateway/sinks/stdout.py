"""CloudEvents as JSON Lines on standard output, for a log shipper.

Rule: a reader that stops reading delays only this sink: a thread writes the lines, and the process does not wait for it
when it ends. Each write holds whole lines, up to what a pipe takes at once (PIPE_BUF), so that the end of the process
cuts no line; a longer line may be cut.

Source: POSIX.1-2017, write(), PIPE_BUF.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

from gateway.sinks.outlet import Trouble

#: Lines that are reported as delivered together.
AT_ONCE: Final = 100

#: The pause before the next write to a descriptor that takes nothing.
_PAUSE_SECONDS: Final = 0.05

#: One writer at a time, however many sinks of this kind there are.
_TURN: Final = threading.Lock()

_Job = tuple[bytes, "asyncio.Future[None]"]


class Stdout:
    """Writes one sink's events to a file descriptor."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # A daemon: a thread that waits for a reader must not keep the process from ending.
        threading.Thread(target=self._run, name="stdout sink", daemon=True).start()

    def take(self, lines: Sequence[bytes]) -> int:
        return min(len(lines), AT_ONCE)

    async def send(self, lines: Sequence[bytes]) -> int:
        for content in _writes(lines):
            done = self._loop.create_future()
            self._jobs.put((content, done))
            try:
                await done
            except OSError as error:
                raise Trouble(f"standard output: {error.strerror}") from None
        return 0

    async def close(self) -> None:
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            content, done = job
            error: OSError | None = None
            try:
                with _TURN:
                    _write(self._descriptor, content)
            except OSError as failed:
                error = failed
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(_finish, done, error)


def _finish(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():
        return  # cancelled
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def _writes(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Yield whole lines together, up to what a pipe takes in one piece."""
    content = b""
    for line in lines:
        if content and len(content) + len(line) + 1 > select.PIPE_BUF:
            yield content
            content = b""
        content += line + b"\n"
    if content:
        yield content


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # the process that started us shares the descriptor, and has made it non-blocking
            time.sleep(_PAUSE_SECONDS)
