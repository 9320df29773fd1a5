"""The controller lets workers go first, and is never starved by them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from gateway.control import cpu_share
from gateway.control.cpu_share import BEHIND_SECONDS, LATE_SECONDS, LOOK_SECONDS, SHARE_SECONDS, CpuShare, can_yield
from gateway.control.record.lines import YIELD_LINES, Batch
from gateway.journal.seal import sealed
from router.records import mark_line
from tests.gateway.control.builders import RUN, T0


class _Machine:
    """What a controller measures, and how it sets its scheduling class."""

    def __init__(self) -> None:
        self.now = 100.0
        self.behind = 0.0
        self.idle: list[bool] = []
        self.stopping = asyncio.Event()
        self.cpu_share = CpuShare(lambda: self.behind, self.idle.append, self.stopping, clock=lambda: self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.cpu_share.look()


def test_as_long_as_it_keeps_up_it_stays_in_the_idle_class() -> None:
    machine = _Machine()
    machine.behind = BEHIND_SECONDS
    machine.pass_time(LATE_SECONDS)
    assert machine.idle == []


def test_when_it_falls_behind_it_takes_its_share() -> None:
    machine = _Machine()
    machine.behind = BEHIND_SECONDS + 0.1
    machine.pass_time(0)
    assert machine.idle == [False]


def test_when_it_is_starved_it_takes_its_share() -> None:
    """A machine whose processors are all busy leaves an idle process next to nothing: it wakes up late."""
    machine = _Machine()
    machine.pass_time(LATE_SECONDS + 0.1)
    assert machine.idle == [False]


def test_it_is_idle_again_only_when_it_kept_up_for_a_while() -> None:
    machine = _Machine()
    machine.behind = BEHIND_SECONDS + 0.1
    machine.pass_time(0)
    machine.behind = 0.0
    machine.cpu_share._expected = float("inf")
    machine.pass_time(SHARE_SECONDS - LOOK_SECONDS)
    assert machine.idle == [False]
    machine.pass_time(LOOK_SECONDS)
    assert machine.idle == [False, True]


def test_it_does_not_end_in_the_idle_class() -> None:
    """On a busy machine a controller that was told to stop would not get the processor before its deadline."""

    async def main() -> list[bool]:
        machine = _Machine()
        running = asyncio.create_task(machine.cpu_share.run())
        await asyncio.sleep(0)
        machine.stopping.set()
        await asyncio.wait_for(running, LOOK_SECONDS)
        return machine.idle

    assert asyncio.run(main()) == [True, False]


@pytest.mark.parametrize(("idle", "yields"), [(True, 3), (False, 0)])
def test_reading_many_lines_yields_the_processor_in_between_while_the_process_is_idle(
    idle: bool, yields: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker that was interrupted waits for the next tick. An ordinary process does not yield."""
    taken: list[None] = []
    monkeypatch.setattr(cpu_share, "_idle", idle)
    monkeypatch.setattr(os, "sched_yield", lambda: taken.append(None))
    batch = Batch()
    batch.read([sealed(mark_line("beat", T0), n).rstrip() for n in range(3 * YIELD_LINES + 1)], RUN)
    assert (len(batch.marks), len(taken)) == (3 * YIELD_LINES + 1, yields)


def test_every_thread_of_the_process_goes_and_comes_back() -> None:
    if not can_yield():  # it was tried, and the process is where it was
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
        return
    shown = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True).stdout
    assert shown.split() == [str(os.SCHED_IDLE)] * 2 + [str(os.SCHED_OTHER)] * 2


_PROGRAM = """
import os, threading
from gateway.control.cpu_share import set_idle
begun, enough = threading.Event(), threading.Event()
threading.Thread(target=lambda: (begun.set(), enough.wait())).start()
begun.wait()
for idle in (True, False):
    set_idle(idle)
    print(*(os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")))
enough.set()
"""
