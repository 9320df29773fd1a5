"""Every process that the demo starts is ended, whatever happens in between."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gateway.demo.processes import Child, Children, StartFailed, free_ports

SLEEP = ("-c", "import time; print('up', flush=True); time.sleep(60)")
STUBBORN = ("-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)")


def alive(child: Child) -> bool:
    try:
        os.kill(child.process.pid, 0)
    except ProcessLookupError:
        return False
    return True


async def started(children: Children, name: str, arguments: tuple[str, ...]) -> Child:
    child = await children.start(name, arguments, piped=True)
    assert child.process.stdout is not None
    assert await child.process.stdout.readline() == b"up\n"
    return child


def test_everything_is_ended_on_leaving_though_the_block_failed(tmp_path: Path) -> None:
    found: list[Child] = []

    async def go() -> None:
        async with Children(tmp_path) as children:
            found.extend([await started(children, name, SLEEP) for name in ("a", "b")])
            raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        asyncio.run(go())
    assert not any(map(alive, found))


def test_a_second_interrupt_does_not_leave_a_stubborn_process_behind(tmp_path: Path) -> None:
    found: list[Child] = []

    async def go() -> None:
        async with Children(tmp_path) as children:
            found.append(await started(children, "stubborn", STUBBORN))

    async def interrupt_twice() -> None:
        task = asyncio.create_task(go())
        while not found:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await found[0].process.wait()

    asyncio.run(interrupt_twice())
    assert not alive(found[0])


def test_a_process_that_ends_by_itself_is_noticed_with_the_end_of_its_log(tmp_path: Path) -> None:
    async def go() -> Child | None:
        async with Children(tmp_path) as children:
            child = await children.start("brief", ("-c", "import sys; sys.exit('no more')"))
            await child.process.wait()
            return children.ended

    child = asyncio.run(go())
    assert child is not None
    assert (child.name, child.log_end()) == ("brief", "no more")


def test_the_error_says_why_a_model_server_did_not_start(tmp_path: Path) -> None:
    async def go() -> None:
        async with Children(tmp_path) as children:
            await children.start_model("digits_v9", tmp_path / "nothing", 20)

    with pytest.raises(StartFailed, match=r"(?s)digits_v9.*No such file"):
        asyncio.run(go())


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(5))) == 5
