"""How the controller yields the processors to the workers: it runs only when no other process wants one, as long as
it keeps up.

Rule: answers come first, and recording is never starved. Recording a moment later loses nothing, so the whole process
goes into the scheduler's idle class, where it never delays a worker, a backend or a client that wakes up. On a machine
whose processors are all busy the idle class would starve it: as soon as it is late or behind, it runs as an ordinary
process of lower priority for ``SHARE_SECONDS``.

Even in the idle class, a thread that computes without pause keeps its processor until the next tick (4 ms) when the
kernel's own work has interrupted a worker for a moment: the scheduler runs that thread next. So code that computes for
long calls ``yield_cpu`` in between.

The kernel lets a process leave the idle class only with CAP_SYS_NICE or a LimitNICE of 15 or more; without, the
controller never enters it.
Source: sched(7), sections SCHED_IDLE and "Privileges and resource limits".
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import Final

logger = logging.getLogger(__name__)

#: Whether this process is in the idle class.
_idle = False

#: The nice value while it runs as an ordinary process.
NICE: Final = 5
#: Between looks.
LOOK_SECONDS: Final = 0.5
#: It leaves the idle class when a look comes this late, or when recording is this far behind,
LATE_SECONDS: Final = 1.0
BEHIND_SECONDS: Final = 2.0
#: and stays out of it for this long.
SHARE_SECONDS: Final = 30.0


class CpuShare:
    """Decides when this process is in the idle class. ``behind`` returns for how many seconds lines have waited.

    Once ``stopping`` is set it is not: the end of a process has a deadline.
    """

    def __init__(
        self,
        behind: Callable[[], float],
        set_idle: Callable[[bool], None],
        stopping: asyncio.Event,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._behind = behind
        self._set_idle = set_idle
        self._stopping = stopping
        self._clock = clock
        self._until: float | None = None  # when it may enter the idle class again; None: it is in it
        self._expected = clock()

    async def run(self) -> None:
        """Look until the process stops. A look that fails, for example for want of descriptors, is logged once."""
        begun, failing = False, False
        while not self._stopping.is_set():
            try:
                if begun:
                    self.look()
                else:
                    self._set_idle(True)
                begun, failing = True, False
            except Exception as error:
                if not failing:
                    logger.warning("whether the controller keeps up cannot be seen: %s", error)
                failing = True
            self._expected = self._clock() + LOOK_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LOOK_SECONDS)
        self._set_idle(False)

    def look(self) -> None:
        """Leave the idle class if recording is late or behind; enter it again ``SHARE_SECONDS`` after the last time."""
        now = self._clock()
        behind = self._behind()
        if behind > BEHIND_SECONDS or now - self._expected > LATE_SECONDS:
            if self._until is None:
                self._set_idle(False)
            self._until = now + SHARE_SECONDS
        elif self._until is not None and now >= self._until:
            self._set_idle(True)
            self._until = None


def can_yield() -> bool:
    """Return whether this process may enter the idle class and leave it again, tried by a thread of its own."""
    came_back: list[bool] = []

    def there_and_back() -> None:
        with suppress(OSError):
            _put(0, idle=True)
            _put(0, idle=False)
            came_back.append(True)

    if not hasattr(os, "SCHED_IDLE"):
        return False
    trying = Thread(target=there_and_back)
    trying.start()
    trying.join()
    return bool(came_back)


def set_idle(idle: bool) -> None:
    """Put every thread of this process into the idle class, or out of it. A new thread is in the class of its maker."""
    global _idle
    _idle = idle
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # it has ended, or may not be moved: then it stays as it is
            _put(int(thread), idle=idle)


def yield_cpu() -> None:
    """Let another thread that wants the processor run first, if this process is in the idle class."""
    if _idle:
        os.sched_yield()


def _put(thread: int, *, idle: bool) -> None:
    os.sched_setscheduler(thread, os.SCHED_IDLE if idle else os.SCHED_OTHER, os.sched_param(0))
