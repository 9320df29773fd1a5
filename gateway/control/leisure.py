"""How the controller yields to the workers: it works when nobody else wants a processor, as long as it keeps up.

Rule: answers come first, and nothing waits for ever. What is recorded a moment later is lost to nobody, so the whole
process goes into the scheduler's idle class, where it never delays a worker, a backend or a client that wakes up. A
machine whose processors are all busy would starve it there: as soon as it is late or behind it takes its share again,
as an ordinary process of lower priority, for a good while.

Even there a thread that computes on is run to the next tick (4 ms) where a worker was put aside for a moment, by the
kernel's own work: a fair scheduler owes it that. So what computes for long at a stretch breathes in between.

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

#: How much it yields where it takes its share.
NICE: Final = 5
#: Between looks; how late one may be, and how far behind the recording, before it takes its share; and how long then.
LOOK_SECONDS: Final = 0.5
LATE_SECONDS: Final = 1.0
BEHIND_SECONDS: Final = 3.0
SHARE_SECONDS: Final = 30.0


class Leisure:
    """Decides whether the controller is at leisure. ``behind`` says for how many seconds there was more to record."""

    def __init__(
        self, behind: Callable[[], float], yielding: Callable[[bool], None], *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._behind = behind
        self._yielding = yielding
        self._clock = clock
        self._until: float | None = None  # when it may be at leisure again; None: it is
        self._expected = clock()

    async def run(self) -> None:
        """Look for ever. A look that fails, as without descriptors, is logged once and repeated."""
        begun, failing = False, False
        while True:
            try:
                if begun:
                    self.look()
                else:
                    self._yielding(True)
                begun, failing = True, False
            except Exception as error:
                if not failing:
                    logger.warning("whether the controller keeps up cannot be seen: %s", error)
                failing = True
            self._expected = self._clock() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """See how it goes, and take a share or give it up."""
        now = self._clock()
        behind = self._behind()
        if behind > BEHIND_SECONDS or now - self._expected > LATE_SECONDS:
            if self._until is None:
                self._yielding(False)
            self._until = now + SHARE_SECONDS
        elif self._until is not None and now >= self._until:
            self._yielding(True)
            self._until = None


def can_yield() -> bool:
    """Return whether this process may enter the idle class and leave it again. A thread of its own tries."""
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


def yielding(idle: bool) -> None:
    """Put every thread of this process into the idle class, or out of it; those begun later follow their beginners."""
    global _idle
    _idle = idle
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # it has ended, or may not: then it stays as it is
            _put(int(thread), idle=idle)


def breathe() -> None:
    """Let somebody else have the processor who wants it, where this process yields."""
    if _idle:
        os.sched_yield()


def _put(thread: int, *, idle: bool) -> None:
    os.sched_setscheduler(thread, os.SCHED_IDLE if idle else os.SCHED_OTHER, os.sched_param(0))
