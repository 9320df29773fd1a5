"""A coroutine that runs where it is called: the request path's own kind of task, for a fraction of a task's cost.

Rules:

1. A fiber runs at once, on its caller's stack, until it has to wait; when what it waits for happens, it goes on, again
   at once and on that caller's stack. So a function that starts a fiber or rings a bell does that last, when its own
   state is complete.
2. A fiber waits for a Bell or for an asyncio future. Code that asks for the current task (``asyncio.timeout``,
   ``TaskGroup``) has to run in a task, and a fiber may await that.
3. ``ended`` is called once, with what the coroutine raised or None; no exception reaches the caller that ran it on.

Why not asyncio's tasks: a task and two futures a request cost three objects, a copied context and three more turns of
the loop, together a fifth of what a request cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any


class Bell:
    """Wakes the one coroutine that waits for it. A ring that nothing waits for is lost: check first, then wait.

    A task can await it like a future, so tests and the control plane may await what the request path awaits.
    """

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_wake")

    def __init__(self) -> None:
        self._wake: Callable[[], object] | None = None
        self._cancelled = False
        self._asyncio_future_blocking = False

    def __await__(self) -> Generator[Bell, None, None]:
        """Wait for the next ring. Raises RuntimeError if another coroutine waits already."""
        if self._wake is not None:
            raise RuntimeError("another coroutine waits at this bell already")
        self._asyncio_future_blocking = True
        yield self

    def ring(self) -> None:
        wake = self._wake
        if wake is not None:
            self._wake = None
            wake()

    def hang(self, wake: Callable[[], object] | None) -> None:
        """Call this at the next ring; with None, nothing."""
        self._wake = wake

    # What asyncio calls on a future.

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        self._cancelled = False
        self._wake = partial(asyncio.get_running_loop().call_soon, callback, self, context=context)

    def cancel(self, msg: object = None) -> bool:
        self._cancelled = True
        self.ring()
        return True

    def result(self) -> None:
        if self._cancelled:
            self._cancelled = False
            raise asyncio.CancelledError


Ended = Callable[["Fiber", BaseException | None], None]


class Fiber:
    """Runs a coroutine to its end, then calls ``ended`` with itself and the exception that was raised, or None."""

    __slots__ = ("_cancelled", "_coroutine", "_ended", "_running", "_waiting", "done")

    def __init__(self, coroutine: Coroutine[Any, Any, None], ended: Ended) -> None:
        self.done = False
        self._coroutine = coroutine
        self._ended = ended
        self._waiting: Any = None
        self._running = False
        self._cancelled = False

    def run(self) -> None:
        """Begin, or go on after a wait."""
        self._step(None)

    def cancel(self) -> None:
        """Raise CancelledError in it: at once where it waits for a bell, else when it waits. Harmless when done."""
        if self.done:
            return
        waiting = self._waiting
        if self._running or waiting is None:
            self._cancelled = True
        elif type(waiting) is Bell:
            waiting.hang(None)
            self._step(asyncio.CancelledError())
        elif not waiting.cancel():
            self._cancelled = True  # it is done, and about to wake this fiber

    def _step(self, error: BaseException | None) -> None:
        self._running = True
        self._waiting = None
        try:
            waiting = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration:
            self._end(None)
            return
        except (KeyboardInterrupt, SystemExit) as stop:
            self._end(stop)
            raise
        except BaseException as failure:
            error = None  # its traceback holds this frame: a cycle is garbage that only a collection finds
            self._end(failure)
            return
        self._running = False
        self._waiting = waiting
        if type(waiting) is Bell:
            waiting.hang(self.run)
        else:
            waiting._asyncio_future_blocking = False
            waiting.add_done_callback(self._woken)
        if self._cancelled:
            self._cancelled = False
            self.cancel()

    def _woken(self, future: object) -> None:
        cancelled, self._cancelled = self._cancelled, False
        self._step(asyncio.CancelledError() if cancelled else None)

    def _end(self, error: BaseException | None) -> None:
        self.done = True
        self._running = False
        self._ended(self, error)
