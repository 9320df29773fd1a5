"""This machine as the bench uses it: the cores of each process, and the CPU and memory that the kernel reports.

Rule: the numbers are the operating system's own, per process, never a clock around a call. Linux only: they are read
from ``/proc``, and a process is pinned before it starts, so that its threads are too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The cores that this process may use. The measured gateway has the first, load generator and backend share the last.
#: All other processes (Turnout's controller, this program) run on any core.
CORES: Final = tuple(sorted(os.sched_getaffinity(0)))
GATEWAY_CORE: Final = CORES[0]
LOAD_CORE: Final = CORES[-1]

_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Machine:
    """The properties of the machine that a reader of the numbers needs."""

    cores: int
    model: str
    kernel: str
    load_before: float


def describe() -> Machine:
    """Return this machine as it is now."""
    model = "unknown"
    with suppress(OSError, StopIteration):
        lines = (_PROC / "cpuinfo").read_text().splitlines()
        model = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return Machine(len(CORES), model, os.uname().release, os.getloadavg()[0])


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes started inside run on this core alone, with all their threads; None: on any core."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(pid: int, core: int) -> None:
    """Move a running process and all its threads to one core."""
    for task in _tasks(pid):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return what these processes have used so far, to the nanosecond: the sum over their living threads."""
    return sum(_nanoseconds(task) for pid in pids for task in _tasks(pid)) / 1e9


def stolen_seconds() -> float:
    """Return for how long so far, over all processors, one was needed here while the host ran something else on it:
    "steal" of proc(5), in steps of 10 ms. 0 on a machine without a host, or whose host does not say."""
    return int((_PROC / "stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pids: Sequence[int]) -> int:
    """Return how much memory these processes hold now."""
    return sum(int((_PROC / str(pid) / "statm").read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[tuple[int, str]]:
    """Return the living children of a process, each with its command line."""
    found = []
    for entry in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            # The name in the second field may hold anything, so fields are counted from its closing bracket.
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append((int(entry.name), (entry / "cmdline").read_text().replace("\0", " ").strip()))
    return sorted(found)


def _tasks(pid: int) -> list[Path]:
    return list((_PROC / str(pid) / "task").iterdir())


def _nanoseconds(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[0])
    except OSError:  # a thread that ended meanwhile
        return 0
