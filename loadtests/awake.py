"""Keep the cores of the bench awake while latencies are measured: ``python -m loadtests.awake`` on each of them.

Rule: it takes what nobody wants. A virtual machine gives a processor that has nothing to do back to its host, and
whoever is woken there waits until the host returns it: milliseconds, in nobody's program. One process a core, in the
scheduler's idle class and yielding whenever it is run, keeps it, as the kernel's ``idle=poll`` would keep all of them.
Ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

from loadtests.lifeline import until_abandoned
from loadtests.machine import GATEWAY_CORE, LOAD_CORE
from loadtests.processes import running


@contextmanager
def awake(directory: Path) -> Iterator[None]:
    """The cores of the gateway and of the load stay awake until this is left. Logs go to ``directory``."""
    with ExitStack() as held:
        for core in sorted({GATEWAY_CORE, LOAD_CORE}):
            command = [sys.executable, "-m", "loadtests.awake"]
            held.enter_context(running(command, directory / f"awake-{core}.log", core=core))
        yield


def _stay() -> None:
    while True:
        os.sched_yield()


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # and so every thread that is begun from here
    Thread(target=_stay, daemon=True).start()
    asyncio.run(until_abandoned())
