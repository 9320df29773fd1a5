"""Keep the cores of the bench awake while latencies are measured: ``python -m loadtests.awake`` on each of them.

Rule: it uses only processor time that no other process wants. A virtual machine gives an idle processor back to its
host, and a process that wakes on it waits milliseconds until the host returns it; no program under test causes that
delay. One process per core, in the scheduler's idle class and yielding whenever it runs, keeps the core, as the
kernel's ``idle=poll`` would keep all of them. It ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

from loadtests.lifeline import until_stdin_closes
from loadtests.machine import GATEWAY_CORE, LOAD_CORE
from loadtests.processes import running


@contextmanager
def awake(directory: Path) -> Iterator[None]:
    """Keep the cores of the gateway and of the load awake while the context is open. Logs go to ``directory``."""
    with ExitStack() as held:
        for core in sorted({GATEWAY_CORE, LOAD_CORE}):
            command = [sys.executable, "-m", "loadtests.awake"]
            held.enter_context(running(command, directory / f"awake-{core}.log", core=core))
        yield


def _stay() -> None:
    while True:
        os.sched_yield()


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # threads started from here inherit it
    Thread(target=_stay, daemon=True).start()
    asyncio.run(until_stdin_closes())
